package keyset_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
)

// planTable has 40,000 rows, of which 10,000 tie in posts = 7 and 16,000 have no due.
const planTable = `
CREATE TABLE tags (posts integer NOT NULL, name text COLLATE "C" NOT NULL, key uuid NOT NULL,
	due bigint, hidden boolean NOT NULL);
INSERT INTO tags
SELECT CASE WHEN i % 4 = 0 THEN 7 ELSE i % 1000 END, 'tag-' || lpad(i::text, 6, '0'), md5(i::text)::uuid,
	CASE WHEN i % 5 < 4 AND i % 4 <> 2 THEN i % 50 END, i % 3 = 0
FROM generate_series(1, 40000) AS i;
CREATE INDEX ON tags (key);
CREATE INDEX ON tags (posts, name);
CREATE INDEX ON tags (posts DESC, name);
CREATE INDEX ON tags ((-posts), name) INCLUDE (posts);
CREATE INDEX ON tags (due, name);
CREATE INDEX ON tags (due DESC NULLS LAST, name);
CREATE INDEX ON tags (hidden, posts DESC, due, name);
VACUUM ANALYZE tags;`

// The promises of the package documentation, tested inside a long tie of each ordering: plan shape,
// rows and blocks read. They hold for plans made for the values and for generic plans.
func TestPlans(t *testing.T) {
	t.Parallel()
	pool := pgtest.Database(t).Pool(t)
	for _, sql := range strings.Split(planTable, ";\n") {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}

	key := keyset.Column{Name: "key", Type: keyset.TypeUUID}
	keyDesc := keyset.Column{Name: "key", Type: keyset.TypeUUID, Sort: keyset.Desc}
	posts := keyset.Column{Name: "posts", Type: keyset.TypeInt64}
	postsDesc := keyset.Column{Name: "posts", Type: keyset.TypeInt64, Sort: keyset.Desc}
	rank := keyset.Column{Name: "rank", Expr: "(-posts)", Type: keyset.TypeInt64}
	name := keyset.Column{Name: "name", Type: keyset.TypeText}
	due := keyset.Column{Name: "due", Type: keyset.TypeInt64, Nulls: keyset.NullsLast}
	dueDesc := keyset.Column{Name: "due", Type: keyset.TypeInt64, Nulls: keyset.NullsLast, Sort: keyset.Desc}
	hidden := keyset.Column{Name: "hidden", Type: keyset.TypeBool}
	middle := keyset.Text("tag-020000") // in the middle of each tie

	for caseName, test := range map[string]struct {
		columns []keyset.Column
		key     []keyset.Value
		row     bool // Where is one range
	}{
		"one key":               {[]keyset.Column{key}, []keyset.Value{keyset.UUID([16]byte{0x80})}, true},
		"one falling key":       {[]keyset.Column{keyDesc}, []keyset.Value{keyset.UUID([16]byte{0x80})}, true},
		"row":                   {[]keyset.Column{posts, name}, []keyset.Value{keyset.Int64(7), middle}, true},
		"negated count":         {[]keyset.Column{rank, name}, []keyset.Value{keyset.Int64(-7), middle}, true},
		"mixed":                 {[]keyset.Column{postsDesc, name}, []keyset.Value{keyset.Int64(7), middle}, false},
		"nulls last":            {[]keyset.Column{due, name}, []keyset.Value{keyset.Int64(30), middle}, false},
		"nulls last, at null":   {[]keyset.Column{due, name}, []keyset.Value{keyset.Null(), middle}, false},
		"falling, nulls last":   {[]keyset.Column{dueDesc, name}, []keyset.Value{keyset.Int64(30), middle}, false},
		"falling, at null":      {[]keyset.Column{dueDesc, name}, []keyset.Value{keyset.Null(), middle}, false},
		"four columns":          {[]keyset.Column{hidden, postsDesc, due, name}, []keyset.Value{keyset.Bool(false), keyset.Int64(7), keyset.Int64(0), middle}, false},
		"four columns, at null": {[]keyset.Column{hidden, postsDesc, due, name}, []keyset.Value{keyset.Bool(false), keyset.Int64(7), keyset.Null(), middle}, false},
	} {
		t.Run(caseName, func(t *testing.T) {
			t.Parallel()
			conn, err := pool.Acquire(t.Context())
			require.NoError(t, err)
			defer conn.Release()
			ordering := keyset.MustOrdering(test.columns...)
			var list []string
			for _, c := range ordering.Columns() {
				list = append(list, c.Expr+" AS "+c.Name)
			}
			head := "SELECT " + strings.Join(list, ", ") + " FROM tags"
			const limit = 51

			for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
				_, err := conn.Exec(t.Context(), "SET plan_cache_mode = "+mode)
				require.NoError(t, err)
				for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
					for _, from := range []keyset.Position{keyset.Above(test.key...), keyset.Below(test.key...), keyset.Start(), keyset.End()} {
						seek, err := ordering.Seek(direction, from, 1)
						require.NoError(t, err)
						label := fmt.Sprintf("%s, direction %d, side %d", mode, direction, from.Side)
						tail := fmt.Sprintf(" ORDER BY %s LIMIT %d", seek.OrderBy, limit)

						// One range each: no sort, and only returned rows are read.
						total := 0
						for _, branch := range seek.Branches {
							p := explain(t, conn.Conn(), head+" WHERE "+branch.Where+tail, branch.Args)
							p.requireSeek(t, label+" "+branch.Where)
							total += p.returned
						}
						p := explain(t, conn.Conn(), head+" WHERE "+seek.Where+tail, seek.Args)
						if test.row && len(seek.Branches) > 0 {
							require.Len(t, seek.Branches, 1)
							p.requireSeek(t, label+" "+seek.Where)
						}
						require.Equal(t, min(limit, total), p.returned, "both forms select the same")
						if caseName == "mixed" && from.Side == keyset.SideBelow {
							// Why branches: OR returns the same rows in the same order, but at a
							// much higher price.
							require.Equal(t, []string{"Limit", "Index Only Scan"}, p.nodes, p.text)
							require.Greater(t, p.filtered, 1000, p.text)
						}

						p = explain(t, conn.Conn(), seek.Union(head, "", fmt.Sprint(limit)), seek.Args)
						require.Equal(t, min(limit, total), p.returned, label)
						most := limit + max(0, len(seek.Branches)-1)
						if len(test.columns) > 2 {
							most = limit * len(seek.Branches)
						}
						require.LessOrEqual(t, p.read, most, "%s: rows read by the union\n%s", label, p.text)
						require.LessOrEqual(t, p.sorted, limit, "%s: rows sorted by the union\n%s", label, p.text)
						require.NotContains(t, p.nodes, "Seq Scan", p.text)
					}
				}
			}
		})
	}
}

