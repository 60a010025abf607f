package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
)

// Work is measured in index entries read in sequence: 0.1 to 0.2 µs each on the machine of
// docs/lab.
const (
	// maxWork bounds the work of one request in addition to its page: about 10 ms.
	maxWork = 60_000
	// maxWorkSwept is the same while accounts are swept, whose posts must be skipped.
	maxWorkSwept = 3 * maxWork
	// maxWorkBehind bounds the work of finding out whether there are posts on the other side of the
	// page's start.
	maxWorkBehind = 10_000
	// probeWork is the work of looking up one entry: a descent of the index.
	probeWork = 6
	// rowProbes is the work of reading a post's own row, in look-ups.
	rowProbes = 2
	// A search proceeds in segments, each with more work than the previous one. Between segments it
	// samples the density of the lists; a sample is a small part of a segment's work.
	firstSegment  = 512
	segmentGrowth = 4
	sampleShare   = 16
	// minRows is the minimum number of rows in a segment, so that every request makes progress.
	minRows = 100
	// maxLeaps is how many times in a row the search jumps to where the sparsest clause continues
	// before it reads every post.
	maxLeaps = 4
	// mergeRatio is the greatest ratio of another clause's density to that of the sparsest at which
	// the two are read alongside each other. Above it, probing the other clause for each post of
	// the sparsest takes less work.
	mergeRatio = 4
)

// search finds the posts of a conjunction within one snapshot.
type search struct {
	conjunction
	conn      *pgx.Conn
	direction keyset.Direction
	work      int // what is left for this request
	read      int // approximate number of index entries read
	trace     func(Statement)
}

func (s *search) query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if s.trace != nil {
		s.trace(Statement{SQL: sql, Args: args})
	}
	return s.conn.Query(ctx, sql, args...)
}

// found is the result of a search.
type found struct {
	// keys are in the direction of reading.
	keys []event.Key
	// ranOut reports that the search used up its work before it found enough keys or reached the
	// end of the list. Everything up to last was examined.
	ranOut bool
	last   event.Key
}

// find looks for up to want keys of a range.
func (s *search) find(ctx context.Context, rng keyRange, want int) (found, error) {
	if s.nothing || rng.empty() {
		return found{}, nil
	}
	var f found
	for work := firstSegment; ; work *= segmentGrowth {
		p, ok, err := s.plan(ctx, &rng, work)
		if err != nil || !ok {
			return f, err
		}
		p.share(s.conjunction, min(work, s.work))
		seg, done, err := s.segment(ctx, p, rng, want-len(f.keys))
		if err != nil {
			return f, err
		}
		f.keys = append(f.keys, seg.keys...)
		if len(f.keys) == want || !seg.ranOut {
			return f, nil
		}
		s.work -= done
		f.last = seg.last
		if rng = rng.beyond(seg.last, s.direction); rng.empty() {
			return f, nil
		}
		if s.work <= 0 {
			f.ranOut = true
			return f, nil
		}
	}
}

// any reports whether a range contains a match. It may wrongly return true if it runs out of work.
func (s *search) any(ctx context.Context, rng keyRange) (bool, error) {
	f, err := s.find(ctx, rng, 1)
	return len(f.keys) > 0 || f.ranOut, err
}

// plan is how to read a segment. The merged clauses, one or two, are read alongside each other
// in key order; the probed ones are looked up for each of their posts. With besideSwept the posts
// of swept accounts are read alongside the single merged clause, in order to skip them: then at
// most probes of the rows are visible and probed.
type plan struct {
	merged, probed []clause
	besideSwept    bool
	rows, probes   int
}

// share sets how many rows a segment reads for an amount of work.
func (p *plan) share(c conjunction, work int) {
	p.rows = max(work/p.cost(c, 1, 1), minRows)
	p.probes = p.rows
	if p.besideSwept {
		p.rows = max(work/2/p.cost(c, 1, 0), minRows)
		p.probes = max(work/2/max(p.cost(c, 0, 1), 1), minRows)
	}
}

// cost is the work of reading that many rows of the merged clauses and probing that many of them,
// if each post is in every list of a clause.
func (p plan) cost(c conjunction, rows, probed int) int {
	lists, probes, single := 0, len(c.none), 0
	for _, cl := range p.merged {
		lists = max(lists, len(cl.lists))
	}
	for _, cl := range p.probed {
		switch {
		case cl.kind == ofAuthor:
		case len(cl.lists) > 1:
			probes += len(cl.lists)
		default:
			single++
		}
	}
	probes += min(single, 2) // the first list without the post ends the probing
	if p.readsRows(c) {
		probes += rowProbes
	}
	if p.probesSweeps(c) {
		probes++
	}
	if len(p.merged) > 1 {
		probes = (probes + 1) / 2 // not all posts are in both clauses
	}
	return lists*rows + probeWork*probes*probed
}

// readsRows reports whether each post's own row is read.
func (p plan) readsRows(c conjunction) bool {
	return c.hasRowConditions() || slices.ContainsFunc(p.probed, func(cl clause) bool { return cl.kind == ofAuthor })
}

