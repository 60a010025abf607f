package model

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// put emits a create or an update with a new record.
func (g *generator) put(kind event.Kind, a *genAccount, key string, rev uint64) {
	e := event.Event{Kind: kind, DID: a.did, Rkey: key, Rev: tid(rev)}
	e.CID = fmt.Sprintf("bafyrei%s%d", e.Rev, g.rng.IntN(1000))
	raw := g.rawTags()
	e.Tags = normalTags(raw)
	if older := olderTags(raw); len(older) > 0 && (len(e.Tags) == 0 || g.chance(20)) {
		e.Tags = older // as a former ingest has stored it
	}
	record := map[string]any{
		"$type": event.Collection,
		"text":  pick(g.rng, "a post", "", "nul \x00 inside", "quote \" back\\slash </script>", "漢字 🏳️‍🌈\u2028", strings.Repeat("long ", 400)),
		"tags":  raw,
	}
	if langs := g.rawLangs(); langs != nil {
		e.Langs = keptLangs(langs)
		record["langs"] = langs
	}
	if created, ok := g.createdAt(); ok {
		e.CreatedAt = created
		record["createdAt"] = created
	} else if g.chance(50) {
		record["createdAt"] = 1234567890
	}
	if g.chance(30) {
		record["extra"] = map[string]any{"big": json.Number("12345678901234567890"), "small": 1e-7, "list": []any{nil, true, []any{}}}
	}
	var err error
	if e.Record, err = json.Marshal(record); err != nil {
		panic(fmt.Sprintf("model: %v", err))
	}
	a.here[key] = true
	g.emit(e)
}

// createdAt is what the record says of its time, if it is a string.
func (g *generator) createdAt() (string, bool) {
	ago := func(d time.Duration) string { return g.now.Add(-d).Format("2006-01-02T15:04:05.000Z") }
	tie := time.Date(2026, 8, 20, 11, 59, g.rng.IntN(3), 0, time.UTC)
	switch p := g.rng.IntN(100); {
	case p < 25:
		return ago(time.Duration(g.rng.IntN(5000)) * time.Millisecond), true
	case p < 55:
		return tie.Format(time.RFC3339), true
	case p < 60:
		return tie.In(time.FixedZone("", 5*3600+1800)).Format(time.RFC3339), true
	case p < 65:
		return ago(-time.Hour), true
	case p < 70:
		return ago(time.Duration(g.rng.IntN(100_000)) * time.Hour), true
	case p < 76:
		return pick(g.rng, "1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00.000001Z", "0000-01-01T00:00:00+00:00"), true
	case p < 90:
		return pick(g.rng, "", "yesterday", "2026-08-20", "2026-08-20T11:59:00", "2026-08-20 11:59:00Z", "2026-02-30T11:59:00Z",
			"2026-08-20T11:59:60Z", "2026-08-20T11:59:00,5Z", "2026-08-20T24:00:00Z", "2026-08-20T11:59:00.Z", " 2026-08-20T11:59:00Z"), true
	case p < 96:
		return pick(g.rng, "2026-08-20t11:59:00z", "2026-08-20T11:59:00.123456789Z", "2026-08-20T11:59:00.9999999-00:00", "9999-12-31T23:59:59Z"), true
	default:
		return "", false
	}
}

// rawLangs are languages as a record may declare them, nil for none.
func (g *generator) rawLangs() []string {
	if g.chance(1) {
		var many []string
		for i := range 15 + g.rng.IntN(10) { // more than are kept
			many = append(many, fmt.Sprintf("q%c-X%d", 'a'+i, i%3))
		}
		return many
	}
	return pick(g.rng, nil, nil, nil, []string{"en"}, []string{"en"}, []string{"ja"}, []string{"pt-BR", "en"}, []string{"en-GB", "EN-us", "ja-JP"},
		[]string{"zh-Hant-TW"}, []string{"ZH-hANT", "zh"}, []string{"EN-us", "x"}, []string{"x-Klingon", "i-enochian"},
		[]string{"eng"}, []string{"ENM", "pt-br-x-en"}, []string{}, []string{"", "pt"}, []string{"en", "en", "EN"},
		[]string{"en_US"}, []string{"en-US_x"}, []string{"en--us", "-en", "en-"}, []string{"*", "en-*"}, []string{" en"}, []string{"e\x00n"},
		[]string{"\u212ao"}, []string{"ko-\u212ar"}, // the sign for Kelvin is no k
		[]string{"es-abcdefgh", "fr-abcdefghi"}, []string{"de-1996", "sl-1994-rozaj"}, []string{"419-es", "es-419"},
		[]string{"en-" + strings.Repeat("x", 67)},          // of 70 bytes, too long to keep
		[]string{"nl" + strings.Repeat("-abc", 15) + "-x"}, // of the most that is kept, 64
		[]string{"日本語", "ja-日本"})
}

// rawTags are tags as a record may give them; at least one is kept, or was by a former
// ingest.
func (g *generator) rawTags() []string {
	if g.chance(2) {
		var many []string
		for i := range 90 + g.rng.IntN(25) {
			many = append(many, fmt.Sprintf("#Bulk%02d", i))
		}
		return many
	}
	var raw []string
	for range 1 + g.rng.IntN(5) {
		switch {
		case g.chance(75):
			raw = append(raw, pick(g.rng, "art", "art", "Art", "#art", "photo", "photo", "cats", "cats", "猫", "film",
				"a\u00adrt", "photo\u2060", "c\u115fats"))
		default:
			raw = append(raw, pick(g.rng,
				"$TSLA", "a,b", "c++", "c/d", "..", ".", "%2F", "50%", "#️⃣", "❤", "❤\ufe0f", "❤\ufe0f\u200d🔥\u200d", "\u200b", "\u2800\ufe0f", "👩‍👩‍👧‍👦", "ÉTÉ", "e\u0301te\u0301", "Straße", "İ", "Σίσυφος",
				"two words", "line\nbreak", "\u200bzero", "\x01", "\u202eright", "NULL", "'; --", `back\slash"quote`, "# # deep", "ﬁ", "①", "Å",
				"nul\x00tag", "", "###", strings.Repeat("x", 64), strings.Repeat("x", 65), strings.Repeat("🏳️‍🌈", 45), strings.Repeat("👩‍👩‍👧‍👦", 26), strings.Repeat("e\u0301\u0302\u0303", 60)))
		}
	}
	if len(normalTags(raw)) == 0 && (len(olderTags(raw)) == 0 || g.chance(50)) {
		raw = append(raw, "art")
	}
	return raw
}
