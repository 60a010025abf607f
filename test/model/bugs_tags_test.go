package model

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// counting is an API that counts tags otherwise.
func counting(count func(f *fakeAPI, counts map[string]int)) func(*fakeAPI) {
	return func(f *fakeAPI) {
		f.counts = func() []TagCount {
			counts := map[string]int{}
			for _, c := range f.index.TagCounts() {
				counts[c.Tag] = c.Posts
			}
			count(f, counts)
			var list []TagCount
			for tag, n := range counts {
				list = append(list, TagCount{tag, n})
			}
			slices.SortFunc(list, func(a, b TagCount) int {
				if a.Posts != b.Posts {
					return b.Posts - a.Posts
				}
				return strings.Compare(a.Tag, b.Tag)
			})
			return list
		}
	}
}

// listing is an API whose list of tags is otherwise ordered.
func listing(change func([]TagCount)) func(*fakeAPI) {
	return func(f *fakeAPI) {
		f.counts = func() []TagCount {
			counts := f.index.TagCounts()
			change(counts)
			return counts
		}
	}
}

// hours gives the history of an answer.
func hours(answer map[string]any) []any { return answer["history"].([]any) }

var tagBugs = []queryBug{
	{"the last page of tags for the first", answering("/v1/tags", func(r *http.Request, a map[string]any) {
		if tags, ok := a["tags"].([]any); ok && r.URL.Query().Has("last") {
			slices.Reverse(tags)
		}
	})},
	{"counts of hidden posts too", counting(func(f *fakeAPI, counts map[string]int) {
		for _, p := range f.index.Hidden() {
			for _, tag := range p.Tags {
				counts[tag]++
			}
		}
	})},
	{"tags without posts", counting(func(f *fakeAPI, counts map[string]int) {
		for _, p := range f.index.Hidden() {
			for _, tag := range p.Tags {
				counts[tag] += 0
			}
		}
	})},
	{"one count off by one", counting(func(_ *fakeAPI, counts map[string]int) { counts["art"]++ })},
	{"ties by name downwards", listing(func(counts []TagCount) {
		slices.SortFunc(counts, func(a, b TagCount) int {
			if a.Posts != b.Posts {
				return b.Posts - a.Posts
			}
			return strings.Compare(b.Tag, a.Tag)
		})
	})},
	{"ties by the letters of a language", listing(func(counts []TagCount) {
		slices.SortStableFunc(counts, func(a, b TagCount) int {
			letters := func(s string) string { return strings.Trim(s, "$.%'#-\\") }
			if a.Posts != b.Posts {
				return b.Posts - a.Posts
			}
			return strings.Compare(letters(a.Tag), letters(b.Tag))
		})
	})},
	{"the last tag missing at a seam", answering("/v1/tags", func(r *http.Request, a map[string]any) {
		if tags, ok := a["tags"].([]any); ok && r.URL.Query().Has("before") && len(tags) > 1 {
			a["tags"] = tags[1:]
		}
	})},
	{"a prefix in the middle", func(f *fakeAPI) {
		f.complete = func(counts []TagCount, prefix string) []TagCount {
			return slices.DeleteFunc(counts, func(c TagCount) bool { return !strings.Contains(c.Tag, prefix) })
		}
	}},
	{"a prefix with wildcards", func(f *fakeAPI) {
		f.complete = func(counts []TagCount, prefix string) []TagCount {
			if prefix == "%" || prefix == "_" {
				prefix = ""
			}
			return complete(counts, prefix)
		}
	}},
	{"nineteen completions", answering("/v1/tags", func(r *http.Request, a map[string]any) {
		if tags := a["tags"]; r.URL.Query().Has("prefix") {
			a["tags"] = tags.([]any)[:min(len(tags.([]any)), 19)]
		}
	})},

	{"history shifted by an hour", answering("/v1/tags/", func(_ *http.Request, a map[string]any) {
		h := hours(a)
		for i := range h[1:] {
			h[i].(map[string]any)["posts"] = h[i+1].(map[string]any)["posts"]
		}
		h[len(h)-1].(map[string]any)["posts"] = 0
	})},
	{"history ends an hour early", func(f *fakeAPI) { f.historyEnd = func(t time.Time) time.Time { return t.Add(-time.Hour) } }},
	{"history ends now", func(f *fakeAPI) { f.historyEnd = func(time.Time) time.Time { return base.Add(1000 * time.Hour) } }},
	{"history without empty hours", answering("/v1/tags/", func(_ *http.Request, a map[string]any) {
		a["history"] = slices.DeleteFunc(hours(a), func(h any) bool { return h.(map[string]any)["posts"] == 0 })
	})},
	{"newest hour first", answering("/v1/tags/", func(_ *http.Request, a map[string]any) { slices.Reverse(hours(a)) })},
	{"history of hidden posts too", answering("/v1/tags/", func(r *http.Request, a map[string]any) {
		h := hours(a)
		h[len(h)-2].(map[string]any)["posts"] = 1 + h[len(h)-2].(map[string]any)["posts"].(int)
	})},
	{"first for last", answering("/v1/tags/", func(_ *http.Request, a map[string]any) {
		a["firstSeen"], a["lastSeen"] = a["lastSeen"], a["firstSeen"]
	})},
	{"paths cut at an encoded slash", func(f *fakeAPI) {
		f.tagName = func(name string) string { return strings.Split(name, "/")[0] }
	}},
	{"paths decoded twice", func(f *fakeAPI) {
		f.tagName = func(name string) string { return strings.ReplaceAll(name, "%2f", "/") }
	}},
	{"tags of hidden posts found", func(f *fakeAPI) {
		f.absentTag = func(name string) map[string]any {
			return map[string]any{"tag": name, "posts": 0, "firstSeen": nil, "lastSeen": nil, "history": []any{}}
		}
	}},
}

// TestCheckHTTPFindsTagBugs: each is found within a few indexes.
func TestCheckHTTPFindsTagBugs(t *testing.T) {
	t.Parallel()
	const seeds = 6
	for _, bug := range tagBugs {
		t.Run(bug.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(seeds) {
				x := fold(Generate(seed, 500))
				f := &fakeAPI{index: x, through: base.Add(50 * time.Minute)}
				bug.plant(f)
				c := newChecker("http://fake", x, []Option{Queries(0, seed)})
				c.client.Transport = f
				if err := c.run(t.Context(), c.checkPosts, c.checkTagList, c.checkCompletions, c.checkTagInfos); err != nil {
					t.Logf("found with seed %d: %.400v", seed, err)
					return
				}
			}
			t.Fatalf("no index of %d tells this bug from the right answers", seeds)
		})
	}
}
