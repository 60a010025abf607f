-- A rebuild lists and counts posts at its end. Takes no time: an API of an older version answers
-- meanwhile. Every statement can run twice.

BEGIN;

-- Whoever waits for a lock keeps out those that come after. Give up soon: it is
-- tried again.
SET LOCAL lock_timeout = '500ms';

-- First, as in an indexer's transaction: another order is a deadlock with it. An older
-- program would take an index without lists for one that is complete.
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 14;
UPDATE checkpoint SET writer_version = 14;

-- The key from which on no post is listed or counted yet, NULL where all are.
ALTER TABLE checkpoint ADD COLUMN IF NOT EXISTS unlisted_from uuid;

COMMIT;
