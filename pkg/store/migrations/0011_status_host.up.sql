-- Takes no time: an API of an older version answers meanwhile. Every statement can
-- run twice.

BEGIN;

-- Whoever waits for a lock keeps out those that come after. Give up soon: it is
-- tried again.
SET LOCAL lock_timeout = '500ms';

-- First, as in an indexer's transaction: another order is a deadlock with it. An older
-- indexer would order statuses by time alone.
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 11;
UPDATE checkpoint SET writer_version = 11;

-- The host that told the account's last status, and its number there: numbers of one host
-- order what it tells. '' where it is not known; then time alone orders.
ALTER TABLE accounts ADD COLUMN IF NOT EXISTS state_host text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN IF NOT EXISTS state_host_seq bigint NOT NULL DEFAULT 0;

COMMIT;
