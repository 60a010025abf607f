package httpapi

import (
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/gorilla/mux"

	"github.com/tagstream/tagstream/pkg/store/query"
)

// Admin serves the routes for operators, which do not belong on a public listener. Without a
// Handler it answers 503, since the operators' listener starts earlier and stops later. The zero
// value is ready to use, and safe for concurrent use.
type Admin struct {
	mux atomic.Pointer[mux.Router]
}

// Use sets the handler; nil means none.
func (a *Admin) Use(h *Handler) {
	if h == nil {
		a.mux.Store(nil)
		return
	}
	m := h.serveOnly(h.adminRoutes())
	m.NotFoundHandler = h.handle(routeNone, func(*http.Request) (*response, error) {
		return nil, fail(codeNotFound, "There is nothing at this path: the only route for operators is /v1/admin/tags.")
	})
	a.mux.Store(m)
}

// ServeHTTP answers a request.
func (a *Admin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m := a.mux.Load()
	if m == nil {
		writeProblem(w, fail(codeUnavailable, "The API is starting or stopping; try again in a few seconds."))
		return
	}
	m.ServeHTTP(w, r)
}

func (h *Handler) adminRoutes() []route {
	return []route{{routeAdminTags, "/v1/admin/tags", "the most used tags, by page number", h.rankTags}}
}

const defaultPerPage = 50

var adminTagsParams = params{single: []string{"page", "perPage"}}

type rankedTagsJSON struct {
	Page    int `json:"page"`
	PerPage int `json:"perPage"`
	// Pages is the number of pages, Total the number of tags in use, which may be more than the
	// pages show.
	Pages int             `json:"pages"`
	Total int64           `json:"total"`
	Tags  []rankedTagJSON `json:"tags"`
}

type rankedTagJSON struct {
	Rank int `json:"rank"`
	tagJSON
}

// rankTags is /v1/admin/tags: page N of the most used tags, by offset.
func (h *Handler) rankTags(r *http.Request) (*response, error) {
	q, err := parseQuery(r.URL.RawQuery, adminTagsParams)
	if err != nil {
		return nil, err
	}
	perPage, err := q.limit("perPage", defaultPerPage)
	if err != nil {
		return nil, err
	}
	number, err := q.pageNumber(perPage)
	if err != nil {
		return nil, err
	}
	offset := (number - 1) * perPage
	tags, total, err := h.index.RankedTags(r.Context(), offset, perPage)
	if err != nil {
		return nil, err
	}
	out := rankedTagsJSON{
		Page: number, PerPage: perPage, Pages: pagesOf(int(min(total, query.MaxRankedTags)), perPage), Total: total,
		Tags: make([]rankedTagJSON, len(tags)),
	}
	for i, t := range tags {
		out.Tags[i] = rankedTagJSON{offset + i + 1, tagJSON{t.Name, t.Posts}}
	}
	return jsonResponse(out)
}

// pageNumber returns the number of a page that begins within query.MaxRankedTags. The error is a
// *problem.
func (q values) pageNumber(perPage int) (int, error) {
	s, given := q.get("page")
	if !given {
		return 1, nil
	}
	last := pagesOf(query.MaxRankedTags, perPage)
	n, err := strconv.Atoi(s)
	switch {
	case !isNumber(s):
		return 0, fail(codeInvalidPage, "Give page as a whole number from 1 to %d, in digits without leading zeros: it is %s%s.", last, quote(s), plusHint(s))
	case err != nil || n > last:
		return 0, fail(codeInvalidPage, "Ask for a page from 1 to %d: with %d tags each they hold the %d most used tags; /v1/tags lists all tags.", last, perPage, query.MaxRankedTags)
	}
	return n, nil
}

func pagesOf(n, perPage int) int { return (n + perPage - 1) / perPage }
