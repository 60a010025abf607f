package write

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/keys"
)

// listRow is a row of post_tags or post_langs: a visible post in a list.
type listRow struct {
	list int64
	key  event.Key
}

// writeLists changes post_tags and post_langs, and their counts, from the posts' old state to the
// new one. The counts of tags, which readers see, wait for the end of a sweep.
func (t *Tx) writeLists(ctx context.Context, changes []PostChange) error {
	now, later := splitBySweep(changes)
	// Deletions before insertions: they may be of the same row.
	tallies := map[int64]tally{}
	for account, part := range later {
		tallies[account] = newTally()
		if err := t.writeTagLists(ctx, part, tallies[account]); err != nil {
			return err
		}
	}
	c := newTally()
	if err := t.writeTagLists(ctx, now, c); err != nil {
		return err
	}
	if err := t.countTags(ctx, c); err != nil {
		return err
	}
	if err := t.countTagsLater(ctx, tallies); err != nil {
		return err
	}
	gone, entered, err := t.writeRows(ctx, t.langLists, changes)
	if err != nil {
		return err
	}
	return t.countLangs(ctx, gone, entered)
}

// writeTagLists changes post_tags and adds up the resulting changes of counts.
func (t *Tx) writeTagLists(ctx context.Context, changes []PostChange, into tally) error {
	gone, entered, err := t.writeRows(ctx, t.tagLists, changes)
	into.add(gone, -1, t.firstHour)
	into.add(entered, +1, t.firstHour)
	return err
}

// writeRows deletes and inserts the list rows that differ, in index order, and returns them.
func (t *Tx) writeRows(ctx context.Context, l *lists, changes []PostChange) (gone, entered []listRow, err error) {
	type row struct {
		list string
		key  event.Key
	}
	var before, after []row
	var names []string
	collect := func(into *[]row, p *Post, in, both []string) {
		for _, list := range in {
			if !slices.Contains(both, list) {
				*into, names = append(*into, row{list, p.Key}), append(names, list)
			}
		}
	}
	for _, p := range changes {
		var old, now []string
		if p.OldVisible {
			old = l.of(p.Old)
		}
		if p.NewVisible {
			now = l.of(p.New)
		}
		if old == nil || now == nil || p.Old.Key != p.New.Key {
			collect(&before, p.Old, old, nil)
			collect(&after, p.New, now, nil)
			continue
		}
		collect(&before, p.Old, old, now)
		collect(&after, p.New, now, old)
	}
	if err := l.resolve(ctx, t.tx, names); err != nil {
		return nil, nil, err
	}
	sorted := func(rows []row) []listRow {
		out := make([]listRow, len(rows))
		for i, r := range rows {
			out[i].list, _ = l.get(r.list)
			out[i].key = r.key
		}
		slices.SortFunc(out, func(x, y listRow) int {
			if x.list != y.list {
				return cmp.Compare(x.list, y.list)
			}
			return bytes.Compare(x.key[:], y.key[:])
		})
		return slices.Compact(out)
	}
	// A row may be deleted with one post and inserted with another: both happen.
	gone, entered = sorted(before), sorted(after)
	if len(gone) > 0 {
		ids, keys := arrays(gone)
		if _, err := t.tx.Exec(ctx, `
			DELETE FROM `+l.rows+` p USING unnest($1::bigint[], $2::uuid[]) AS i(id, key)
			 WHERE p.`+l.column+` = i.id AND p.key = i.key`, ids, keys); err != nil {
			return nil, nil, fmt.Errorf("delete %d rows of %s: %w", len(gone), l.rows, err)
		}
	}
	if err := copyIn(ctx, t.tx, `COPY `+l.rows+` (`+l.column+`, key) FROM STDIN (FORMAT binary)`, len(entered), func(b []byte, i int) []byte {
		return appendBytes(appendInt(rowOf(b, 2), entered[i].list), entered[i].key[:])
	}); err != nil {
		return nil, nil, fmt.Errorf("insert %d rows of %s: %w", len(entered), l.rows, err)
	}
	return gone, entered, nil
}

func arrays(rows []listRow) (ids []int64, keys []event.Key) {
	ids, keys = make([]int64, len(rows)), make([]event.Key, len(rows))
	for i, r := range rows {
		ids[i], keys[i] = r.list, r.key
	}
	return ids, keys
}

// tally is a change of the counts of tags.
type tally struct {
	posts map[int64]int64 // by tag
	hours hourCounts
}

func newTally() tally { return tally{posts: map[int64]int64{}, hours: hourCounts{}} }

func (c tally) add(rows []listRow, by, firstHour int64) {
	for _, r := range rows {
		c.posts[r.list] += by
		if hour := keys.Hour(r.key.SortAt()); hour >= firstHour {
			c.hours.add(r.list, hour, by)
		}
	}
}

// countTags updates tags.posts and tag_hours, each row once.
func (t *Tx) countTags(ctx context.Context, c tally) error {
	hours := c.hours
	ids, by := sortedCounts(c.posts, func(id, n int64) bool { return n != 0 || hours.changed(id) })
	if len(ids) == 0 {
		return nil
	}
	rows, err := t.tx.Query(ctx, `
		UPDATE tags t SET posts = t.posts + i.by FROM unnest($1::bigint[], $2::bigint[]) AS i(id, by)
		 WHERE t.id = i.id RETURNING t.id, t.posts, i.by, t.hourly`, ids, by)
	if err != nil {
		return fmt.Errorf("count posts of %d tags: %w", len(ids), err)
	}
	var id, now, change int64
	var hourly bool
	var grown []int64
	_, err = pgx.ForEachRow(rows, []any{&id, &now, &change, &hourly}, func() error {
		before := now - change
		t.tags += count(before == 0 && now > 0) - count(before > 0 && now == 0)
		if !hourly {
			delete(hours, id)
			if now >= store.HourlyTag {
				grown = append(grown, id)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("count posts of %d tags: %w", len(ids), err)
	}
	if err := t.beginHours(ctx, grown); err != nil {
		return err
	}
	return t.writeHours(ctx, hours)
}

func (t *Tx) countLangs(ctx context.Context, gone, entered []listRow) error {
	delta := map[int64]int64{}
	for _, r := range gone {
		delta[r.list]--
	}
	for _, r := range entered {
		delta[r.list]++
	}
	ids, by := sortedCounts(delta, func(_, n int64) bool { return n != 0 })
	if len(ids) == 0 {
		return nil
	}
	if _, err := t.tx.Exec(ctx, `
		UPDATE langs l SET posts = l.posts + i.by FROM unnest($1::bigint[], $2::bigint[]) AS i(id, by)
		 WHERE l.id = i.id`, ids, by); err != nil {
		return fmt.Errorf("count posts of %d languages: %w", len(ids), err)
	}
	return nil
}

// sortedCounts returns those of the counts that keep selects, as two arrays in the order of their
// ids.
func sortedCounts(delta map[int64]int64, keep func(id, n int64) bool) (ids, by []int64) {
	for id, n := range delta {
		if keep(id, n) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		by = append(by, delta[id])
	}
	return ids, by
}
