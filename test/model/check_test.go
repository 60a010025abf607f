package model

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func checkFake(t *testing.T, want *Index, f *fakeAPI, options ...Option) error {
	t.Helper()
	if f.through.IsZero() && len(f.index.All()) > 0 {
		f.through = base.Add(50 * time.Minute)
	}
	c := newChecker("http://fake", want, options)
	c.client.Transport = f
	return c.check(t.Context())
}

// RoundTrip answers without a network.
func (f *fakeAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w.Result(), nil
}

func TestCheckHTTPAcceptsTheModelItself(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		x := fold(Generate(seed, 200))
		require.NoError(t, checkFake(t, x, &fakeAPI{index: x}), "seed %d", seed)
	}
	x := New()
	require.NoError(t, checkFake(t, x, &fakeAPI{index: x}), "an index without posts")
}

// TestCheckHTTPFinds spoils answers in the ways an API could be wrong.
func TestCheckHTTPFinds(t *testing.T) {
	t.Parallel()
	const history = "create a/1 @1 #art #photo; create a/2 @1 #art; create a/3 @1 #photo #art; create a/4 @1 #art; create b/5 @1 #art; create a/6 @1 #art; create a/7 @1 #art; " +
		"account b suspended; create a/8 @1 #art; delete a/8 @2; create a/9 @1 #art"
	list := func(r *http.Request) bool { return r.URL.Path == "/v1/posts" }
	recent := func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/v1/getRecent") }
	one := func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/v1/posts/") }
	every := func(*http.Request) bool { return true }
	firstPost := func(answer map[string]any) map[string]any {
		if posts, ok := answer["posts"].([]any); ok && len(posts) > 0 {
			return posts[0].(map[string]any)
		}
		return answer
	}
	page := func(answer map[string]any) map[string]any { return answer["page"].(map[string]any) }
	for _, c := range []struct {
		name   string
		at     func(*http.Request) bool
		spoil  func(r *http.Request, answer map[string]any) map[string]any
		expect string
	}{
		{"missing row", list, func(r *http.Request, a map[string]any) map[string]any {
			if posts := a["posts"].([]any); len(posts) > 1 && r.URL.Query().Has("after") {
				a["posts"] = posts[1:]
			}
			return a
		}, "is missing|row 0 is"},
		{"row twice", recent, func(r *http.Request, a map[string]any) map[string]any {
			if posts := a["posts"].([]any); len(posts) > 0 {
				a["posts"] = append(posts, posts[len(posts)-1])
			}
			return a
		}, "is too much"},
		{"oldest first", list, func(r *http.Request, a map[string]any) map[string]any {
			slices.Reverse(a["posts"].([]any))
			return a
		}, "row 0 is"},
		{"backward pages upside down", list, func(r *http.Request, a map[string]any) map[string]any {
			if r.URL.Query().Has("before") {
				slices.Reverse(a["posts"].([]any))
			}
			return a
		}, "row 0 is"},
		{"no list", list, func(_ *http.Request, a map[string]any) map[string]any {
			if len(a["posts"].([]any)) == 0 {
				a["posts"] = nil
			}
			return a
		}, "null"},
		{"hasNext", list, func(_ *http.Request, a map[string]any) map[string]any {
			page(a)["hasNext"] = true
			return a
		}, "hasNext"},
		{"hasPrevious", list, func(_ *http.Request, a map[string]any) map[string]any {
			page(a)["hasPrevious"] = false
			return a
		}, "hasPrevious"},
		{"no token on an empty page", list, func(_ *http.Request, a map[string]any) map[string]any {
			if len(a["posts"].([]any)) == 0 {
				page(a)["previous"] = ""
			}
			return a
		}, "next or previous"},
		{"next skips a row", list, func(_ *http.Request, a map[string]any) map[string]any {
			if page(a)["hasNext"].(bool) {
				page(a)["next"] = changed(page(a)["next"].(string), func(p *Position) { p.Place.Micros -= 1_000_000 })
			}
			return a
		}, "row|rows"},
		{"next repeats a row", list, func(_ *http.Request, a map[string]any) map[string]any {
			page(a)["next"] = changed(page(a)["next"].(string), func(p *Position) { p.Side = 1 })
			return a
		}, "row|rows"},
		{"row cursor keeps its row", list, func(_ *http.Request, a map[string]any) map[string]any {
			for _, p := range a["posts"].([]any) {
				post := p.(map[string]any)
				post["cursor"] = changed(post["cursor"].(string), func(p *Position) { p.Side = 1 })
			}
			return a
		}, "row"},
		{"paginator at the end", recent, func(_ *http.Request, a map[string]any) map[string]any {
			if a["paginator"] == nil {
				a["paginator"] = "x"
			}
			return a
		}, "paginator given"},
		{"paginator missing", recent, func(_ *http.Request, a map[string]any) map[string]any {
			delete(a, "paginator")
			return a
		}, "paginator given"},
		{"post not found", one, func(_ *http.Request, a map[string]any) map[string]any {
			if a["rkey"] == "3" {
				return nil
			}
			return a
		}, "status 404"},
		{"hidden post found", one, func(r *http.Request, a map[string]any) map[string]any {
			if strings.HasSuffix(r.URL.Path, "/5") {
				return map[string]any{}
			}
			return a
		}, "status 200, want 404"},
		{"deleted post found", one, func(r *http.Request, a map[string]any) map[string]any {
			if strings.HasSuffix(r.URL.Path, "/8") {
				return map[string]any{}
			}
			return a
		}, "status 200, want 404"},
		{"field too much", one, func(_ *http.Request, a map[string]any) map[string]any {
			if a != nil {
				a["hidden"] = false
			}
			return a
		}, "unknown field"},
		{"times in seconds", every, func(_ *http.Request, a map[string]any) map[string]any {
			if at, ok := firstPost(a)["sortAt"].(string); ok {
				firstPost(a)["sortAt"] = strings.Replace(at, ".000000", "", 1)
			}
			return a
		}, "sortAt"},
		{"another createdAt", every, func(_ *http.Request, a map[string]any) map[string]any {
			if a != nil {
				firstPost(a)["createdAt"] = "2026-08-20T12:00:00Z"
			}
			return a
		}, "createdAt|unknown field"},
		{"another record", list, func(_ *http.Request, a map[string]any) map[string]any {
			firstPost(a)["record"] = map[string]any{"n": 99}
			return a
		}, "record"},
		{"tags in another order", list, func(_ *http.Request, a map[string]any) map[string]any {
			for _, p := range a["posts"].([]any) {
				tags := slices.Clone(p.(map[string]any)["tags"].([]string))
				slices.Reverse(tags)
				p.(map[string]any)["tags"] = tags
			}
			return a
		}, "tags"},
		{"totals", every, func(_ *http.Request, a map[string]any) map[string]any {
			if totals, ok := a["totals"].(map[string]any); ok {
				totals["visiblePosts"] = totals["posts"]
			}
			return a
		}, "totals.visiblePosts is 8, want 7"},
		{"langs null", list, func(_ *http.Request, a map[string]any) map[string]any {
			firstPost(a)["langs"] = nil
			return a
		}, "null|langs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := fold(parseHistory(t, history))
			err := checkFake(t, x, &fakeAPI{index: x, mutate: func(r *http.Request, a map[string]any) map[string]any {
				if c.at(r) {
					return c.spoil(r, a)
				}
				return a
			}})
			require.Error(t, err)
			require.Regexp(t, c.expect, err.Error())
		})
	}
}

// TestCheckHTTPFindsAnotherIndex: an API that holds what a history without its
// last event makes is told apart, wherever that event made a difference.
func TestCheckHTTPFindsAnotherIndex(t *testing.T) {
	t.Parallel()
	found := 0
	for seed := range uint64(12) {
		events := Generate(seed, 60)
		want, got := fold(events), fold(events[:len(events)-3])
		same := answers(want) == answers(got) && len(want.posts) == len(got.posts) // the status tells
		err := checkFake(t, want, &fakeAPI{index: got})
		require.Equal(t, same, err == nil, "seed %d: %v", seed, err)
		if !same {
			found++
		}
	}
	require.Greater(t, found, 3)
}
