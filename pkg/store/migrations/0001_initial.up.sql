-- Everything is created in the schema that search_path names, so that a rebuild
-- fills a schema of its own with the same migrations. Every statement can run
-- twice: a run that was killed between the work and its record is repeated.

BEGIN;

-- One row per account that had a post, a status or a sync event.
CREATE TABLE IF NOT EXISTS accounts (
    id bigint GENERATED ALWAYS AS IDENTITY,
    -- Serves the indexer's and the API's look-ups by DID.
    did text COLLATE "C" NOT NULL,
    -- 0 active, 1 hidden, 2 deleted. Posts of an account that is not 0 have no
    -- rows in post_tags.
    state smallint NOT NULL DEFAULT 0,
    -- Upstream time and sequence of the last status event applied.
    state_time timestamptz NOT NULL DEFAULT 'epoch',
    state_source_seq bigint NOT NULL DEFAULT 0,
    -- Events with rev <= erased_rev, and with rev < sync_rev, change nothing.
    erased_rev text COLLATE "C" NOT NULL DEFAULT '',
    sync_rev text COLLATE "C" NOT NULL DEFAULT '',
    -- Stream sequence that last changed this row.
    seq bigint NOT NULL,
    CONSTRAINT accounts_pkey PRIMARY KEY (id),
    CONSTRAINT accounts_did_key UNIQUE (did),
    CONSTRAINT accounts_state_check CHECK (state IN (0, 1, 2))
);

-- One row per root post with tags, visible or not.
CREATE TABLE IF NOT EXISTS posts (
    -- 8 bytes of sortAt in microseconds, 8 bytes of a hash of the at-uri. Serves
    -- the fetch of a page's records.
    key uuid NOT NULL,
    account_id bigint NOT NULL,
    rkey text COLLATE "C" NOT NULL,
    rev text COLLATE "C" NOT NULL,
    cid text NOT NULL,
    tags text[] NOT NULL,
    langs text[] NOT NULL,
    indexed_at timestamptz NOT NULL,
    -- Stream sequence that last changed this row.
    seq bigint NOT NULL,
    -- The record as JSON. Not jsonb: that refuses the NULs that occur in
    -- records, and nothing here looks inside.
    record text NOT NULL,
    CONSTRAINT posts_pkey PRIMARY KEY (key),
    -- Serves edits, deletions, one post by its at-uri, and all posts of an
    -- account.
    CONSTRAINT posts_account_rkey_key UNIQUE (account_id, rkey),
    CONSTRAINT posts_tags_check CHECK (cardinality(tags) BETWEEN 1 AND 100)
);

-- What is known of posts that left the index, so that an older event cannot
-- bring one back.
CREATE TABLE IF NOT EXISTS removed_posts (
    account_id bigint NOT NULL,
    rkey text COLLATE "C" NOT NULL,
    rev text COLLATE "C" NOT NULL,
    -- Upstream time of the removal, for pruning.
    removed_at timestamptz NOT NULL,
    seq bigint NOT NULL,
    CONSTRAINT removed_posts_pkey PRIMARY KEY (account_id, rkey)
);

CREATE TABLE IF NOT EXISTS tags (
    id bigint GENERATED ALWAYS AS IDENTITY,
    -- Serves the look-up of a query's tags.
    name text COLLATE "C" NOT NULL,
    -- How many rows of post_tags have this tag: its visible posts.
    posts bigint NOT NULL DEFAULT 0,
    CONSTRAINT tags_pkey PRIMARY KEY (id),
    CONSTRAINT tags_name_key UNIQUE (name),
    CONSTRAINT tags_posts_check CHECK (posts >= 0)
);

-- The index that every tag query scans: visible posts only. A plain ascending
-- primary key serves both directions.
CREATE TABLE IF NOT EXISTS post_tags (
    tag_id bigint NOT NULL,
    key uuid NOT NULL,
    CONSTRAINT post_tags_pkey PRIMARY KEY (tag_id, key)
);
-- The head of a hot tag is read all the time: vacuum early so that its pages
-- are all-visible and the scan stays index-only.
ALTER TABLE post_tags SET (
    autovacuum_vacuum_insert_scale_factor = 0.005,
    autovacuum_vacuum_insert_threshold = 5000,
    autovacuum_vacuum_scale_factor = 0.01
);
-- Counters change in place: room on each page keeps them off the indexes.
ALTER TABLE tags SET (fillfactor = 70);

-- How far the fold has come, and who may go on with it. One row.
CREATE TABLE IF NOT EXISTS checkpoint (
    singleton boolean NOT NULL DEFAULT true,
    -- Stream sequence of the last message folded in.
    seq bigint NOT NULL DEFAULT 0,
    -- Upstream position of that message.
    source_host text NOT NULL DEFAULT '',
    source_seq bigint NOT NULL DEFAULT 0,
    source_time timestamptz NOT NULL DEFAULT 'epoch',
    applied_at timestamptz NOT NULL DEFAULT 'epoch',
    -- The account whose replacement posts are coming in after a #sync, if any.
    sync_did text COLLATE "C" NOT NULL DEFAULT '',
    sync_rev text COLLATE "C" NOT NULL DEFAULT '',
    sync_time timestamptz NOT NULL DEFAULT 'epoch',
    -- The lease: each holder has an epoch of its own, higher than all before.
    epoch bigint NOT NULL DEFAULT 0,
    holder text NOT NULL DEFAULT '',
    expires_at timestamptz NOT NULL DEFAULT 'epoch',
    -- Totals, kept with the rows they count.
    posts bigint NOT NULL DEFAULT 0,
    visible_posts bigint NOT NULL DEFAULT 0,
    tags bigint NOT NULL DEFAULT 0,
    dead_letters bigint NOT NULL DEFAULT 0,
    CONSTRAINT checkpoint_pkey PRIMARY KEY (singleton),
    CONSTRAINT checkpoint_singleton_check CHECK (singleton)
);
INSERT INTO checkpoint DEFAULT VALUES ON CONFLICT DO NOTHING;

-- What the indexer saw around it at its last heartbeat, for the API's status.
-- One row.
CREATE TABLE IF NOT EXISTS heartbeat (
    singleton boolean NOT NULL DEFAULT true,
    at timestamptz NOT NULL DEFAULT 'epoch',
    stream_first bigint NOT NULL DEFAULT 0,
    stream_last bigint NOT NULL DEFAULT 0,
    stream_bytes bigint NOT NULL DEFAULT 0,
    database_bytes bigint NOT NULL DEFAULT 0,
    CONSTRAINT heartbeat_pkey PRIMARY KEY (singleton),
    CONSTRAINT heartbeat_singleton_check CHECK (singleton)
);
INSERT INTO heartbeat DEFAULT VALUES ON CONFLICT DO NOTHING;

COMMIT;
