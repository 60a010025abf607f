package query

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/internal/keys"
)

// keyRange is a range of keys, inclusive at both ends; it is empty if lo is above hi. All
// conditions on positions and times become one range, so that the statement is always the same.
type keyRange struct{ lo, hi event.Key }

var (
	wholeList = keyRange{hi: keys.Last}
	emptyList = keyRange{lo: keys.Last}
)

func (r keyRange) empty() bool { return bytes.Compare(r.lo[:], r.hi[:]) > 0 }

func (r keyRange) holds(key event.Key) bool {
	return bytes.Compare(r.lo[:], key[:]) <= 0 && bytes.Compare(key[:], r.hi[:]) <= 0
}

// since removes posts before t; a zero t removes nothing. Keys have whole microseconds: a finer
// time is rounded up.
func (r keyRange) since(t time.Time) keyRange {
	if lo := firstKey(t); !t.IsZero() && bytes.Compare(lo[:], r.lo[:]) > 0 {
		r.lo = lo
	}
	return r
}

func (r keyRange) until(t time.Time) keyRange {
	if t.IsZero() {
		return r
	}
	return r.below(firstKey(t))
}

func firstKey(t time.Time) event.Key {
	return event.FirstKey(t.Add(time.Microsecond - 1).Truncate(time.Microsecond))
}

// below removes key and newer posts; above removes key and older ones.
func (r keyRange) below(key event.Key) keyRange {
	if key == (event.Key{}) {
		return emptyList
	}
	if key = keys.Step(key, -1); bytes.Compare(key[:], r.hi[:]) < 0 {
		r.hi = key
	}
	return r
}

func (r keyRange) above(key event.Key) keyRange {
	if key == keys.Last {
		return emptyList
	}
	if key = keys.Step(key, +1); bytes.Compare(key[:], r.lo[:]) > 0 {
		r.lo = key
	}
	return r
}

// beyond removes key and everything before it in the direction of reading.
func (r keyRange) beyond(key event.Key, direction keyset.Direction) keyRange {
	if direction == keyset.Forward {
		return r.below(key)
	}
	return r.above(key)
}

// startAt removes everything before key in the direction of reading.
func (r keyRange) startAt(key event.Key, direction keyset.Direction) keyRange {
	if direction == keyset.Forward && before(r.hi, key, direction) {
		r.hi = key
	}
	if direction == keyset.Backward && before(r.lo, key, direction) {
		r.lo = key
	}
	return r
}

// from removes the keys that cannot be reached in a direction from a position.
func (r keyRange) from(p keyset.Position, direction keyset.Direction) keyRange {
	switch {
	case p.Exhausted(direction):
		return emptyList
	case p.Unbounded(direction):
		return r
	}
	key, _ := p.Key[0].UUID()
	edge := r.beyond(key, direction)
	if p.Includes(direction) && r.holds(key) {
		if direction == keyset.Forward {
			edge = keyRange{r.lo, key}
		} else {
			edge = keyRange{key, r.hi}
		}
	}
	return edge
}

// distance is the distance between two keys in microseconds, at least that of adjacent keys.
func distance(a, b event.Key) float64 {
	aHi, aLo := binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])
	bHi, bLo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	lo, borrow := bits.Sub64(aLo, bLo, 0)
	hi, borrow := bits.Sub64(aHi, bHi, borrow)
	if borrow > 0 {
		return distance(b, a)
	}
	return max(float64(hi)+float64(lo)/math.Exp2(64), math.Exp2(-64))
}
