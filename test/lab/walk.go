package lab

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
)

// Reading is what a reader saw of a list, page by page.
type Reading struct {
	// Way is the reader's kind of request.
	Direction   string
	Pages, Rows int
	// Again counts repeated rows, Missed those that were there throughout but were never shown.
	Again, Missed int
	// Stuck reports that a page was repeated, which would never end.
	Stuck bool
	// Exact reports that this way must show every row exactly once.
	Exact bool
}

// check returns an error if a way that must be exact is not.
func (r Reading) check() error {
	if r.Exact && (r.Again > 0 || r.Missed > 0 || r.Stuck) {
		return fmt.Errorf("%s: %d rows came again, %d were missed (stuck: %t) in %d pages", r.Direction, r.Again, r.Missed, r.Stuck, r.Pages)
	}
	return nil
}

// reading is a Reading in progress, of rows identified by R.
type reading[R comparable] struct {
	Reading
	// next returns the next page, and whether it is the last.
	next func(context.Context) (rows []R, last bool, err error)
	seen map[R]int
	page []R
	done bool
}

func read[R comparable](direction string, exact bool, next func(context.Context) ([]R, bool, error)) *reading[R] {
	return &reading[R]{Reading: Reading{Direction: direction, Exact: exact}, next: next, seen: map[R]int{}}
}

// turn reads a page.
func (r *reading[R]) turn(ctx context.Context) error {
	if r.done {
		return nil
	}
	rows, last, err := r.next(ctx)
	if err != nil {
		return fmt.Errorf("read page %d by %s: %w", r.Pages+1, r.Direction, err)
	}
	r.Pages++
	r.Rows += len(rows)
	for _, row := range rows {
		r.seen[row]++
	}
	r.Stuck = len(rows) > 0 && len(rows) == len(r.page) && rows[0] == r.page[0] && rows[len(rows)-1] == r.page[len(rows)-1]
	r.page, r.done = rows, last || r.Stuck
	return nil
}

// result compares what was seen with the rows that were there throughout.
func (r *reading[R]) result(throughout map[R]bool) Reading {
	for row, n := range r.seen {
		if throughout[row] {
			r.Again += n - 1
		}
	}
	for row := range throughout {
		if r.seen[row] == 0 {
			r.Missed++
		}
	}
	return r.Reading
}

// ourPosts reads a list like a client: each page from the edge of the previous one.
func ourPosts(r *query.Reader, tags []string, direction keyset.Direction) func(context.Context) ([]event.Key, bool, error) {
	q := query.PostQuery{Tags: tags, From: keyset.Start(), Direction: direction, Limit: page}
	if direction == keyset.Backward {
		q.From = keyset.End()
	}
	return func(ctx context.Context) ([]event.Key, bool, error) {
		p, err := r.Posts(ctx, q)
		if err != nil {
			return nil, false, err
		}
		more := p.HasNext
		q.From = p.Next
		if direction == keyset.Backward {
			more, q.From = p.HasPrevious, p.Previous
		}
		return keysOf(p.Rows), !more, nil
	}
}

// ourTags does the same with the list of tags.
func ourTags(r *query.Reader, direction keyset.Direction) func(context.Context) ([]string, bool, error) {
	q := query.TagQuery{From: keyset.Start(), Direction: direction, Limit: tagPage}
	if direction == keyset.Backward {
		q.From = keyset.End()
	}
	return func(ctx context.Context) ([]string, bool, error) {
		p, err := r.Tags(ctx, q)
		if err != nil {
			return nil, false, err
		}
		names := make([]string, len(p.Rows))
		for i, t := range p.Rows {
			names[i] = t.Name
		}
		more := p.HasNext
		q.From = p.Next
		if direction == keyset.Backward {
			more, q.From = p.HasPrevious, p.Previous
		}
		return names, !more, nil
	}
}

