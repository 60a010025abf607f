package model

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// queryBug is an API that is wrong in one way.
type queryBug struct {
	name  string
	plant func(f *fakeAPI)
}

// asked is an API that seeks something else than it was asked for.
func asked(change func(q *Query)) func(*fakeAPI) {
	return func(f *fakeAPI) {
		f.query = func(q Query) Query {
			change(&q)
			return q
		}
	}
}

// unbound is an API whose tokens are not bound to all of the query.
func unbound(forget func(q *Query)) func(*fakeAPI) {
	return func(f *fakeAPI) {
		f.print = func(q Query) string {
			forget(&q)
			return fakePrint(q)
		}
	}
}

// speaking is an API with another rule for languages.
func speaking(inRange func(want, lang string) bool) func(*fakeAPI) {
	return func(f *fakeAPI) {
		f.matches = func(q Query, p *Post) bool {
			langs := q.Langs
			q.Langs = nil
			return q.matches(p) && (len(langs) == 0 || slices.ContainsFunc(langs, func(want string) bool {
				return slices.ContainsFunc(p.Langs, func(lang string) bool { return inRange(want, lang) })
			}))
		}
	}
}

// answering is an API whose answers at a path are spoiled.
func answering(prefix string, spoil func(r *http.Request, answer map[string]any)) func(*fakeAPI) {
	return func(f *fakeAPI) {
		f.mutate = func(r *http.Request, answer map[string]any) map[string]any {
			if answer != nil && strings.HasPrefix(r.URL.Path, prefix) {
				spoil(r, answer)
			}
			return answer
		}
	}
}

var queryBugs = []queryBug{
	{"all treated as any", asked(func(q *Query) { q.All = false })},
	{"any treated as all", asked(func(q *Query) { q.All = true })},
	{"all of the first two tags", asked(func(q *Query) {
		if q.All {
			q.Tags = q.Tags[:min(2, len(q.Tags))]
		}
	})},
	{"none ignored", asked(func(q *Query) { q.None = nil })},
	{"only the first of none", asked(func(q *Query) { q.None = q.None[:min(1, len(q.None))] })},
	{"none ignored with all", asked(func(q *Query) {
		if q.All {
			q.None = nil
		}
	})},
	{"languages ignored", asked(func(q *Query) { q.Langs = nil })},
	{"only the first language", asked(func(q *Query) { q.Langs = q.Langs[:min(1, len(q.Langs))] })},
	{"languages ignored in a window", asked(func(q *Query) {
		if !q.Since.IsZero() {
			q.Langs = nil
		}
	})},
	{"since ignored", asked(func(q *Query) { q.Since = time.Time{} })},
	{"until ignored", asked(func(q *Query) { q.Until = time.Time{} })},
	{"since exclusive", asked(func(q *Query) {
		if !q.Since.IsZero() {
			q.Since = q.Since.Add(time.Microsecond)
		}
	})},
	{"until inclusive", asked(func(q *Query) {
		if !q.Until.IsZero() {
			q.Until = q.Until.Add(time.Microsecond)
		}
	})},
	{"since in seconds", asked(func(q *Query) { q.Since = q.Since.Truncate(time.Second) })},
	{"an empty window is none", asked(func(q *Query) {
		if !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until) {
			q.Since, q.Until = time.Time{}, time.Time{}
		}
	})},
	{"windows turned round", asked(func(q *Query) {
		if !q.Since.IsZero() && !q.Until.IsZero() && q.Until.Before(q.Since) {
			q.Since, q.Until = q.Until, q.Since
		}
	})},
	{"until before 1970 wraps", asked(func(q *Query) {
		if q.Until.Unix() < 0 {
			q.Until = time.Time{}
		}
	})},
	{"windows by indexedAt", func(f *fakeAPI) {
		f.matches = func(q Query, p *Post) bool {
			moved := *p
			moved.Place.Micros = p.IndexedAt.UnixMicro()
			return q.matches(&moved)
		}
	}},
	{"language prefix without the dash", speaking(func(want, lang string) bool { return strings.HasPrefix(lowerASCII(lang), want) })},
	{"no language prefixes", speaking(func(want, lang string) bool { return lowerASCII(lang) == want })},
	{"languages in their own case", speaking(func(want, lang string) bool { return lang == want || strings.HasPrefix(lang, want+"-") })},
	{"languages in any script's case", speaking(func(want, lang string) bool {
		return inRange(want, strings.ToLower(lang))
	})},
	{"underscores as dashes", speaking(func(want, lang string) bool { return inRange(want, strings.ReplaceAll(lang, "_", "-")) })},
	{"the first subtag alone", speaking(func(want, lang string) bool {
		first, _, _ := strings.Cut(lowerASCII(lang), "-")
		return first == want || lowerASCII(lang) == want
	})},
	{"languages by any subtag", speaking(func(want, lang string) bool {
		return inRange(want, lang) || slices.Contains(strings.Split(lowerASCII(lang), "-"), want)
	})},

	{"tokens of any list", func(f *fakeAPI) { f.print = func(Query) string { return "x" } }},
	{"tokens without match", unbound(func(q *Query) { q.All = false })},
	{"tokens without none", unbound(func(q *Query) { q.None = nil })},
	{"tokens without languages", unbound(func(q *Query) { q.Langs = nil })},
	{"tokens without since", unbound(func(q *Query) { q.Since = time.Time{} })},
	{"tokens without until", unbound(func(q *Query) { q.Until = time.Time{} })},
	{"tokens with since and until alike", func(f *fakeAPI) {
		f.print = func(q Query) string {
			var times []int64
			for _, t := range []time.Time{q.Since, q.Until} {
				if !t.IsZero() {
					times = append(times, t.UnixMicro())
				}
			}
			q.Since, q.Until = time.Time{}, time.Time{}
			return fmt.Sprint(q, times)
		}
	}},
	{"tokens with tags and none alike", unbound(func(q *Query) {
		q.Tags, q.None = slices.Sorted(slices.Values(slices.Concat(q.Tags, q.None))), nil
	})},
	{"tokens bound to the page", func(f *fakeAPI) {
		n := 0
		f.print = func(q Query) string {
			n++
			return fmt.Sprint(q, n)
		}
	}},
	{"tokens of tags good for posts", func(f *fakeAPI) { f.print = func(Query) string { return tagsPrint } }},
	{"links without filters", func(f *fakeAPI) {
		f.link = func(kept map[string][]string) { delete(kept, "none") }
	}},
	{"links with one tag", func(f *fakeAPI) {
		f.link = func(kept map[string][]string) { kept["tags"] = kept["tags"][:min(1, len(kept["tags"]))] }
	}},
	{"links without the size", func(f *fakeAPI) { f.link = func(kept map[string][]string) { delete(kept, "limit") } }},
}

