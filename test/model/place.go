package model

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"regexp"
	"strconv"
	"time"
)

// Place orders posts by time, then by hash. Answers list the greatest place first.
type Place struct {
	Micros int64  // sortAt, in microseconds since 1970
	Hash   uint64 // the first 8 bytes of the SHA-256 of the at-uri
}

// Compare is negative where p is the older place, positive where it is the newer one.
func (p Place) Compare(q Place) int {
	return cmp.Or(cmp.Compare(p.Micros, q.Micros), cmp.Compare(p.Hash, q.Hash))
}

// SortAt returns the place's time, in UTC.
func (p Place) SortAt() time.Time { return time.UnixMicro(p.Micros).UTC() }

func hashOf(uri string) uint64 {
	sum := sha256.Sum256([]byte(uri))
	return binary.BigEndian.Uint64(sum[:])
}

// sortMicros returns min(createdAt, indexedAt), not before 1970, in microseconds.
func sortMicros(createdAt string, indexedAt time.Time) int64 {
	at := indexedAt.UnixMicro()
	if created, ok := createdMicros(createdAt); ok {
		at = min(at, created)
	}
	return max(at, 0)
}

// dateTime is the date-time of RFC 3339, section 5.6.
var dateTime = regexp.MustCompile(`^(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))$`)

// createdMicros parses a date-time, truncated to microseconds. It refuses leap seconds.
func createdMicros(s string) (int64, bool) {
	m := dateTime.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	n := func(i int) int {
		v, _ := strconv.Atoi(m[i])
		return v
	}
	day := time.Date(n(1), time.Month(n(2)), n(3), 0, 0, 0, 0, time.UTC)
	if int(day.Month()) != n(2) || day.Day() != n(3) || n(4) > 23 || n(5) > 59 || n(6) > 59 || n(9) > 23 || n(10) > 59 {
		return 0, false
	}
	offset := n(9)*3600 + n(10)*60
	if m[8] == "-" {
		offset = -offset
	}
	micros, _ := strconv.Atoi((m[7] + "000000")[:6])
	return (day.Unix()+int64(n(4)*3600+n(5)*60+n(6)-offset))*1_000_000 + int64(micros), true
}
