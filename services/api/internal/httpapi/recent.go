package httpapi

import (
	"net/http"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
)

const defaultQuantity = query.MaxLimit

var recentParams = params{single: []string{"quantity", "paginator"}, repeated: []string{"tags"}}

type recentJSON struct {
	Posts []postJSON `json:"posts"`
	recentEnd
}

// recentEnd is what follows the posts.
type recentEnd struct {
	// Paginator is left out on the last page.
	Paginator string   `json:"paginator,omitempty"`
	Hints     []string `json:"hints,omitempty"`
}

// recent is getRecentRootPostsWithTags: the newest posts with any of the tags, page by page, only
// towards older ones.
func (h *Handler) recent(r *http.Request) (*response, error) {
	q, err := parseQuery(r.URL.RawQuery, recentParams)
	if err != nil {
		return nil, err
	}
	list, err := parsePostList(q)
	if err != nil {
		return nil, err
	}
	pq := list.query
	pq.From, pq.Direction = keyset.Start(), keyset.Forward
	if pq.Limit, err = q.limit("quantity", defaultQuantity); err != nil {
		return nil, err
	}
	if token, given := q.get("paginator"); given {
		if pq.From, err = h.postPosition("paginator", token, list.fingerprint); err != nil {
			return nil, err
		}
	}
	page, err := h.index.Posts(r.Context(), pq)
	if err != nil {
		return nil, err
	}
	h.metrics.pageRows.Observe(float64(len(page.Rows)))
	var end recentEnd
	if end.Hints, err = h.hints(r.Context(), q, pq, page); err != nil {
		return nil, err
	}
	res := &response{}
	if page.HasNext {
		end.Paginator = h.codec.Encode(page.Next, list.fingerprint)
		res.link(q.replace([]string{"paginator"}, nil, pair{"paginator", end.Paginator}), "next")
	}
	return res, res.setPosts(h.eachPostJSON(page.Rows, list.fingerprint), end)
}
