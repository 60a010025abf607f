package httpapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/mux"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
)

const defaultLimit = 50

var postsParams = params{single: []string{"limit", "after", "before", "first", "last"}, repeated: []string{"tags"}}

// postJSON is a post as clients see it. Its arrays are never null.
type postJSON struct {
	URI       string          `json:"uri"`
	CID       string          `json:"cid"`
	DID       string          `json:"did"`
	Rkey      string          `json:"rkey"`
	Tags      []string        `json:"tags"`
	Langs     []string        `json:"langs"`
	CreatedAt json.RawMessage `json:"createdAt"` // the record's own string, or null
	IndexedAt utc             `json:"indexedAt"`
	SortAt    utc             `json:"sortAt"`
	Record    json.RawMessage `json:"record"`
	// Cursor is the row's own position: reading after or before it leaves the
	// row out. It is good in the list that the row came in, and that of a post
	// that came alone in every list.
	Cursor string `json:"cursor"`
}

type pageJSON struct {
	HasNext     bool   `json:"hasNext"`
	HasPrevious bool   `json:"hasPrevious"`
	Next        string `json:"next"`
	Previous    string `json:"previous"`
}

type postsJSON struct {
	Posts []postJSON `json:"posts"`
	Page  pageJSON   `json:"page"`
}

// utc is a time in answers: RFC 3339, UTC, always six decimals.
type utc time.Time

func (t utc) MarshalJSON() ([]byte, error) {
	return time.Time(t).UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000000Z"`), nil
}

// postList is what tells one list of posts from another.
type postList struct {
	tags  []string
	print keyset.Fingerprint
}

// newPostList reads a list's tags and filters. The error is a *problem.
func newPostList(q query) (postList, error) {
	tags, err := q.tags()
	if err != nil {
		return postList{}, err
	}
	// Tokens live for ever: a filter that is added here later must be left out
	// of the fingerprint where it is not given.
	return postList{tags, store.PostOrder.Fingerprint(
		keyset.Filter{Name: "tags", Values: tags},
		keyset.Filter{Name: "match", Values: []string{"any"}},
	)}, nil
}

// listPosts is /v1/posts: a page of the posts with any of the tags, either way.
func (h *Handler) listPosts(r *http.Request) (*response, error) {
	q, err := parseQuery(r.URL.RawQuery, postsParams)
	if err != nil {
		return nil, err
	}
	list, err := newPostList(q)
	if err != nil {
		return nil, err
	}
	pq, err := h.paging(q, list)
	if err != nil {
		return nil, err
	}
	page, err := h.index.Posts(r.Context(), pq)
	if err != nil {
		return nil, err
	}
	h.metrics.pageRows.Observe(float64(len(page.Rows)))
	next, previous := page.Next, page.Previous
	out := postsJSON{Posts: h.posts(page.Rows, list.print), Page: pageJSON{
		HasNext: page.HasNext, HasPrevious: page.HasPrevious,
		Next: h.codec.Encode(next, list.print), Previous: h.codec.Encode(previous, list.print),
	}}
	res := &response{}
	tokens := []string{"after", "before"}
	if page.HasNext {
		res.link(r, q.replace(tokens, map[string]string{"last": "first"}, pair{"after", out.Page.Next}), "next")
	}
	if page.HasPrevious {
		res.link(r, q.replace(tokens, map[string]string{"first": "last"}, pair{"before", out.Page.Previous}), "prev")
	}
	return res, res.json(out)
}

// paging reads where a page of /v1/posts begins, which way it goes and how
// far. The error is a *problem.
func (h *Handler) paging(q query, list postList) (store.PostQuery, error) {
	for _, c := range []struct{ name, other string }{
		{"after", "before"}, {"first", "last"}, {"first", "limit"}, {"last", "limit"}, {"first", "before"}, {"last", "after"},
	} {
		if q.has(c.name) && q.has(c.other) {
			return store.PostQuery{}, fail(codeConflicting, "Give %s or %s, not both: limit goes with after or before, first with after, last with before.", c.name, c.other)
		}
	}
	pq := store.PostQuery{Tags: list.tags, From: keyset.Start(), Way: keyset.Forward}
	size := "limit"
	switch {
	case q.has("first"):
		size = "first"
	case q.has("last"):
		size, pq.From, pq.Way = "last", keyset.End(), keyset.Backward
	}
	var err error
	if pq.Limit, err = q.limit(size, defaultLimit); err != nil {
		return pq, err
	}
	if token, given := q.get("after"); given {
		pq.From, err = position(h.codec, "after", token, list.print)
	} else if token, given := q.get("before"); given {
		pq.Way = keyset.Backward
		pq.From, err = position(h.codec, "before", token, list.print)
	}
	return pq, err
}

// onePost is /v1/posts/{did}/{rkey}.
func (h *Handler) onePost(r *http.Request) (*response, error) {
	if _, err := parseQuery(r.URL.RawQuery, params{}); err != nil {
		return nil, err
	}
	did, err1 := url.PathUnescape(mux.Vars(r)["did"])
	rkey, err2 := url.PathUnescape(mux.Vars(r)["rkey"])
	if err1 != nil || err2 != nil || !event.ValidDID(did) || !event.ValidRkey(rkey) {
		return nil, fail(codeNotFound, "There can be no such post: the path is /v1/posts/{did}/{rkey}, with a DID such as did:plc:ewvi7nxzyoun6zhxrhs64oiz and a record key.")
	}
	row, err := h.index.Post(r.Context(), did, rkey)
	if err != nil {
		return nil, err
	}
	res := &response{}
	return res, res.json(h.post(row, anyList))
}

func (h *Handler) posts(rows []store.PostRow, print keyset.Fingerprint) []postJSON {
	out := make([]postJSON, len(rows))
	for i, row := range rows {
		out[i] = h.post(row, print)
	}
	return out
}

func (h *Handler) post(row store.PostRow, print keyset.Fingerprint) postJSON {
	p := postJSON{
		URI: event.URI(row.DID, row.Rkey), CID: row.CID, DID: row.DID, Rkey: row.Rkey,
		Tags: row.Tags, Langs: row.Langs,
		CreatedAt: createdAt(row.Record),
		IndexedAt: utc(row.IndexedAt), SortAt: utc(row.Key.SortAt()),
		Record: row.Record,
		Cursor: h.codec.Encode(keyset.At(store.PostKey(row)...), print),
	}
	if p.Tags == nil {
		p.Tags = []string{}
	}
	if p.Langs == nil {
		p.Langs = []string{}
	}
	return p
}
