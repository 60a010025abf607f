package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store/query"
)

// askAdmin sends a request to the operators' handler and checks the answer against openapi.yaml.
func askAdmin(t testing.TB, admin http.Handler, target string) answer {
	t.Helper()
	doc, _ := spec()
	base := doc.Paths.Value("/v1/admin/tags").Servers[0].URL
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, base+target, nil)
	w := httptest.NewRecorder()
	admin.ServeHTTP(w, r)
	a := answer{w.Code, w.Header(), w.Body.Bytes()}
	a.checkSpec(t, r)
	require.Empty(t, a.header.Get("Access-Control-Allow-Origin"), "%s: web pages must not read this", target)
	return a
}

func TestAdminTags(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	s := serve(t, x.open(t))
	var admin Admin
	admin.Use(s.handler)
	ask := func(query string) rankedTagsJSON {
		t.Helper()
		a := askAdmin(t, &admin, "/v1/admin/tags"+query)
		require.Equal(t, http.StatusOK, a.status, "%s", a.body)
		var out rankedTagsJSON
		a.json(t, &out)
		return out
	}
	require.Equal(t, rankedTagsJSON{Page: 1, PerPage: 50, Tags: []rankedTagJSON{}}, ask(""))

	x.fillTags(t)
	want := x.allTags()
	require.Len(t, want, 27)
	for _, perPage := range []int{1, 7, 27, 100} {
		pages := (len(want) + perPage - 1) / perPage
		for page := 1; page <= pages+1; page++ {
			got := ask(fmt.Sprintf("?page=%d&perPage=%d", page, perPage))
			require.Equal(t, []int{page, perPage, pages, len(want)}, []int{got.Page, got.PerPage, got.Pages, int(got.Total)})
			from, to := min((page-1)*perPage, len(want)), min(page*perPage, len(want))
			require.Len(t, got.Tags, to-from)
			for i, tag := range got.Tags {
				require.Equal(t, rankedTagJSON{from + i + 1, want[from+i]}, tag)
			}
		}
	}
	require.Equal(t, ask("?page=1&perPage=50"), ask(""))
	require.Equal(t, ask("?page=1&perPage=50"), ask("?perPage=50"))
}

// The pages end at the largest allowed offset, whatever their size.
func TestAdminTagsIsBounded(t *testing.T) {
	t.Parallel()
	var admin Admin
	s := serve(t, deadIndex(t))
	admin.Use(s.handler)
	for _, c := range []struct {
		query string
		want  code
	}{
		{"?page=0", codeInvalidPage}, {"?page=01", codeInvalidPage}, {"?page=+1", codeInvalidPage}, {"?page=-1", codeInvalidPage}, {"?page=", codeInvalidPage}, {"?page=1.5", codeInvalidPage}, {"?page=%2B1", codeInvalidPage},
		{"?page=x", codeInvalidPage}, {"?page=201", codeInvalidPage}, {"?page=101&perPage=100", codeInvalidPage}, {"?page=10001&perPage=1", codeInvalidPage},
		{"?page=335&perPage=30", codeInvalidPage}, {"?page=9223372036854775807", codeInvalidPage}, {"?page=99999999999999999999", codeInvalidPage},
		{"?page=184467440737095517&perPage=100", codeInvalidPage},
		{"?perPage=0", codeInvalidLimit}, {"?perPage=101", codeInvalidLimit}, {"?perPage=x", codeInvalidLimit}, {"?perpage=5", codeUnknownParameter},
		{"?limit=5", codeUnknownParameter}, {"?page=1&page=1", codeRepeatedParameter}, {"?after=x", codeUnknownParameter},
		{"?page=200", codeUnavailable}, {"?page=100&perPage=100", codeUnavailable}, {"?page=10000&perPage=1", codeUnavailable}, {"?page=334&perPage=30", codeUnavailable},
	} {
		p := askAdmin(t, &admin, "/v1/admin/tags"+c.query).requireProblem(t, c.want)
		require.NotContains(t, p.Detail, "127.0.0.1", c.query)
	}
}

// Queries stay within the index's limits, and answers within those of the API.
func TestAdminTagsOfMany(t *testing.T) {
	t.Parallel()
	var offsets []int
	s := serve(t, rankedIndex{ranked: func(offset, limit int) ([]query.TagCount, int64, error) {
		offsets = append(offsets, offset)
		return make([]query.TagCount, min(limit, query.MaxRankedTags-offset)), 58_213, nil
	}})
	var admin Admin
	admin.Use(s.handler)
	var out rankedTagsJSON
	admin.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v1/admin/tags?page=334&perPage=30", nil))
	w := httptest.NewRecorder()
	admin.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/admin/tags?page=200", nil))
	answer{w.Code, w.Header(), w.Body.Bytes()}.json(t, &out)
	require.Equal(t, []int{9990, 9950}, offsets)
	require.Equal(t, 200, out.Pages)
	require.EqualValues(t, 58_213, out.Total)
	require.Equal(t, 10_000, out.Tags[49].Rank)
}

type rankedIndex struct {
	fakeIndex
	ranked func(offset, limit int) ([]query.TagCount, int64, error)
}

func (f rankedIndex) RankedTags(_ context.Context, offset, limit int) ([]query.TagCount, int64, error) {
	return f.ranked(offset, limit)
}

// Invariant: numbered pages are bounded and never on the public listener, and the operators'
// handler has no other routes.
func TestAdminIsSeparate(t *testing.T) {
	t.Parallel()
	s := serve(t, fakeIndex{})
	var admin Admin
	a := askAdmin(t, &admin, "/v1/admin/tags")
	a.requireProblem(t, codeUnavailable)
	require.NotEmpty(t, a.header.Get("Retry-After"))
	admin.Use(s.handler)
	require.Equal(t, http.StatusOK, askAdmin(t, &admin, "/v1/admin/tags").status)
	require.EqualValues(t, 1, testutil.ToFloat64(s.handler.metrics.requests.WithLabelValues(routeAdminTags, "200")))
	for _, path := range []string{"/", "/v1/posts", "/v1/tags", "/v1/tags/art", "/v1/status", "/openapi.yaml", "/v1/admin", "/v1/admin/", "/v1/admin/tags/"} {
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		require.Equal(t, http.StatusNotFound, w.Code, path)
	}
	w := httptest.NewRecorder()
	admin.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/admin/tags", nil))
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
	admin.Use(nil)
	askAdmin(t, &admin, "/v1/admin/tags").requireProblem(t, codeUnavailable)

	for _, path := range []string{"/v1/admin/tags", "/v1/admin/tags?page=1", "/v1/admin", "//v1/admin/tags", "/v1/%61dmin/tags", "/v1/admin%2Ftags", "/v1/tags/../admin/tags"} {
		s.get(t, path).requireProblem(t, codeNotFound)
	}
	var out indexJSON
	s.get(t, "/").json(t, &out)
	for _, r := range out.Routes {
		require.NotContains(t, r.Path, "admin")
	}
}
