BEGIN;
UPDATE checkpoint SET writer_version = 6;
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 6;
ALTER TABLE checkpoint DROP COLUMN IF EXISTS retag_below;
COMMIT;
