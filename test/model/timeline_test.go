package model

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

func timelineOf(events []*event.Event) *Timeline {
	t := NewTimeline()
	for i, e := range events {
		t.ApplyEvent(uint64(i+1), e)
	}
	return t
}

// TestTimelineKnowsEveryMoment: the posts whose span covers a sequence number
// are the visible ones of the fold up to it.
func TestTimelineKnowsEveryMoment(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		for name, events := range map[string][]*event.Event{
			"odd": Generate(seed, 300), "crowd": NewCrowd(seed, 50, base, time.Second).Take(300),
		} {
			line, x := timelineOf(events), New()
			for i, e := range events {
				x.ApplyEvent(uint64(i+1), e)
				want := map[string]Post{}
				for _, p := range x.Posts() {
					want[p.URI] = p
				}
				n := 0
				for uri, spans := range line.spans {
					for _, sp := range spans {
						if sp.from > uint64(i+1) || sp.to <= uint64(i+1) {
							continue
						}
						n++
						require.Equal(t, want[uri].Place, sp.post.Place, "%s %d, event %d: %s", name, seed, i, uri)
						require.Equal(t, want[uri].Tags, sp.post.Tags, "%s %d, event %d: %s", name, seed, i, uri)
					}
				}
				require.Equal(t, len(want), n, "%s %d, event %d", name, seed, i)
				if i%50 != 0 {
					continue
				}
				walk := TagWalk{First: uint64(i + 1), Last: uint64(i + 1), Seen: x.TagCounts(), Ended: true}
				v, err := line.JudgeTags(walk)
				require.NoError(t, err, "%s %d, event %d", name, seed, i)
				require.Equal(t, len(walk.Seen), v.Due)
			}
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	line := timelineOf(parseHistory(t, "create a/1 @1; create a/2 @1; create b/3 @1; create a/4 @1 #cats; create a/5 @1; "+
		"account b suspended; delete a/2 @2; account b active; create a/2 @3; update a/5 @2 #cats; update a/5 @3"))
	seen := func(rkeys string) []Seen {
		var rows []Seen
		for _, word := range strings.Fields(rkeys) {
			rkey, at, _ := strings.Cut(word, "~")
			did := "did:plc:a"
			if rkey == "3" {
				did = "did:plc:b"
			}
			second := int(rkey[0] - '0')
			if at != "" {
				second = int(at[0] - '0')
			}
			rows = append(rows, Seen{uriOf(did, rkey), base.Add(time.Duration(second) * time.Second).UnixMicro()})
		}
		return rows
	}
	from := func(rkey string) *Seen { return &seen(rkey)[0] }
	for _, c := range []struct {
		name string
		walk Walk
		rows string
		want Verdict
		says string
	}{
		{"all there", Walk{First: 5, Last: 5, Ended: true}, "5 3 2 1", Verdict{Due: 4}, ""},
		{"one missed", Walk{First: 5, Last: 5, Ended: true}, "5 2 1", Verdict{Due: 4, Missed: 1}, "matched from 5 to 5"},
		{"hidden meanwhile, seen or not", Walk{First: 5, Last: 6, Ended: true}, "5 2 1", Verdict{Due: 3}, ""},
		{"hidden and back", Walk{First: 5, Last: 8, Ended: true}, "5 1", Verdict{Due: 2}, ""},
		{"hidden throughout", Walk{First: 6, Last: 7, Ended: true}, "5 3 2 1", Verdict{Due: 2, Foreign: 1}, "did not match"},
		{"deleted before", Walk{First: 7, Last: 7, Ended: true}, "5 2 1", Verdict{Due: 2, Foreign: 1}, "did not match"},
		{"deleted and back elsewhere, both seen", Walk{First: 5, Last: 9, Newer: true, Ended: true}, "1 2 5 2~9", Verdict{Due: 2}, ""},
		{"another tag", Walk{First: 4, Last: 4, Ended: true}, "4 3 2 1", Verdict{Due: 3, Foreign: 1}, "did not match"},
		{"edited out for a moment", Walk{First: 9, Last: 11, Ended: true}, "2~9 3 1", Verdict{Due: 3}, ""},
		{"edited, and there again", Walk{First: 10, Last: 11, Ended: true}, "2~9 5 3 1", Verdict{Due: 3}, ""},
		{"twice", Walk{First: 5, Last: 5, Ended: true}, "5 3 3 2 1", Verdict{Due: 4, Repeated: 1}, "seen before"},
		{"out of order", Walk{First: 5, Last: 5, Ended: true}, "5 2 3 1", Verdict{Due: 4, Disordered: 1}, "does not come after"},
		{"newer", Walk{First: 5, Last: 5, Newer: true, Ended: true}, "1 2 3 5", Verdict{Due: 4}, ""},
		{"newer, out of order", Walk{First: 5, Last: 5, Newer: true, Ended: true}, "5 3 2 1", Verdict{Due: 4, Disordered: 3}, "does not come after"},
		{"not to the end", Walk{First: 5, Last: 5}, "5 3", Verdict{Due: 2}, ""},
		{"a gap before the end", Walk{First: 5, Last: 5}, "5 2", Verdict{Due: 3, Missed: 1}, "was not seen"},
		{"nothing yet", Walk{First: 5, Last: 5}, "", Verdict{}, ""},
		{"from a row", Walk{First: 5, Last: 5, From: from("3"), Ended: true}, "2 1", Verdict{Due: 2}, ""},
		{"from a row that is there again", Walk{First: 5, Last: 5, From: from("3"), Ended: true}, "3 2 1", Verdict{Due: 2, Disordered: 1}, "before where the walk began"},
		{"newer from a row", Walk{First: 5, Last: 5, From: from("2"), Newer: true, Ended: true}, "3", Verdict{Due: 2, Missed: 1}, "was not seen"},
		{"too early to tell", Walk{First: 5, Last: 12}, "5", Verdict{}, "known until 11"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := c.walk
			w.Query, w.Seen = Query{Tags: []string{"#Art"}}, seen(c.rows)
			got, err := line.Judge(w)
			c.want.Walks, c.want.Rows = 1, len(w.Seen)
			require.Equal(t, c.want, got)
			if c.says == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.says)
			}
		})
	}
}

