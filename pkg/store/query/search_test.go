package query_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// mixed gives posts tags of every density, among them two that never meet in
// time and two that take turns, and languages.
var mixed = storetest.Seed{
	Posts: 12000,
	Tags: func(i int) []string {
		tags := []string{"all"}
		for _, n := range []int{2, 3, 5, 7, 50, 400, 5000} {
			if i%n == 1 {
				tags = append(tags, fmt.Sprintf("t%d", n))
			}
		}
		for n := 4; n < 19; n++ {
			if i%4 == 0 && i%n != 3 {
				tags = append(tags, fmt.Sprintf("m%d", n))
			}
		}
		if i < 6000 {
			tags = append(tags, "old")
		} else if i != 11999 {
			tags = append(tags, "young")
		} else {
			tags = append(tags, "young", "old")
		}
		return append(tags, []string{"even", "odd"}[i/1000%2])
	},
	Langs: func(i int) []string {
		switch {
		case i%997 == 0:
			return []string{"eu", "en-GB"}
		case i%3 == 0:
			return []string{"pt-BR"}
		case i%11 == 0:
			return nil
		}
		return []string{"EN"}
	},
	Author: func(i int) string {
		for _, n := range []int{3000, 500, 30, 4} {
			if i%n == 2 {
				return fmt.Sprint("did:plc:a", n)
			}
		}
		return "did:plc:author"
	},
	Record: func(i int) string {
		media := []string{"", "images", "video", "images", "gallery", "external", "record"}[i*i%7]
		labels := ""
		if i%9 == 5 {
			labels = `{"val":"nudity"}`
		}
		return fmt.Sprintf(`{"embed":{"$type":"app.bsky.embed.%s"},"labels":{"values":[%s]}}`, media, labels)
	},
	Second: func(i int) int { return i / 7 },
}

// oracle says which posts a query matches, the plain way.
func oracle(all []*write.Post, q query.PostQuery) []*write.Post {
	var out []*write.Post
	for _, p := range all {
		has := func(tag string) bool { return slices.Contains(p.Tags, tag) }
		if len(q.Tags) > 0 && !slices.ContainsFunc(q.Tags, has) || slices.ContainsFunc(q.None, has) {
			continue
		}
		if slices.ContainsFunc(q.All, func(tag string) bool { return !has(tag) }) {
			continue
		}
		if len(q.Authors) > 0 && !slices.Contains(q.Authors, p.Account.DID) || slices.Contains(q.NotAuthors, p.Account.DID) {
			continue
		}
		if q.MaxTags > 0 && len(p.Tags) > q.MaxTags {
			continue
		}
		traits := event.TraitsOf(p.Record)
		if (q.Media != 0 || q.NoMedia) && !(q.NoMedia && traits&event.HasMedia == 0) && traits&q.Media == 0 {
			continue
		}
		if q.SelfLabels != query.AnySelfLabels && (q.SelfLabels == query.OnlySelfLabels) != (traits&event.SelfLabelled != 0) {
			continue
		}
		ranges := event.LangRanges(p.Langs)
		if len(q.Langs) > 0 && !slices.ContainsFunc(q.Langs, func(l string) bool { return slices.Contains(ranges, l) }) {
			continue
		}
		at := p.Key.SortAt()
		if !q.Since.IsZero() && at.Before(q.Since) || !q.Until.IsZero() && !at.Before(q.Until) {
			continue
		}
		out = append(out, p)
	}
	return out
}

