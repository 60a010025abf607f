-- Takes no time: an API of an older version answers meanwhile. Every statement can
-- run twice.

BEGIN;

-- Whoever waits for a lock keeps out those that come after. Give up soon: it is
-- tried again.
SET LOCAL lock_timeout = '500ms';

-- An older indexer would leave the new column as it is.
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 8;
UPDATE checkpoint SET writer_version = 8;

-- Whether a replacement has come after the #sync that the checkpoint is in: then
-- sync_rev is the revision of the replacements, else that of the #sync.
ALTER TABLE checkpoint ADD COLUMN IF NOT EXISTS sync_fixed boolean NOT NULL DEFAULT false;

COMMIT;
