-- Fills what 0002 made from the rows of an index of version 1, and lists tags.
-- It takes long on a big index and keeps writers out meanwhile, not readers.
-- Every statement can run twice.

BEGIN;

-- Whoever writes has this row locked first.
SELECT FROM checkpoint FOR UPDATE;

-- Serves the list of tags, most used first, and by name where they tie.
CREATE INDEX IF NOT EXISTS tags_posts_idx ON tags ((-posts), name) INCLUDE (posts) WHERE posts > 0;

-- The ranges that a language tag is in, as event.LangRanges in Go.
CREATE OR REPLACE FUNCTION pg_temp.lang_ranges(langs text[]) RETURNS SETOF text LANGUAGE sql IMMUTABLE AS $$
    SELECT array_to_string(parts[1:n], '-')
      FROM unnest(langs) WITH ORDINALITY AS l(lang, i),
           LATERAL (SELECT string_to_array(lower(lang COLLATE "C"), '-') AS parts) AS s,
           LATERAL generate_series(1, cardinality(parts)) AS n
     WHERE parts[1] ~ '^[a-z]{1,8}$'
       AND NOT EXISTS (SELECT FROM unnest(parts[2:n]) AS part WHERE part !~ '^[a-z0-9]{1,8}$')
     GROUP BY 1 ORDER BY min(i), min(n) LIMIT 100
$$;

INSERT INTO langs (name)
SELECT DISTINCT r.name
  FROM posts p JOIN accounts a ON a.id = p.account_id AND a.state = 0, LATERAL pg_temp.lang_ranges(p.langs) AS r(name)
ON CONFLICT DO NOTHING;

INSERT INTO post_langs (lang_id, key)
SELECT l.id, p.key
  FROM posts p JOIN accounts a ON a.id = p.account_id AND a.state = 0, LATERAL pg_temp.lang_ranges(p.langs) AS r(name) JOIN langs l ON l.name = r.name
ON CONFLICT DO NOTHING;

UPDATE langs l SET posts = c.posts FROM (SELECT lang_id, count(*) AS posts FROM post_langs GROUP BY 1) AS c WHERE c.lang_id = l.id;

UPDATE tags SET hourly = true WHERE posts >= 1000 AND NOT hourly;

INSERT INTO tag_hours (hour, tag_id, posts)
SELECT ('x' || left(replace(pt.key::text, '-', ''), 16))::bit(64)::bigint / 3600000000, pt.tag_id, count(*)
  FROM tags t JOIN post_tags pt ON pt.tag_id = t.id
 WHERE t.hourly
 GROUP BY 1, 2
ON CONFLICT (hour, tag_id) DO UPDATE SET posts = excluded.posts;

COMMIT;
