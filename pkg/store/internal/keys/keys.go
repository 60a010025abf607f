// Package keys has the definitions of keys and hours that readers, writers and checkers of the
// index must share.
package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// Last is the highest possible key.
var Last = event.Key(bytes.Repeat([]byte{0xff}, len(event.Key{})))

// Step moves a key by one, wrapping around at the ends.
func Step(k event.Key, by int) event.Key {
	hi, lo := binary.BigEndian.Uint64(k[:8]), binary.BigEndian.Uint64(k[8:])
	if by > 0 {
		var carry uint64
		lo, carry = bits.Add64(lo, 1, 0)
		hi += carry
	} else {
		var borrow uint64
		lo, borrow = bits.Sub64(lo, 1, 0)
		hi -= borrow
	}
	binary.BigEndian.PutUint64(k[:8], hi)
	binary.BigEndian.PutUint64(k[8:], lo)
	return k
}

// Hour is the number of the hour of t, counted from 1970.
func Hour(t time.Time) int64 { return t.Unix() / 3600 }

// HourTime is the time at which an hour begins.
func HourTime(hour int64) time.Time { return time.Unix(hour*3600, 0).UTC() }

// FirstOfHour is the lowest key of an hour.
func FirstOfHour(hour int64) event.Key { return event.FirstKey(HourTime(hour)) }

// TagHash is the name of a tag in the change feed: the first 8 bytes of the SHA-256 of its name. A
// collision only costs the followers of both tags some work.
func TagHash(tag string) int64 {
	sum := sha256.Sum256([]byte(tag))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

// RunBits is the number of random bits in the id of a run of the change feed. The bits above are
// the second in which it began, by the primary's clock, which tells a standby that does not know a
// run whether the run is still to come.
const RunBits = 30
