package lab

import (
	"context"
	"fmt"
	"time"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
)

// Listing is the cost of a page of the list of tags inside a tie.
type Listing struct {
	// Tie is the number of tags with the same count, and Before the number of tags before them.
	Tie, Before int
	Pages       []ListingPage
	// Ranked are pages of the bounded table that is read with OFFSET.
	Ranked []ListingPage
}

// ListingPage is one page.
type ListingPage struct {
	Where, Direction string
	Latency          time.Duration
	// Read is the number of rows read from the index or the table, including dropped ones.
	Read int
}

// listingBound bounds the rows that our page may read: the page, the row that proves that more
// follow, and the one that proves that some precede.
const listingBound = tagPage + 1 + 1

const middleOfTie = "middle of the tie"

// orTags writes the order in the usual way, over the same index, so that it need not sort.
const orTags = `SELECT name, posts FROM tags WHERE posts > 0 AND (-posts > $1 OR (-posts = $1 AND name > $2)) ORDER BY (-posts), name LIMIT $3`

// offsetTags is the same with OFFSET.
const offsetTags = `SELECT name, posts FROM tags WHERE posts > 0 ORDER BY (-posts), name LIMIT $1 OFFSET $2`

// listing measures the list of tags inside the tie of those with one post.
func (s *index) listing(ctx context.Context) (Listing, error) {
	var l Listing
	err := s.owner.QueryRow(ctx, "SELECT count(*) FILTER (WHERE posts = 1), count(*) FILTER (WHERE posts > 1) FROM tags").Scan(&l.Tie, &l.Before)
	if err != nil {
		return l, fmt.Errorf("count ties: %w", err)
	}
	for _, at := range []struct {
		name string
		rank int
	}{{"start of the tie", l.Before}, {middleOfTie, l.Before + l.Tie/2}, {"end of the tie", l.Before + l.Tie - tagPage - 1}} {
		s.log.Info("list of tags", "at", at.name)
		if err := s.listingAt(ctx, &l, at.name, at.rank); err != nil {
			return l, fmt.Errorf("list of tags, %s: %w", at.name, err)
		}
	}
	for _, rank := range []int{0, query.MaxRankedTags - tagPage} {
		if rank > l.Before+l.Tie-tagPage {
			continue
		}
		ask := func(ctx context.Context, r *query.Reader) error {
			_, _, err := r.RankedTags(ctx, rank, tagPage)
			return err
		}
		p, err := s.listingPage(ctx, fmt.Sprintf("page %d of the admin table", rank/tagPage+1), byOffset+", bounded", ask)
		if err != nil {
			return l, err
		}
		l.Ranked = append(l.Ranked, p)
	}
	return l, nil
}

// listingAt requests the page after the tag of a rank, and the one before it.
func (s *index) listingAt(ctx context.Context, l *Listing, where string, rank int) error {
	var at query.TagCount
	err := s.owner.QueryRow(ctx, "SELECT name, posts FROM tags WHERE posts > 0 ORDER BY posts DESC, name OFFSET $1 LIMIT 1", rank).Scan(&at.Name, &at.Posts)
	if err != nil {
		return fmt.Errorf("find rank %d: %w", rank, err)
	}
	for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
		name := byUs
		if direction == keyset.Backward {
			name += ", backward"
		}
		q := query.TagQuery{From: keyset.Below(query.TagKey(at)...), Direction: direction, Limit: tagPage}
		p, err := s.listingPage(ctx, where, name, func(ctx context.Context, r *query.Reader) error {
			got, err := r.Tags(ctx, q)
			if err == nil && len(got.Rows) != tagPage {
				err = fmt.Errorf("a page has %d tags", len(got.Rows))
			}
			return err
		})
		if err != nil {
			return err
		}
		l.Pages = append(l.Pages, p)
		if p.Read > listingBound {
			s.miss(fmt.Errorf("%d rows were read, the bound is %d", p.Read, listingBound), "list of tags, %s, %s", where, name)
		}
		plan, err := s.planTags(ctx, q)
		if err != nil {
			return err
		}
		s.miss(plan.check(), "list of tags, %s, %s", where, name)
	}
	for _, rival := range []struct {
		direction string
		st        query.Statement
	}{
		{"OR of conditions", query.Statement{SQL: orTags, Args: []any{-at.Posts, at.Name, tagPage + 1}}},
		{byOffset, query.Statement{SQL: offsetTags, Args: []any{tagPage + 1, rank + 1}}},
	} {
		plan, err := s.planRival(ctx, rival.st)
		if err != nil {
			return err
		}
		medians, err := s.timeInTurns(ctx, func(ctx context.Context) error { return drain(ctx, s.rival, rival.st) })
		if err != nil {
			return err
		}
		l.Pages = append(l.Pages, ListingPage{Where: where, Direction: rival.direction, Latency: medians[0], Read: plan.ListRows})
	}
	return nil
}

// planTags explains the list's part of a page: the reader's own statement, which it does not show,
// also includes the preceding row.
func (s *index) planTags(ctx context.Context, q query.TagQuery) (Plan, error) {
	seek, err := query.TagOrder.Seek(q.Direction, q.From, 2)
	if err != nil {
		return Plan{}, err
	}
	return s.planOurs(ctx, []query.Statement{{
		SQL:  "SELECT name, posts FROM tags WHERE posts > 0 AND " + seek.Where + " ORDER BY " + seek.OrderBy + " LIMIT $1",
		Args: append([]any{q.Limit + 1}, seek.Args...),
	}})
}

func (s *index) listingPage(ctx context.Context, where, direction string, ask func(context.Context, *query.Reader) error) (ListingPage, error) {
	medians, err := s.timeInTurns(ctx, func(ctx context.Context) error { return ask(ctx, s.reader) })
	if err != nil {
		return ListingPage{}, err
	}
	counts, err := s.countOurs(ctx, func(r *query.Reader) error { return ask(ctx, r) })
	return ListingPage{Where: where, Direction: direction, Latency: medians[0], Read: counts.Entries}, err
}
