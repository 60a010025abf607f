package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
)

const (
	// maxWork bounds the index entries that one request may touch beyond those
	// of its page: some 15 ms.
	maxWork = 10_000
	// maxWorkBehind is what of it may go into finding out if there is anything
	// behind the page.
	maxWorkBehind = 2_000
	// A search goes in segments, each bigger than the one before. Between them
	// it looks anew at how dense the lists are.
	firstSegment  = 256
	segmentGrowth = 2
	// mergeRatio is up to how much denser than the sparsest list another one is
	// read beside it rather than probed for each of its posts. A probe touches
	// one entry, by a descent that costs a few entries read in a row: at this
	// ratio neither way costs twice the other, in entries or in time.
	mergeRatio = 3
)

// scan finds the posts of a conjunction within one snapshot.
type scan struct {
	conjunction
	tx    pgx.Tx
	way   keyset.Way
	work  int // what may still be done
	trace func(Statement)
}

func (s *scan) query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if s.trace != nil {
		s.trace(Statement{sql, args})
	}
	return s.tx.Query(ctx, sql, args...)
}

// found is what a scan came to.
type found struct {
	// keys are in the way of reading.
	keys []event.Key
	// ranOut says that the work that a request may cause ran out before as many
	// keys as wanted were found, or the list ended. Everything up to last was
	// looked at.
	ranOut bool
	last   event.Key
}

// find looks for up to want keys of a range.
func (s *scan) find(ctx context.Context, rng keyRange, want int) (found, error) {
	if s.nothing || rng.empty() {
		return found{}, nil
	}
	if len(s.groups) == 1 && len(s.none) == 0 {
		return s.merge(ctx, rng, want)
	}
	var f found
	for size := firstSegment; ; size *= segmentGrowth {
		p, ok, err := s.plan(ctx, &rng)
		if err != nil || !ok {
			return f, err
		}
		p.rows = max(min(size, s.work/p.cost()), 1)
		seg, err := s.segment(ctx, p, rng, want-len(f.keys))
		if err != nil {
			return f, err
		}
		f.keys = append(f.keys, seg.keys...)
		if len(f.keys) == want || !seg.ranOut {
			return f, nil
		}
		s.work -= p.rows * p.cost()
		f.last = seg.last
		if rng = rng.beyond(seg.last, s.way); rng.empty() {
			return f, nil
		}
		if s.work <= 0 {
			f.ranOut = true
			return f, nil
		}
	}
}

// merge reads the posts of one group: one ordered branch per list, each with a
// LIMIT of its own, merge into one stream that stops when enough are found.
// Whatever the depth, it touches no more entries than those, one per list, and
// the overlap between lists.
func (s *scan) merge(ctx context.Context, rng keyRange, want int) (found, error) {
	g := s.groups[0]
	n := padded(len(g.lists))
	args := []any{want, rng.lo, rng.hi}
	var b strings.Builder
	order := orderBy(s.way)
	if n == 1 {
		b.WriteString(branch("key", g.langs, s.way, 4))
	} else {
		b.WriteString("SELECT DISTINCT ON (key) key FROM (")
		for i := range n {
			if i > 0 {
				b.WriteString(" UNION ALL ")
			}
			b.WriteString("(" + branch("key", g.langs, s.way, 4+i) + ")")
		}
		b.WriteString(") AS branches ORDER BY " + order + " LIMIT $1")
	}
	for i := range n {
		args = append(args, idOf(g, i))
	}
	rows, err := s.query(ctx, b.String(), args...)
	if err != nil {
		return found{}, fmt.Errorf("merge %d lists: %w", len(g.lists), err)
	}
	keys, err := pgx.CollectRows(rows, pgx.RowTo[event.Key])
	if err != nil {
		return found{}, fmt.Errorf("merge %d lists: %w", len(g.lists), err)
	}
	return found{keys: keys}, nil
}

