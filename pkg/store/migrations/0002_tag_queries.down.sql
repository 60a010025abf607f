BEGIN;
ALTER TABLE checkpoint DROP COLUMN IF EXISTS writer_version;
ALTER TABLE tags DROP COLUMN IF EXISTS hourly;
DROP TABLE IF EXISTS sweep_counts, sweeps, tag_hours, post_langs, langs;
COMMIT;
