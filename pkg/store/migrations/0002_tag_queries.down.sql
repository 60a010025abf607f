BEGIN;
ALTER TABLE checkpoint RENAME COLUMN lease_until TO expires_at;
ALTER TABLE heartbeat DROP COLUMN IF EXISTS erased_through, DROP COLUMN IF EXISTS erased_at;
ALTER TABLE checkpoint DROP COLUMN IF EXISTS writer_version;
ALTER TABLE tags DROP COLUMN IF EXISTS hourly;
DROP TABLE IF EXISTS sweep_counts, sweeps, tag_hours, post_langs, langs;
COMMIT;
