BEGIN;
UPDATE checkpoint SET writer_version = 14;
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 14;
DROP INDEX IF EXISTS accounts_withheld_idx;
DROP TABLE IF EXISTS denied_tags, denied_accounts;
COMMIT;