// any reports whether a range holds something. It may be wrong in saying yes
// where finding out would take more work than is left.
func (s *scan) any(ctx context.Context, rng keyRange) (bool, error) {
	if s.nothing || rng.empty() {
		return false, nil
	}
	if len(s.groups) > 1 || len(s.none) > 0 {
		f, err := s.find(ctx, rng, 1)
		return len(f.keys) > 0 || f.ranOut, err
	}
	// One list after the other, the longest first: as a rule its first entry is
	// the only one touched.
	g := group{langs: s.groups[0].langs, lists: slices.Clone(s.groups[0].lists)}
	slices.SortFunc(g.lists, func(a, b list) int { return cmp.Compare(b.posts, a.posts) })
	table, column := tableOf(g.langs)
	args := []any{rng.lo, rng.hi}
	var checks []string
	for i := range padded(len(g.lists)) {
		args = append(args, idOf(g, i))
		checks = append(checks, fmt.Sprintf("EXISTS (SELECT FROM %s WHERE %s = $%d AND key BETWEEN $1 AND $2)", table, column, len(args)))
	}
	rows, err := s.query(ctx, "SELECT "+strings.Join(checks, " OR "), args...)
	if err != nil {
		return false, fmt.Errorf("look into %d lists: %w", len(g.lists), err)
	}
	is, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
	if err != nil {
		return false, fmt.Errorf("look into %d lists: %w", len(g.lists), err)
	}
	return is, nil
}

// branch is the ordered rows of one list: $1 of them, of the keys from $2 to $3.
func branch(columns string, langs bool, way keyset.Way, id int) string {
	table, column := tableOf(langs)
	return fmt.Sprintf("SELECT %s FROM %s WHERE %s = $%d AND key BETWEEN $2 AND $3 ORDER BY %s LIMIT $1", columns, table, column, id, orderBy(way))
}

// padded rounds a number of lists up, so that there are few statements for
// Postgres to plan and keep. The branches that are too many have NULL for an id
// and touch nothing.
func padded(n int) int {
	sizes := []int{0, 1, 2, 4, 8, 20}
	i, _ := slices.BinarySearch(sizes, n)
	if i == len(sizes) {
		return n
	}
	return sizes[i]
}

func idOf(g group, i int) any {
	if i < len(g.lists) {
		return g.lists[i].id
	}
	return nil
}

// plan is how to go through a segment: the merged groups are read in the order
// of posts, side by side; for each post that is in all of them, the probed ones
// are asked.
type plan struct {
	merged, probed []group
	rows           int
}

// cost is how many entries a row of a segment can touch, roughly.
func (p plan) cost() int { return len(p.merged) + len(p.probed) }

// plan decides by how dense the groups are where the search is now. It moves the
// near end of the range to where every group has something; ok is false where
// one has nothing left.
func (s *scan) plan(ctx context.Context, rng *keyRange) (p plan, ok bool, err error) {
	if len(s.groups) == 1 {
		return plan{merged: s.groups, probed: nil}, true, nil
	}
	if err := s.sense(ctx, *rng); err != nil {
		return p, false, err
	}
	for _, g := range s.groups {
		next, ok := g.next(s.way)
		if !ok {
			return p, false, nil
		}
		if s.way == keyset.Forward {
			if before(rng.hi, next, s.way) {
				rng.hi = next
			}
		} else if before(rng.lo, next, s.way) {
			rng.lo = next
		}
	}
	groups := s.byRate(*rng)
	for _, g := range groups {
		if len(p.merged) == 0 || g.rate <= mergeRatio*groups[0].rate {
			p.merged = append(p.merged, g.group)
		} else {
			p.probed = append(p.probed, g.group)
		}
	}
	return p, true, nil
}

