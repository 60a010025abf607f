package query

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/keys"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

const (
	// MaxPopular is the most tags that Popular returns.
	MaxPopular = 300
	// popularScan bounds how many tags without hourly counts Popular reads.
	popularScan = 2000
)

// Popularity is the most used tags in a window of whole hours.
type Popularity struct {
	// From is the start of the window, which ends with the current hour. Before is the start of the
	// hours before the window.
	From, Before time.Time
	// Tags are those with the most posts in the window; ties are ordered by name.
	Tags []PopularTag
}

// PopularTag is a tag, the number of its visible posts in the window, and that in the hours before.
type PopularTag struct {
	Name          string
	Posts, Before int64
}

// Popular returns the MaxPopular tags with the most posts (by sortAt) in the last hours, including
// the current one, and their posts in the rest of the last store.HistoryHours. The numbers are
// those of TagHistory.
//
// It reads one count for each hour of each tag with hourly counts. A tag without them, which never
// had store.HourlyTag posts, is counted if it could be in the list; at most 2,000 such tags, the
// most used. The error is the database's, or the one for hours out of bounds.
func (r *Reader) Popular(ctx context.Context, hours int) (Popularity, error) {
	if hours < 1 || hours >= store.HistoryHours {
		return Popularity{}, fmt.Errorf("list popular tags: %d hours are out of bounds", hours)
	}
	var p Popularity
	var lastHour int64
	args := []any{hours, store.HistoryHours, MaxPopular, popularScan, historyScan}
	err := r.query(ctx, popularQuery, args, func(rows pgx.Rows) error {
		p.Tags = nil
		var name *string
		var posts, before *int64
		_, err := pgx.ForEachRow(rows, []any{&lastHour, &name, &posts, &before}, func() error {
			if name != nil {
				p.Tags = append(p.Tags, PopularTag{*name, *posts, *before})
			}
			return nil
		})
		return err
	})
	if err != nil {
		return Popularity{}, fmt.Errorf("list popular tags: %w", pg.NotMigrated(err))
	}
	p.From = keys.HourTime(lastHour - int64(hours) + 1)
	p.Before = keys.HourTime(lastHour - store.HistoryHours + 1)
	return p, nil
}

// popularQuery is one statement, so that everything is from one moment. For a tag without hourly
// counts the posts themselves are counted, unless it has fewer posts in total than the last of a
// full list has in the window. Every row has the last hour; if there are no tags, one row has only
// that.
var popularQuery = `
	WITH w AS MATERIALIZED (
		SELECT last_hour, last_hour - $1::bigint + 1 AS from_hour,
		       ` + hourKey("last_hour - $2::bigint + 1") + ` AS before_key, ` + hourKey("last_hour - $1::bigint + 1") + ` AS from_key, ` + hourKey("last_hour + 1") + ` AS end_key
		  FROM ` + lastHourQuery + `),
	counted AS MATERIALIZED (
		SELECT h.tag_id AS id, sum(h.posts)::bigint AS posts
		  FROM w JOIN tag_hours h ON h.hour BETWEEN w.from_hour AND w.last_hour
		 WHERE h.tag_id NOT IN (` + deniedIDs + `)
		 GROUP BY h.tag_id HAVING sum(h.posts) > 0
		 ORDER BY posts DESC LIMIT $3),
	rare AS MATERIALIZED (
		SELECT t.id, n.posts
		  FROM w
		 CROSS JOIN (SELECT id FROM tags
		              WHERE (-posts) > -$5::bigint AND posts > 0 AND NOT hourly AND ` + served + `
		                AND posts >= COALESCE((SELECT min(posts) FROM counted HAVING count(*) = $3::bigint), 1)
		              ORDER BY (-posts), name LIMIT $4) AS t
		 CROSS JOIN LATERAL (SELECT count(*) AS posts FROM post_tags s
		                      WHERE s.tag_id = t.id AND s.key >= w.from_key AND s.key < w.end_key AND ` + rowVisible + `) AS n
		 WHERE n.posts > 0),
	most AS MATERIALIZED (
		SELECT t.id, t.name, t.hourly, a.posts
		  FROM (SELECT id, posts FROM counted UNION ALL SELECT id, posts FROM rare) AS a JOIN tags t ON t.id = a.id
		 WHERE t.posts > 0
		 ORDER BY a.posts DESC, t.name LIMIT $3)
	SELECT w.last_hour, m.name, m.posts,
	       CASE WHEN m.hourly
	            THEN (SELECT COALESCE(sum(h.posts), 0)::bigint
	                    FROM generate_series(w.last_hour - $2::bigint + 1, w.from_hour - 1) AS hours(hour)
	                    JOIN LATERAL (SELECT posts FROM tag_hours WHERE hour = hours.hour AND tag_id = m.id OFFSET 0) AS h ON true)
	            ELSE (SELECT count(*) FROM post_tags s
	                   WHERE s.tag_id = m.id AND s.key >= w.before_key AND s.key < w.from_key AND ` + rowVisible + `)
	       END
	  FROM w LEFT JOIN most m ON true
	 ORDER BY m.posts DESC, m.name`