func randomQuery(rng *rand.Rand) query.PostQuery {
	names := []string{"all", "t2", "t3", "t5", "t7", "t50", "t400", "t5000", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "old", "young", "even", "odd", "nobody's"}
	pick := func(most int) []string {
		var out []string
		for _, i := range rng.Perm(len(names))[:rng.IntN(most+1)] {
			out = append(out, names[i])
		}
		return out
	}
	one := func() string { return names[rng.IntN(len(names)-1)] }
	var q query.PostQuery
	switch rng.IntN(5) {
	case 0, 1:
		q.Tags = append(pick(4), one())
	case 2, 3:
		q.All = append(pick(4), one())
	default:
		q.Tags, q.All = append(pick(4), one()), append(pick(2), one())
	}
	if rng.IntN(10) == 0 {
		q.Tags = append(q.Tags, pick(15)...)
	}
	for _, tags := range []*[]string{&q.Tags, &q.All} {
		slices.Sort(*tags)
		*tags = slices.Compact(*tags)
	}
	if rng.IntN(2) == 0 {
		q.None = pick(3)
	}
	authors := []string{"did:plc:author", "did:plc:a4", "did:plc:a30", "did:plc:a500", "did:plc:a3000", "did:plc:nobody"}
	some := func() (out []string) {
		for _, i := range rng.Perm(len(authors))[:1+rng.IntN(3)] {
			out = append(out, authors[i])
		}
		return out
	}
	switch rng.IntN(6) {
	case 0:
		q.Authors = some()
	case 1:
		q.NotAuthors = some()
	case 2:
		q.Authors, q.NotAuthors = some(), some()[:1]
	}
	if rng.IntN(5) == 0 {
		q.MaxTags = 1 + rng.IntN(8)
	}
	switch rng.IntN(8) {
	case 0:
		q.Media = event.Traits(1 << rng.IntN(4))
	case 1:
		q.Media, q.NoMedia = event.Traits(rng.IntN(int(event.HasMedia)+1)), true
	case 2:
		q.SelfLabels = query.SelfLabels(1 + rng.IntN(2))
	}
	if rng.IntN(3) == 0 {
		langs := []string{"en", "eu", "pt", "pt-br", "en-gb", "xx"}
		for _, i := range rng.Perm(len(langs))[:1+rng.IntN(3)] {
			q.Langs = append(q.Langs, langs[i])
		}
	}
	if rng.IntN(3) == 0 {
		q.Since = storetest.Epoch.Add(time.Duration(rng.IntN(1800)) * time.Second)
	}
	if rng.IntN(3) == 0 {
		q.Until = storetest.Epoch.Add(time.Duration(rng.IntN(1800))*time.Second - time.Duration(rng.IntN(2)*500))
	}
	return q
}

// Every query gives what the oracle does, in pages of any size, both ways, from
// any position. A page may be short, but then says that there is more.
//
// Invariant: for every query a page holds what a plain look at all posts gives. A short page
// says that there is more, its token makes progress, and new posts at its other edge are seen.
// See also TestFilters and TestWatchFromAnEmptyPage.
func TestQueriesAgreeWithOracle(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	all := storetest.SeedPosts(t, storetest.Leader(t, o), mixed)
	r := storetest.Reader(t, o)
	for seed := range uint64(150) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 3))
			q := randomQuery(rng)
			agree(t, r, rng, q, all, oracle(all, q))
		})
	}
}

// agree walks from a random position, in pages of a random size, and compares what it
// meets with what there is to find, want.
func agree(t *testing.T, r *query.Reader, rng *rand.Rand, q query.PostQuery, all, want []*write.Post) {
	t.Helper()
	q.Limit = 1 + rng.IntN(query.MaxLimit)
	q.Direction = keyset.Direction(rng.IntN(2))
	q.From = []keyset.Position{keyset.Start(), keyset.End()}[q.Direction]
	at := all[rng.IntN(len(all))].Key
	switch side := rng.IntN(6); side {
	case 0, 1, 2:
		q.From = []func(...keyset.Value) keyset.Position{keyset.Above, keyset.Below, keyset.At}[side](keyset.UUID(at))
	}
	inWay := slices.Clone(want)
	if q.Direction == keyset.Backward {
		slices.Reverse(inWay)
	}
	passed := 0 // how many of the list lie behind the position
	for _, p := range inWay {
		c := slices.Compare(p.Key[:], at[:])
		if q.Direction == keyset.Forward {
			c = -c
		}
		if len(q.From.Key) > 0 && (c < 0 || c == 0 && !q.From.Includes(q.Direction)) {
			passed++
		}
	}
	rest := inWay[passed:]
	for pages := 0; ; pages++ {
		page, err := r.Posts(t.Context(), q)
		require.NoError(t, err)
		got := slices.Clone(page.Rows)
		more, behind, edge := page.HasNext, page.HasPrevious, page.Next
		if q.Direction == keyset.Backward {
			slices.Reverse(got)
			more, behind, edge = behind, more, page.Previous
		}
		require.LessOrEqual(t, len(got), min(q.Limit, len(rest)), "%+v", q)
		for i, p := range got {
			require.Equal(t, rest[i].Rkey, p.Rkey, "row %d of page %d of %+v", i, pages, q)
		}
		rest = rest[len(got):]
		if len(got) == q.Limit || !more {
			require.Equal(t, len(rest) > 0, more, "page %d of %+v", pages, q)
		}
		if !behind {
			require.Zero(t, passed, "page %d of %+v", pages, q)
		}
		passed += len(got)
		if !more {
			break
		}
		require.NotEqual(t, q.From, edge, "the token makes progress")
		q.From = edge
		require.Less(t, pages, len(all))
	}
	require.Empty(t, rest)
}

