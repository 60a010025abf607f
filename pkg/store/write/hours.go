package write

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/keys"
)

// hoursKept is how far before the checkpoint's time tag_hours has counts. It exceeds what a history
// shows by a day, as room for an upstream clock that goes back.
const hoursKept = store.HistoryHours + 24

// hourCounts are changes of tag_hours: the change in posts by tag and hour.
type hourCounts map[int64]map[int64]int64

func (h hourCounts) add(tag, hour, by int64) {
	if h[tag] == nil {
		h[tag] = map[int64]int64{}
	}
	h[tag][hour] += by
}

func (h hourCounts) changed(tag int64) bool {
	for _, n := range h[tag] {
		if n != 0 {
			return true
		}
	}
	return false
}

// beginHours starts tag_hours for tags that have grown, from their rows in post_tags.
func (t *Tx) beginHours(ctx context.Context, tags []int64) error {
	if len(tags) == 0 {
		return nil
	}
	// Rows of a swept account are not counted yet: wait. A tag of this size will change again.
	var sweeping bool
	if err := t.tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM sweeps)`).Scan(&sweeping); err != nil || sweeping {
		return err
	}
	if _, err := t.tx.Exec(ctx, `UPDATE tags SET hourly = true WHERE id = ANY($1::bigint[])`, tags); err != nil {
		return fmt.Errorf("begin the hourly counts of %d tags: %w", len(tags), err)
	}
	rows, _ := t.tx.Query(ctx, `SELECT tag_id, key FROM post_tags WHERE tag_id = ANY($1::bigint[]) AND key >= $2`,
		tags, keys.FirstOfHour(t.firstHour))
	hours := hourCounts{}
	var r listRow
	if _, err := pgx.ForEachRow(rows, []any{&r.list, &r.key}, func() error {
		hours.add(r.list, keys.Hour(r.key.SortAt()), 1)
		return nil
	}); err != nil {
		return fmt.Errorf("begin the hourly counts of %d tags: %w", len(tags), err)
	}
	return t.writeHours(ctx, hours)
}

// writeHours adds the counts to those of tags with hourly counts. Every row from which one is
// subtracted exists: it was created with its first post.
func (t *Tx) writeHours(ctx context.Context, counts hourCounts) error {
	type row struct{ hour, tag, by int64 }
	var more, less []row
	for tag, hours := range counts {
		for hour, by := range hours {
			switch {
			case by > 0:
				more = append(more, row{hour, tag, by})
			case by < 0:
				less = append(less, row{hour, tag, by})
			}
		}
	}
	for _, part := range []struct {
		rows []row
		sql  string
	}{
		{more, `INSERT INTO tag_hours (hour, tag_id, posts) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[])
			ON CONFLICT (hour, tag_id) DO UPDATE SET posts = tag_hours.posts + excluded.posts`},
		// Not below zero, whatever an upstream clock that went back did to the hours at the
		// window's edge: no reader sees those.
		{less, `UPDATE tag_hours h SET posts = greatest(h.posts + i.by, 0) FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS i(hour, tag_id, by)
			 WHERE h.hour = i.hour AND h.tag_id = i.tag_id`},
	} {
		if len(part.rows) == 0 {
			continue
		}
		slices.SortFunc(part.rows, func(a, b row) int { return cmp.Or(cmp.Compare(a.hour, b.hour), cmp.Compare(a.tag, b.tag)) })
		n := len(part.rows)
		hours, tags, by := make([]int64, n), make([]int64, n), make([]int64, n)
		for i, r := range part.rows {
			hours[i], tags[i], by[i] = r.hour, r.tag, r.by
		}
		if _, err := t.tx.Exec(ctx, part.sql, hours, tags, by); err != nil {
			return fmt.Errorf("count posts of %d tag hours: %w", n, err)
		}
	}
	return nil
}
