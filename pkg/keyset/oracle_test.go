package keyset_test

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/keyset"
)

// The oracle says what pages must hold. It keeps the table's rows in memory and sorts them with its
// own comparison; it shares no code with the library, and takes positions from the test, never from
// a token.

// cell is a column's value: nil for NULL, or int64, string, bool, float64,
// time.Time or [16]byte.
type cell = any

// field is a column of the test's table. Its values come from a small set, so that many rows tie.
type field struct {
	name, sql string
	kind      keyset.Type
	nullable  bool
	draw      func(*rand.Rand) cell
}

func fields() []field {
	number := func(r *rand.Rand) cell { return r.Int64N(4) - 2 }
	text := func(r *rand.Rand) cell { return []string{"", "a", "ab", "é", "b c"}[r.IntN(5)] }
	moment := func(r *rand.Rand) cell { return time.UnixMicro(1_700_000_000_000_000 + r.Int64N(3)).UTC() }
	uuid := func(r *rand.Rand) cell { return [16]byte{0: byte(r.IntN(2) * 0xf0), 15: byte(r.IntN(2))} }
	return []field{
		{"n", "integer", keyset.TypeInt64, false, number},
		{"t", `text COLLATE "C"`, keyset.TypeText, false, text},
		{"b", "boolean", keyset.TypeBool, false, func(r *rand.Rand) cell { return r.IntN(2) == 0 }},
		{"u", "uuid", keyset.TypeUUID, false, uuid},
		{"f", "double precision", keyset.TypeFloat64, false, func(r *rand.Rand) cell { return float64(r.IntN(3)) / 3 }},
		{"null_n", "bigint", keyset.TypeInt64, true, number},
		{"null_t", `text COLLATE "C"`, keyset.TypeText, true, text},
		{"null_at", "timestamptz", keyset.TypeTime, true, moment},
		{"null_b", "boolean", keyset.TypeBool, true, func(r *rand.Rand) cell { return r.IntN(2) == 0 }},
		{"null_u", "uuid", keyset.TypeUUID, true, uuid},
	}
}

type row struct {
	id    int64
	cells []cell // in the order of fields
}

// sortKey is one column of the test's ordering.
type sortKey struct {
	field     int // in fields, or -1 for id
	desc      bool
	nullsLast bool
}

// drawOrdering draws up to three fields and the id, which is mostly the last.
func drawOrdering(r *rand.Rand) []sortKey {
	all := fields()
	var keys []sortKey
	for _, f := range r.Perm(len(all))[:r.IntN(4)] {
		keys = append(keys, sortKey{f, r.IntN(2) == 0, r.IntN(2) == 0})
	}
	at := len(keys)
	if r.IntN(6) == 0 {
		at = r.IntN(len(keys) + 1)
	}
	return slices.Insert(keys, at, sortKey{field: -1, desc: r.IntN(2) == 0})
}

func (k sortKey) column() keyset.Column {
	c := keyset.Column{Name: "id", Type: keyset.TypeInt64}
	if k.field >= 0 {
		f := fields()[k.field]
		c = keyset.Column{Name: f.name, Type: f.kind}
		if f.nullable {
			c.Nulls = keyset.NullsFirst
			if k.nullsLast {
				c.Nulls = keyset.NullsLast
			}
		}
	}
	if k.desc {
		c.Sort = keyset.Desc
	}
	return c
}

type oracle struct {
	rows map[int64]row
	by   []sortKey
}

func (o *oracle) key(r row) []cell {
	out := make([]cell, len(o.by))
	for i, k := range o.by {
		out[i] = cell(r.id)
		if k.field >= 0 {
			out[i] = r.cells[k.field]
		}
	}
	return out
}

// compare orders two keys as the list is read forward.
func (o *oracle) compare(a, b []cell) int {
	for i, k := range o.by {
		var c int
		switch {
		case a[i] == nil && b[i] == nil:
		case a[i] == nil || b[i] == nil:
			c = -1 // the NULL first
			if (a[i] == nil) == k.nullsLast {
				c = 1
			}
		default:
			c = compareCells(a[i], b[i])
			if k.desc {
				c = -c
			}
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

func compareCells(a, b cell) int {
	switch a := a.(type) {
	case int64:
		return cmp.Compare(a, b.(int64))
	case string:
		return strings.Compare(a, b.(string))
	case float64:
		return cmp.Compare(a, b.(float64))
	case time.Time:
		return a.Compare(b.(time.Time))
	case [16]byte:
		other := b.([16]byte)
		return bytes.Compare(a[:], other[:])
	case bool:
		switch {
		case a == b.(bool):
			return 0
		case a:
			return 1
		default:
			return -1
		}
	default:
		panic(fmt.Sprintf("cell of type %T", a))
	}
}

// place is the oracle's own position: beside a key, or an end of the list.
type place struct {
	side keyset.Side
	key  []cell
}

// position is the library's position for the same place.
func (p place) position() keyset.Position {
	out := keyset.Position{Side: p.side}
	for _, c := range p.key {
		out.Key = append(out.Key, valueOf(c))
	}
	return out
}

func valueOf(c cell) keyset.Value {
	switch c := c.(type) {
	case nil:
		return keyset.Null()
	case int64:
		return keyset.Int64(c)
	case string:
		return keyset.Text(c)
	case bool:
		return keyset.Bool(c)
	case float64:
		return keyset.Float64(c)
	case time.Time:
		return keyset.Time(c)
	case [16]byte:
		return keyset.UUID(c)
	default:
		panic(fmt.Sprintf("cell of type %T", c))
	}
}

// sorted returns all rows as the list is read forward.
func (o *oracle) sorted() []row {
	all := make([]row, 0, len(o.rows))
	for _, r := range o.rows {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b row) int { return o.compare(o.key(a), o.key(b)) })
	return all
}

// page returns the ids of the page of n rows read from a place, in forward order,
// and whether there are more.
func (o *oracle) page(direction keyset.Direction, from place, n int) (ids []int64, more bool) {
	all := o.sorted()
	if direction == keyset.Backward {
		slices.Reverse(all)
	}
	for _, r := range all {
		var follows bool
		switch from.side {
		case keyset.SideStart:
			follows = direction == keyset.Forward
		case keyset.SideEnd:
			follows = direction == keyset.Backward
		default:
			c := o.compare(o.key(r), from.key)
			if direction == keyset.Backward {
				c = -c
			}
			follows = c > 0 ||
				c == 0 && direction == keyset.Forward && from.side == keyset.SideAbove ||
				c == 0 && direction == keyset.Backward && from.side == keyset.SideBelow
		}
		if !follows {
			continue
		}
		if len(ids) == n {
			more = true
			break
		}
		ids = append(ids, r.id)
	}
	if direction == keyset.Backward {
		slices.Reverse(ids)
	}
	return ids, more
}
