package httpapi

import (
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/gorilla/mux"

	"github.com/tagstream/tagstream/pkg/store/query"
)

// Admin serves the routes for operators: those that no public listener should
// have. It is there before the Handler that does the work, and after it, since
// operators' listeners outlive what they tell of; then it answers 503. The zero
// value is ready, and safe for concurrent use.
type Admin struct {
	mux atomic.Pointer[mux.Router]
}

// Use makes h do the work; nil: none.
func (a *Admin) Use(h *Handler) {
	if h == nil {
		a.mux.Store(nil)
		return
	}
	m := h.serveOnly(h.adminRoutes())
	m.NotFoundHandler = h.handle(routeNone, func(*http.Request) (*response, error) {
		return nil, fail(codeNotFound, "There is nothing at this path: operators have /v1/admin/tags.")
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
	// Pages is how many there are, Total how many tags are in use, which may be
	// more than the pages show.
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
	number, err := q.page(perPage)
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
	res := &response{}
	return res, res.json(out)
}

// page returns the number of a page that begins within query.MaxRankedTags. The
// error is a *problem.
func (q values) page(perPage int) (int, error) {
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
		return 0, fail(codeInvalidPage, "Ask for a page from 1 to %d: with %d tags each they hold the %d most used tags, and /v1/tags goes through all of them.", last, perPage, query.MaxRankedTags)
	}
	return n, nil
}

func pagesOf(n, perPage int) int { return (n + perPage - 1) / perPage }
