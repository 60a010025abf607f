BEGIN;
UPDATE checkpoint SET writer_version = 7;
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 7;
ALTER TABLE checkpoint DROP COLUMN IF EXISTS sync_fixed;
COMMIT;
