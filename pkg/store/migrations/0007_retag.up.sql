-- Tags without invisible characters. Takes no time: an API of an older version answers
-- meanwhile. The indexer rewrites what is stored, in pieces. Every statement can run
-- twice.

BEGIN;

-- Whoever waits for a lock keeps out those that come after. Give up soon: it is
-- tried again.
SET LOCAL lock_timeout = '500ms';

-- First, as in an indexer's transaction: another order is a deadlock with it. An older
-- indexer would store tags in their former form.
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 7;
UPDATE checkpoint SET writer_version = 7;

-- The key below which posts may have tags in a form of before this migration, NULL
-- where none has: the newest are rewritten first.
ALTER TABLE checkpoint ADD COLUMN IF NOT EXISTS retag_below uuid;
UPDATE checkpoint SET retag_below = 'ffffffff-ffff-ffff-ffff-ffffffffffff' WHERE EXISTS (SELECT FROM posts);

COMMIT;