// probesSweeps reports whether each post must be checked for sweeps that hide it.
func (p plan) probesSweeps(c conjunction) bool {
	return c.sweeping && (!p.besideSwept || !c.sweptAll)
}

// plan chooses how to read by the density of the clauses at the start of the range. It moves that
// start to where every clause has posts; ok is false if a clause has none left.
func (s *search) plan(ctx context.Context, rng *keyRange, work int) (p plan, ok bool, err error) {
	if len(s.clauses) == 1 && !s.sweeping {
		return plan{merged: s.clauses}, true, nil
	}
	clauses := make([]rated, len(s.clauses))
	lists := 0
	for _, cl := range s.clauses {
		lists += len(cl.lists)
	}
	sample := max(min(work, s.work)/sampleShare/lists, minSample)
	for leaps := 0; ; leaps++ {
		if err := s.sampleLists(ctx, *rng, sample); err != nil {
			return p, false, err
		}
		for i, cl := range s.clauses {
			next, ok := cl.next(s.direction)
			if !ok {
				return p, false, nil
			}
			clauses[i] = rated{cl, cl.rate(*rng, s.direction)}
			*rng = rng.startAt(next, s.direction)
		}
		// A sample says nothing about the posts after it.
		if leaps*lists*sample >= work/2 || leaps == maxLeaps || !slices.ContainsFunc(s.clauses, func(cl clause) bool { return cl.sampledBefore(*rng, s.direction) }) {
			break
		}
	}
	slices.SortStableFunc(clauses, func(a, b rated) int { return cmp.Compare(a.rate, b.rate) })
	if s.sweeping {
		rate, err := s.sampleSwept(ctx, *rng, sample)
		if err != nil {
			return p, false, err
		}
		// Otherwise it is cheaper to check each post of the list.
		p.besideSwept = rate <= probeWork*clauses[0].rate
	}
	for i, cl := range clauses {
		if i == 0 || i == 1 && !p.besideSwept && cl.rate <= mergeRatio*clauses[0].rate {
			p.merged = append(p.merged, cl.clause)
		} else {
			p.probed = append(p.probed, cl.clause)
		}
	}
	// The order does not depend on which is sparser, so that the statement stays the same.
	slices.SortStableFunc(p.merged, func(a, b clause) int {
		return cmp.Or(cmp.Compare(len(a.lists), len(b.lists)), cmp.Compare(a.kind, b.kind))
	})
	return p, true, nil
}

// segment reads the next p.rows posts of the merged clauses, and also returns the work it took.
func (s *search) segment(ctx context.Context, p plan, rng keyRange, want int) (f found, work int, err error) {
	st := segmentQuery(p, s.conjunction, s.direction, rng, want)
	rows, _ := s.query(ctx, st.SQL, st.Args...)
	var key event.Key
	var n, probed int
	var hit bool
	at := 0
	if _, err := pgx.ForEachRow(rows, []any{&key, &n, &probed, &hit}, func() error {
		if at++; n < at || at > 1 && !before(f.last, key, s.direction) {
			return errors.New("rows out of order")
		}
		if f.ranOut {
			return nil // the last probe ends the segment
		}
		if hit {
			f.keys = append(f.keys, key)
		}
		f.last, work = key, p.cost(s.conjunction, n, probed)
		f.ranOut = n == p.rows || probed == p.probes
		return nil
	}); err != nil {
		return found{}, 0, fmt.Errorf("search %d rows: %w", p.rows, err)
	}
	s.read += work
	return f, work, nil
}

