package keyset

import "slices"

// Page is a slice of a list, in forward order whichever way it was read.
type Page[R any] struct {
	Rows []R

	// More says whether the list goes on beyond the page in the direction it was
	// read: below it after Forward, above it after Backward. For the other
	// side, ask for one row in the reverse direction from the page's edge there:
	// Previous after Forward, Next after Backward. Where that position is
	// Exhausted in that direction there is none, without asking.
	More bool

	// Previous and Next are the page's edges: read Backward from Previous for
	// the page above and Forward from Next for the page below. An empty page
	// has both, at the place where it was asked for, so that a reader can come
	// back for what arrives later.
	Previous, Next Position
}

// Slice makes a page of at most n rows out of the rows that a query gave when
// reading in the given direction from a position, with a LIMIT of n+1: the row too
// many is the proof that there are more, and is dropped. key returns a row's
// values in the ordering's columns. Slice takes rows over and reorders them in
// place.
func Slice[R any](rows []R, n int, direction Direction, from Position, key func(R) []Value) Page[R] {
	n = max(n, 0)
	p := Page[R]{Rows: rows}
	if len(rows) > n {
		p.Rows, p.More = rows[:n], true
	}
	if direction == Backward {
		slices.Reverse(p.Rows)
	}
	if len(p.Rows) == 0 {
		// Reading from a row leaves it out: the empty page lies beyond it, so
		// that turning back gives the row.
		if from.Side == SideAt {
			from.Side = SideBelow
			if direction == Backward {
				from.Side = SideAbove
			}
		}
		p.Previous, p.Next = from, from
		return p
	}
	p.Previous = Above(key(p.Rows[0])...)
	p.Next = Below(key(p.Rows[len(p.Rows)-1])...)
	return p
}
