package keyset_test

import (
	"encoding/hex"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/keyset"
)

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// column is a short way to write a column: "a", "a desc", with the place of NULLs.
func column(name string, nulls keyset.Nulls, direction keyset.Sort) keyset.Column {
	return keyset.Column{Name: name, Nulls: nulls, Sort: direction, Type: keyset.TypeInt64}
}

func TestSeek(t *testing.T) {
	t.Parallel()
	const asc, desc = keyset.Asc, keyset.Desc
	const never, first, last = keyset.NotNull, keyset.NullsFirst, keyset.NullsLast
	one, two, three, null := keyset.Int64(1), keyset.Int64(2), keyset.Int64(3), keyset.Null()
	a, b := column("a", never, asc), column("b", never, asc)
	aDesc, bDesc := column("a", never, desc), column("b", never, desc)
	c := column("c", never, asc)

	for name, test := range map[string]struct {
		columns   []keyset.Column
		direction keyset.Direction
		from      keyset.Position
		where     string
		branches  []string
		args      int
	}{
		"start":           {[]keyset.Column{a}, keyset.Forward, keyset.Start(), "TRUE", []string{"TRUE"}, 0},
		"start, backward": {[]keyset.Column{a}, keyset.Backward, keyset.Start(), "FALSE", nil, 0},
		"end":             {[]keyset.Column{a}, keyset.Forward, keyset.End(), "FALSE", nil, 0},
		"end, backward":   {[]keyset.Column{a}, keyset.Backward, keyset.End(), "TRUE", []string{"TRUE"}, 0},

		"one column, below":            {[]keyset.Column{a}, keyset.Forward, keyset.Below(one), "a > $5", []string{"a > $5"}, 1},
		"one column, above":            {[]keyset.Column{a}, keyset.Forward, keyset.Above(one), "a >= $5", []string{"a >= $5"}, 1},
		"one column, at":               {[]keyset.Column{a}, keyset.Forward, keyset.At(one), "a > $5", []string{"a > $5"}, 1},
		"one column, below, backward":  {[]keyset.Column{a}, keyset.Backward, keyset.Below(one), "a <= $5", []string{"a <= $5"}, 1},
		"one column, above, backward":  {[]keyset.Column{a}, keyset.Backward, keyset.Above(one), "a < $5", []string{"a < $5"}, 1},
		"one column, at, backward":     {[]keyset.Column{a}, keyset.Backward, keyset.At(one), "a < $5", []string{"a < $5"}, 1},
		"one falling column, below":    {[]keyset.Column{aDesc}, keyset.Forward, keyset.Below(one), "a < $5", []string{"a < $5"}, 1},
		"one falling column, backward": {[]keyset.Column{aDesc}, keyset.Backward, keyset.Below(one), "a >= $5", []string{"a >= $5"}, 1},

		"a row": {[]keyset.Column{a, b, c}, keyset.Forward, keyset.Below(one, two, three),
			"(a, b, c) > ($5, $6, $7)", []string{"(a, b, c) > ($5, $6, $7)"}, 3},
		"a falling row, including": {[]keyset.Column{aDesc, bDesc}, keyset.Forward, keyset.Above(one, two),
			"(a, b) <= ($5, $6)", []string{"(a, b) <= ($5, $6)"}, 2},

		"mixed": {[]keyset.Column{aDesc, b}, keyset.Forward, keyset.Below(one, two),
			"a <= $5 AND (a = $5 AND b > $6 OR a < $5)", []string{"a = $5 AND b > $6", "a < $5"}, 2},
		"mixed, including": {[]keyset.Column{aDesc, b}, keyset.Forward, keyset.Above(one, two),
			"a <= $5 AND (a = $5 AND b >= $6 OR a < $5)", []string{"a = $5 AND b >= $6", "a < $5"}, 2},
		"mixed, backward": {[]keyset.Column{aDesc, b}, keyset.Backward, keyset.Above(one, two),
			"a >= $5 AND (a = $5 AND b < $6 OR a > $5)", []string{"a = $5 AND b < $6", "a > $5"}, 2},
		"mixed, a run first": {[]keyset.Column{a, b, column("c", never, desc)}, keyset.Forward, keyset.Below(one, two, three),
			"(a, b) >= ($5, $6) AND (a = $5 AND b = $6 AND c < $7 OR (a, b) > ($5, $6))",
			[]string{"a = $5 AND b = $6 AND c < $7", "(a, b) > ($5, $6)"}, 3},
		"mixed, a run last": {[]keyset.Column{aDesc, b, c}, keyset.Forward, keyset.Below(one, two, three),
			"a <= $5 AND (a = $5 AND (b, c) > ($6, $7) OR a < $5)",
			[]string{"a = $5 AND (b, c) > ($6, $7)", "a < $5"}, 3},

		"nulls last, value": {[]keyset.Column{column("a", last, asc), b}, keyset.Forward, keyset.Below(one, two),
			"(a = $5 AND b > $6 OR a > $5 OR a IS NULL)",
			[]string{"a = $5 AND b > $6", "a > $5", "a IS NULL"}, 2},
		"nulls last, null": {[]keyset.Column{column("a", last, asc), b}, keyset.Forward, keyset.Below(null, two),
			"a IS NULL AND b > $5", []string{"a IS NULL AND b > $5"}, 1},
		"nulls last, value, backward": {[]keyset.Column{column("a", last, asc), b}, keyset.Backward, keyset.Above(one, two),
			"a <= $5 AND (a = $5 AND b < $6 OR a < $5)", []string{"a = $5 AND b < $6", "a < $5"}, 2},
		"nulls last, null, backward": {[]keyset.Column{column("a", last, asc), b}, keyset.Backward, keyset.Above(null, two),
			"(a IS NULL AND b < $5 OR a IS NOT NULL)", []string{"a IS NULL AND b < $5", "a IS NOT NULL"}, 1},
		"nulls first, value": {[]keyset.Column{column("a", first, asc), b}, keyset.Forward, keyset.Below(one, two),
			"a >= $5 AND (a = $5 AND b > $6 OR a > $5)", []string{"a = $5 AND b > $6", "a > $5"}, 2},
		"nulls at the end, last, below": {[]keyset.Column{a, column("b", last, asc)}, keyset.Forward, keyset.Below(one, null),
			"a > $5", []string{"a > $5"}, 1},
		"nulls at the end, last, above": {[]keyset.Column{a, column("b", last, asc)}, keyset.Forward, keyset.Above(one, null),
			"a >= $5 AND (a = $5 AND b IS NULL OR a > $5)", []string{"a = $5 AND b IS NULL", "a > $5"}, 1},
		"nulls at the end, first, above": {[]keyset.Column{a, column("b", first, asc)}, keyset.Forward, keyset.Above(one, null),
			"a >= $5 AND (a = $5 OR a > $5)", []string{"a = $5", "a > $5"}, 1},
		"only null, nothing follows": {[]keyset.Column{column("a", last, asc)}, keyset.Forward, keyset.Below(null), "FALSE", nil, 0},
		"only null, all follow":      {[]keyset.Column{column("a", first, asc)}, keyset.Forward, keyset.Above(null), "TRUE", []string{"TRUE"}, 0},
		"two nullable": {[]keyset.Column{column("a", last, asc), column("b", last, desc)}, keyset.Forward, keyset.Below(null, two),
			"a IS NULL AND (a IS NULL AND b < $5 OR a IS NULL AND b IS NULL)",
			[]string{"a IS NULL AND b < $5", "a IS NULL AND b IS NULL"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := keyset.MustOrdering(test.columns...)
			s, err := o.Seek(test.direction, test.from, 5)
			require.NoError(t, err)
			require.Equal(t, test.where, s.Where)
			var branches []string
			for _, branch := range s.Branches {
				branches = append(branches, branch.Where)
				// Each can be run alone: it uses all of its values and no others.
				for i := range s.Args {
					named := strings.Contains(branch.Where, "$"+strconv.Itoa(5+i))
					require.Equal(t, i < len(branch.Args), named, "%s %v", branch.Where, branch.Args)
				}
			}
			require.Equal(t, test.branches, branches)
			require.Len(t, s.Args, test.args)
			require.Equal(t, 5+test.args, s.NextArg)
			require.Equal(t, o.OrderBy(test.direction), s.OrderBy)
		})
	}
}

