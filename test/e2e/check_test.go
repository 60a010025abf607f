package e2e_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/test/model"
)

// spoiler sits in front of the API and corrupts requests or answers.
type spoiler struct {
	api    string
	ask    func(params url.Values)
	answer func(r *http.Request, status int, answer map[string]any) (int, map[string]any)
}

func (s *spoiler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	params := r.URL.Query()
	if s.ask != nil && strings.HasPrefix(r.URL.Path, "/v1/posts") {
		s.ask(params)
	}
	target := s.api + r.URL.EscapedPath() + "?" + params.Encode()
	res, err := http.Get(target)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	status, answer := res.StatusCode, map[string]any{}
	if s.answer != nil {
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		if err := d.Decode(&answer); err == nil {
			status, answer = s.answer(r, status, answer)
			body, _ = json.Marshal(answer)
		}
	}
	for _, name := range []string{"Content-Type", "Link"} {
		w.Header().Set(name, res.Header.Get(name))
	}
	if status == http.StatusOK {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// The check that the other tests rely on rejects an API with one error, and accepts a correct one.
func TestModelFindsBadAnswers(t *testing.T) {
	t.Parallel()
	b := newIndexBench(t, natstest.Server(t))
	api := b.api()
	history := model.GenerateMessages(1, 400)
	want := model.Fold(history)
	b.indexer(100)
	b.await(api, b.publish(history...))
	model.CheckHTTP(t, api, want, model.Queries(16, 1))

	asked := func(change func(params url.Values)) *spoiler { return &spoiler{ask: change} }
	without := func(name string) *spoiler { return asked(func(params url.Values) { params.Del(name) }) }
	answered := func(path string, change func(answer map[string]any)) *spoiler {
		return &spoiler{answer: func(r *http.Request, status int, answer map[string]any) (int, map[string]any) {
			if status == http.StatusOK && strings.HasPrefix(r.URL.Path, path) {
				change(answer)
			}
			return status, answer
		}}
	}
	rows := func(name string, change func(rows []any) []any) *spoiler {
		return answered("/v1/", func(a map[string]any) {
			if list, ok := a[name].([]any); ok && len(list) > 1 {
				a[name] = change(list)
			}
		})
	}
	reversed := func(rows []any) []any { slices.Reverse(rows); return rows }
	cut := func(rows []any) []any { return rows[1:] }
	doubled := func(rows []any) []any { return append(rows, rows[len(rows)-1]) }
	field := func(of, name string, value any) *spoiler { // in each row, in a single post, in the page
		return answered("/v1/", func(a map[string]any) {
			objects := []any{a[of]}
			if list, ok := a[of].([]any); ok {
				objects = list
			}
			for _, o := range objects {
				if o, ok := o.(map[string]any); ok {
					o[name] = value
				}
			}
		})
	}
	refusal := func(status int, instead map[string]any) *spoiler {
		return &spoiler{answer: func(_ *http.Request, got int, answer map[string]any) (int, map[string]any) {
			if got == status {
				return http.StatusOK, instead
			}
			return got, answer
		}}
	}
	for name, s := range map[string]*spoiler{
		"without match": without("match"), "without none": without("none"), "without lang": without("lang"),
		"without since": without("since"), "without until": without("until"), "without a token": without("after"),
		"with the first tag alone": asked(func(p url.Values) { p["tags"] = p["tags"][:min(len(p["tags"]), 1)] }),
		"with the first language alone": asked(func(p url.Values) {
			if p.Has("lang") {
				p["lang"] = p["lang"][:1]
			}
		}),
		"with windows turned round": asked(func(p url.Values) {
			if p.Has("since") && p.Has("until") {
				p["since"], p["until"] = p["until"], p["since"]
			}
		}),
		"posts upside down": rows("posts", reversed), "a post missing": rows("posts", cut), "a post twice": rows("posts", doubled),
		"tags upside down": rows("tags", reversed), "a tag missing": rows("tags", cut), "a tag twice": rows("tags", doubled),
		"hours upside down": rows("history", reversed), "an hour missing": rows("history", cut), "an hour more": rows("history", doubled),
		"null for no posts": answered("/v1/posts", func(a map[string]any) {
			if list, ok := a["posts"].([]any); ok && len(list) == 0 {
				a["posts"] = nil
			}
		}),
		"hasNext": field("page", "hasNext", true), "hasPrevious": field("page", "hasPrevious", false),
		"no next": field("page", "next", ""), "another next": field("page", "next", "x"), "no previous": field("page", "previous", nil),
		"another record": field("posts", "record", map[string]any{}), "another time": field("posts", "createdAt", "2026-08-20T12:00:00Z"),
		"no languages": field("posts", "langs", nil), "no cursor": field("posts", "cursor", ""), "a field more": field("posts", "hidden", false),
		"a count": field("tags", "posts", 1), "a total": field("totals", "visiblePosts", 1), "dead letters": field("totals", "deadLetters", 0),
		"a paginator at the end": answered("/v1/getRecent", func(a map[string]any) {
			if a["paginator"] == nil {
				a["paginator"] = "x"
			}
		}),
		"no paginator": answered("/v1/getRecent", func(a map[string]any) { delete(a, "paginator") }),
		"a hit missing": answered("/xrpc/", func(a map[string]any) {
			if list, ok := a["posts"].([]any); ok && len(list) > 0 {
				a["posts"] = cut(list)
			}
		}),
		"no cursor of a search": answered("/xrpc/", func(a map[string]any) { delete(a, "cursor") }),
		"a tag's hours before": answered("/v1/tags", func(a map[string]any) {
			if list, ok := a["tags"].([]any); ok && a["comparedSince"] != nil && len(list) > 0 {
				list[len(list)-1].(map[string]any)["before"] = json.Number("-1")
			}
		}),
		"no tags of a window": answered("/v1/tags", func(a map[string]any) {
			if a["comparedSince"] != nil {
				a["tags"] = []any{}
			}
		}),
		"firstSeen":               answered("/v1/tag", func(a map[string]any) { a["firstSeen"] = a["lastSeen"] }),
		"what is hidden is found": refusal(http.StatusNotFound, map[string]any{}),
		"tokens of any list":      refusal(http.StatusBadRequest, map[string]any{"posts": []any{}}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.api = api
			server := httptest.NewServer(s)
			defer server.Close()
			err := model.Check(t.Context(), server.URL, want, model.Queries(16, 1))
			require.Error(t, err)
			t.Logf("%.300v", err)
		})
	}
}
