-- What sweeps go by, and what is left to erase. The index takes long on a big
-- table and keeps writers out meanwhile, not readers. Every statement can run twice.

BEGIN;

-- Whoever writes has this row locked first.
UPDATE checkpoint SET writer_version = 5;

-- Serves sweeps, newest post first, and readers while accounts are swept: their
-- posts are read beside a list, in the same order, and left out.
CREATE INDEX IF NOT EXISTS posts_account_key_idx ON posts (account_id, key) INCLUDE (rev);
-- Some accounts have very many posts and most have few: plans are made once, and must
-- not look for an account's posts among those of others.
ALTER TABLE posts ALTER COLUMN account_id SET (n_distinct = -0.05);

-- Messages of the stream with a payload that is not the present version of a post:
-- former versions, and what was removed. Of the rest, posts.seq says where it is.
CREATE TABLE IF NOT EXISTS payloads (
    seq bigint NOT NULL,
    account_id bigint NOT NULL,
    rkey text COLLATE "C" NOT NULL,
    -- Whether the post was removed since, so that the payload is to be erased.
    due boolean NOT NULL,
    CONSTRAINT payloads_pkey PRIMARY KEY (seq)
);
-- Serves the next pass of erasing.
CREATE INDEX IF NOT EXISTS payloads_due_idx ON payloads (seq) WHERE due;
-- Serves the removal of a post.
CREATE INDEX IF NOT EXISTS payloads_post_idx ON payloads (account_id, rkey) WHERE NOT due;

-- At the end, and each time for a moment only: whoever waits for a lock keeps out
-- those that come after.
DO $$
BEGIN
    PERFORM set_config('lock_timeout', '500ms', true);
    FOR try IN 1..60 LOOP
        BEGIN
            -- Up to which message of the stream payloads is complete.
            ALTER TABLE heartbeat ADD COLUMN IF NOT EXISTS erase_looked bigint NOT NULL DEFAULT 0;
            -- Whether the pass under way lists posts or unlists them, where it has begun.
            ALTER TABLE sweeps ADD COLUMN IF NOT EXISTS listing boolean NOT NULL DEFAULT false;
            -- Whether another pass has to follow, for what changed behind this one.
            ALTER TABLE sweeps ADD COLUMN IF NOT EXISTS again boolean NOT NULL DEFAULT false;
            -- The key that the pass has come to from the newest on, NULL at its beginning.
            ALTER TABLE sweeps ADD COLUMN IF NOT EXISTS at uuid;
            ALTER TABLE sweeps DROP COLUMN IF EXISTS progress;
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(1);
        END;
    END LOOP;
    RAISE lock_not_available USING MESSAGE = 'the tables sweeps and heartbeat are in use';
END $$;

COMMIT;
