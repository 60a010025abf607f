BEGIN;
UPDATE checkpoint SET writer_version = 10;
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 10;
ALTER TABLE accounts DROP COLUMN IF EXISTS state_host, DROP COLUMN IF EXISTS state_host_seq;
COMMIT;
