package model

import (
	"cmp"
	"crypto/sha256"
	"strconv"
	"time"
)

// Place is where a post stands in the order: by time, then by hash, both
// ascending; answers list the greatest place first.
type Place struct {
	Micros int64  // sortAt, in microseconds since 1970
	Hash   uint64 // first 8 bytes of the SHA-256 of the at-uri, big-endian
}

// Compare is negative where p is the older place, positive where it is the
// newer one.
func (p Place) Compare(q Place) int {
	if c := cmp.Compare(p.Micros, q.Micros); c != 0 {
		return c
	}
	return cmp.Compare(p.Hash, q.Hash)
}

// SortAt is the place's time, in UTC.
func (p Place) SortAt() time.Time { return time.UnixMicro(p.Micros).UTC() }

// hashOf is the hash of a place whose post has that at-uri.
func hashOf(uri string) uint64 {
	sum := sha256.Sum256([]byte(uri))
	var h uint64
	for i := range 8 {
		h = h<<8 | uint64(sum[i])
	}
	return h
}

// sortMicros is min(createdAt, indexedAt), not before 1970, in microseconds.
func sortMicros(createdAt string, indexedAt time.Time) int64 {
	at := indexedAt.UnixMicro()
	if created, ok := createdMicros(createdAt); ok {
		at = min(at, created)
	}
	return max(at, 0)
}

// createdMicros reads the date-time of RFC 3339, section 5.6, cut to whole
// microseconds, from its digits alone. A leap second counts as no time.
func createdMicros(s string) (int64, bool) {
	number := func(from, to, low, high int) (int, bool) {
		if len(s) < to {
			return 0, false
		}
		n := 0
		for _, c := range []byte(s[from:to]) {
			if c < '0' || c > '9' {
				return 0, false
			}
			n = n*10 + int(c-'0')
		}
		return n, n >= low && n <= high
	}
	is := func(i int, any string) bool {
		for _, c := range []byte(any) {
			if i < len(s) && s[i] == c {
				return true
			}
		}
		return false
	}
	year, ok1 := number(0, 4, 0, 9999)
	month, ok2 := number(5, 7, 1, 12)
	day, ok3 := number(8, 10, 1, 31)
	hour, ok4 := number(11, 13, 0, 23)
	minute, ok5 := number(14, 16, 0, 59)
	second, ok6 := number(17, 19, 0, 59)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 ||
		!is(4, "-") || !is(7, "-") || !is(10, "Tt") || !is(13, ":") || !is(16, ":") {
		return 0, false
	}
	midnight := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	if midnight.Day() != day { // 31 April
		return 0, false
	}
	i, micros := 19, 0
	if is(i, ".") {
		i++
		digits := ""
		for is(i, "0123456789") {
			digits += s[i : i+1]
			i++
		}
		if digits == "" {
			return 0, false
		}
		micros, _ = strconv.Atoi((digits + "000000")[:6])
	}
	offset := 0
	switch {
	case is(i, "Zz"):
		i++
	case is(i, "+-"):
		oh, ok1 := number(i+1, i+3, 0, 23)
		om, ok2 := number(i+4, i+6, 0, 59)
		if !ok1 || !ok2 || !is(i+3, ":") {
			return 0, false
		}
		offset = oh*3600 + om*60
		if s[i] == '-' {
			offset = -offset
		}
		i += 6
	default:
		return 0, false
	}
	if i != len(s) {
		return 0, false
	}
	seconds := midnight.Unix() + int64(hour*3600+minute*60+second-offset)
	return seconds*1_000_000 + int64(micros), true
}
