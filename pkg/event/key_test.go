package event_test

import (
	"bytes"
	"crypto/sha256"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

func TestSortAt(t *testing.T) {
	t.Parallel()
	const indexed = "2026-08-20T12:00:00.123456Z"
	for _, c := range []struct{ name, createdAt, want string }{
		{"earlier", "2026-08-20T11:00:00Z", "2026-08-20T11:00:00Z"},
		{"the same", "2026-08-20T12:00:00.123456Z", indexed},
		{"later", "2026-08-20T12:00:00.123457Z", indexed},
		{"far future", "9999-12-31T23:59:59.999999Z", indexed},
		{"missing", "", indexed},

		{"east", "2026-08-20T11:00:00+05:30", "2026-08-20T05:30:00Z"},
		{"west", "2026-08-20T05:00:00.5-05:00", "2026-08-20T10:00:00.5Z"},
		{"zone makes it later", "2026-08-20T11:59:00-01:00", indexed},
		{"unknown local offset", "2026-08-20T11:00:00-00:00", "2026-08-20T11:00:00Z"},
		{"largest offset", "2026-08-19T11:00:00-23:59", "2026-08-20T10:59:00Z"},
		{"offset of a day", "2026-08-19T11:00:00+24:00", indexed},
		{"offset of 60 minutes", "2026-08-19T11:00:00+01:60", indexed},
		{"offset without colon", "2026-08-20T11:00:00+0100", indexed},
		{"no zone", "2026-08-20T11:00:00", indexed},
		{"lower-case t and z", "2026-08-20t11:00:00.5z", "2026-08-20T11:00:00.5Z"},

		{"sub-microseconds are cut", "2026-08-20T11:00:00.9999999Z", "2026-08-20T11:00:00.999999Z"},
		{"cut as well before indexedAt", "2026-08-20T12:00:00.123456999Z", indexed},
		{"very long fraction", "2026-08-20T11:00:00." + strings.Repeat("1", 100_000) + "Z", "2026-08-20T11:00:00.111111Z"},
		{"comma before the fraction", "2026-08-20T11:00:00,5Z", indexed},
		{"empty fraction", "2026-08-20T11:00:00.Z", indexed},
		{"leap second", "2016-12-31T23:59:60Z", indexed},
		{"second 61", "2016-12-31T23:59:61Z", indexed},
		{"24 o'clock", "2026-08-19T24:00:00Z", indexed},
		{"leap day", "2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"},
		{"no such day", "2026-02-29T00:00:00Z", indexed},
		{"month 0", "2026-00-01T00:00:00Z", indexed},

		{"1970", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"},
		{"before 1970", "1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:00Z"},
		{"before 1970 by its zone", "1970-01-01T00:30:00+01:00", "1970-01-01T00:00:00Z"},
		{"year 0001", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z"},
		{"year 0000", "0000-01-01T00:00:00Z", "1970-01-01T00:00:00Z"},
		{"year of five digits", "12026-08-20T11:00:00Z", indexed},
		{"signed year", "-026-08-20T11:00:00Z", indexed},

		{"date", "2026-08-20", indexed},
		{"space for T", "2026-08-20 11:00:00Z", indexed},
		{"space around", " 2026-08-20T11:00:00Z", indexed},
		{"line behind", "2026-08-20T11:00:00Z\n", indexed},
		{"NUL behind", "2026-08-20T11:00:00Z\x00", indexed},
		{"full-width digits", "２０２６-08-20T11:00:00Z", indexed},
		{"words", "yesterday", indexed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := event.SortAt(c.createdAt, parse(t, indexed))
			require.Equal(t, parse(t, c.want), got)
			require.Equal(t, time.UTC, got.Location())
		})
	}
}

func TestSortAtForAnyIndexedAt(t *testing.T) {
	t.Parallel()
	cest := time.FixedZone("CEST", 2*60*60)
	got := event.SortAt("", time.Date(2026, 8, 20, 14, 0, 0, 123456789, cest))
	require.Equal(t, parse(t, "2026-08-20T12:00:00.123456Z"), got, "it must be in UTC and whole microseconds")
	require.Equal(t, time.Unix(0, 0).UTC(), event.SortAt("", time.Unix(-1, 0)), "it must not be before 1970")
}

func parse(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, s)
	require.NoError(t, err)
	return at.UTC()
}

func TestKey(t *testing.T) {
	t.Parallel()
	at := parse(t, "2026-08-20T12:00:00.123456Z")
	const uri = "at://did:plc:z72i7hdynmk6r22z27h6tvur/app.bsky.feed.post/3jui7kd54zh2y"
	key := event.NewKey(at, uri)
	sum := sha256.Sum256([]byte(uri))
	require.Equal(t, sum[:8], key[8:])
	require.Equal(t, at, key.SortAt())
	require.Equal(t, key, event.NewKey(at.In(time.FixedZone("", 3600)).Add(999), uri), "microseconds must count in any zone")
	require.NotEqual(t, key, event.NewKey(at, uri+"a"))

	for _, edge := range []time.Time{time.Unix(0, 0).UTC(), time.UnixMicro(1).UTC(), parse(t, "9999-12-31T23:59:59.999999Z")} {
		require.Equal(t, edge, event.NewKey(edge, uri).SortAt())
	}
}

func TestKeyNextStaysInMicrosecond(t *testing.T) {
	t.Parallel()
	var key event.Key
	copy(key[:8], "12345678")
	copy(key[8:], bytes.Repeat([]byte{0xff}, 8))
	next := key.Next()
	require.Equal(t, key.SortAt(), next.SortAt())
	require.Equal(t, make([]byte, 8), next[8:], "it must wrap")
	require.Equal(t, byte(1), next.Next()[15])
	require.Equal(t, bytes.Repeat([]byte{0xff}, 8), key[8:], "Next must not change its receiver")
}

// TestKeyOrder compares the order of keys as bytes with that of (sortAt, hash).
func TestKeyOrder(t *testing.T) {
	t.Parallel()
	const seed = 1
	r := rand.New(rand.NewPCG(seed, seed))
	end := parse(t, "9999-12-31T23:59:59Z").UnixMicro()
	micros := func() int64 {
		switch r.IntN(3) {
		case 0:
			return r.Int64N(4) // ties
		case 1:
			return min(int64(1)<<r.IntN(58)-r.Int64N(2), end) // carries
		}
		return r.Int64N(end)
	}
	text := func() string { return event.URI("did:plc:a", string(rune('a'+r.IntN(20)))) }
	for range 20_000 {
		a, b := max(micros(), 0), max(micros(), 0)
		ua, ub := text(), text()
		ha, hb := sha256.Sum256([]byte(ua)), sha256.Sum256([]byte(ub))
		want := bytes.Compare(ha[:8], hb[:8])
		if a != b {
			want = int(math.Copysign(1, float64(a-b)))
		}
		ka, kb := event.NewKey(time.UnixMicro(a), ua), event.NewKey(time.UnixMicro(b), ub)
		require.Equal(t, want, bytes.Compare(ka[:], kb[:]), "seed %d: (%d, %s) and (%d, %s)", seed, a, ua, b, ub)
	}
}
