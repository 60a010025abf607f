BEGIN;
UPDATE checkpoint SET writer_version = 13;
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 13;
ALTER TABLE checkpoint DROP COLUMN IF EXISTS unlisted_from;
COMMIT;
