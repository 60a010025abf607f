package keyset

import "slices"

// Page is a part of a list, in forward order regardless of the direction in which it was read.
type Page[R any] struct {
	Rows []R

	// More reports whether the list has rows beyond the page in the direction in which it was read:
	// below it after Forward, above it after Backward. For the other side, request one row in the
	// opposite direction from the page's edge there: Previous after Forward, Next after Backward.
	// If that position is Exhausted in that direction, there is none.
	More bool

	// Previous and Next are the page's edges: read Backward from Previous for the page above and
	// Forward from Next for the page below. An empty page has both, at the position where it was
	// requested, so that a reader can return for later rows.
	Previous, Next Position
}

// Slice makes a page of at most n rows from the rows that a query returned when it read in the
// given direction from a position, with a LIMIT of n+1: the extra row proves that there are more,
// and is dropped. key returns a row's values in the ordering's columns. Slice owns rows and
// reorders them in place.
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
		// A read from a row excludes it: the empty page lies beyond the row, so that going back
		// returns the row.
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
