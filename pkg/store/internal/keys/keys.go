// Package keys has what readers, writers and checkers of the index take keys and the hours
// that posts are counted by to be.
package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// Last is the last key of all.
var Last = event.Key(bytes.Repeat([]byte{0xff}, len(event.Key{})))

// Step moves a key by one; the one behind the last is the first.
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

// Hour is the number of the hour that t is in, from 1970 on.
func Hour(t time.Time) int64 { return t.Unix() / 3600 }

// TagHash is how the change feed names a tag: the first 8 bytes of the SHA-256 of its name.
// Tags whose hashes are the same cost their followers work, and nothing else.
func TagHash(tag string) int64 {
	sum := sha256.Sum256([]byte(tag))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

// RunBits is how many bits of a run's id in the change feed are at random. Those above are the second
// in which it began, by the primary's clock: a standby that knows no such run tells by it whether the
// run is still to come.
const RunBits = 30
