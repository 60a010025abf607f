-- Takes no time: an API of an older version answers meanwhile. Every statement can
-- run twice.

BEGIN;

-- Whoever waits for a lock keeps out those that come after. Give up soon: it is
-- tried again.
SET LOCAL lock_timeout = '500ms';

-- First, as in an indexer's transaction: another order is a deadlock with it.
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 4;
UPDATE checkpoint SET writer_version = 4;

-- The revision of the removal marker that the post replaced when it came again, ''
-- where there was none. What is not above it is of a former life: its payload may be
-- erased from the stream, and a rebuild is told of the removal.
ALTER TABLE posts ADD COLUMN IF NOT EXISTS removed_rev text COLLATE "C" NOT NULL DEFAULT '';

COMMIT;