// work is what a request made Postgres do, by the plans of its statements.
type work struct {
	tags, langs, authors float64 // index entries of post_tags, post_langs and posts
	looked               float64 // rows of posts that were looked at
	posts                float64 // rows of posts that were read
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
					w.looked += (n.Rows + n.Filtered) * n.Loops
				}
			}
		})
	})
	require.NoError(t, err)
	return page, w
}

// The plans of conjunctions: streams all of them, index-only, bounded.
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
			q.Limit = 50
			q.Direction = keyset.Direction(rng.IntN(2))
			q.From = []keyset.Position{keyset.Start(), keyset.End()}[q.Direction]
			page, w := workOf(t, r, q)
			require.Equal(t, float64(len(page.Rows)), w.posts, "records of the page only")
			require.Less(t, w.tags+w.langs+w.authors, 30_000.0, "%+v", q)
			require.LessOrEqual(t, w.looked, 12_000.0, "%+v", q)
			if len(q.Authors) == 0 {
				require.Zero(t, w.authors)
			}
			if len(q.Authors)+len(q.NotAuthors)+q.MaxTags+int(q.Media)+int(q.SelfLabels) == 0 && !q.NoMedia {
				require.Zero(t, w.looked)
			}
			require.Zero(t, w.heap)
		})
	}
}

// Reading two tags together never costs more than twice what the better way would
// for the same page, but for a few samples: looking each post of the one up in the
// other, or reading both side by side. Work is counted as search.go does: entries
// read, and six for each that is looked up.
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

			// What it takes to come as far: entries of either list.
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

// TestFilterPlans: a page of a tag by an author reads by whichever of the two has fewer posts, and
// what is asked of a post's own row is looked up for the posts of the walk and for no others.
func TestFilterPlans(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	storetest.SeedPosts(t, storetest.Leader(t, o), mixed)
	vacuum(t, o)
	r := storetest.Reader(t, o)
	for _, c := range []struct {
		name            string
		q               query.PostQuery
		entries, looked float64 // at most
	}{
		{"a rare author of a common tag", query.PostQuery{Tags: []string{"all"}, Authors: []string{"did:plc:a3000"}}, 300, 0},
		{"two rare authors of common tags", query.PostQuery{Tags: []string{"all", "t2"}, Authors: []string{"did:plc:a3000", "did:plc:a500"}}, 600, 0},
		{"a rare tag of a common author", query.PostQuery{Tags: []string{"t5000"}, Authors: []string{"did:plc:author"}}, 300, 10},
		{"as common as each other", query.PostQuery{Tags: []string{"t3"}, Authors: []string{"did:plc:a4"}}, 3000, 0},
		{"all of two by an author", query.PostQuery{All: []string{"t3", "t5"}, Authors: []string{"did:plc:a4"}}, 3000, 1000},
		{"few tags", query.PostQuery{Tags: []string{"all"}, MaxTags: 3}, 2000, 1000},
		{"a kind of media", query.PostQuery{Tags: []string{"t2"}, Media: event.HasVideo}, 2000, 1000},
		{"no media and no label", query.PostQuery{Tags: []string{"t2", "t3"}, NoMedia: true, SelfLabels: query.ExcludeSelfLabels}, 2000, 1000},
		{"all that can be asked of a row", query.PostQuery{All: []string{"t2"}, MaxTags: 4, Media: event.HasImage, SelfLabels: query.ExcludeSelfLabels, NotAuthors: []string{"did:plc:a4"}}, 2000, 1000},
		{"a label of a rare author", query.PostQuery{Tags: []string{"all"}, Authors: []string{"did:plc:a30"}, SelfLabels: query.OnlySelfLabels}, 2000, 500},
		{"without the commonest author", query.PostQuery{Tags: []string{"all"}, NotAuthors: []string{"did:plc:author"}}, 2000, 1000},
		{"without 6 authors, most of whom are rare", query.PostQuery{Tags: []string{"t2", "t3"}, NotAuthors: []string{"did:plc:a4", "did:plc:a30", "did:plc:a500", "did:plc:a3000", "did:plc:nobody"}}, 2000, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.q.Limit = 50
			for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
				c.q.Direction, c.q.From = direction, []keyset.Position{keyset.Start(), keyset.End()}[direction]
				page, w := workOf(t, r, c.q)
				t.Logf("%d posts: %.0f entries, %.0f rows looked at", len(page.Rows), w.tags+w.authors, w.looked)
				require.NotEmpty(t, page.Rows)
				require.Empty(t, page.Cut)
				require.LessOrEqual(t, w.tags+w.authors, c.entries)
				require.LessOrEqual(t, w.looked, c.looked)
				require.Zero(t, w.heap)
			}
		})
	}
}

