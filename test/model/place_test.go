package model

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSortMicros(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 8, 20, 12, 0, 0, 123_456_789, time.UTC)
	const own = "2026-08-20T12:00:00.123456Z" // the event's time
	for _, c := range []struct{ name, created, want string }{
		{"earlier", "2026-08-20T11:00:00Z", "2026-08-20T11:00:00Z"},
		{"same", "2026-08-20T12:00:00.123456Z", own},
		{"a microsecond later", "2026-08-20T12:00:00.123457Z", own},
		{"future", "9999-12-31T23:59:59Z", own},
		{"missing", "", own},
		{"east", "2026-08-20T11:00:00+05:30", "2026-08-20T05:30:00Z"},
		{"west", "2026-08-20T05:00:00.5-05:00", "2026-08-20T10:00:00.5Z"},
		{"unknown offset", "2026-08-20T11:00:00-00:00", "2026-08-20T11:00:00Z"},
		{"lower case", "2026-08-20t11:00:00z", "2026-08-20T11:00:00Z"},
		{"long fraction is cut", "2026-08-20T11:00:00.9999999Z", "2026-08-20T11:00:00.999999Z"},
		{"leap day", "2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"},
		{"before 1970", "1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:00Z"},
		{"before 1970 by its offset", "1970-01-01T00:30:00+01:00", "1970-01-01T00:00:00Z"},
		{"year 0", "0000-01-01T00:00:00Z", "1970-01-01T00:00:00Z"},
		{"no zone", "2026-08-20T11:00:00", own},
		{"date", "2026-08-20", own},
		{"space for T", "2026-08-20 11:00:00Z", own},
		{"comma", "2026-08-20T11:00:00,5Z", own},
		{"empty fraction", "2026-08-20T11:00:00.Z", own},
		{"no such day", "2026-02-29T11:00:00Z", own},
		{"month 13", "2026-13-01T11:00:00Z", own},
		{"day 0", "2026-01-00T11:00:00Z", own},
		{"hour 24", "2026-08-19T24:00:00Z", own},
		{"leap second", "2016-12-31T23:59:60Z", own},
		{"offset of 24 hours", "2026-08-20T11:00:00+24:00", own},
		{"offset of 60 minutes", "2026-08-20T11:00:00+01:60", own},
		{"offset without colon", "2026-08-20T11:00:00+0100", own},
		{"trailing space", "2026-08-20T11:00:00Z ", own},
		{"leading space", " 2026-08-20T11:00:00Z", own},
		{"signed year", "+2026-08-20T11:00:00Z", own},
		{"cut off", "2026-08-20T11:0", own},
		{"fullwidth digits", "２026-08-20T11:00:00Z", own},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := Place{Micros: sortMicros(c.created, noon)}.SortAt().Format(time.RFC3339Nano)
			require.Equal(t, c.want, got)
		})
	}
}

func TestHashIsTheStartOfSHA256(t *testing.T) {
	t.Parallel()
	// printf %s at://did:plc:a/app.bsky.feed.post/1 | sha256sum
	require.Equal(t, "b8979afb5d3b1d8a", fmt.Sprintf("%016x", hashOf(uriOf("did:plc:a", "1"))))
}

func TestCollisionTakesTheNextPlace(t *testing.T) {
	t.Parallel()
	const last = 1<<64 - 1
	x := New()
	x.hash = func(string) uint64 { return last - 1 }
	hashes := map[string]uint64{}
	at := func(history string) map[string]uint64 {
		for i, e := range parseHistory(t, history) {
			e.Source.Time = base
			x.ApplyEvent(uint64(i+1), e)
		}
		clear(hashes)
		for _, p := range x.All() {
			hashes[p.Rkey] = p.Place.Hash
		}
		return hashes
	}
	require.Equal(t, map[string]uint64{"1": last - 1, "2": last, "3": 0},
		at("create a/1 @1; create a/2 @1; create a/3 @1"), "up, and round within the microsecond")
	require.Equal(t, map[string]uint64{"2": last, "3": 0},
		at("delete a/1 @2; update a/2 @2"), "an edit does not move to the place that became free")
	require.Equal(t, map[string]uint64{"1": 1, "2": last, "3": 0, "4": last - 1},
		at("create a/4 @1; create a/1 @3"), "the next one to enter takes it")
}

func TestNormalTag(t *testing.T) {
	t.Parallel()
	long := func(s string, n int) string {
		out := ""
		for range n {
			out += s
		}
		return out
	}
	for _, c := range []struct{ name, raw, want string }{ // want "" where the tag is not kept
		{"plain", "art", "art"},
		{"case", "ArT", "art"},
		{"accents stay", "ÉTÉ", "été"},
		{"composed", "e\u0301", "é"},
		{"compatibility forms", "ﬁ①Ａ", "fi1a"},
		{"no locale", "I", "i"},
		{"rune by rune", "İ", "i"},
		{"final sigma is not special", "ΣΑΣ", "σασ"},
		{"sharp s", "ß", "ß"},
		{"hash signs", "##art", "art"},
		{"hash inside", "a#b", "a#b"},
		{"space", " \t\u3000art\u00a0\n", "art"},
		{"space inside", "two words", "two words"},
		{"hash, space, hash", "# # art", "art"},
		{"fullwidth hash", "＃art", "art"},
		{"keycap", "#\ufe0f\u20e3", "#\u20e3"},
		{"hash before keycap", "##\ufe0f\u20e3", "#\u20e3"},
		{"cashtag", "$TSLA", "$tsla"},
		{"comma", "a,b", "a,b"},
		{"zero width space is nothing", "\u200bart\u200b ", "art"},
		{"empty", "", ""},
		{"only hash signs", "# #", ""},
		{"NUL", "a\x00b", ""},
		{"64 graphemes", long("x", 64), long("x", 64)},
		{"65 graphemes", long("x", 65), ""},
		{"64 graphemes of 3 runes", long("a\u0323\u0324", 64), long("ạ\u0324", 64)},
		{"640 bytes", long("👩‍👩‍👧‍👦", 25) + long("x", 15), long("👩‍👩‍👧‍👦", 25) + long("x", 15)},
		{"641 bytes", long("👩‍👩‍👧‍👦", 25) + long("x", 16), ""},
		{"a hash sign does not count", "#" + long("x", 64), long("x", 64)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, ok := normalTag(c.raw)
			require.Equal(t, c.want != "", ok)
			if !ok {
				return
			}
			require.Equal(t, c.want, got)
			again, ok := normalTag(got)
			require.True(t, ok)
			require.Equal(t, got, again)
		})
	}
}

func TestNormalTagsKeepsTheFirstHundred(t *testing.T) {
	t.Parallel()
	var raw []string
	for i := range 120 {
		raw = append(raw, fmt.Sprintf("T%d", i), fmt.Sprintf("#t%d", i), "")
	}
	tags := normalTags(raw)
	require.Len(t, tags, 100)
	require.Equal(t, "t0", tags[0])
	require.Equal(t, "t99", tags[99])
}
