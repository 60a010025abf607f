-- Takes a moment: the index reads accounts once. An API of an older version answers meanwhile.
-- Every statement can run twice.

BEGIN;

-- Whoever waits for a lock keeps out those that come after. Give up soon: it is
-- tried again.
SET LOCAL lock_timeout = '500ms';

-- First, as in an indexer's transaction: another order is a deadlock with it. An older
-- indexer would pass over author events, and show accounts that opted out.
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 13;
UPDATE checkpoint SET writer_version = 13;

-- Whether accounts that have opted out are shown all the same, as the indexer's setting says.
ALTER TABLE checkpoint ADD COLUMN IF NOT EXISTS ignore_consent boolean NOT NULL DEFAULT false;

-- The state that the network told; NULL is that of state, which readers go by: it also hides an
-- account that has opted out.
ALTER TABLE accounts ADD COLUMN IF NOT EXISTS told smallint;
-- The account's profile as of a revision, and its handle as of a time. '' where not known.
ALTER TABLE accounts ADD COLUMN IF NOT EXISTS display_name text NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN IF NOT EXISTS avatar text NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN IF NOT EXISTS opted_out boolean NOT NULL DEFAULT false;
ALTER TABLE accounts ADD COLUMN IF NOT EXISTS profile_rev text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN IF NOT EXISTS handle text NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN IF NOT EXISTS handle_time timestamptz NOT NULL DEFAULT 'epoch';
-- Serves the accounts that are decided again when the indexer's setting of consent changes.
CREATE INDEX IF NOT EXISTS accounts_opted_out_idx ON accounts (id) WHERE opted_out;

COMMIT;
