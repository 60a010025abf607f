-- What filters by media and self-labels need. Takes no time: an API of an older version answers
-- meanwhile. The indexer fills in what is stored, in pieces. Every statement can run twice.

BEGIN;

-- Whoever waits for a lock keeps out those that come after. Give up soon: it is
-- tried again.
SET LOCAL lock_timeout = '500ms';

-- First, as in an indexer's transaction: another order is a deadlock with it. An older
-- indexer would leave the new column as it is.
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 12;
UPDATE checkpoint SET writer_version = 12;

-- event.Traits of the record, as bits. Most of what is there needs no new row: a record without
-- media and labels has 0.
ALTER TABLE posts ADD COLUMN IF NOT EXISTS traits smallint NOT NULL DEFAULT 0;

-- The key below which posts may lack their traits, NULL where none does: the newest are filled in
-- first. Until then, filters by traits are refused.
ALTER TABLE checkpoint ADD COLUMN IF NOT EXISTS traits_below uuid;
UPDATE checkpoint SET traits_below = 'ffffffff-ffff-ffff-ffff-ffffffffffff' WHERE EXISTS (SELECT FROM posts);

COMMIT;
