package query_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// work is what Postgres read for a request, by the plans of its statements.
type work struct {
	tags, langs, authors float64 // index entries of post_tags, post_langs and posts
	rows                 float64 // rows of posts that were checked
	posts                float64 // rows of posts with records
	heap                 float64
}

func workOf(t *testing.T, r *query.Reader, q query.PostQuery) (query.PostPage, work) {
	t.Helper()
	var w work
	page, err := r.TracePosts(t.Context(), q, func(s query.Statement) {
		explain(t, r, s).each(func(n node) {
			require.NotContains(t, n.Type, "Sort", "a sort in the plan of %s", s.SQL)
			require.NotContains(t, n.Type, "Seq Scan", "in the plan of %s", s.SQL)
			require.NotContains(t, n.Type, "Hash", "in the plan of %s", s.SQL)
			switch n.Relation {
			case "post_tags":
				require.Equal(t, "Index Only Scan", n.Type)
				w.tags += n.Rows * n.Loops
				w.heap += n.HeapFetch
			case "post_langs":
				require.Equal(t, "Index Only Scan", n.Type)
				w.langs += n.Rows * n.Loops
			case "posts":
				switch {
				case strings.Contains(s.SQL, "p.record"):
					w.posts += n.Rows * n.Loops
				case n.Type == "Index Only Scan":
					require.Equal(t, "posts_account_key_idx", n.Index)
					w.authors += n.Rows * n.Loops
					w.heap += n.HeapFetch
				default:
					require.Equal(t, "posts_pkey", n.Index, s.SQL)
					w.rows += (n.Rows + n.Filtered) * n.Loops
				}
			}
		})
	})
	require.NoError(t, err)
	return page, w
}

// The plans of conjunctions read everything in order, from indexes only, and a bounded amount.
func TestConjunctionPlans(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	storetest.SeedPosts(t, storetest.Leader(t, o), mixed)
	vacuum(t, o)
	r := storetest.Reader(t, o)
	for seed := range uint64(80) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 4))
			q := randomQuery(rng)
			q.Limit, q.NamesOnly = 50, seed%4 == 0
			q.Direction = keyset.Direction(rng.IntN(2))
			q.From = []keyset.Position{keyset.Start(), keyset.End()}[q.Direction]
			page, w := workOf(t, r, q)
			require.Equal(t, float64(len(page.Rows)), w.posts, "records of the page only")
			require.Less(t, w.tags+w.langs+w.authors, 30_000.0, "%+v", q)
			require.LessOrEqual(t, w.rows, 12_000.0, "%+v", q)
			if len(q.Authors) == 0 {
				require.Zero(t, w.authors)
			}
			if len(q.Authors)+len(q.NotAuthors)+q.MaxTags+int(q.Media)+int(q.SelfLabels) == 0 && !q.NoMedia {
				require.Zero(t, w.rows)
			}
			require.Zero(t, w.heap)
		})
	}
}

// Reading two tags together never takes more than twice the work of the better of two ways, plus a
// few samples: looking up each post of one tag in the other, or reading both side by side. Work is
// counted as in search.go: one for each entry read, six for each one looked up.
func TestPairsCost(t *testing.T) {
	t.Parallel()
	const probe, samples = 6, 500
	o := storetest.Database(t)
	all := storetest.SeedPosts(t, storetest.Leader(t, o), mixed)
	vacuum(t, o)
	r := storetest.Reader(t, o)
	for _, pair := range [][]string{
		{"all", "t2"}, {"all", "t50"}, {"all", "t400"}, {"all", "t5000"}, {"t2", "t3"}, {"t3", "t7"}, {"t2", "t50"}, {"t7", "t400"},
		{"old", "young"}, {"even", "odd"}, {"m4", "m5"}, {"m4", "t3"}, {"old", "t5000"}, {"young", "t400"},
	} {
		t.Run(fmt.Sprint(pair), func(t *testing.T) {
			q := query.PostQuery{All: pair, From: keyset.Start(), Limit: 50}
			var ours float64
			page, err := r.TracePosts(t.Context(), q, func(s query.Statement) {
				explain(t, r, s).each(func(n node) {
					switch {
					case n.Relation != "post_tags":
					case n.Loops > 1:
						ours += probe * n.Loops
					default:
						ours += n.Rows
					}
				})
			})
			require.NoError(t, err)
			require.False(t, len(page.Rows) < q.Limit && page.HasNext, "short")

			// The entries of both lists that cover the same page.
			var a, b float64
			left := len(page.Rows) + 1
			for _, p := range all {
				inA, inB := slices.Contains(p.Tags, pair[0]), slices.Contains(p.Tags, pair[1])
				if inA {
					a++
				}
				if inB {
					b++
				}
				if inA && inB {
					if left--; left == 0 {
						break
					}
				}
			}
			best := min(a+b, a*(1+probe), b*(1+probe))
			t.Logf("ours %.0f, both %.0f, probing %.0f or %.0f", ours, a+b, a*(1+probe), b*(1+probe))
			require.LessOrEqual(t, ours, 2*best+samples)
		})
	}
}