// few walks fewer lists.
func few(c *checker) { c.tags, c.sets = 4, 2 }

// TestCheckHTTPFindsQueryBugs: each is found within a few indexes.
func TestCheckHTTPFindsQueryBugs(t *testing.T) {
	t.Parallel()
	const seeds = 6
	var indexes []*Index
	for seed := range uint64(seeds) {
		indexes = append(indexes, fold(Generate(seed, 350)))
	}
	for _, bug := range queryBugs {
		t.Run(bug.name, func(t *testing.T) {
			t.Parallel()
			for seed, x := range indexes {
				f := &fakeAPI{index: x}
				bug.plant(f)
				if err := checkFake(t, x, f, Queries(16, uint64(seed)), few); err != nil {
					t.Logf("found with seed %d: %.400v", seed, err)
					return
				}
			}
			t.Fatalf("no index of %d tells this bug from the right answers", seeds)
		})
	}
}

// TestShortPages: pages that a budget cuts off are refused or joined, as the
// check is told, and wrong ones are found.
func TestShortPages(t *testing.T) {
	t.Parallel()
	x := fold(Generate(3, 250))
	require.Error(t, checkFake(t, x, &fakeAPI{index: x, budget: 3}), "where pages must be full")
	for budget := 1; budget < 9; budget += 2 {
		short := 0
		require.NoError(t, checkFake(t, x, &fakeAPI{index: x, budget: budget}, ShortPages(&short), few), "budget %d", budget)
		require.Greater(t, short, 10)
	}
	for name, shorten := range map[string]func(*fakePage, Position, way){
		"says that it is the end": func(p *fakePage, _ Position, direction way) {
			if direction == older {
				p.HasNext = false
			} else {
				p.HasPrevious = false
			}
		},
		"makes no progress": func(p *fakePage, from Position, _ way) {
			if len(p.Posts) == 0 {
				p.Next, p.Previous = from, from
			}
		},
		"skips what it did not look at": func(p *fakePage, _ Position, direction way) {
			if direction == older {
				p.Next.Place.Micros -= 1_000_000
			}
		},
		"loses its last row": func(p *fakePage, _ Position, _ way) {
			if n := len(p.Posts); n > 0 {
				p.Posts = p.Posts[:n-1]
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := checkFake(t, x, &fakeAPI{index: x, budget: 3, shorten: shorten}, ShortPages(new(int)), few)
			require.Error(t, err)
			t.Logf("%.300v", err)
		})
	}
}

// TestPagesOfBigPosts: a page may be short where its posts are too big together, and
// only there.
func TestPagesOfBigPosts(t *testing.T) {
	t.Parallel()
	var history []string
	for i := range 25 {
		history = append(history, fmt.Sprintf("create a/%d @1 #%s", i, strings.Join(manyTags(), " #")))
	}
	x := fold(parseHistory(t, strings.Join(history, "; ")))
	require.NoError(t, checkFake(t, x, &fakeAPI{index: x, bytes: maxPageBytes}, few))
	err := checkFake(t, x, &fakeAPI{index: x, bytes: maxPageBytes - 100*maxTagBytes}, few)
	require.ErrorContains(t, err, "16 rows, want")
}

// manyTags are as many tags as a post can have.
func manyTags() []string {
	var tags []string
	for i := range 100 {
		tags = append(tags, fmt.Sprintf("bulk%02d", i))
	}
	return tags
}
