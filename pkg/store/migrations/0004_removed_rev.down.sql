BEGIN;
UPDATE checkpoint SET writer_version = 3;
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 3;
ALTER TABLE posts DROP COLUMN IF EXISTS removed_rev;
COMMIT;
