package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/mux"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
)

const defaultLimit = 50

var postsParams = filters.and("limit", "after", "before", "first", "last")

// postJSON is a post as clients see it. Its arrays are never null.
type postJSON struct {
	URI       string          `json:"uri"`
	CID       string          `json:"cid"`
	DID       string          `json:"did"`
	Rkey      string          `json:"rkey"`
	Author    authorJSON      `json:"author"`
	Tags      []string        `json:"tags"`
	Langs     []string        `json:"langs"`
	CreatedAt json.RawMessage `json:"createdAt"` // the record's own string, or null
	IndexedAt utc             `json:"indexedAt"`
	SortAt    utc             `json:"sortAt"`
	Record    json.RawMessage `json:"record"`
	// Cursor is the row's own position: reading after or before it leaves the row out. It is valid
	// in the list that returned the row; that of a single post is valid in every list.
	Cursor string `json:"cursor"`
}

// authorJSON is the author of a post, for display; unknown fields are null.
type authorJSON struct {
	DID         string  `json:"did"`
	Handle      *string `json:"handle"`
	DisplayName *string `json:"displayName"`
	// Avatar is the picture's CID.
	Avatar *string `json:"avatar"`
}

// textOrNull returns nil for an unknown text.
func textOrNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

type pageJSON struct {
	HasNext     bool   `json:"hasNext"`
	HasPrevious bool   `json:"hasPrevious"`
	Next        string `json:"next"`
	Previous    string `json:"previous"`
}

type postsJSON struct {
	Posts []postJSON `json:"posts"`
	postsEnd
}

// postsEnd is what follows the posts.
type postsEnd struct {
	Page pageJSON `json:"page"`
	// Hints are for people; see Handler.hints.
	Hints []string `json:"hints,omitempty"`
}

// utc is a time in answers: RFC 3339, UTC, always six decimals.
type utc time.Time

func (t utc) MarshalJSON() ([]byte, error) { return t.appendJSON(nil), nil }

func (t utc) appendJSON(b []byte) []byte {
	at := time.Time(t).UTC()
	year, month, day := at.Date()
	if year < 0 || year > 9999 {
		return at.AppendFormat(b, `"2006-01-02T15:04:05.000000Z"`)
	}
	hour, minute, second := at.Clock()
	digits := func(before byte, n, width int) {
		b = append(b, before)
		b = append(b, "000000"[:width]...)
		for i := len(b) - 1; n > 0; i-- {
			b[i], n = '0'+byte(n%10), n/10
		}
	}
	digits('"', year, 4)
	digits('-', int(month), 2)
	digits('-', day, 2)
	digits('T', hour, 2)
	digits(':', minute, 2)
	digits(':', second, 2)
	digits('.', at.Nanosecond()/1000, 6)
	return append(b, `Z"`...)
}

// postList identifies a list of posts.
type postList struct {
	query query.PostQuery // its tags and filters
	media []string        // the values of the filter media
	// fingerprint is that of page tokens, feedFingerprint that of tokens of the change feed.
	fingerprint, feedFingerprint keyset.Fingerprint
}

// parsePostList returns the list that a query's tags and filters select. The error is a *problem.
func parsePostList(q values) (postList, error) {
	var l postList
	var err error
	if l.query.Tags, l.query.All, l.query.None, err = q.tags(); err != nil {
		return l, err
	}
	if l.query.Langs, err = q.langs(); err != nil {
		return l, err
	}
	if l.query.Authors, err = q.authors("author"); err != nil {
		return l, err
	}
	if l.query.NotAuthors, err = q.authors("notAuthor"); err != nil {
		return l, err
	}
	if l.query.MaxTags, err = q.maxTags(); err != nil {
		return l, err
	}
	if l.media, l.query.Media, l.query.NoMedia, err = q.media(); err != nil {
		return l, err
	}
	if l.query.SelfLabels, err = q.selfLabels(); err != nil {
		return l, err
	}
	if l.query.Since, err = q.time("since"); err != nil {
		return l, err
	}
	if l.query.Until, err = q.time("until"); err != nil {
		return l, err
	}
	// Tokens are valid forever. A filter that is not given is left out, so filters that are added
	// in the future do not invalidate old tokens. A query with only all has the fingerprint of
	// match=all, which is older.
	tags, all, match := l.query.Tags, l.query.All, "any"
	if len(tags) == 0 {
		tags, all, match = all, nil, "all"
	}
	filters := []keyset.Filter{{Name: "tags", Values: tags}, {Name: "match", Values: []string{match}}}
	for _, f := range []keyset.Filter{
		{Name: "none", Values: l.query.None}, {Name: "lang", Values: l.query.Langs},
		{Name: "since", Values: timeFilter(l.query.Since)}, {Name: "until", Values: timeFilter(l.query.Until)},
		{Name: "all", Values: all},
		{Name: "author", Values: l.query.Authors}, {Name: "notAuthor", Values: l.query.NotAuthors},
		{Name: "maxTags", Values: q.all("maxTags")}, {Name: "media", Values: l.media}, {Name: "selfLabels", Values: q.all("selfLabels")},
	} {
		if len(f.Values) > 0 {
			filters = append(filters, f)
		}
	}
	l.fingerprint, l.feedFingerprint = query.PostOrder.Fingerprint(filters...), query.ChangeOrder.Fingerprint(filters...)
	return l, nil
}