// bySQL reads pages of limit rows with a statement. args returns the statement's arguments for the
// next page; it receives the last page.
func bySQL[R any](q querier, sql string, limit int, row pgx.RowToFunc[R], args func(sofar int, last []R) []any) func(context.Context) ([]R, bool, error) {
	sofar := 0
	var before []R
	return func(ctx context.Context) ([]R, bool, error) {
		rows, err := q.Query(ctx, sql, append([]any{limit}, args(sofar, before)...)...)
		if err != nil {
			return nil, false, err
		}
		if before, err = pgx.CollectRows(rows, row); err != nil {
			return nil, false, err
		}
		sofar += len(before)
		return before, len(before) < limit, nil
	}
}

// names converts a reading of tags with their counts to one of names.
func names(next func(context.Context) ([]query.TagCount, bool, error)) func(context.Context) ([]string, bool, error) {
	return func(ctx context.Context) ([]string, bool, error) {
		tags, last, err := next(ctx)
		out := make([]string, len(tags))
		for i, t := range tags {
			out[i] = t.Name
		}
		return out, last, err
	}
}

func rowToKey(row pgx.CollectableRow) (k event.Key, err error) {
	err = row.Scan((*[16]byte)(&k))
	return k, err
}

// wideTagPage is the page size for ways that sort the whole list of tags for each page.
const wideTagPage = 1_000

// Ties is what readers saw of lists that did not change, in unique and other orders.
type Ties struct {
	// Posts are readings of the first pages of floodTag, Tags of the whole list of tags.
	Posts, Tags []Reading
}

// ties reads lists that do not change.
func (s *index) ties(ctx context.Context) (Ties, error) {
	posts, err := s.tiesOfPosts(ctx)
	if err != nil {
		return Ties{}, err
	}
	tags, err := s.tiesOfTags(ctx)
	if err != nil {
		return Ties{}, err
	}
	s.judge("ties of posts", posts)
	s.judge("ties of tags", tags)
	return Ties{posts, tags}, nil
}

func (s *index) tiesOfPosts(ctx context.Context) ([]Reading, error) {
	all, ids, err := s.list(ctx, []string{floodTag})
	if err != nil {
		return nil, err
	}
	sameOrOlder := func(_ int, last []event.Key) []any {
		if len(last) == 0 {
			return []any{ids[0], newest}
		}
		return []any{ids[0], event.FirstKey(last[len(last)-1].SortAt().Add(1000))} // the next microsecond
	}
	readings := []*reading[event.Key]{
		read("time alone, `<`", false, bySQL(s.rival, postsByTime, page, rowToKey, func(_ int, last []event.Key) []any { return []any{ids[0], olderThan(last)} })),
		read("time alone, `<=`", false, bySQL(s.rival, postsByTime, page, rowToKey, sameOrOlder)),
		read(byUs+": time and hash", true, ourPosts(s.reader, []string{floodTag}, keyset.Forward)),
	}
	var out []Reading
	for _, r := range readings {
		for range s.cfg.Walk {
			if err := r.turn(ctx); err != nil {
				return nil, err
			}
		}
		// Only rows before the last one seen are due.
		throughout := map[event.Key]bool{}
		last := r.page[len(r.page)-1]
		for _, p := range all {
			throughout[p.key] = true
			if p.key == last {
				break
			}
		}
		out = append(out, r.result(throughout))
	}
	return out, nil
}

func (s *index) tiesOfTags(ctx context.Context) ([]Reading, error) {
	throughout, err := s.tagNames(ctx)
	if err != nil {
		return nil, err
	}
	row := pgx.RowToStructByPos[query.TagCount]
	skip := func(n int, _ []query.TagCount) []any { return []any{n} }
	readings := []*reading[string]{
		read("OFFSET, by count alone", false, names(bySQL(s.rival, tagsUnordered, wideTagPage, row, skip))),
		read("count alone, `<`", false, names(bySQL(s.rival, tagsByCount, tagPage, row, countBelow))),
		read("count alone, `<=`", false, names(bySQL(s.rival, tagsByCountSame, tagPage, row, countBelow))),
		read(byUs+": count and name", true, ourTags(s.reader, keyset.Forward)),
		read(byUs+": count and name, backward", true, ourTags(s.reader, keyset.Backward)),
	}
	for _, r := range readings {
		for !r.done {
			if err := r.turn(ctx); err != nil {
				return nil, err
			}
		}
	}
	return readingsOf(readings, throughout), nil
}
