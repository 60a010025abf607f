package keyset_test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
)

// seedFlag repeats one run of TestPagesMatchTheOracle; runsFlag sets the number of runs.
var (
	seedFlag = flag.Uint64("keyset.seed", 0, "run the oracle test with this seed only")
	runsFlag = flag.Uint64("keyset.runs", 24, "seeds of the oracle test, from 1")
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// Every page equals the oracle's page: for random orderings with many ties and NULLs, in both
// directions and in each form of the SQL, while rows are inserted and deleted.
func TestPagesMatchTheOracle(t *testing.T) {
	t.Parallel()
	pool := pgtest.Database(t).Pool(t)
	first, last := uint64(1), *runsFlag
	if *seedFlag != 0 {
		first, last = *seedFlag, *seedFlag
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			l := newList(t, pool, seed)
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("seed %d: ordered by %s; repeat with: go test ./keyset -run '^TestPagesMatchTheOracle$' -keyset.seed=%d",
						seed, l.ordering.OrderBy(keyset.Forward), seed)
				}
			})
			for _, form := range []string{"where", "branches", "union"} {
				l.form = form
				l.walkWhileChanging(t, keyset.Forward)
				l.walkWhileChanging(t, keyset.Backward)
				l.walkBothWays(t)
				l.wander(t)
			}
			l.empty(t)
		})
	}
}

// list is a table in Postgres together with its oracle.
type list struct {
	random      *rand.Rand
	pool        *pgxpool.Pool
	table       string
	ordering    *keyset.Ordering
	oracle      *oracle
	codec       *keyset.Codec
	fingerprint keyset.Fingerprint
	nextID      int64
	form        string // of the SQL
	gone        []row  // deleted rows, whose keys stay good places
}

func newList(t *testing.T, pool *pgxpool.Pool, seed uint64) *list {
	t.Helper()
	signing, err := keyset.NewKey("test", bytes.Repeat([]byte{1}, keyset.MinSecret))
	require.NoError(t, err)
	l := &list{random: rand.New(rand.NewPCG(seed, 1)), pool: pool, table: "list_" + strconv.FormatUint(seed, 10)}
	l.codec, err = keyset.NewCodec(signing)
	require.NoError(t, err)
	l.oracle = &oracle{rows: map[int64]row{}, by: drawOrdering(l.random)}
	var columns []keyset.Column
	for _, k := range l.oracle.by {
		columns = append(columns, k.column())
	}
	l.ordering, err = keyset.NewOrdering(columns...)
	require.NoError(t, err)
	l.fingerprint = l.ordering.Fingerprint()

	definition := "id bigint PRIMARY KEY"
	for _, f := range fields() {
		definition += ", " + f.name + " " + f.sql
		if !f.nullable {
			definition += " NOT NULL"
		}
	}
	l.exec(t, "CREATE TABLE "+l.table+" ("+definition+")")
	if l.random.IntN(2) == 0 {
		l.exec(t, "CREATE INDEX ON "+l.table+" ("+l.ordering.OrderBy(keyset.Forward)+")")
	}
	l.insert(t, 100+l.random.IntN(60))
	return l
}

func (l *list) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := l.pool.Exec(t.Context(), sql, args...)
	require.NoError(t, err, sql)
}

func (l *list) insert(t *testing.T, n int) {
	t.Helper()
	var batch pgx.Batch
	for range n {
		l.nextID++
		r := row{id: l.nextID}
		args, marks := []any{r.id}, "$1"
		for i, f := range fields() {
			var c cell
			if !f.nullable || l.random.IntN(3) > 0 {
				c = f.draw(l.random)
			}
			r.cells = append(r.cells, c)
			args = append(args, c)
			marks += fmt.Sprintf(", $%d", i+2)
		}
		l.oracle.rows[r.id] = r
		batch.Queue("INSERT INTO "+l.table+" VALUES ("+marks+")", args...)
	}
	require.NoError(t, l.pool.SendBatch(t.Context(), &batch).Close())
}

