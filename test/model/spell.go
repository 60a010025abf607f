package model

import (
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"time"
)

// spell writes a query as a client may: with its names in any order, some twice,
// in other cases and with number signs, times in any zone, defaults given or
// not. All spellings of a query are one list, with the same tokens. The names
// must be in normal form.
func spell(rng *rand.Rand, q Query) url.Values {
	params := url.Values{"tags": spellAll(rng, q.Tags, spellTag)}
	switch {
	case q.All:
		params.Set("match", "all")
	case rng.IntN(2) == 0:
		params.Set("match", "any")
	}
	if len(q.None) > 0 {
		params["none"] = spellAll(rng, q.None, spellTag)
	}
	if len(q.Langs) > 0 {
		params["lang"] = spellAll(rng, q.Langs, spellLang)
	}
	if !q.Since.IsZero() {
		params.Set("since", spellTime(rng, q.Since))
	}
	if !q.Until.IsZero() {
		params.Set("until", spellTime(rng, q.Until))
	}
	return params
}

// String is the query as a URL has it, for messages.
func (q Query) String() string {
	params := url.Values{}
	for name, values := range map[string][]string{"tags": q.Tags, "none": q.None, "lang": q.Langs} {
		if len(values) > 0 {
			params[name] = values
		}
	}
	if q.All {
		params.Set("match", "all")
	}
	for name, at := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !at.IsZero() {
			params.Set(name, at.Format(time.RFC3339Nano))
		}
	}
	return params.Encode()
}

// maxRepeatedBytes bounds the names that are given twice.
const maxRepeatedBytes = 100

func spellAll(rng *rand.Rand, names []string, spellOne func(*rand.Rand, string) string) []string {
	var out []string
	room := maxRepeatedBytes
	for _, name := range names {
		out = append(out, spellOne(rng, name))
		if len(name) <= room && rng.IntN(4) == 0 {
			out, room = append(out, spellOne(rng, name)), room-len(name)
		}
	}
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func spellTag(rng *rand.Rand, tag string) string {
	spelt := pick(rng, tag, "#"+tag, " "+strings.ToUpper(tag), "## "+strings.ToTitle(tag)+"\n")
	if normal, ok := normalTag(spelt); !ok || normal != tag {
		return tag // of a keycap, or a letter without a simple upper case
	}
	return spelt
}

func spellLang(rng *rand.Rand, lang string) string {
	b := []byte(lang)
	for i, c := range b {
		if c >= 'a' && c <= 'z' && rng.IntN(2) == 0 {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// spellTime writes a time of whole microseconds in some zone, or a time within
// the microsecond before it, which is rounded up to it.
func spellTime(rng *rand.Rand, t time.Time) string {
	if rng.IntN(3) == 0 {
		t = t.Add(-time.Duration(rng.IntN(1000)))
	}
	if t.Year() > 1 && t.Year() < 9999 {
		t = t.In(time.FixedZone("", pick(rng, 0, 0, 19800, -28800, 45900)))
	}
	return t.Format(pick(rng, time.RFC3339Nano, "2006-01-02T15:04:05.000000000Z07:00"))
}

// variant is a query that is another list than the one that it was made from,
// with the name of what was changed.
type variant struct {
	what string
	Query
}

// variants returns other queries whose tokens must not pass for those of q.
func variants(rng *rand.Rand, q Query) []variant {
	var out []variant
	add := func(what string, change func(*Query)) {
		other := q
		other.Tags, other.None, other.Langs = slices.Clone(q.Tags), slices.Clone(q.None), slices.Clone(q.Langs)
		change(&other)
		out = append(out, variant{what, other})
	}
	i := rng.IntN(len(q.Tags))
	add("another tag", func(o *Query) { o.Tags[i] = "another tag" })
	if len(q.Tags) < maxQueryTags {
		add("a tag more", func(o *Query) { o.Tags = append(o.Tags, "another tag") })
	}
	if len(q.Tags) > 1 {
		add("match", func(o *Query) { o.All = !o.All })
		add("a tag less", func(o *Query) { o.Tags = slices.Delete(o.Tags, i, i+1) })
		if len(q.None) < maxQueryTags {
			add("a tag excluded rather than sought", func(o *Query) {
				o.None, o.Tags = append(o.None, o.Tags[i]), slices.Delete(o.Tags, i, i+1)
			})
		}
	}
	if len(q.None) < maxQueryTags {
		add("a tag more excluded", func(o *Query) { o.None = append(o.None, "another tag") })
	}
	if len(q.None) > 0 {
		i := rng.IntN(len(q.None))
		add("another tag excluded", func(o *Query) { o.None[i] = "another tag" })
		add("a tag less excluded", func(o *Query) { o.None = slices.Delete(o.None, i, i+1) })
		if len(q.Tags) < maxQueryTags {
			add("a tag sought rather than excluded", func(o *Query) {
				o.Tags, o.None = append(o.Tags, o.None[i]), slices.Delete(o.None, i, i+1)
			})
		}
	}
	if len(q.Langs) < maxQueryLangs {
		add("a language more", func(o *Query) { o.Langs = append(o.Langs, "qaa-x-another") })
	}
	if len(q.Langs) > 0 {
		i := rng.IntN(len(q.Langs))
		add("another language", func(o *Query) { o.Langs[i] = "qaa-x-other" })
		add("a language less", func(o *Query) { o.Langs = slices.Delete(o.Langs, i, i+1) })
	}
	add("since", func(o *Query) { o.Since = shifted(o.Since) })
	add("until", func(o *Query) { o.Until = shifted(o.Until) })
	if !q.Since.IsZero() {
		add("no since", func(o *Query) { o.Since = time.Time{} })
	}
	if !q.Until.IsZero() {
		add("no until", func(o *Query) { o.Until = time.Time{} })
	}
	if !q.Since.Equal(q.Until) {
		add("since for until", func(o *Query) { o.Since, o.Until = o.Until, o.Since })
	}
	return out
}

// shifted is a time next to t, or any where t is none.
func shifted(t time.Time) time.Time {
	if t.IsZero() {
		return time.UnixMicro(1).UTC()
	}
	return t.Add(time.Microsecond)
}
