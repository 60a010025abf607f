package model

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tagstream/tagstream/pkg/event"
)

// FuzzTagsAgree compares the two implementations of the tag rules.
func FuzzTagsAgree(f *testing.F) {
	for _, s := range []string{"# #Art", "ﬁ", "#\ufe0f\u20e3", "İ", "e\u0301", "\u0345", "ΐ", "㎐ #", "a\x00", strings.Repeat("🏳️‍🌈", 65), "##\u0301",
		"#\u200b\u20e3", "🔥\u200d↔\u200d\u200b\u0338", "❤\ufe0f\u200d\U000E0067\U000E007F\u200d🔥", "🧑🏽\u200d🤝\u200d🧑🏻\U000E0041\U000E007F", "\U000E007F\u2800"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if !utf8.ValidString(raw) {
			return // JSON cannot contain it
		}
		tagsAgree(t, raw)
	})
}

func tagsAgree(t *testing.T, raw string) {
	t.Helper()
	theirs, err := event.NormalizeTag(raw)
	ours, ok := normalTag(raw)
	if (err == nil) != ok || ok && ours != theirs {
		t.Errorf("%q: event has %q (%v), the model %q (%t)", raw, theirs, err, ours, ok)
	}
}

// TestTagsAgreeForAllRunes compares them for every character, alone and between emoji.
func TestTagsAgreeForAllRunes(t *testing.T) {
	t.Parallel()
	for r := range unicode.MaxRune + 1 {
		if !unicode.Is(unicode.Han, r) && utf8.ValidRune(r) {
			tagsAgree(t, "a"+string(r)+"b❤\u200d"+string(r)+"\u200d❤")
		}
	}
}

// TestTagsAgreeForEmoji compares them for all short sequences of the characters that form emoji.
func TestTagsAgreeForEmoji(t *testing.T) {
	t.Parallel()
	parts := []string{"❤", "🔥", "🏽", "\u200d", "\ufe0f", "\U000E0067", "\U000E007F", "#", "\u20e3", " ", "a", "↔", "\u0338"}
	texts := []string{""}
	for range 4 {
		var longer []string
		for _, text := range texts {
			for _, part := range parts {
				longer = append(longer, text+part)
				tagsAgree(t, text+part)
			}
		}
		texts = longer
	}
}

// FuzzPlacesAgree compares the two computations of a place.
func FuzzPlacesAgree(f *testing.F) {
	indexedAt := time.Date(2026, 8, 20, 12, 0, 0, 123_456_789, time.UTC)
	for _, s := range []string{"2026-08-20T11:00:00+05:30", "2026-08-20t11:00:00.123z", "2016-12-31T23:59:59Z", "1969-12-31T23:59:59-00:01", "2026-02-30T11:00:00Z", "9999-12-31T23:59:59Z"} {
		f.Add(s, "at://did:plc:a/app.bsky.feed.post/1")
	}
	f.Fuzz(func(t *testing.T, createdAt, uri string) {
		if len(createdAt) > 64 {
			return // event refuses such long fractions, the contract sets no limit
		}
		theirs := event.NewKey(event.SortAt(createdAt, indexedAt), uri)
		ours := Place{Micros: sortMicros(createdAt, indexedAt), Hash: hashOf(uri)}
		var hash uint64
		for _, b := range theirs[8:] {
			hash = hash<<8 | uint64(b)
		}
		if theirs.SortAt().UnixMicro() != ours.Micros || hash != ours.Hash {
			t.Errorf("%q, %q: event has %x, the model %x", createdAt, uri, theirs, ours)
		}
	})
}