// change inserts and deletes a few rows anywhere.
func (l *list) change(t *testing.T) {
	t.Helper()
	l.insert(t, l.random.IntN(4))
	all := l.oracle.sorted()
	var ids []int64
	for range min(l.random.IntN(4), len(all)) {
		r := all[l.random.IntN(len(all))]
		delete(l.oracle.rows, r.id)
		l.gone = append(l.gone, r)
		ids = append(ids, r.id)
	}
	l.exec(t, "DELETE FROM "+l.table+" WHERE id = ANY($1)", ids)
}

// read reads one page through the library, from a token, and compares it with the oracle's. It
// returns the page with its rows' keys.
func (l *list) read(t *testing.T, direction keyset.Direction, from place, n int) keyset.Page[row] {
	t.Helper()
	position, err := l.codec.Decode(l.codec.Encode(from.position(), l.fingerprint), l.fingerprint)
	require.NoError(t, err)
	rows := l.query(t, direction, position, n+1)
	page := keyset.Slice(rows, n, direction, position, func(r row) []keyset.Value { return place{key: l.oracle.key(r)}.position().Key })

	want, more := l.oracle.page(direction, from, n)
	require.Equal(t, want, idsOf(page.Rows), "%s: page of %d, direction %d, from %v", l.form, n, direction, from)
	require.Equal(t, more, page.More)
	return page
}

func (l *list) query(t *testing.T, direction keyset.Direction, from keyset.Position, limit int) []row {
	t.Helper()
	seek, err := l.ordering.Seek(direction, from, 2)
	require.NoError(t, err)
	head := "SELECT * FROM " + l.table
	run := func(sql string, limit int, args []any) []row {
		t.Helper()
		rows, err := l.pool.Query(t.Context(), sql, append([]any{limit}, args...)...)
		require.NoError(t, err)
		out, err := pgx.CollectRows(rows, scanRow)
		require.NoError(t, err, "%s %v", sql, args)
		return out
	}
	switch l.form {
	case "where":
		return run(head+" WHERE "+seek.Where+" ORDER BY "+seek.OrderBy+" LIMIT $1", limit, seek.Args)
	case "union":
		return run(seek.Union(head, "id > 0", "$1"), limit, seek.Args)
	}
	var out []row
	for _, branch := range seek.Branches {
		if left := limit - len(out); left > 0 {
			out = append(out, run(head+" WHERE "+branch.Where+" ORDER BY "+seek.OrderBy+" LIMIT $1", left, branch.Args)...)
		}
	}
	return out
}

func scanRow(from pgx.CollectableRow) (row, error) {
	values, err := from.Values()
	if err != nil {
		return row{}, err
	}
	r := row{id: values[0].(int64)}
	for _, v := range values[1:] {
		switch v := v.(type) {
		case int32:
			r.cells = append(r.cells, int64(v))
		case time.Time:
			r.cells = append(r.cells, v.UTC())
		default:
			r.cells = append(r.cells, v)
		}
	}
	return r, nil
}

func idsOf(rows []row) []int64 {
	var ids []int64
	for _, r := range rows {
		ids = append(ids, r.id)
	}
	return ids
}

// edge returns the place that a page's position must be at: beside its first or last row.
func (l *list) edge(t *testing.T, got keyset.Position, side keyset.Side, r row) place {
	t.Helper()
	p := place{side, l.oracle.key(r)}
	require.True(t, got.Equal(p.position()), "edge %v, want %v", got, p)
	return p
}