func TestSeekRefuses(t *testing.T) {
	t.Parallel()
	o := keyset.MustOrdering(column("a", keyset.NullsLast, keyset.Asc), column("b", keyset.NotNull, keyset.Asc))
	for name, test := range map[string]struct {
		from keyset.Position
		want string
	}{
		"too few values":    {keyset.At(keyset.Int64(1)), "1 key values, the ordering 2 columns"},
		"too many values":   {keyset.At(keyset.Int64(1), keyset.Int64(1), keyset.Int64(1)), "3 key values"},
		"another type":      {keyset.At(keyset.Int64(1), keyset.Text("1")), `type 2 in column "b" of type 1`},
		"NULL without":      {keyset.At(keyset.Null(), keyset.Null()), `NULL in column "b"`},
		"values at the end": {keyset.Position{Side: keyset.SideEnd, Key: []keyset.Value{keyset.Int64(1)}}, "has 1 key values"},
		"unknown side":      {keyset.Position{Side: 9}, "unknown side 9"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
				_, err := o.Seek(direction, test.from, 1)
				require.ErrorContains(t, err, test.want)
			}
		})
	}
}

func TestUnion(t *testing.T) {
	t.Parallel()
	o := keyset.MustOrdering(
		keyset.Column{Name: "posts", Expr: "t.posts", Sort: keyset.Desc, Type: keyset.TypeInt64},
		keyset.Column{Name: "name", Expr: "t.name", Type: keyset.TypeText})
	const query = "SELECT t.posts, t.name FROM tags t"

	s, err := o.Seek(keyset.Forward, keyset.Below(keyset.Int64(4), keyset.Text("x")), 2)
	require.NoError(t, err)
	require.Equal(t, "SELECT * FROM ("+
		"(SELECT t.posts, t.name FROM tags t WHERE (NOT t.hidden) AND t.posts = $2 AND t.name > $3 ORDER BY t.posts DESC, t.name ASC LIMIT $1)"+
		" UNION ALL "+
		"(SELECT t.posts, t.name FROM tags t WHERE (NOT t.hidden) AND t.posts < $2 ORDER BY t.posts DESC, t.name ASC LIMIT $1)"+
		") AS page ORDER BY posts DESC, name ASC LIMIT $1", s.Union(query, "NOT t.hidden", "$1"))

	s, err = o.Seek(keyset.Backward, keyset.End(), 2)
	require.NoError(t, err)
	require.Equal(t, query+" WHERE TRUE ORDER BY t.posts ASC, t.name DESC LIMIT 5", s.Union(query, "", "5"))

	s, err = o.Seek(keyset.Forward, keyset.End(), 2)
	require.NoError(t, err)
	require.Equal(t, query+" WHERE FALSE ORDER BY t.posts DESC, t.name ASC LIMIT 5", s.Union(query, "", "5"))
}

func BenchmarkSeek(b *testing.B) {
	posts := keyset.MustOrdering(keyset.Column{Name: "key", Sort: keyset.Desc, Type: keyset.TypeUUID})
	tags := keyset.MustOrdering(column("posts", keyset.NotNull, keyset.Desc), column("name", keyset.NotNull, keyset.Asc))
	for name, test := range map[string]struct {
		ordering *keyset.Ordering
		from     keyset.Position
	}{
		"one":   {posts, keyset.Below(keyset.UUID([16]byte{1}))},
		"mixed": {tags, keyset.Below(keyset.Int64(1), keyset.Int64(2))},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := test.ordering.Seek(keyset.Forward, test.from, 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
