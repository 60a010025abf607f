package model

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fakeAPI answers from an index. mutate may spoil an answer before it is sent;
// it gets the request's path and query and the answer as JSON values.
type fakeAPI struct {
	index  *Index
	mutate func(r *http.Request, answer map[string]any) map[string]any
}

func token(p Position) string {
	data, _ := json.Marshal(p)
	return base64.RawURLEncoding.EncodeToString(data)
}

func parseToken(s string) *Position {
	if s == "" {
		return nil
	}
	data, _ := base64.RawURLEncoding.DecodeString(s)
	var p Position
	_ = json.Unmarshal(data, &p)
	return &p
}

func postObject(p Post) map[string]any {
	var createdAt any
	if p.CreatedAt != "" {
		createdAt = p.CreatedAt
	}
	return map[string]any{
		"uri": p.URI, "cid": p.CID, "did": p.DID, "rkey": p.Rkey,
		"tags": p.Tags, "langs": append([]string{}, p.Langs...), "createdAt": createdAt,
		"indexedAt": p.IndexedAt.Format(timeFormat), "sortAt": p.SortAt().Format(timeFormat),
		"record": json.RawMessage(p.Record), "cursor": token(Position{Place: p.Place}),
	}
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var answer map[string]any
	switch path := r.URL.Path; path {
	case "/v1/posts", "/v1/getRecentRootPostsWithTags":
		limit, _ := strconv.Atoi(q.Get("limit") + q.Get("quantity"))
		page := f.index.Page(Query{Tags: q["tags"]}, parseToken(q.Get("after")+q.Get("paginator")), parseToken(q.Get("before")), limit)
		posts := []any{}
		for _, p := range page.Posts {
			posts = append(posts, postObject(p))
		}
		answer = map[string]any{"posts": posts}
		if path == "/v1/posts" {
			answer["page"] = map[string]any{"hasNext": page.HasNext, "hasPrevious": page.HasPrevious, "next": token(page.Next), "previous": token(page.Previous)}
			q.Del("before")
			q.Set("after", token(page.Next))
			w.Header().Set("Link", fmt.Sprintf(`<?%s>; rel="next"`, q.Encode()))
		} else if page.HasNext {
			answer["paginator"] = token(page.Next)
		}
	case "/v1/status":
		answer = map[string]any{"version": "test", "totals": map[string]any{"posts": len(f.index.All()),
			"visiblePosts": len(f.index.Posts()), "tags": len(f.index.TagCounts()), "deadLetters": f.index.DeadLetters()}}
	default:
		did, rkey, _ := strings.Cut(strings.TrimPrefix(path, "/v1/posts/"), "/")
		posts := f.index.Posts()
		if i := slices.IndexFunc(posts, func(p Post) bool { return p.DID == did && p.Rkey == rkey }); i >= 0 {
			answer = postObject(posts[i])
		}
	}
	if f.mutate != nil {
		answer = f.mutate(r, answer)
	}
	status, kind := http.StatusOK, "application/json; charset=utf-8"
	if answer == nil {
		status, kind, answer = http.StatusNotFound, "application/problem+json", map[string]any{"title": "Not Found", "code": "not_found"}
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

func checkFake(t *testing.T, want *Index, f *fakeAPI) error {
	t.Helper()
	server := httptest.NewServer(f)
	defer server.Close()
	return (&checker{base: server.URL, want: want}).check(t.Context())
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
			if p := parseToken(page(a)["next"].(string)); page(a)["hasNext"].(bool) {
				p.Place.Micros -= 1_000_000
				page(a)["next"] = token(*p)
			}
			return a
		}, "row|rows"},
		{"next repeats a row", list, func(_ *http.Request, a map[string]any) map[string]any {
			p := parseToken(page(a)["next"].(string))
			p.Side = 1
			page(a)["next"] = token(*p)
			return a
		}, "row|rows"},
		{"row cursor keeps its row", list, func(_ *http.Request, a map[string]any) map[string]any {
			for _, p := range a["posts"].([]any) {
				post := p.(map[string]any)
				at := parseToken(post["cursor"].(string))
				at.Side = 1
				post["cursor"] = token(*at)
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