// plan is the result of EXPLAIN ANALYZE.
type plan struct {
	text     string
	nodes    []string
	returned int // rows by the query
	read     int // rows by all scans, with those that a filter dropped
	filtered int // rows that a filter dropped
	sorted   int // rows given to the largest sort
	blocks   int // of 8 KiB, by the whole plan
}

// requireSeek checks that the plan seeks one place in an index and reads from there only what it
// returns. Few blocks are read even in a long tie, which shows that the index does not search it
// entry by entry.
func (p plan) requireSeek(t *testing.T, label string) {
	t.Helper()
	for _, node := range p.nodes {
		require.Contains(t, []string{"Limit", "Index Only Scan", "Result"}, node, "%s\n%s", label, p.text)
	}
	require.Equal(t, p.returned, p.read, "%s\n%s", label, p.text)
	require.Zero(t, p.filtered, "%s\n%s", label, p.text)
	require.LessOrEqual(t, p.blocks, 12, "%s\n%s", label, p.text)
}

// explain runs a query as a prepared statement, so that the session's plan_cache_mode decides how
// it is planned.
func explain(t *testing.T, conn *pgx.Conn, sql string, args []any) plan {
	t.Helper()
	ctx := t.Context()
	_, err := conn.Exec(ctx, "PREPARE page AS "+sql)
	require.NoError(t, err, sql)
	defer func() {
		_, err := conn.Exec(ctx, "DEALLOCATE page")
		require.NoError(t, err)
	}()
	execute := "EXECUTE page"
	if len(args) > 0 {
		var literals []string
		for _, a := range args {
			if id, ok := a.([16]byte); ok {
				a = fmt.Sprintf("%x", id)
			}
			literals = append(literals, fmt.Sprintf("'%v'", a))
		}
		execute += "(" + strings.Join(literals, ", ") + ")"
	}
	var text []byte
	require.NoError(t, conn.QueryRow(ctx, "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) "+execute).Scan(&text), sql)

	var out []struct{ Plan planNode }
	require.NoError(t, json.Unmarshal(text, &out))
	root := out[0].Plan
	p := plan{returned: int(root.Rows), blocks: root.Hit + root.Read}
	root.visit(&p)
	p.text = fmt.Sprintf("%s\n%s\n%v: %d rows returned, %d read, %d filtered, %d sorted, %d blocks",
		sql, execute, p.nodes, p.returned, p.read, p.filtered, p.sorted, p.blocks)
	return p
}

type planNode struct {
	Type     string     `json:"Node Type"`
	Rows     float64    `json:"Actual Rows"`
	Loops    float64    `json:"Actual Loops"`
	Filtered float64    `json:"Rows Removed by Filter"`
	Hit      int        `json:"Shared Hit Blocks"`
	Read     int        `json:"Shared Read Blocks"`
	Plans    []planNode `json:"Plans"`
}

func (n planNode) visit(p *plan) {
	p.nodes = append(p.nodes, n.Type)
	if strings.HasSuffix(n.Type, "Scan") && n.Type != "Subquery Scan" {
		p.read += int((n.Rows + n.Filtered) * n.Loops)
	}
	if strings.HasSuffix(n.Type, "Sort") {
		for _, below := range n.Plans {
			p.sorted = max(p.sorted, int(below.Rows*below.Loops))
		}
	}
	p.filtered += int(n.Filtered * n.Loops)
	for _, below := range n.Plans {
		below.visit(p)
	}
}
