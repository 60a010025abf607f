package lab

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
)

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
