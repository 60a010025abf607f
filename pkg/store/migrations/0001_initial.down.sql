BEGIN;
DROP TABLE IF EXISTS heartbeat, checkpoint, post_tags, tags, removed_posts, posts, accounts;
COMMIT;
