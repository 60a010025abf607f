package httpapi

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
)

// app.bsky.unspecced.searchPostsSkeleton is the method of an AppView's search backend. This one
// searches by tags, newest first. It refuses everything else by name, so that the AppView can use
// another backend.

const defaultHits = 25

// The method's parameters in its lexicon: those that are accepted, and those that an index of tags
// cannot answer.
var (
	searchParams = params{
		single:   []string{"q", "author", "lang", "since", "until", "sort", "limit", "cursor"},
		repeated: []string{"tag"},
		others:   true,
	}
	searchRefused = []string{"mentions", "domain", "url"}
)

// badQuery returns the method's own error.
func badQuery(format string, args ...any) *problem {
	p := fail(codeInvalidQuery, format, args...)
	p.Code = "BadQueryString"
	return p
}

// searchPosts is app.bsky.unspecced.searchPostsSkeleton.
func (h *Handler) searchPosts(r *http.Request) (*response, error) {
	q, list, err := parseSearch(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	pq := list.query
	pq.From, pq.Direction, pq.NamesOnly = keyset.Start(), keyset.Forward, true
	if pq.Limit, err = q.limit("limit", defaultHits); err != nil {
		return nil, err
	}
	if token, given := q.get("cursor"); given && token != "" {
		if pq.From, err = h.postPosition("cursor", token, list.fingerprint); err != nil {
			return nil, err
		}
	}
	page, err := h.nonEmptyPage(r, pq)
	if err != nil {
		return nil, err
	}
	type hit struct {
		URI string `json:"uri"`
	}
	out := struct {
		Cursor string `json:"cursor,omitempty"`
		Posts  []hit  `json:"posts"`
	}{Posts: make([]hit, len(page.Rows))}
	for i, row := range page.Rows {
		out.Posts[i].URI = event.URI(row.DID, row.Rkey)
	}
	if page.HasNext {
		out.Cursor = h.codec.Encode(page.Next, list.fingerprint)
	}
	return jsonResponse(out)
}

// parseSearch returns the list of posts that match all terms of a search. The error is a *problem.
func parseSearch(raw string) (q values, list postList, err error) {
	allowed := searchParams
	allowed.single = slices.Concat(allowed.single, searchRefused)
	if q, err = parseQuery(raw, allowed); err != nil {
		return q, list, err
	}
	if s, given := q.get("sort"); given && s != "top" && s != "latest" {
		return q, list, fail(codeInvalidQuery, "Give sort as latest or top (answered as latest): it is %s.", quote(s))
	}
	s := search{want: values{{"match", "all"}}}
	for _, p := range q {
		switch p.name {
		case "q":
			for term := range strings.FieldsSeq(p.value) {
				if err = s.term(term); err != nil {
					break
				}
			}
		case "tag":
			s.want = append(s.want, pair{"tags", p.value})
		case "since", "until", "lang", "author":
			err = s.filter(p.name, p.value)
		case "mentions", "domain", "url":
			err = badQuery("Leave out %s: this backend searches by tags only.", p.name)
		}
		if err != nil {
			return q, list, err
		}
	}
	if !s.want.has("tags") {
		return q, list, badQuery("Name a tag, as in q=%%23art or tag=art: this backend searches by tags only.")
	}
	list, err = parsePostList(s.want)
	var p *problem
	if errors.As(err, &p) {
		err = badQuery("%s", p.Detail)
	}
	return q, list, err
}

// search is a search that is being parsed.
type search struct {
	want values // the parameters of /v1/posts
}

// term adds a word of q.
func (s *search) term(term string) error {
	if term == "*" {
		return nil
	}
	if tag, ok := strings.CutPrefix(term, "#"); ok {
		s.want = append(s.want, pair{"tags", tag})
		return nil
	}
	if strings.HasPrefix(term, "$") { // a cashtag's facet keeps its sign
		s.want = append(s.want, pair{"tags", term})
		return nil
	}
	name, value, _ := strings.Cut(term, ":")
	switch name {
	case "from":
		return s.filter("author", value)
	case "since", "until", "lang":
		return s.filter(name, value)
	}
	return badQuery("Leave out %s: this backend searches by #tag, $TAG, from:, lang:, since: and until: only.", quote(term))
}

// filter adds a filter that must not be repeated with another value. A date means its first moment
// in UTC.
func (s *search) filter(name, value string) error {
	if _, err := time.Parse(time.DateOnly, value); err == nil && (name == "since" || name == "until") {
		value += "T00:00:00Z"
	}
	if other, given := s.want.get(name); given && other != value {
		return badQuery("Give %s once: it is given as %s and %s.", name, quote(other), quote(value))
	}
	if !s.want.has(name) {
		s.want = append(s.want, pair{name, value})
	}
	return nil
}
