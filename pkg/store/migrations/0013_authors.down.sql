BEGIN;
UPDATE checkpoint SET writer_version = 12;
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 12;
ALTER TABLE checkpoint DROP COLUMN IF EXISTS ignore_consent;
ALTER TABLE accounts
    DROP COLUMN IF EXISTS told, DROP COLUMN IF EXISTS display_name, DROP COLUMN IF EXISTS avatar, DROP COLUMN IF EXISTS opted_out,
    DROP COLUMN IF EXISTS profile_rev, DROP COLUMN IF EXISTS handle, DROP COLUMN IF EXISTS handle_time;
COMMIT;
