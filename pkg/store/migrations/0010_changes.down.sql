BEGIN;
UPDATE checkpoint SET writer_version = 8;
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 8;
ALTER TABLE checkpoint DROP COLUMN IF EXISTS changes, DROP COLUMN IF EXISTS changes_pruned;
ALTER TABLE sweeps DROP COLUMN IF EXISTS seen_through;
DROP TABLE IF EXISTS changes, change_tags, change_runs, announcements;
COMMIT;
