package httpapi

import (
	"github.com/tagstream/tagstream/pkg/keyset"
)

// pageRequest is where a page begins, its direction, and its maximum size.
type pageRequest struct {
	from      keyset.Position
	direction keyset.Direction
	limit     int
}

// pageRequest reads the parameters limit, after and before, and Relay's first and last, of any
// list. decode returns the page position in the token of a parameter. The error is a *problem.
func (q values) pageRequest(decode func(name, token string) (keyset.Position, error)) (pageRequest, error) {
	for _, c := range []struct{ name, other string }{
		{"after", "before"}, {"first", "last"}, {"first", "limit"}, {"last", "limit"}, {"first", "before"}, {"last", "after"},
	} {
		if q.has(c.name) && q.has(c.other) {
			return pageRequest{}, fail(codeConflicting, "Give %s or %s, not both: limit goes with after or before, first with after, last with before.", c.name, c.other)
		}
	}
	p := pageRequest{from: keyset.Start(), direction: keyset.Forward}
	size := "limit"
	switch {
	case q.has("first"):
		size = "first"
	case q.has("last"):
		size, p.from, p.direction = "last", keyset.End(), keyset.Backward
	}
	var err error
	if p.limit, err = q.limit(size, defaultLimit); err != nil {
		return p, err
	}
	if token, given := q.get("after"); given {
		p.from, err = decode("after", token)
	} else if token, given := q.get("before"); given {
		p.direction = keyset.Backward
		p.from, err = decode("before", token)
	}
	return p, err
}

// pageLinks returns the page object of a list, and adds links to the adjacent pages to res.
func (h *Handler) pageLinks(q values, res *response, fingerprint keyset.Fingerprint, next, previous keyset.Position, hasNext, hasPrevious bool) pageJSON {
	page := pageJSON{
		HasNext: hasNext, HasPrevious: hasPrevious,
		Next: h.codec.Encode(next, fingerprint), Previous: h.codec.Encode(previous, fingerprint),
	}
	tokens := []string{"after", "before"}
	if hasNext {
		res.link(q.replace(tokens, map[string]string{"last": "first"}, pair{"after", page.Next}), "next")
	}
	if hasPrevious {
		res.link(q.replace(tokens, map[string]string{"first": "last"}, pair{"before", page.Previous}), "prev")
	}
	return page
}