// segment looks at the next p.rows posts of the merged groups.
func (s *scan) segment(ctx context.Context, p plan, rng keyRange, want int) (found, error) {
	sql, args := segmentQuery(p, s.none, s.way, rng, want)
	rows, err := s.query(ctx, sql, args...)
	if err != nil {
		return found{}, fmt.Errorf("search %d rows: %w", p.rows, err)
	}
	var f found
	var key event.Key
	var n int
	var hit bool
	if _, err := pgx.ForEachRow(rows, []any{&key, &n, &hit}, func() error {
		if hit {
			f.keys = append(f.keys, key)
		}
		if n == p.rows {
			f.ranOut, f.last = true, key
		}
		return nil
	}); err != nil {
		return found{}, fmt.Errorf("search %d rows: %w", p.rows, err)
	}
	return f, nil
}

// segmentQuery returns the posts among the next p.rows ones of the merged groups
// that are in all groups and not excluded, up to want, and the last row looked
// at, whatever it is.
//
// Each branch says which group it is of. Postgres reads them side by side in the
// order of posts (Merge Append), puts together what it has of each post
// (GroupAggregate) and counts (WindowAgg): all of these stream, and stop when
// enough is found. What is in OR cannot become a join whose order would be the
// planner's choice.
func segmentQuery(p plan, none []int64, way keyset.Way, rng keyRange, want int) (string, []any) {
	args := []any{p.rows, rng.lo, rng.hi, want}
	arg := func(v any) string {
		args = append(args, v)
		return fmt.Sprintf("$%d", len(args))
	}
	order := orderBy(way)
	var branches []string
	for _, langs := range []bool{false, true} {
		var ids, bits []any
		for i, g := range p.merged {
			if g.langs != langs {
				continue
			}
			for _, l := range g.lists {
				ids, bits = append(ids, l.id), append(bits, int32(1)<<i)
			}
		}
		for i := range padded(len(ids)) {
			var id, bit any
			if i < len(ids) {
				id, bit = ids[i], bits[i]
			}
			columns := "key, " + arg(bit) + "::int AS bit"
			arg(id)
			branches = append(branches, "("+branch(columns, langs, way, len(args))+")")
		}
	}
	hit := []string{"s.bits = " + arg(int32(1)<<len(p.merged)-1)}
	var single []int64
	for _, g := range p.probed {
		switch {
		case g.langs:
			hit = append(hit, "EXISTS (SELECT FROM post_langs p WHERE p.lang_id = ANY("+arg(g.ids())+"::bigint[]) AND p.key = s.key)")
		case len(g.lists) > 1:
			hit = append(hit, "EXISTS (SELECT FROM post_tags p WHERE p.tag_id = ANY("+arg(g.ids())+"::bigint[]) AND p.key = s.key)")
		default:
			single = append(single, g.lists[0].id)
		}
	}
	// The sparsest is asked alone: it spares most posts the others.
	if len(single) > 0 {
		hit = append(hit, "EXISTS (SELECT FROM post_tags p WHERE p.tag_id = "+arg(single[0])+" AND p.key = s.key)")
	}
	if len(single) > 1 {
		rest := arg(single[1:])
		hit = append(hit, "(SELECT count(*) FROM post_tags p WHERE p.tag_id = ANY("+rest+"::bigint[]) AND p.key = s.key) = cardinality("+rest+"::bigint[])")
	}
	if len(none) > 0 {
		hit = append(hit, "NOT EXISTS (SELECT FROM post_tags p WHERE p.tag_id = ANY("+arg(none)+"::bigint[]) AND p.key = s.key)")
	}
	return `
		SELECT key, n, hit FROM (
			SELECT key, n, ` + strings.Join(hit, " AND ") + ` AS hit FROM (
				SELECT key, bit_or(bit) AS bits, row_number() OVER (ORDER BY ` + order + `) AS n
				  FROM (` + strings.Join(branches, " UNION ALL ") + `) AS branches
				 GROUP BY key ORDER BY ` + order + ` LIMIT $1
			) AS s OFFSET 0
		) AS r WHERE hit OR n = $1 LIMIT $4`, args
}
