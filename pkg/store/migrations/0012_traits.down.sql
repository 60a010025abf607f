BEGIN;
UPDATE checkpoint SET writer_version = 11;
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 11;
ALTER TABLE checkpoint DROP COLUMN IF EXISTS traits_below;
ALTER TABLE posts DROP COLUMN IF EXISTS traits;
COMMIT;
