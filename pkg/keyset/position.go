package keyset

import (
	"math"
	"slices"
	"time"
)

// Direction is the direction of reading: along the ordering or against it.
type Direction uint8

// The two directions. The zero value is Forward.
const (
	Forward Direction = iota
	Backward
)

// Reverse returns the other direction.
func (w Direction) Reverse() Direction { return w ^ 1 }

// Side says where a [Position] is, relative to the row whose key it holds.
type Side uint8

// The sides. "Above" and "below" are as on a printed page that is read
// forward: above comes first. The zero value is SideStart, so the zero Position
// is the start of the list. The numbers are in tokens and never change.
const (
	SideStart Side = iota // before the first row, whichever that is
	SideEnd               // after the last row, whichever that is
	SideAbove             // just before the row: forward includes it
	SideBelow             // just after the row: backward includes it
	SideAt                // the row itself: left out in both directions
)

// Position is a place in an ordering. It does not need its row to exist: it stays valid when the
// row is deleted, and rows inserted around it fall clearly on one side.
type Position struct {
	Side Side
	Key  []Value // one per column of the ordering; none at SideStart and SideEnd
}

// Start is the position before the first row.
func Start() Position { return Position{Side: SideStart} }

// End is the position after the last row.
func End() Position { return Position{Side: SideEnd} }

// Above is the position just before the row with this key, where a page starts.
func Above(key ...Value) Position { return Position{Side: SideAbove, Key: key} }

// Below is the position just after the row with this key, where a page ends.
func Below(key ...Value) Position { return Position{Side: SideBelow, Key: key} }

// At is the position of the row with this key, the row's own cursor.
func At(key ...Value) Position { return Position{Side: SideAt, Key: key} }

// Includes reports whether reading in the given direction from p includes the row with p's key: the
// difference between <= and <.
func (p Position) Includes(direction Direction) bool {
	return direction == Forward && p.Side == SideAbove || direction == Backward && p.Side == SideBelow
}

// Unbounded reports whether reading in the given direction from p covers the whole list.
func (p Position) Unbounded(direction Direction) bool {
	return direction == Forward && p.Side == SideStart || direction == Backward && p.Side == SideEnd
}

// Exhausted reports whether reading in the given direction from p can return nothing.
func (p Position) Exhausted(direction Direction) bool { return p.Unbounded(direction.Reverse()) }

// Equal reports whether p and q are the same position.
func (p Position) Equal(q Position) bool {
	return p.Side == q.Side && slices.Equal(p.Key, q.Key)
}

// Type is the type of a column's values. The numbers are in tokens and never change.
type Type uint8

// The types, each with the Postgres types it is meant for.
const (
	typeNull    Type = iota
	TypeInt64        // smallint, integer, bigint
	TypeText         // text, varchar
	TypeBool         // boolean
	TypeFloat64      // double precision
	TypeTime         // timestamptz, timestamp in UTC; not infinity
	TypeUUID         // uuid, or any 16-byte key kept in one
)

// Value is one column's value in a key. The zero value is NULL. Values are
// comparable with ==, which is equality of type and bits.
type Value struct {
	kind Type
	num  uint64
	text string
	id   [16]byte
}

// Null is the value of a column that is NULL.
func Null() Value { return Value{} }

// Int64 is an integer value.
func Int64(v int64) Value { return Value{kind: TypeInt64, num: uint64(v)} }

// Text is a text value. A token holds [MaxToken] characters, and indexes prefer short keys too:
// keep sort keys short.
func Text(v string) Value { return Value{kind: TypeText, text: v} }

// Bool is a boolean value.
func Bool(v bool) Value {
	if v {
		return Value{kind: TypeBool, num: 1}
	}
	return Value{kind: TypeBool}
}

// Float64 is a floating point value, exact to the bit.
func Float64(v float64) Value { return Value{kind: TypeFloat64, num: math.Float64bits(v)} }

// Time is a time value, in microseconds as Postgres keeps it: anything finer is cut off.
func Time(v time.Time) Value { return Value{kind: TypeTime, num: uint64(v.UnixMicro())} }

// UUID is a 16-byte value.
func UUID(v [16]byte) Value { return Value{kind: TypeUUID, id: v} }

// IsNull reports whether v is NULL.
func (v Value) IsNull() bool { return v.kind == typeNull }

// Int64 returns an integer, and false if v is not one.
func (v Value) Int64() (int64, bool) { return int64(v.num), v.kind == TypeInt64 }

// Text returns a text, and false if v is not one.
func (v Value) Text() (string, bool) { return v.text, v.kind == TypeText }

// UUID returns 16 bytes, and false if v is not a [TypeUUID].
func (v Value) UUID() ([16]byte, bool) { return v.id, v.kind == TypeUUID }

// Arg returns v in the form that pgx and database/sql accept: nil, int64, string, bool, float64,
// time.Time in UTC or [16]byte.
func (v Value) Arg() any {
	switch v.kind {
	case TypeInt64:
		return int64(v.num)
	case TypeText:
		return v.text
	case TypeBool:
		return v.num == 1
	case TypeFloat64:
		return math.Float64frombits(v.num)
	case TypeTime:
		return time.UnixMicro(int64(v.num)).UTC()
	case TypeUUID:
		return v.id
	default:
		return nil
	}
}