// timeFilter returns the values of a filter that is a time.
func timeFilter(t time.Time) []string {
	if t.IsZero() {
		return nil
	}
	return []string{t.Format(time.RFC3339Nano)}
}

// anyList is the fingerprint of the cursor of a single post, which is valid in every list.
var anyList = query.PostOrder.Fingerprint()

// postPosition returns the page position in a token of a list of posts. The error is a *problem.
func (h *Handler) postPosition(name, token string, fingerprint keyset.Fingerprint) (keyset.Position, error) {
	p, err := h.codec.Decode(token, fingerprint)
	if errors.Is(err, keyset.ErrTokenMismatch) {
		if p, err := h.codec.Decode(token, anyList); err == nil {
			return p, nil
		}
	}
	switch {
	case errors.Is(err, keyset.ErrTokenMismatch):
		return p, fail(codeCursorMismatch, "Keep the tags and filters the same while paging, or leave out %s to start again: it was made for another query.", name)
	case err != nil:
		return p, fail(codeInvalidCursor, "Send %s exactly as this service returned it, or leave it out to start again.", name)
	}
	return p, nil
}

// readPosts returns the list and the page of posts that a query selects.
func (h *Handler) readPosts(ctx context.Context, q values) (list postList, page query.PostPage, err error) {
	list, err = parsePostList(q)
	if err != nil {
		return list, page, err
	}
	at, err := q.pageRequest(func(name, token string) (keyset.Position, error) {
		return h.postPosition(name, token, list.fingerprint)
	})
	if err != nil {
		return list, page, err
	}
	list.query.From, list.query.Direction, list.query.Limit = at.from, at.direction, at.limit
	if page, err = h.index.Posts(ctx, list.query); err != nil {
		return list, page, err
	}
	h.metrics.countPage(page)
	return list, page, nil
}

// listPosts is /v1/posts: a page of the matching posts, in either direction.
func (h *Handler) listPosts(r *http.Request) (*response, error) {
	q, err := parseQuery(r.URL.RawQuery, postsParams)
	if err != nil {
		return nil, err
	}
	list, page, err := h.readPosts(r.Context(), q)
	if err != nil {
		return nil, err
	}
	hints, err := h.hints(r.Context(), q, list.query, page)
	if err != nil {
		return nil, err
	}
	res := &response{}
	return res, res.setPosts(h.eachPostJSON(page.Rows, list.fingerprint), postsEnd{
		Page:  h.pageLinks(q, res, list.fingerprint, page.Next, page.Previous, page.HasNext, page.HasPrevious),
		Hints: hints,
	})
}

// showPost is /v1/posts/{did}/{rkey}.
func (h *Handler) showPost(r *http.Request) (*response, error) {
	if _, err := parseQuery(r.URL.RawQuery, params{}); err != nil {
		return nil, err
	}
	row, err := h.readPost(r)
	if err != nil {
		return nil, err
	}
	post := h.newPostJSON(&row, anyList)
	return &response{contentType: contentJSON, body: append(post.appendJSON(nil), '\n')}, nil
}

// readPost returns the post that the request's path names.
func (h *Handler) readPost(r *http.Request) (row query.PostRow, err error) {
	did, err1 := url.PathUnescape(mux.Vars(r)["did"])
	rkey, err2 := url.PathUnescape(mux.Vars(r)["rkey"])
	if err1 != nil || err2 != nil || !event.ValidDID(did) || !event.ValidRkey(rkey) {
		return row, fail(codeNotFound, "No such post can exist: the path is /v1/posts/{did}/{rkey}, with a DID such as did:plc:ewvi7nxzyoun6zhxrhs64oiz and a record key.")
	}
	return h.index.Post(r.Context(), did, rkey)
}

// eachPostJSON returns rows as clients see them. Their cursors have a list's fingerprint.
func (h *Handler) eachPostJSON(rows []query.PostRow, fingerprint keyset.Fingerprint) iter.Seq[postJSON] {
	return func(yield func(postJSON) bool) {
		for i := range rows {
			if !yield(h.newPostJSON(&rows[i], fingerprint)) {
				return
			}
		}
	}
}

func (h *Handler) newPostJSON(row *query.PostRow, fingerprint keyset.Fingerprint) postJSON {
	p := postJSON{
		URI: event.URI(row.DID, row.Rkey), CID: row.CID, DID: row.DID, Rkey: row.Rkey,
		Author: authorJSON{row.DID, textOrNull(row.Handle), textOrNull(row.DisplayName), textOrNull(row.Avatar)},
		Tags:   row.Tags, Langs: row.Langs,
		CreatedAt: createdAt(row.Record),
		IndexedAt: utc(row.IndexedAt), SortAt: utc(row.Key.SortAt()),
		Record: row.Record,
		Cursor: h.codec.Encode(keyset.At(query.PostKey(*row)...), fingerprint),
	}
	if p.Tags == nil {
		p.Tags = []string{}
	}
	if p.Langs == nil {
		p.Langs = []string{}
	}
	return p
}