// TestTimelineTellsBadReaders: of readers on a changing index, those with a
// right way to page are never found wrong, and those with a wrong one are.
func TestTimelineTellsBadReaders(t *testing.T) {
	t.Parallel()
	type reader func(list List, last Page, rows int, newer bool) Page
	const limit = 10
	keyset := func(list List, last Page, _ int, newer bool) Page {
		if newer {
			return list.newer(last.Previous, limit)
		}
		return list.older(last.Next, limit)
	}
	for _, c := range []struct {
		name  string
		next  reader
		wrong bool
	}{
		{"by key", keyset, false},
		{"by offset", func(list List, _ Page, rows int, newer bool) Page {
			if newer {
				return list.slice(top, max(len(list)-rows-limit, 0), max(len(list)-rows, 0))
			}
			return list.slice(bottom, min(rows, len(list)), min(rows+limit, len(list)))
		}, true},
		{"with >= for >", func(list List, last Page, rows int, newer bool) Page {
			last.Next.Side, last.Previous.Side = +1, -1
			return keyset(list, last, rows, newer)
		}, true},
		{"by time alone", func(list List, last Page, rows int, newer bool) Page {
			last.Next.Place.Hash, last.Previous.Place.Hash = 0, 1<<64-1
			return keyset(list, last, rows, newer)
		}, true},
		{"with one row too few", func(list List, last Page, rows int, newer bool) Page {
			page := keyset(list, last, rows, newer)
			if len(page.Posts) == limit {
				page.Posts = append(page.Posts[:3:3], page.Posts[4:]...)
			}
			return page
		}, true},
		{"upside down", func(list List, last Page, rows int, newer bool) Page {
			page := keyset(list, last, rows, newer)
			page.Posts = append([]Post(nil), page.Posts...)
			for i, j := 0, len(page.Posts)-1; i < j; i, j = i+1, j-1 {
				page.Posts[i], page.Posts[j] = page.Posts[j], page.Posts[i]
			}
			return page
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var total Verdict
			var first error
			for seed := range uint64(4) {
				crowd, rng := NewCrowd(seed, 250, base, time.Second), rand.New(rand.NewPCG(seed, 1))
				line, seq := NewTimeline(), uint64(0)
				live := func(n int) {
					for _, e := range crowd.Take(n) {
						seq++
						line.ApplyEvent(seq, e)
					}
				}
				live(600)
				for i := range 12 {
					w := Walk{Query: Query{Tags: CrowdTags()[:1+rng.IntN(3)], All: rng.IntN(4) == 0}, First: seq, Newer: i%2 == 1}
					page := Page{Next: top, Previous: bottom}
					for range 1 + rng.IntN(40) {
						page = c.next(line.index.List(w.Query), page, len(w.Seen), w.Newer)
						for i := range page.Posts {
							if w.Newer {
								i = len(page.Posts) - 1 - i
							}
							w.Seen = append(w.Seen, Seen{page.Posts[i].URI, page.Posts[i].Place.Micros})
						}
						if w.Ended = w.Newer && !page.HasPrevious || !w.Newer && !page.HasNext; w.Ended {
							break
						}
						live(rng.IntN(30))
					}
					w.Last = seq
					v, err := line.Judge(w)
					total.Add(v)
					if first == nil && err != nil {
						first = fmt.Errorf("seed %d, walk %d: %w", seed, i, err)
					}
				}
			}
			t.Logf("%+v: %v", total, first)
			require.Greater(t, total.Due, 500)
			require.Equal(t, c.wrong, first != nil, "%v", first)
			require.Equal(t, c.wrong, total.Wrong() > 0)
		})
	}
}

