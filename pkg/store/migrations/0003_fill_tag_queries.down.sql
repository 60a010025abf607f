BEGIN;
DROP INDEX IF EXISTS tags_posts_idx;
TRUNCATE post_langs, langs, tag_hours;
COMMIT;