// A page of a tag by an author reads the list with fewer posts. A post's own row is only looked up
// for conditions that need it.
func TestFilterPlans(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	storetest.SeedPosts(t, storetest.Leader(t, o), mixed)
	vacuum(t, o)
	r := storetest.Reader(t, o)
	for _, c := range []struct {
		name          string
		q             query.PostQuery
		entries, rows float64 // at most
	}{
		{"a rare author of a common tag", query.PostQuery{Tags: []string{"all"}, Authors: []string{"did:plc:a3000"}}, 300, 0},
		{"two rare authors of common tags", query.PostQuery{Tags: []string{"all", "t2"}, Authors: []string{"did:plc:a3000", "did:plc:a500"}}, 600, 0},
		{"a rare tag of a common author", query.PostQuery{Tags: []string{"t5000"}, Authors: []string{"did:plc:author"}}, 300, 10},
		{"a tag and an author of the same density", query.PostQuery{Tags: []string{"t3"}, Authors: []string{"did:plc:a4"}}, 3000, 0},
		{"all of two tags by an author", query.PostQuery{All: []string{"t3", "t5"}, Authors: []string{"did:plc:a4"}}, 3000, 1000},
		{"few tags", query.PostQuery{Tags: []string{"all"}, MaxTags: 3}, 2000, 1000},
		{"a kind of media", query.PostQuery{Tags: []string{"t2"}, Media: event.HasVideo}, 2000, 1000},
		{"no media and no label", query.PostQuery{Tags: []string{"t2", "t3"}, NoMedia: true, SelfLabels: query.ExcludeSelfLabels}, 2000, 1000},
		{"all conditions on a row", query.PostQuery{All: []string{"t2"}, MaxTags: 4, Media: event.HasImage, SelfLabels: query.ExcludeSelfLabels, NotAuthors: []string{"did:plc:a4"}}, 2000, 1000},
		{"a label of a rare author", query.PostQuery{Tags: []string{"all"}, Authors: []string{"did:plc:a30"}, SelfLabels: query.OnlySelfLabels}, 2000, 500},
		{"without the most common author", query.PostQuery{Tags: []string{"all"}, NotAuthors: []string{"did:plc:author"}}, 2000, 1000},
		{"without 6 authors, most of whom are rare", query.PostQuery{Tags: []string{"t2", "t3"}, NotAuthors: []string{"did:plc:a4", "did:plc:a30", "did:plc:a500", "did:plc:a3000", "did:plc:nobody"}}, 2000, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.q.Limit = 50
			for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
				c.q.Direction, c.q.From = direction, []keyset.Position{keyset.Start(), keyset.End()}[direction]
				page, w := workOf(t, r, c.q)
				t.Logf("%d posts: %.0f entries, %.0f rows checked", len(page.Rows), w.tags+w.authors, w.rows)
				require.NotEmpty(t, page.Rows)
				require.Empty(t, page.Cut)
				require.LessOrEqual(t, w.tags+w.authors, c.entries)
				require.LessOrEqual(t, w.rows, c.rows)
				require.Zero(t, w.heap)
			}
		})
	}
}