// segmentQuery selects those of the next p.rows posts that are in all clauses and not excluded, up
// to want, and the last post examined.
//
// Two merged clauses are combined by a full join. It is the only join that Postgres must execute by
// reading both in order, and it returns the union, so the number of rows says how far it got. The
// first n rows of the union are among the first n rows of each clause.
//
// A probe is a subquery with OFFSET 0, which keeps it a subquery: otherwise Postgres would turn it
// into a join, in any order.
func segmentQuery(p plan, c conjunction, direction keyset.Direction, rng keyRange, want int) Statement {
	q := &builder{direction: direction, args: []any{p.rows, rng.lo, rng.hi, want}}
	var from string
	hit := []string{"s.hit"}
	probed, end := "n", "n = $1"
	switch {
	case p.besideSwept:
		from, probed = q.besideSwept(p.merged[0], c.swept), "seen"
		most := q.arg(p.probes) + "::bigint"
		hit, end = append(hit, "s.seen <= "+most), "n = $1 OR probed = "+most
	case len(p.merged) == 1:
		from = "SELECT key, true AS hit, row_number() OVER () AS n FROM (" + q.stream(p.merged[0]) + ") AS a"
	default:
		from = "SELECT coalesce(a.key, b.key) AS key, a.key IS NOT NULL AND b.key IS NOT NULL AS hit, row_number() OVER () AS n" +
			" FROM (" + q.stream(p.merged[0]) + ") AS a FULL JOIN (" + q.stream(p.merged[1]) + ") AS b ON a.key = b.key"
	}
	probe := func(table, column, arg string) string {
		return "EXISTS (SELECT FROM " + table + " p WHERE p." + column + " = " + arg + " AND p.key = s.key OFFSET 0)"
	}
	oneOf := func(ids []int64) string { return "ANY(" + q.arg(ids) + "::bigint[])" }
	var single []int64
	var row []string // conditions on the post's own row
	for _, cl := range p.probed {
		table, column := cl.kind.index()
		switch {
		case cl.kind == ofAuthor:
			row = append(row, "p.account_id = "+oneOf(cl.ids()))
		case cl.kind == ofLang || len(cl.lists) > 1:
			hit = append(hit, probe(table, column, oneOf(cl.ids())))
		default:
			single = append(single, cl.lists[0].id)
		}
	}
	// The sparsest list is probed first and alone: most posts are not in it.
	if len(single) > 0 {
		hit = append(hit, probe("post_tags", "tag_id", q.arg(single[0])))
	}
	if len(single) > 1 {
		rest := q.arg(single[1:])
		hit = append(hit, "(SELECT count(*) FROM post_tags p WHERE p.tag_id = ANY("+rest+"::bigint[]) AND p.key = s.key) = cardinality("+rest+"::bigint[])")
	}
	if len(c.none) > 0 {
		hit = append(hit, "NOT "+probe("post_tags", "tag_id", oneOf(c.none)))
	}
	row = append(row, c.rowConditions(q)...)
	if len(row) > 0 {
		hit = append(hit, "EXISTS (SELECT FROM posts p WHERE p.key = s.key AND "+strings.Join(row, " AND ")+" OFFSET 0)")
	}
	if p.probesSweeps(c) {
		hit = append(hit, "NOT EXISTS (SELECT FROM posts p JOIN sweeps w USING (account_id) WHERE p.key = s.key AND "+hiddenBySweep+" OFFSET 0)")
	}
	return Statement{
		SQL: "SELECT key, n, probed, hit FROM (SELECT key, n, " + probed + " AS probed, " + strings.Join(hit, " AND ") + " AS hit FROM (" + from + " LIMIT $1) AS s OFFSET 0) AS r" +
			" WHERE hit OR " + end + " LIMIT $4",
		Args: q.args,
	}
}

// rowConditions returns the conditions on a post's own row p, other than on its author.
func (c conjunction) rowConditions(q *builder) (row []string) {
	has := func(traits event.Traits) string { return "p.traits & " + q.arg(int16(traits)) + "::smallint <> 0" }
	if len(c.notBy) > 0 {
		row = append(row, "p.account_id <> ALL("+q.arg(c.notBy)+"::bigint[])")
	}
	if c.filter.MaxTags > 0 {
		row = append(row, "cardinality(p.tags) <= "+q.arg(c.filter.MaxTags))
	}
	switch {
	case c.filter.NoMedia:
		row = append(row, "("+has(c.filter.Media)+" OR NOT "+has(event.HasMedia)+")")
	case c.filter.Media != 0:
		row = append(row, has(c.filter.Media))
	}
	switch c.filter.SelfLabels {
	case ExcludeSelfLabels:
		row = append(row, "NOT "+has(event.SelfLabelled))
	case OnlySelfLabels:
		row = append(row, has(event.SelfLabelled))
	}
	return row
}

// builder writes the parts of a statement. Its first arguments are $1, the number of rows of a
// stream, and $2 and $3, the lowest and the highest key.
type builder struct {
	direction keyset.Direction
	args      []any
}

func (b *builder) arg(v any) string {
	b.args = append(b.args, v)
	return fmt.Sprintf("$%d", len(b.args))
}

// stream selects the posts of a clause in key order.
func (b *builder) stream(cl clause) string {
	table, column := cl.kind.index()
	ids := make([]string, padded(len(cl.lists)))
	for i := range ids {
		var id any
		if i < len(cl.lists) {
			id = cl.lists[i].id
		}
		ids[i] = b.arg(id)
	}
	return b.merged(table, column, ids)
}

// merged selects the posts of several lists in key order: one ordered branch per list, each with
// its own LIMIT, merged until enough is read.
func (b *builder) merged(table, column string, ids []string) string {
	branches := make([]string, len(ids))
	for i, id := range ids {
		branches[i] = fmt.Sprintf("SELECT key FROM %s WHERE %s = %s AND key BETWEEN $2 AND $3 ORDER BY %s LIMIT $1", table, column, id, orderBy(b.direction))
	}
	if len(branches) == 1 {
		return branches[0]
	}
	return "SELECT DISTINCT ON (key) key FROM ((" + strings.Join(branches, ") UNION ALL (") + ")) AS branches ORDER BY " + orderBy(b.direction) + " LIMIT $1"
}

// padded rounds up a number of lists, so that Postgres plans and keeps few statements. Superfluous
// branches have a NULL id and read nothing.
func padded(n int) int {
	sizes := []int{1, 2, 5, 20}
	i, _ := slices.BinarySearch(sizes, n)
	if i == len(sizes) {
		return n
	}
	return sizes[i]
}
