package event

import (
	"crypto/sha256"
	"encoding/binary"
	"regexp"
	"strings"
	"time"
)

// Key is a post's place in the order of posts; as bytes, the newest is last. It is 8 bytes of
// sortAt in microseconds since 1970, big-endian, then the first 8 bytes of the SHA-256 of the
// at-uri. It depends on the event alone, so a rebuilt index has the same keys and page tokens stay
// valid.
type Key [16]byte

// NewKey returns the key of the post with that at-uri and sortAt.
func NewKey(sortAt time.Time, uri string) Key {
	var k Key
	binary.BigEndian.PutUint64(k[:8], uint64(sortAt.UnixMicro()))
	sum := sha256.Sum256([]byte(uri))
	copy(k[8:], sum[:8])
	return k
}

// FirstKey returns the lowest key of a post at t, or up to a microsecond later. Every post that
// sorts before t has a lower key.
func FirstKey(t time.Time) Key {
	var k Key
	if us := t.UnixMicro(); us > 0 {
		binary.BigEndian.PutUint64(k[:8], uint64(us))
	}
	return k
}

// SortAt returns the time in the key.
func (k Key) SortAt() time.Time {
	return time.UnixMicro(int64(binary.BigEndian.Uint64(k[:8]))).UTC()
}

// Next returns the key just above k within the same microsecond, wrapping at its end. It is used
// for a post whose own key is taken by another post. Colliding keys can be made on purpose, so this
// path must work.
func (k Key) Next() Key {
	binary.BigEndian.PutUint64(k[8:], binary.BigEndian.Uint64(k[8:])+1)
	return k
}

// SortAt returns the time by which a post is ordered: the earlier of the time that its author
// claims (createdAt) and the time when the event that brought it into the index was witnessed
// (indexedAt), so that no post lies in the future; never before 1970. A createdAt that is not an
// RFC 3339 time with a zone is ignored. The result is UTC, in whole microseconds.
func SortAt(createdAt string, indexedAt time.Time) time.Time {
	at := indexedAt.UTC().Truncate(time.Microsecond)
	if created, ok := ParseTime(createdAt); ok {
		// Truncate rounds towards the zero time, which is down for every year that occurs here.
		if created = created.UTC().Truncate(time.Microsecond); created.Before(at) {
			at = created
		}
	}
	if at.Before(time.Unix(0, 0)) {
		return time.Unix(0, 0).UTC()
	}
	return at
}

// rfc3339 is the date-time of RFC 3339, section 5.6. time.Parse alone accepts more (a comma before
// the fraction, an offset of 24:00) and less (only capital T and Z). It rejects leap seconds: they
// count as invalid.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// ParseTime parses an RFC 3339 time; ok is false for anything else.
func ParseTime(s string) (t time.Time, ok bool) {
	if !rfc3339.MatchString(s) {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, strings.ToUpper(s))
	return t, err == nil
}
