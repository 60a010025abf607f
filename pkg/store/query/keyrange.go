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

// keyRange is a stretch of the order of posts, both ends in it; empty where lo
// is above hi. All that a query says of places and times becomes one, so that
// its statement is the same one wherever it reads.
type keyRange struct{ lo, hi event.Key }

var (
	wholeList = keyRange{hi: keys.Last}
	emptyList = keyRange{lo: keys.Last}
)

func (r keyRange) empty() bool { return bytes.Compare(r.lo[:], r.hi[:]) > 0 }

func (r keyRange) holds(key event.Key) bool {
	return bytes.Compare(r.lo[:], key[:]) <= 0 && bytes.Compare(key[:], r.hi[:]) <= 0
}

// since leaves out what is sorted before t, until what is not; a zero t leaves
// out nothing. Keys have whole microseconds: a finer time counts as the next.
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

// below leaves out key and what is newer, above key and what is older.
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

// beyond leaves out key and what comes before it in the direction of reading.
func (r keyRange) beyond(key event.Key, direction keyset.Direction) keyRange {
	if direction == keyset.Forward {
		return r.below(key)
	}
	return r.above(key)
}

// startAt leaves out what comes before key in the direction of reading.
func (r keyRange) startAt(key event.Key, direction keyset.Direction) keyRange {
	if direction == keyset.Forward && before(r.hi, key, direction) {
		r.hi = key
	}
	if direction == keyset.Backward && before(r.lo, key, direction) {
		r.lo = key
	}
	return r
}

// from is what can be read in a direction from a position.
func (r keyRange) from(p keyset.Position, direction keyset.Direction) keyRange {
	switch {
	case p.Exhausted(direction):
		return emptyList
	case p.Unbounded(direction):
		return r
	}
	key := positionKey(p)
	edge := r.beyond(key, direction)
	if p.Includes(direction) && bytes.Compare(r.lo[:], key[:]) <= 0 && bytes.Compare(key[:], r.hi[:]) <= 0 {
		if direction == keyset.Forward {
			edge = keyRange{r.lo, key}
		} else {
			edge = keyRange{key, r.hi}
		}
	}
	return edge
}

func positionKey(p keyset.Position) event.Key {
	id, _ := p.Key[0].UUID()
	return id
}

// distance is how far apart two keys are, in microseconds, at least one key's
// worth.
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
