package query

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/keys"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// TagHistory is a tag's use over time.
type TagHistory struct {
	TagCount
	// First and Last are the times (sortAt) of its oldest and newest visible post, or zero if not
	// found; see Reader.TagHistory.
	First, Last time.Time
	// Hours are the last HistoryHours, oldest first, including those without posts. They end with
	// the hour of the checkpoint's time or the current hour, whichever is earlier.
	Hours []HourCount
}

// HourCount is the number of a tag's visible posts in the hour that begins at Hour.
type HourCount struct {
	Hour  time.Time
	Posts int64
}

// historyScan bounds what is read of a tag without hourly counts: a few times what such a tag can
// have, since counts start late while accounts are being swept.
const historyScan = 5 * store.HourlyTag

// HistoryEnds is how many posts at either end of a tag are searched for the first and the last
// visible one.
const HistoryEnds = 500

// TagHistory returns a tag's numbers. It reads at most HistoryHours counts or, for a tag without
// them, its posts, of which there are few. The error is ErrNotFound if the tag has no visible
// posts, or the database's.
//
// While an account is swept, Posts and the hours of tags with hourly counts do not change, and the
// other numbers leave out the posts that the sweep hides, so that no partial change is seen. First
// and Last are then searched among the HistoryEnds posts at either end, and each is zero if none of
// these posts is visible.
func (r *Reader) TagHistory(ctx context.Context, name string) (TagHistory, error) {
	t := TagHistory{TagCount: TagCount{Name: name}}
	var first, last *event.Key
	var lastHour int64
	var counts [][]int64
	var inWindow []event.Key
	err := r.query(ctx, historyQuery, []any{name, store.HistoryHours, historyScan, HistoryEnds}, func(rows pgx.Rows) error {
		return scanOne(rows, &t.Posts, &lastHour, &first, &last, &counts, &inWindow)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return TagHistory{}, ErrNotFound
	case err != nil:
		return TagHistory{}, fmt.Errorf("read the history of tag %q: %w", name, pg.NotMigrated(err))
	}
	if first != nil {
		t.First = first.SortAt()
	}
	if last != nil {
		t.Last = last.SortAt()
	}
	t.Hours = make([]HourCount, store.HistoryHours)
	firstHour := lastHour - store.HistoryHours + 1
	for i := range t.Hours {
		t.Hours[i].Hour = keys.HourTime(firstHour + int64(i))
	}
	for _, c := range counts {
		t.Hours[c[0]-firstHour].Posts += c[1]
	}
	for _, k := range inWindow {
		t.Hours[keys.Hour(k.SortAt())-firstHour].Posts++
	}
	return t, nil
}

// historyQuery is one statement, so that everything is from one moment. Hourly counts are looked up
// one by one, whatever the planner estimates. For a tag without them the query returns the keys,
// which the caller counts.
var historyQuery = `
	SELECT t.posts, w.last_hour,
	       (SELECT s.key FROM (SELECT key FROM post_tags WHERE tag_id = t.id ORDER BY key LIMIT $4) AS s WHERE ` + rowVisible + ` LIMIT 1),
	       (SELECT s.key FROM (SELECT key FROM post_tags WHERE tag_id = t.id ORDER BY key DESC LIMIT $4) AS s WHERE ` + rowVisible + ` LIMIT 1),
	       ARRAY(SELECT ARRAY[hour, coalesce((SELECT h.posts FROM tag_hours h WHERE h.hour = hours.hour AND h.tag_id = t.id), 0)]
	               FROM generate_series(w.last_hour - $2::bigint + 1, w.last_hour) AS hours(hour)
	              WHERE t.hourly),
	       ARRAY(SELECT s.key
	               FROM (SELECT key FROM post_tags
	                      WHERE tag_id = t.id AND NOT t.hourly AND key >= w.first_key AND key < w.end_key
	                      ORDER BY key DESC LIMIT $3) AS s
	              WHERE ` + rowVisible + `)
	  FROM (SELECT * FROM tags WHERE name = $1 AND posts > 0 AND ` + servedOne + `) AS t
	 CROSS JOIN (SELECT last_hour,
	                    ` + hourKey("last_hour - $2::bigint + 1") + ` AS first_key,
	                    ` + hourKey("last_hour + 1") + ` AS end_key
	               FROM ` + lastHourQuery + `) AS w`

// lastHourQuery selects the last hour of a window: that of the checkpoint's time or the current
// one, whichever is earlier. That keeps the hours near the posts if the upstream clock is far
// ahead.
const lastHourQuery = `(SELECT floor(extract(epoch FROM LEAST(source_time, statement_timestamp())) / 3600)::bigint AS last_hour FROM checkpoint WHERE singleton) AS c`

// hourKey returns the SQL of the first key of an hour, numbered from 1970.
func hourKey(hour string) string {
	return `(lpad(to_hex(greatest(` + hour + `, 0) * 3600000000), 16, '0') || repeat('0', 16))::uuid`
}

// rowVisible is true of a row s of post_tags unless a sweep hides its post. Usually there is no
// sweep, and no post is read.
const rowVisible = `(NOT EXISTS (SELECT FROM sweeps)
	OR NOT EXISTS (SELECT FROM posts p JOIN sweeps w USING (account_id) WHERE p.key = s.key AND ` + hiddenBySweep + ` OFFSET 0))`