// The work of a request is bounded and makes reasonable progress, whatever the query: many lists
// that go together, endless probes, posts that never match.
func TestWorkIsBounded(t *testing.T) {
	t.Parallel()
	const posts, kit = 40_000, 20
	o := storetest.Database(t)
	together := storetest.Seed{
		Posts: posts,
		Tags: func(i int) []string {
			tags := []string{"every"}
			for n := range kit {
				if i%2 == 0 {
					tags = append(tags, fmt.Sprint("kit", n))
				}
			}
			return append(tags, []string{"even", "odd"}[i%2])
		},
		Langs: func(i int) []string {
			if i%2 == 1 {
				return []string{"en-us", "pt-br", "de-at", "fr-ca", "es-mx", "it-ch", "ja-jp", "zh-cn", "ko-kr", "nl-be"}
			}
			return nil
		},
		Author: func(i int) string { return "did:plc:" + []string{"even", "odd"}[i%2] },
		Second: func(i int) int { return i },
	}
	storetest.SeedPosts(t, storetest.Leader(t, o), together)
	vacuum(t, o)
	r := storetest.Reader(t, o)
	var kits []string
	for n := range kit {
		kits = append(kits, fmt.Sprint("kit", n))
	}
	langs := []string{"en-us", "pt-br", "de-at", "fr-ca", "es-mx", "it-ch", "ja-jp", "zh-cn", "ko-kr", "nl-be", "en", "pt", "de", "fr", "es", "it", "ja", "zh", "ko", "nl"}
	for _, tt := range []struct {
		name     string
		q        query.PostQuery
		requests int // at most, to the end of the list
	}{
		{"all of two tags that are never together", query.PostQuery{All: []string{"even", "odd"}}, 2},
		{"any of 20 tags that go together, without one that covers them", query.PostQuery{Tags: kits, None: []string{"even"}}, 10},
		{"any of 20 tags, in languages that they never have", query.PostQuery{Tags: kits, Langs: langs}, 40},
		{"all of 20 tags, in languages that they never have", query.PostQuery{All: kits, Langs: langs}, 40},
		{"a tag without 20 that cover half of it and one that covers the rest", query.PostQuery{Tags: []string{"every"}, None: append([]string{"odd"}, kits[:19]...)}, 100},
		{"a tag and an author who never uses it", query.PostQuery{Tags: []string{"even"}, Authors: []string{"did:plc:odd"}}, 2},
		{"any of 20 tags that go together and an author who never uses them", query.PostQuery{Tags: kits, Authors: []string{"did:plc:odd"}}, 40},
		{"a tag without its only author", query.PostQuery{Tags: []string{"even"}, NotAuthors: []string{"did:plc:even"}}, 6},
		{"a tag that never has so few others", query.PostQuery{Tags: []string{"even"}, MaxTags: 2}, 6},
		{"tags that never have a video", query.PostQuery{Tags: kits, Media: event.HasVideo}, 20},
		{"all of 20 tags, only with labels", query.PostQuery{All: kits, SelfLabels: query.OnlySelfLabels}, 40},
		{"a tag without itself", query.PostQuery{Tags: []string{"every"}, None: []string{"every"}}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := tt.q
			q.Limit, q.From = 50, keyset.Start()
			slices.Sort(q.Tags)
			_, w := workOf(t, r, q)
			require.Less(t, w.tags+w.langs+w.authors, 150_000.0)
			require.LessOrEqual(t, w.rows, 60_000.0/6)
			for requests := 1; ; requests++ {
				require.LessOrEqual(t, requests, tt.requests)
				page, err := r.Posts(t.Context(), q)
				require.NoError(t, err)
				require.Empty(t, page.Rows)
				require.Equal(t, page.HasNext, page.Cut == query.CutByWork)
				if !page.HasNext {
					break
				}
				q.From = page.Next
			}
		})
	}
}