func TestJudgeTags(t *testing.T) {
	t.Parallel()
	line := timelineOf(parseHistory(t, "create a/1 @1 #b #a; create a/2 @1 #b #c; create a/3 @1 #d; delete a/3 @2; update a/1 @2 #a #b; create a/4 @1 #c"))
	for _, c := range []struct {
		name string
		walk TagWalk
		want Verdict
		says string
	}{
		{"all there", TagWalk{First: 2, Last: 2, Ended: true, Seen: []TagCount{{"b", 2}, {"a", 1}, {"c", 1}}}, Verdict{Due: 3}, ""},
		{"upwards", TagWalk{First: 2, Last: 2, Newer: true, Ended: true, Seen: []TagCount{{"c", 1}, {"a", 1}, {"b", 2}}}, Verdict{Due: 3}, ""},
		{"came and went", TagWalk{First: 2, Last: 4, Ended: true, Seen: []TagCount{{"b", 2}, {"a", 1}, {"c", 1}, {"d", 1}}}, Verdict{Due: 3}, ""},
		{"an edit that keeps the tags", TagWalk{First: 4, Last: 5, Ended: true, Seen: []TagCount{{"b", 2}, {"c", 1}}}, Verdict{Due: 3, Missed: 1}, `"a" had 1 posts`},
		{"moved and missed", TagWalk{First: 5, Last: 6, Ended: true, Seen: []TagCount{{"b", 2}, {"a", 1}}}, Verdict{Due: 2}, ""},
		{"moved and seen twice", TagWalk{First: 5, Last: 6, Newer: true, Ended: true, Seen: []TagCount{{"c", 1}, {"a", 1}, {"c", 2}, {"b", 2}}}, Verdict{Due: 2}, ""},
		{"twice", TagWalk{First: 2, Last: 2, Ended: true, Seen: []TagCount{{"b", 2}, {"b", 2}, {"a", 1}, {"c", 1}}}, Verdict{Due: 3, Repeated: 1}, "seen before"},
		{"names downwards", TagWalk{First: 2, Last: 2, Ended: true, Seen: []TagCount{{"b", 2}, {"c", 1}, {"a", 1}}}, Verdict{Due: 3, Disordered: 1}, "does not come after"},
		{"a wrong count", TagWalk{First: 2, Last: 2, Ended: true, Seen: []TagCount{{"b", 2}, {"a", 1}, {"c", 0}}}, Verdict{Due: 3, Missed: 1, Foreign: 1}, "did not have 0 posts"},
		{"not to the end", TagWalk{First: 2, Last: 2, Seen: []TagCount{{"b", 2}, {"a", 1}}}, Verdict{Due: 2}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := line.JudgeTags(c.walk)
			c.want.Walks, c.want.Rows = 1, len(c.walk.Seen)
			require.Equal(t, c.want, got)
			if c.says == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.says)
			}
		})
	}
}

// TestCrowdReaches: lists are long, with ties, and posts come in everywhere.
func TestCrowdReaches(t *testing.T) {
	t.Parallel()
	require.Equal(t, NewCrowd(1, 100, base, time.Second).Take(200), NewCrowd(1, 100, base, time.Second).Take(200))
	events := NewCrowd(2, 1000, base, time.Second).Take(5000)
	x := New()
	counts := map[string]int{}
	for i, e := range events {
		require.NoError(t, e.Validate())
		x.ApplyEvent(uint64(i+1), e)
		counts[string(e.Kind)]++
	}
	require.Empty(t, x.Complaints())
	posts := x.Posts()
	require.Greater(t, len(posts), 700)
	require.NotEmpty(t, x.Hidden())
	ties, middle := 0, 0
	for i := range posts[1:] {
		if posts[i].Place.Micros == posts[i+1].Place.Micros {
			ties++
		}
		if posts[i].Seq < posts[i+1].Seq {
			middle++
		}
	}
	require.Greater(t, ties, 50)
	require.Greater(t, middle, 200)
	require.Greater(t, len(x.List(Query{Tags: []string{"art"}})), len(posts)/3)
	require.Greater(t, len(x.List(Query{Tags: []string{"art", "photo"}, All: true})), len(posts)/10)
	t.Logf("%v: %d visible posts, %d ties, %d tags", counts, len(posts), ties, len(x.TagCounts()))
	for _, kind := range []string{"create", "update", "delete", "remove", "account"} {
		require.NotZero(t, counts[kind], kind)
	}
}
