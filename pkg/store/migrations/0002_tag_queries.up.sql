-- What filters by language, histories of tags and lists of them are read from.
-- Nothing here takes long: an API of version 1 answers meanwhile. The next
-- migration fills it. Every statement can run twice.

BEGIN;

-- Whoever waits for a lock keeps out those that come after. Give up soon: it is
-- tried again.
SET LOCAL lock_timeout = '500ms';

-- Languages that posts declare, as lower-case basic language ranges of RFC
-- 4647: a post in "en-US" counts under "en" and under "en-us".
CREATE TABLE IF NOT EXISTS langs (
    id bigint GENERATED ALWAYS AS IDENTITY,
    -- Serves the look-up of a query's languages.
    name text COLLATE "C" NOT NULL,
    -- How many rows of post_langs have this language: its visible posts.
    posts bigint NOT NULL DEFAULT 0,
    CONSTRAINT langs_pkey PRIMARY KEY (id),
    CONSTRAINT langs_name_key UNIQUE (name),
    CONSTRAINT langs_posts_check CHECK (posts >= 0)
);

-- To languages what post_tags is to tags: visible posts only, read both ways.
CREATE TABLE IF NOT EXISTS post_langs (
    lang_id bigint NOT NULL,
    key uuid NOT NULL,
    CONSTRAINT post_langs_pkey PRIMARY KEY (lang_id, key)
);
ALTER TABLE post_langs SET (
    autovacuum_vacuum_insert_scale_factor = 0.005,
    autovacuum_vacuum_insert_threshold = 5000,
    autovacuum_vacuum_scale_factor = 0.01
);

-- Posts per hour of sortAt, of the tags that have many; see tags.hourly.
CREATE TABLE IF NOT EXISTS tag_hours (
    -- Hours since 1970. First in the key: live rows are neighbours, and pruning
    -- takes a range.
    hour bigint NOT NULL,
    tag_id bigint NOT NULL,
    posts bigint NOT NULL,
    CONSTRAINT tag_hours_pkey PRIMARY KEY (hour, tag_id),
    CONSTRAINT tag_hours_posts_check CHECK (posts >= 0)
);

-- Accounts whose posts are many and change in pieces: hidden, shown again, erased,
-- or what a #sync took away. Meanwhile readers see none of the posts that are to
-- go or to come; see gone_below and hidden.
CREATE TABLE IF NOT EXISTS sweeps (
    account_id bigint NOT NULL,
    -- Posts with a lower rev count as gone.
    gone_below text COLLATE "C" NOT NULL DEFAULT '',
    -- Whether all the account's posts are out of sight until the sweep is done.
    hidden boolean NOT NULL,
    -- The record key that the sweep has come to.
    progress text COLLATE "C" NOT NULL DEFAULT '',
    -- What the sweep adds to checkpoint.visible_posts when it is done.
    visible bigint NOT NULL DEFAULT 0,
    CONSTRAINT sweeps_pkey PRIMARY KEY (account_id)
);

-- What a sweep adds to tags.posts and tag_hours when it is done, so that counts
-- change at once. Hour is -1 for posts of hours that tag_hours does not count.
CREATE TABLE IF NOT EXISTS sweep_counts (
    account_id bigint NOT NULL,
    tag_id bigint NOT NULL,
    hour bigint NOT NULL,
    posts bigint NOT NULL,
    CONSTRAINT sweep_counts_pkey PRIMARY KEY (account_id, tag_id, hour)
);

-- The least version of the schema that an indexer must know to write: an older
-- one would leave out what came later.
ALTER TABLE checkpoint ADD COLUMN IF NOT EXISTS writer_version integer NOT NULL DEFAULT 3;
-- An indexer of version 1 does not look at that. It finds no column of the former
-- name, and stops; an API of version 1 does not look for one.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'checkpoint'::regclass AND attname = 'expires_at' AND NOT attisdropped) THEN
        ALTER TABLE checkpoint RENAME COLUMN expires_at TO lease_until;
    END IF;
END $$;

-- The last complete pass that erased payloads of removed posts from the stream:
-- the last message that it looked at, and when it began. Here, since it is of the
-- stream: a rebuilt index takes it over.
ALTER TABLE heartbeat ADD COLUMN IF NOT EXISTS erased_through bigint NOT NULL DEFAULT 0;
ALTER TABLE heartbeat ADD COLUMN IF NOT EXISTS erased_at timestamptz NOT NULL DEFAULT 'epoch';

-- Each change of a count moves its row in an index of 0003, so none is made in
-- place any more, and what it leaves behind is read over until it is vacuumed.
ALTER TABLE tags SET (
    fillfactor = 100,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_scale_factor = 0.02
);

-- Whether tag_hours is kept for the tag. Set for ever once it has as many posts
-- as a reader should not count.
ALTER TABLE tags ADD COLUMN IF NOT EXISTS hourly boolean NOT NULL DEFAULT false;

COMMIT;