// Who comes to an empty first page because its search ran out can wait at its
// edges: what is new there is seen, at either end.
func TestWatchFromAnEmptyPage(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	w := storetest.Leader(t, o)
	apart := storetest.Seed{
		Posts:  80_000,
		Tags:   func(i int) []string { return []string{[]string{"left", "right"}[i%2]} },
		Second: func(i int) int { return 10 + i },
	}
	all := storetest.SeedPosts(t, w, apart)
	r := storetest.Reader(t, o)
	q := query.PostQuery{All: []string{"left", "right"}, Limit: 50}
	for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
		q.Direction, q.From = direction, []keyset.Position{keyset.Start(), keyset.End()}[direction]
		page, err := r.Posts(t.Context(), q)
		require.NoError(t, err)
		require.Empty(t, page.Rows)
		back, ahead, at := page.Previous, page.HasNext, storetest.Epoch.Add(200_000*time.Second)
		if direction == keyset.Backward {
			back, ahead, at = page.Next, page.HasPrevious, storetest.Epoch
		}
		require.True(t, ahead, "the search ran out")

		both := &write.Post{Account: all[0].Account, Rkey: fmt.Sprint("both", direction), Rev: "3abcdefghijkl", CID: "bafy", Tags: q.All, IndexedAt: storetest.Epoch, Seq: 1, Record: []byte("{}")}
		both.Key = event.NewKey(at, both.Rkey)
		require.NoError(t, w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
			return cp, tx.Write(t.Context(), write.Changes{Posts: []write.PostChange{{New: both, NewVisible: true}}})
		}))
		q.Direction, q.From = direction.Reverse(), back
		page, err = r.Posts(t.Context(), q)
		require.NoError(t, err)
		require.Len(t, page.Rows, 1, "what came later")
		require.Equal(t, both.Rkey, page.Rows[0].Rkey)
	}
}

// The work of a request is bounded, and what it does is worth it, whatever is
// asked: many lists that go together, probes without end, posts that never match.
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
		requests int // to the end of the list, at most
	}{
		{"all of two that never meet", query.PostQuery{All: []string{"even", "odd"}}, 2},
		{"any of 20 that go together, none that covers them", query.PostQuery{Tags: kits, None: []string{"even"}}, 10},
		{"any of 20, in languages that they are never in", query.PostQuery{Tags: kits, Langs: langs}, 40},
		{"all of 20, in languages that they are never in", query.PostQuery{All: kits, Langs: langs}, 40},
		{"one without 20 that cover half of it and one that does the rest", query.PostQuery{Tags: []string{"every"}, None: append([]string{"odd"}, kits[:19]...)}, 100},
		{"a tag and an author that never meet", query.PostQuery{Tags: []string{"even"}, Authors: []string{"did:plc:odd"}}, 2},
		{"any of 20 that go together and an author that never has them", query.PostQuery{Tags: kits, Authors: []string{"did:plc:odd"}}, 40},
		{"a tag without its only author", query.PostQuery{Tags: []string{"even"}, NotAuthors: []string{"did:plc:even"}}, 6},
		{"one without what it always has", query.PostQuery{Tags: []string{"even"}, MaxTags: 2}, 6},
		{"one with what it never has", query.PostQuery{Tags: kits, Media: event.HasVideo}, 20},
		{"all of 20 and no label", query.PostQuery{All: kits, SelfLabels: query.OnlySelfLabels}, 40},
		{"one without itself", query.PostQuery{Tags: []string{"every"}, None: []string{"every"}}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := tt.q
			q.Limit, q.From = 50, keyset.Start()
			slices.Sort(q.Tags)
			_, w := workOf(t, r, q)
			require.Less(t, w.tags+w.langs+w.authors, 150_000.0)
			require.LessOrEqual(t, w.looked, 60_000.0/6)
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
