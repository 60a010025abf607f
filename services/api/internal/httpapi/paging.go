package httpapi

import (
	"github.com/tagstream/tagstream/pkg/keyset"
)

// place is where a page begins, which way it goes, and how long it may be.
type place struct {
	from      keyset.Position
	direction keyset.Direction
	limit     int
}

// place reads the parameters limit, after and before, and Relay's first and
// last, of any list. decode gives the position in a token, whose parameter is
// named for the error. The error is a *problem.
func (q values) place(decode func(name, token string) (keyset.Position, error)) (place, error) {
	for _, c := range []struct{ name, other string }{
		{"after", "before"}, {"first", "last"}, {"first", "limit"}, {"last", "limit"}, {"first", "before"}, {"last", "after"},
	} {
		if q.has(c.name) && q.has(c.other) {
			return place{}, fail(codeConflicting, "Give %s or %s, not both: limit goes with after or before, first with after, last with before.", c.name, c.other)
		}
	}
	p := place{from: keyset.Start(), direction: keyset.Forward}
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

// pages makes the page of a list from its edges, and links to its neighbours.
func (h *Handler) pages(q values, res *response, fingerprint keyset.Fingerprint, next, previous keyset.Position, hasNext, hasPrevious bool) pageJSON {
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
