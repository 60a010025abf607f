package httpapi

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
)

// changesParams are the parameters of /v1/posts that select posts and say where to continue.
var changesParams = filters.and("limit", "after")

// What a follower does with a post.
const (
	opUpsert = "upsert" // store it
	opRemove = "remove" // drop it
)

type changeJSON struct {
	Op string `json:"op"`
	// Post is the post of an upsert, URI names that of a removal.
	Post   *postJSON `json:"post,omitempty"`
	URI    string    `json:"uri,omitempty"`
	Cursor string    `json:"cursor"`
}

type changesPageJSON struct {
	HasNext bool   `json:"hasNext"`
	Next    string `json:"next"`
}

type changesJSON struct {
	Changes []changeJSON    `json:"changes"`
	Page    changesPageJSON `json:"page"`
}

// listChanges is /v1/changes: the changes of a list, in commit order.
func (h *Handler) listChanges(r *http.Request) (*response, error) {
	q, err := parseQuery(r.URL.RawQuery, changesParams)
	if err != nil {
		return nil, err
	}
	list, err := parsePostList(q)
	if err != nil {
		return nil, err
	}
	cq := query.ChangeQuery{List: list.query}
	if cq.Limit, err = q.limit("limit", defaultLimit); err != nil {
		return nil, err
	}
	if token, given := q.get("after"); given {
		if cq.After, err = h.feedPosition("after", token, list); err != nil {
			return nil, err
		}
	}
	page, err := h.index.Changes(r.Context(), cq)
	if err != nil {
		h.metrics.countExpired(err)
		return nil, err
	}
	h.metrics.countChanges(page)
	out := changesJSON{Changes: make([]changeJSON, len(page.Changes)), Page: changesPageJSON{page.HasNext, h.changeToken(page.Next, list)}}
	for i, c := range page.Changes {
		out.Changes[i] = h.newChangeJSON(c, list)
	}
	res := &response{}
	if page.HasNext {
		res.link(q.replace([]string{"after"}, nil, pair{"after", out.Page.Next}), "next")
	}
	return res, res.setChanges(out)
}

// setChanges makes a page of changes the body. Like setPosts, it does not check the records again.
func (r *response) setChanges(page changesJSON) error {
	tail, err := encode(struct {
		Page changesPageJSON `json:"page"`
	}{page.Page})
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	b := []byte(`{"changes":[`)
	for i := range page.Changes {
		if i > 0 {
			b = append(b, ',')
		}
		b = page.Changes[i].appendJSON(b)
	}
	r.contentType, r.body = contentJSON, append(append(b, "],"...), tail[1:]...)
	return nil
}

func (c *changeJSON) appendJSON(b []byte) []byte {
	b = append(append(b, `{"op":"`...), c.Op...)
	if c.Post != nil {
		b = c.Post.appendJSON(append(b, `","post":`...))
	} else {
		b = appendString(append(b, `","uri":`...), c.URI)
	}
	return append(appendString(append(b, `,"cursor":`...), c.Cursor), '}')
}

func (h *Handler) newChangeJSON(c query.Change, list postList) changeJSON {
	out := changeJSON{Op: opRemove, Cursor: h.changeToken(c.Position, list)}
	if c.Post == nil {
		out.URI = event.URI(c.DID, c.Rkey)
		return out
	}
	post := h.newPostJSON(c.Post, list.fingerprint)
	out.Op, out.Post = opUpsert, &post
	return out
}

// changeToken returns the token of a position in the change feed of a list.
func (h *Handler) changeToken(p query.FeedPosition, list postList) string {
	return h.codec.Encode(keyset.At(p.Values()...), list.feedFingerprint)
}

// feedPosition returns the position in a token of a list's change feed. The error is a *problem.
func (h *Handler) feedPosition(name, token string, list postList) (*query.FeedPosition, error) {
	p, err := h.codec.Decode(token, list.feedFingerprint)
	if errors.Is(err, keyset.ErrTokenMismatch) {
		if _, err := h.codec.Decode(token, list.fingerprint); err == nil {
			return nil, fail(codeCursorMismatch, "Send an %s that came from /v1/changes: this one is of a list; omit it for the current position.", name)
		}
		return nil, fail(codeCursorMismatch, "Keep the tags and filters the same while following, or leave out %s to start again: it was made for another query.", name)
	}
	pos, ok := query.FeedPositionOf(p)
	if err != nil || !ok {
		return nil, fail(codeInvalidCursor, "Send %s exactly as this service returned it, or leave it out to start again.", name)
	}
	return &pos, nil
}
