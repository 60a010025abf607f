package query_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// putTags writes rows of tags without the writer, and the total that the writer would keep.
func putTags(t testing.TB, o store.Options, tags []query.TagCount) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), o.URL)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	_, err = conn.CopyFrom(t.Context(), pgx.Identifier{store.Live, "tags"}, []string{"name", "posts"},
		pgx.CopyFromSlice(len(tags), func(i int) ([]any, error) { return []any{tags[i].Name, tags[i].Posts}, nil }))
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "UPDATE tagstream.checkpoint SET tags = (SELECT count(*) FROM tagstream.tags WHERE posts > 0)")
	require.NoError(t, err)
}

// inOrder returns the tags in use in the order of the list of tags.
func inOrder(tags []query.TagCount) []query.TagCount {
	out := slices.DeleteFunc(slices.Clone(tags), func(t query.TagCount) bool { return t.Posts == 0 })
	slices.SortFunc(out, func(a, b query.TagCount) int {
		return cmp.Or(cmp.Compare(b.Posts, a.Posts), strings.Compare(a.Name, b.Name))
	})
	return out
}

func newRand(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// letters have one to four bytes. Some are at the ends of the UTF-8 range of their length, some
// have a meaning in LIKE.
var letters = []string{"a", "b", "%", "_", `\`, "'", " ", "z", "\u007f", "\u0080", "ß", "é", "\u07ff", "\u0800", "日", "\ud7ff", "\ue000", "\uffff", "𐀀", "🎨", "\U0010ffff"}

// randomTags returns tags with many ties, unused tags, and names with common prefixes.
func randomTags(r *rand.Rand, n int) []query.TagCount {
	byName := map[string]int64{}
	for len(byName) < n {
		var name strings.Builder
		for range 1 + r.IntN(5) {
			name.WriteString(letters[r.IntN(len(letters))])
		}
		byName[name.String()] = int64(max(0, r.IntN(8)-1)) * int64(1+r.IntN(2)*r.IntN(50))
	}
	var out []query.TagCount
	for name, posts := range byName {
		out = append(out, query.TagCount{Name: name, Posts: posts})
	}
	slices.SortFunc(out, func(a, b query.TagCount) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// A walk to the end and back sees every tag once in each direction, whatever the page size, and
// HasNext and HasPrevious are right on every page.
func TestTagsWalk(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	tags := randomTags(newRand(t), 1500)
	putTags(t, o, tags)
	want := inOrder(tags)
	r := storetest.Reader(t, o)
	for _, limit := range []int{1, 7, 100} {
		want := want[:min(len(want), limit*60)]
		if limit == 1 {
			want = want[:60]
		}
		t.Run(fmt.Sprint("limit ", limit), func(t *testing.T) {
			t.Parallel()
			whole := len(want) == len(inOrder(tags))
			q := query.TagQuery{From: keyset.Start(), Limit: limit}
			var page query.TagPage
			for at := 0; at < len(want); at += limit {
				var err error
				page, err = r.Tags(t.Context(), q)
				require.NoError(t, err)
				require.Equal(t, want[at:min(at+limit, len(want))], page.Rows)
				require.Equal(t, at > 0, page.HasPrevious)
				require.Equal(t, !whole || at+limit < len(want), page.HasNext)
				q.From = page.Next
			}
			q = query.TagQuery{From: page.Next, Direction: keyset.Backward, Limit: limit}
			for at := len(want); at > 0; at -= limit {
				var err error
				page, err = r.Tags(t.Context(), q)
				require.NoError(t, err)
				require.Equal(t, want[max(0, at-limit):at], page.Rows)
				require.Equal(t, at > limit, page.HasPrevious)
				require.Equal(t, !whole || at < len(want), page.HasNext)
				q.From = page.Previous
			}
		})
	}
}

// From every position, of an existing tag or not, a page is what a sorted list in memory gives.
func TestTagsFromAnywhere(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	rnd := newRand(t)
	tags := randomTags(rnd, 200)
	putTags(t, o, tags)
	list := inOrder(tags)
	r := storetest.Reader(t, o)
	for range 300 {
		key := list[rnd.IntN(len(list))]
		switch rnd.IntN(3) {
		case 0:
			key.Posts += int64(rnd.IntN(3) - 1)
		case 1:
			key.Name += letters[rnd.IntN(len(letters))]
		}
		values := query.TagKey(key)
		begin, found := slices.BinarySearchFunc(list, key, func(a, b query.TagCount) int {
			return cmp.Or(cmp.Compare(b.Posts, a.Posts), strings.Compare(a.Name, b.Name))
		})
		end := begin
		if found {
			end++
		}
		limit := 1 + rnd.IntN(9)
		for _, c := range []struct {
			from keyset.Position
			down int // where reading forward begins
			up   int // where reading backward ends
		}{
			{keyset.Above(values...), begin, begin}, {keyset.Below(values...), end, end}, {keyset.At(values...), end, begin},
			{keyset.Start(), 0, 0}, {keyset.End(), len(list), len(list)},
		} {
			for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
				page, err := r.Tags(t.Context(), query.TagQuery{From: c.from, Direction: direction, Limit: limit})
				require.NoError(t, err)
				first, last := c.down, min(c.down+limit, len(list))
				if direction == keyset.Backward {
					first, last = max(c.up-limit, 0), c.up
				}
				label := fmt.Sprintf("%v of %q (%d posts), direction %d, limit %d", c.from.Side, key.Name, key.Posts, direction, limit)
				require.Equal(t, append([]query.TagCount{}, list[first:last]...), append([]query.TagCount{}, page.Rows...), label)
				require.Equal(t, last < len(list), page.HasNext, label)
				require.Equal(t, first > 0, page.HasPrevious, label)

				// From the edges the list continues on both sides.
				below, err := r.Tags(t.Context(), query.TagQuery{From: page.Next, Limit: 2})
				require.NoError(t, err)
				require.Equal(t, append([]query.TagCount{}, list[last:min(last+2, len(list))]...), append([]query.TagCount{}, below.Rows...), label)
				above, err := r.Tags(t.Context(), query.TagQuery{From: page.Previous, Direction: keyset.Backward, Limit: 2})
				require.NoError(t, err)
				require.Equal(t, append([]query.TagCount{}, list[max(0, first-2):first]...), append([]query.TagCount{}, above.Rows...), label)
			}
		}
	}
}

// From the edges of an empty list a client finds tags that appear later.
func TestTagsOfAnEmptyList(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	r := storetest.Reader(t, o)
	var edges []keyset.Position
	for _, q := range []query.TagQuery{
		{From: keyset.Start(), Limit: 5}, {From: keyset.End(), Direction: keyset.Backward, Limit: 5}, {From: keyset.Below(query.TagKey(query.TagCount{Name: "x", Posts: 3})...), Limit: 5},
	} {
		page, err := r.Tags(t.Context(), q)
		require.NoError(t, err)
		require.Empty(t, page.Rows)
		require.False(t, page.HasNext || page.HasPrevious)
		edges = append(edges, page.Next, page.Previous)
	}
	only := []query.TagCount{{Name: "art", Posts: 2}}
	putTags(t, o, only)
	for i, direction := range []keyset.Direction{keyset.Forward, keyset.Backward, keyset.Forward, keyset.Backward} {
		page, err := r.Tags(t.Context(), query.TagQuery{From: edges[i], Direction: direction, Limit: 5})
		require.NoError(t, err)
		require.Equal(t, only, page.Rows)
	}
	_, err := r.Tags(t.Context(), query.TagQuery{Limit: 0})
	require.Error(t, err)
	_, err = r.Tags(t.Context(), query.TagQuery{Limit: query.MaxLimit + 1})
	require.Error(t, err)
}

// A walk in either direction sees a tag whose count stays the same exactly once, while other counts
// rise and fall, tags appear, and others are no longer used.
func TestTagsWhileCountsMove(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	rnd := newRand(t)
	tags := randomTags(rnd, 600)
	putTags(t, o, tags)
	var stay []query.TagCount
	var move []string
	for i, tag := range tags {
		if i%3 == 0 {
			stay = append(stay, tag)
		} else {
			move = append(move, tag.Name)
		}
	}
	stay = inOrder(stay)
	pool := pgtest.Pool(t, o.URL)
	r := storetest.Reader(t, o)
	stir := func(n int) {
		for i := range n {
			_, err := pool.Exec(t.Context(), "UPDATE tagstream.tags SET posts = $2 WHERE name = ANY($1)",
				[]string{move[rnd.IntN(len(move))], move[rnd.IntN(len(move))]}, rnd.IntN(8)*(1+rnd.IntN(2)*rnd.IntN(50)))
			require.NoError(t, err)
			_, err = pool.Exec(t.Context(), "INSERT INTO tagstream.tags (name, posts) VALUES ($1, $2) ON CONFLICT DO NOTHING",
				fmt.Sprint("new", rnd.IntN(1000), i), rnd.IntN(8))
			require.NoError(t, err)
		}
	}
	for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
		q := query.TagQuery{From: keyset.Start(), Direction: direction, Limit: 1 + rnd.IntN(20)}
		if direction == keyset.Backward {
			q.From = keyset.End()
		}
		var seen []query.TagCount
		for more := true; more; {
			stir(5)
			page, err := r.Tags(t.Context(), q)
			require.NoError(t, err)
			rows := slices.DeleteFunc(page.Rows, func(row query.TagCount) bool { return !slices.Contains(stay, row) })
			if q.From, more = page.Next, page.HasNext; direction == keyset.Backward {
				q.From, more = page.Previous, page.HasPrevious
				seen = append(rows, seen...)
			} else {
				seen = append(seen, rows...)
			}
		}
		require.Equal(t, stay, seen, "direction %d", direction)
	}
}

// tiedTags returns 3,000 most used tags with distinct counts, 10,000 with the same count, 3,000
// with fewer posts, and 1,000 unused ones.
func tiedTags() []query.TagCount {
	var tags []query.TagCount
	for i := range 3000 {
		tags = append(tags, query.TagCount{Name: fmt.Sprintf("hot%05d", i), Posts: int64(10_000 + i)})
		tags = append(tags, query.TagCount{Name: fmt.Sprintf("rare%05d", i), Posts: int64(1 + i%6)})
	}
	for i := range 10_000 {
		tags = append(tags, query.TagCount{Name: fmt.Sprintf("tied%05d", i), Posts: 7})
	}
	for i := range 1000 {
		tags = append(tags, query.TagCount{Name: fmt.Sprintf("gone%05d", i)})
	}
	return tags
}

// reads is what a plan's statement read.
type reads struct {
	types    []string
	byTable  map[string]float64 // rows, including those that a filter dropped
	filtered float64
	heap     float64
	blocks   int
}

// planOf explains a statement with the reader's settings.
func planOf(t *testing.T, r *query.Reader, sql string, args ...any) reads {
	t.Helper()
	out, err := r.Explain(t.Context(), query.Statement{SQL: sql, Args: args})
	require.NoError(t, err)
	var plans []struct{ Plan node }
	require.NoError(t, json.Unmarshal(out, &plans))
	var blocks []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
	}
	require.NoError(t, json.Unmarshal(out, &blocks))
	if testing.Verbose() {
		t.Log(string(out))
	}
	got := reads{byTable: map[string]float64{}, blocks: blocks[0].Plan.Hit + blocks[0].Plan.Read}
	plans[0].Plan.each(func(n node) {
		got.types = append(got.types, n.Type)
		got.byTable[n.Relation] += (n.Rows + n.Filtered) * n.Loops
		got.heap += n.HeapFetch
		got.filtered += n.Filtered * n.Loops
	})
	return got
}

// vacuumTags makes every page of tags all-visible; see vacuum.
func vacuumTags(t *testing.T, o store.Options) {
	t.Helper()
	pool := pgtest.Pool(t, o.URL)
	poll.Until(t, 30*time.Second, func() (bool, string) {
		vacuum(t, o)
		var pages, visible int
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT relpages, relallvisible FROM pg_class WHERE oid = 'tagstream.tags'::regclass").Scan(&pages, &visible))
		return visible == pages, fmt.Sprintf("%d of %d pages of tags are all-visible", visible, pages)
	})
}

// A page within a tie of 10,000 reads its rows and one on either side, to know whether there are
// more, from the index alone and without a sort.
//
// Invariant: a page of tags reads its rows and one on either side, inside any tie, and a walk sees
// a tag whose count stays the same exactly once. See also TestTagsWhileCountsMove.
func TestTagsPlan(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	tags := tiedTags()
	putTags(t, o, tags)
	vacuumTags(t, o)
	r := storetest.Reader(t, o)
	list := inOrder(tags)
	const limit = 50
	for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
		for _, at := range []int{0, 49, 2999, 3000, 8000, 12_990, 13_000, 15_999} {
			for _, from := range []keyset.Position{keyset.Above(query.TagKey(list[at])...), keyset.Below(query.TagKey(list[at])...), keyset.Start(), keyset.End()} {
				sql, args, err := query.TagsFrom(query.TagQuery{From: from, Direction: direction, Limit: limit})
				require.NoError(t, err)
				got := planOf(t, r, sql, args...)
				label := fmt.Sprintf("direction %d from %d, side %d", direction, at, from.Side)
				for _, kind := range got.types {
					require.Contains(t, []string{"Append", "Limit", "Subquery Scan", "Index Only Scan"}, kind, label)
				}
				// The page, one row after it, and one before it.
				require.LessOrEqual(t, got.byTable["tags"], float64(limit+1+1), label)
				require.Zero(t, got.filtered, label)
				require.Zero(t, got.heap, label)
				require.LessOrEqual(t, got.blocks, 16, label)
			}
		}
	}
}

// Completing a tag reads a bounded number of tags, however many there are.
func TestTagsWithPrefixPlan(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	putTags(t, o, tiedTags())
	vacuumTags(t, o)
	r := storetest.Reader(t, o)
	for prefix, most := range map[string]float64{
		"hot":     query.MaxCompletions,        // the most used tags
		"hot0000": query.CompletionScan + 10,   // 10 of the most used
		"tied":    query.CompletionScan,        // used less than the hot ones
		"rare":    query.CompletionScan * 2,    // 3,000, none among the most used
		"gone":    query.CompletionScan + 1000, // not in use
		"nothing": query.CompletionScan,        // no such tags
		"t":       query.CompletionScan,
		"%":       query.CompletionScan,
		"r":       query.CompletionScan * 2,
	} {
		got := planOf(t, r, query.CompletionQuery, prefix, query.PrefixEnd(prefix), query.MaxCompletions, query.CompletionScan)
		require.LessOrEqual(t, got.byTable["tags"], most, prefix)
		require.NotContains(t, got.types, "Seq Scan", prefix)
	}
	for _, offset := range []int{0, 9950} {
		got := planOf(t, r, query.RankedQuery, offset, 50)
		require.Equal(t, float64(offset+50), got.byTable["tags"])
		require.NotContains(t, got.types, "Sort")
		require.Zero(t, got.heap)
	}
}

func complete(tags []query.TagCount, prefix string) []query.TagCount {
	got := slices.DeleteFunc(inOrder(tags), func(t query.TagCount) bool { return !strings.HasPrefix(t.Name, prefix) })
	return got[:min(len(got), query.MaxCompletions)]
}

// Completions are what a sorted list in memory gives, for prefixes with any characters.
func TestTagsWithPrefix(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	rnd := newRand(t)
	tags := randomTags(rnd, 3000)
	putTags(t, o, tags)
	r := storetest.Reader(t, o)
	prefixes := slices.Clone(letters)
	for _, tag := range tags {
		if rnd.IntN(20) == 0 {
			runes := []rune(tag.Name)
			prefixes = append(prefixes, string(runes[:1+rnd.IntN(len(runes))]))
		}
	}
	prefixes = append(prefixes, "\U0010ffff\U0010ffff", "a\U0010ffff", "nothing", strings.Repeat("x", 640), strings.Repeat("\U0010ffff", 160))
	for _, prefix := range prefixes {
		got, err := r.TagsWithPrefix(t.Context(), prefix)
		require.NoError(t, err, "%q", prefix)
		require.Equal(t, complete(tags, prefix), append([]query.TagCount{}, got...), "%q", prefix)
	}
}

// If more names have the prefix than are read, those among the most used tags come first, and the
// rest are from the first names.
func TestTagsWithPrefixOfMany(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	tags := tiedTags()
	tags = append(tags, query.TagCount{Name: "tiec", Posts: 20_000}, query.TagCount{Name: "tiee", Posts: 20_000}, query.TagCount{Name: "tied99999", Posts: 8})
	putTags(t, o, tags)
	r := storetest.Reader(t, o)
	for _, prefix := range []string{"tied", "tie", "t", "hot", "rare", "gone", "tied0", "tied99999", "x", "tiedx"} {
		got, err := r.TagsWithPrefix(t.Context(), prefix)
		require.NoError(t, err)
		require.Equal(t, complete(tags, prefix), append([]query.TagCount{}, got...), prefix)
	}
	// More hot tags push the tied ones out of the most used tags: then the first names are
	// returned.
	var pushed []query.TagCount
	for i := range 4000 {
		pushed = append(pushed, query.TagCount{Name: fmt.Sprintf("more%05d", i), Posts: 9000})
	}
	putTags(t, o, pushed)
	got, err := r.TagsWithPrefix(t.Context(), "tied")
	require.NoError(t, err)
	require.Len(t, got, query.MaxCompletions)
	require.Equal(t, query.TagCount{Name: "tied00000", Posts: 7}, got[0], "tied99999 has more posts but is beyond both bounds")
	got, err = r.TagsWithPrefix(t.Context(), "tie")
	require.NoError(t, err)
	require.Equal(t, []query.TagCount{{Name: "tiec", Posts: 20_000}, {Name: "tiee", Posts: 20_000}, {Name: "tied00000", Posts: 7}}, got[:3])
}

func TestPrefixEnd(t *testing.T) {
	t.Parallel()
	for prefix, want := range map[string]string{
		"a": "b", "ab": "ac", "\u007f": "\u0080", "a\u07ff": "a\u0800", "\ud7ff": "\ue000", "\uffff": "\U00010000", "a\U0010ffff": "b",
		"a\U0010ffff\U0010ffff": "b", "\U0010ffff": strings.Repeat("\U0010ffff", 640), "%": "&", "_": "`", `\`: "]", "¿": "À",
	} {
		require.Equal(t, want, query.PrefixEnd(prefix), "%q", prefix)
		require.Greater(t, want, prefix)
	}
}

func TestRankedTags(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	r := storetest.Reader(t, o)
	got, total, err := r.RankedTags(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Empty(t, got)
	require.Zero(t, total)

	tags := tiedTags()
	putTags(t, o, tags)
	list := inOrder(tags)
	for _, c := range []struct{ offset, limit, want int }{{0, 50, 50}, {50, 100, 100}, {2990, 30, 30}, {9950, 50, 50}, {9950, 100, 50}, {9999, 100, 1}} {
		got, total, err := r.RankedTags(t.Context(), c.offset, c.limit)
		require.NoError(t, err)
		require.Equal(t, list[c.offset:c.offset+c.want], got)
		require.EqualValues(t, 16_000, total)
	}
	for _, c := range [][2]int{{-1, 10}, {query.MaxRankedTags, 10}, {0, 0}, {0, query.MaxLimit + 1}} {
		_, _, err := r.RankedTags(t.Context(), c[0], c[1])
		require.Error(t, err, c)
	}
}