// walkWhileChanging reads the whole list in one direction while rows are inserted and deleted.
// Every row that exists throughout is seen exactly once, and none twice.
func (l *list) walkWhileChanging(t *testing.T, direction keyset.Direction) {
	t.Helper()
	throughout := map[int64]bool{}
	for id := range l.oracle.rows {
		throughout[id] = true
	}
	goneBefore := len(l.gone)
	seen := map[int64]int{}
	from := place{side: keyset.SideStart}
	if direction == keyset.Backward {
		from.side = keyset.SideEnd
	}
	for pages := 0; ; pages++ {
		page := l.read(t, direction, from, 1+l.random.IntN(12))
		for _, r := range page.Rows {
			seen[r.id]++
		}
		if !page.More {
			break
		}
		if direction == keyset.Forward {
			from = l.edge(t, page.Next, keyset.SideBelow, page.Rows[len(page.Rows)-1])
		} else {
			from = l.edge(t, page.Previous, keyset.SideAbove, page.Rows[0])
		}
		if pages < 60 { // so that the walk comes to an end
			l.change(t)
		}
	}
	for _, r := range l.gone[goneBefore:] {
		delete(throughout, r.id)
	}
	for id, times := range seen {
		require.Equal(t, 1, times, "row %d", id)
	}
	for id := range throughout {
		require.Equal(t, 1, seen[id], "row %d, which was there throughout", id)
	}
}

// walkBothWays reads the unchanging list to its end and back by the edges of its pages: the pages
// are the same, in reverse.
func (l *list) walkBothWays(t *testing.T) {
	t.Helper()
	n := 1 + l.random.IntN(12)
	var down, up []keyset.Page[row]
	from := place{side: keyset.SideStart}
	for more := true; more; {
		page := l.read(t, keyset.Forward, from, n)
		down = append(down, page)
		from = l.edge(t, page.Next, keyset.SideBelow, page.Rows[len(page.Rows)-1])
		more = page.More
	}
	// After the end there is an empty page, and the last row is the first one before it.
	empty := l.read(t, keyset.Forward, from, n)
	require.Empty(t, empty.Rows)
	require.True(t, empty.Previous.Equal(from.position()))
	last := l.read(t, keyset.Backward, from, 1)
	require.Equal(t, idsOf(last.Rows)[0], down[len(down)-1].Rows[len(down[len(down)-1].Rows)-1].id)

	for i := len(down) - 1; i >= 0; i-- {
		page := l.read(t, keyset.Backward, from, len(down[i].Rows))
		require.Equal(t, idsOf(down[i].Rows), idsOf(page.Rows))
		require.Equal(t, i > 0, page.More)
		up = append(up, page)
		from = l.edge(t, page.Previous, keyset.SideAbove, page.Rows[0])
	}
	require.Len(t, up, len(down))
}

// wander reads pages from arbitrary places: beside rows that exist, were deleted or never existed,
// and at the ends.
func (l *list) wander(t *testing.T) {
	t.Helper()
	for range 30 {
		l.change(t)
		from := place{side: keyset.Side(l.random.IntN(5))}
		if from.side >= keyset.SideAbove {
			from.key = l.anyKey()
		}
		l.read(t, keyset.Direction(l.random.IntN(2)), from, l.random.IntN(10))
	}
}

func (l *list) anyKey() []cell {
	switch l.random.IntN(3) {
	case 0:
		if len(l.gone) > 0 {
			return l.oracle.key(l.gone[l.random.IntN(len(l.gone))])
		}
	case 1:
		var made row
		made.id = l.random.Int64N(l.nextID + 2)
		for _, f := range fields() {
			made.cells = append(made.cells, f.draw(l.random))
		}
		return l.oracle.key(made)
	}
	all := l.oracle.sorted()
	return l.oracle.key(all[l.random.IntN(len(all))])
}

// empty deletes all rows: the ends still have edges, and later rows are found from them.
func (l *list) empty(t *testing.T) {
	t.Helper()
	key := l.anyKey()
	l.exec(t, "DELETE FROM "+l.table)
	clear(l.oracle.rows)
	for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
		for side := keyset.SideStart; side <= keyset.SideAt; side++ {
			from := place{side: side}
			if side >= keyset.SideAbove {
				from.key = key
			}
			page := l.read(t, direction, from, 3)
			require.Empty(t, page.Rows)
		}
	}
	start := l.read(t, keyset.Forward, place{side: keyset.SideStart}, 3)
	l.insert(t, 2)
	require.True(t, start.Next.Equal(keyset.Start()))
	require.Len(t, l.read(t, keyset.Forward, place{side: keyset.SideStart}, 3).Rows, 2)
}
