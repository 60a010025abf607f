package httpapi

import (
	"errors"
	"net/http"
	"net/url"
	"time"
	"unicode/utf8"

	"github.com/gorilla/mux"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
)

var oneTagParams = params{single: []string{"tag"}}

var tagsParams = params{single: []string{"limit", "after", "before", "first", "last", "prefix", "window"}}

// allTags is the fingerprint of tokens of the list of tags. It has no filters; the name
// distinguishes it from future lists in the same order.
var allTags = query.TagOrder.Fingerprint(keyset.Filter{Name: "list", Values: []string{"tags"}})

type tagJSON struct {
	Tag   string `json:"tag"`
	Posts int64  `json:"posts"`
}

type tagsJSON struct {
	Tags []tagJSON `json:"tags"`
	// Page is left out of completions, which have only one page.
	Page *pageJSON `json:"page,omitempty"`
}

type tagHistoryJSON struct {
	tagJSON
	FirstSeen *utc       `json:"firstSeen"`
	LastSeen  *utc       `json:"lastSeen"`
	History   []hourJSON `json:"history"`
}

type hourJSON struct {
	Hour  utc   `json:"hour"`
	Posts int64 `json:"posts"`
}

// listTags is /v1/tags: a page of all tags, the completions of a prefix, or the popular tags.
func (h *Handler) listTags(r *http.Request) (*response, error) {
	q, err := parseQuery(r.URL.RawQuery, tagsParams)
	if err != nil {
		return nil, err
	}
	if prefix, given := q.get("prefix"); given {
		if len(q) > 1 {
			return nil, fail(codeConflicting, "Give prefix alone: it returns the %d most used tags with that prefix, without pages.", query.MaxCompletions)
		}
		return h.completeTag(r, prefix)
	}
	if window, given := q.get("window"); given {
		return h.listPopular(r, q, window)
	}
	p, err := q.pageRequest(h.tagPosition)
	if err != nil {
		return nil, err
	}
	page, err := h.index.Tags(r.Context(), query.TagQuery{From: p.from, Direction: p.direction, Limit: p.limit})
	if err != nil {
		return nil, err
	}
	res := &response{}
	edges := h.pageLinks(q, res, allTags, page.Next, page.Previous, page.HasNext, page.HasPrevious)
	return res, res.setJSON(tagsJSON{tagCounts(page.Rows), &edges})
}

func tagCounts(rows []query.TagCount) []tagJSON {
	out := make([]tagJSON, len(rows)) // never null
	for i, t := range rows {
		out[i] = tagJSON{t.Name, t.Posts}
	}
	return out
}

// tagPosition returns the page position in a token of the list of tags. The error is a *problem.
func (h *Handler) tagPosition(name, token string) (keyset.Position, error) {
	p, err := h.codec.Decode(token, allTags)
	switch {
	case errors.Is(err, keyset.ErrTokenMismatch):
		return p, fail(codeCursorMismatch, "Use %s with the list that returned it, or leave it out to start again: it is not from the list of tags.", name)
	case err != nil:
		return p, fail(codeInvalidCursor, "Send %s exactly as this service returned it, or leave it out to start again.", name)
	}
	return p, nil
}

// completeTag is /v1/tags with a prefix.
func (h *Handler) completeTag(r *http.Request, prefix string) (*response, error) {
	if len(prefix) > maxTagsBytes {
		return nil, fail(codeInvalidPrefix, "Shorten the prefix: it has %d bytes, and at most %d are allowed.", len(prefix), maxTagsBytes)
	}
	normal, err := event.NormalizeTag(prefix)
	switch {
	case errors.Is(err, event.ErrTagEmpty):
		return nil, fail(codeInvalidPrefix, "Give prefix at least one character of a tag: nothing is left of %s without white space, leading # and invisible characters.", quote(prefix))
	case errors.Is(err, event.ErrTagTooLong):
		return nil, fail(codeInvalidPrefix, "Shorten the prefix %s: tags have at most %d bytes and %d characters.", quote(prefix), event.MaxTagBytes, event.MaxTagGraphemes)
	case err != nil:
		return nil, fail(codeInvalidPrefix, "Change the prefix %s: tags contain no NUL.", quote(prefix))
	}
	tags, err := h.index.TagsWithPrefix(r.Context(), normal)
	if err != nil {
		return nil, err
	}
	return jsonResponse(tagsJSON{Tags: tagCounts(tags)})
}

// showTag is /v1/tags/{tag}.
func (h *Handler) showTag(r *http.Request) (*response, error) {
	if _, err := parseQuery(r.URL.RawQuery, params{}); err != nil {
		return nil, err
	}
	segment := mux.Vars(r)["tag"]
	raw, err := url.PathUnescape(segment)
	if err != nil || !utf8.ValidString(raw) {
		return nil, fail(codeInvalidQuery, "Percent-encode the tag in the path as UTF-8: %s does not decode to UTF-8.", quote(segment))
	}
	return h.tagHistory(r, raw)
}

// showTagByQuery is /v1/tag?tag=, for clients behind proxies that decode paths, where "a/b" becomes
// two segments.
func (h *Handler) showTagByQuery(r *http.Request) (*response, error) {
	q, err := parseQuery(r.URL.RawQuery, oneTagParams)
	if err != nil {
		return nil, err
	}
	raw, given := q.get("tag")
	if !given {
		return nil, fail(codeMissingTags, "Name one tag, as in tag=art.")
	}
	return h.tagHistory(r, raw)
}

// tagHistory is the answer for one tag.
func (h *Handler) tagHistory(r *http.Request, raw string) (*response, error) {
	if len(raw) > maxTagsBytes {
		return nil, fail(codeTagsTooLong, "Ask for a shorter tag: it has %d bytes, and at most %d are allowed.", len(raw), maxTagsBytes)
	}
	name, err := normalTag(raw)
	if err != nil {
		return nil, err
	}
	t, err := h.index.TagHistory(r.Context(), name)
	if errors.Is(err, query.ErrNotFound) {
		return nil, fail(codeNotFound, "No post has the tag %s at the moment; /v1/tags?prefix= finds tags that are in use.", quote(name))
	}
	if err != nil {
		return nil, err
	}
	out := tagHistoryJSON{tagJSON: tagJSON{t.Name, t.Posts}, FirstSeen: seen(t.First), LastSeen: seen(t.Last)}
	for _, hour := range t.Hours {
		out.History = append(out.History, hourJSON{utc(hour.Hour), hour.Posts})
	}
	return jsonResponse(out)
}

// seen returns nil if no post was found; see query.TagHistory.
func seen(at time.Time) *utc {
	if at.IsZero() {
		return nil
	}
	u := utc(at)
	return &u
}
