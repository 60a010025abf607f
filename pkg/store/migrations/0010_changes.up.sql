-- The change feed. Takes no time: an API of an older
-- version answers meanwhile. Every statement can run twice.

BEGIN;

-- Whoever waits for a lock keeps out those that come after. Give up soon: it is
-- tried again.
SET LOCAL lock_timeout = '500ms';

-- First, as in an indexer's transaction: another order is a deadlock with it. An older
-- indexer would write no changes.
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 10;
UPDATE checkpoint SET writer_version = 10;

-- The number of the last change, and of the last one that was pruned.
ALTER TABLE checkpoint ADD COLUMN IF NOT EXISTS changes bigint NOT NULL DEFAULT 0;
ALTER TABLE checkpoint ADD COLUMN IF NOT EXISTS changes_pruned bigint NOT NULL DEFAULT 0;

-- Posts that followers have to look at again, in the order of commit: each was in sight
-- before or is now. It outlives a rebuild of everything else, so it names accounts and
-- tags by themselves, not by the ids that they have here.
CREATE TABLE IF NOT EXISTS changes (
    pos bigint NOT NULL,
    did text COLLATE "C" NOT NULL,
    rkey text COLLATE "C" NOT NULL,
    -- Whether the post was in sight before, so that a follower may hold it.
    was boolean NOT NULL,
    at timestamptz NOT NULL,
    -- The hashes of the tags that it had or has; for pruning change_tags.
    tags bigint[] NOT NULL,
    CONSTRAINT changes_pkey PRIMARY KEY (pos)
);

-- The changes of one tag. Tag is the first 8 bytes of the SHA-256 of its name.
CREATE TABLE IF NOT EXISTS change_tags (
    tag bigint NOT NULL,
    pos bigint NOT NULL,
    CONSTRAINT change_tags_pkey PRIMARY KEY (tag, pos)
);
-- Read at their ends all the time: vacuum early, as post_tags.
ALTER TABLE change_tags SET (
    autovacuum_vacuum_insert_scale_factor = 0.005,
    autovacuum_vacuum_insert_threshold = 5000,
    autovacuum_vacuum_scale_factor = 0.01
);

-- Each holder of the lease numbers changes from where the one before ended. A database
-- that was restored from an older copy shows here which numbers were given twice.
CREATE TABLE IF NOT EXISTS change_runs (
    n bigint GENERATED ALWAYS AS IDENTITY,
    -- At random: no copy of the database has another run of the same id.
    id bigint NOT NULL,
    -- The last change before it.
    begun bigint NOT NULL,
    CONSTRAINT change_runs_pkey PRIMARY KEY (n)
);

INSERT INTO change_runs (id, begun)
SELECT ('x' || left(replace(gen_random_uuid()::text, '-', ''), 16))::bit(64)::bigint, 0 WHERE NOT EXISTS (SELECT FROM change_runs);

-- Accounts whose posts all came in sight at the end of a sweep, and are still to be
-- written into changes: those below a key, or all.
CREATE TABLE IF NOT EXISTS announcements (
    account_id bigint NOT NULL,
    below uuid,
    CONSTRAINT announcements_pkey PRIMARY KEY (account_id)
);

-- Up to which message of the stream versions of the account's posts were in sight before
-- the sweep hid them; 0 where none were.
ALTER TABLE sweeps ADD COLUMN IF NOT EXISTS seen_through bigint NOT NULL DEFAULT 0;

COMMIT;
