package model

import (
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"time"
)

// spell writes a query in one of the ways a client may: names in any order, some twice, in
// different case and with number signs, times in any zone, defaults explicit or not. All spellings
// of a query are one list, with the same tokens. The names must be in normal form.
func spell(rng *rand.Rand, q Query) url.Values {
	params := url.Values{}
	tags, all := q.Tags, q.All
	switch {
	case len(tags) == 0 && rng.IntN(2) == 0: // two ways to request the same
		n := rng.IntN(len(all)) + 1
		tags, all = all[:n], all[n:]
		params.Set("match", "all")
	case rng.IntN(2) == 0:
		params.Set("match", "any")
	}
	repeated := func(name string, names []string, spellOne func(*rand.Rand, string) string) {
		if len(names) > 0 {
			params[name] = spellAll(rng, names, spellOne)
		}
	}
	as := func(_ *rand.Rand, name string) string { return name }
	repeated("tags", tags, spellTag)
	repeated("all", all, spellTag)
	repeated("none", q.None, spellTag)
	repeated("lang", q.Langs, spellLang)
	repeated("author", q.By, as)
	repeated("notAuthor", q.NotBy, as)
	repeated("media", q.Media, as)
	for name, value := range q.single() {
		params.Set(name, value)
	}
	if !q.Since.IsZero() {
		params.Set("since", spellTime(rng, q.Since))
	}
	if !q.Until.IsZero() {
		params.Set("until", spellTime(rng, q.Until))
	}
	return params
}

// maxRepeatedBytes bounds the length of names that are repeated.
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
		return tag // a keycap, or a letter without a simple upper case
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

// spellTime writes a time of whole microseconds in some zone, or a time within the microsecond
// before it, which the API rounds up.
func spellTime(rng *rand.Rand, t time.Time) string {
	if rng.IntN(3) == 0 {
		t = t.Add(-time.Duration(rng.IntN(1000)))
	}
	if t.Year() > 1 && t.Year() < 9999 {
		t = t.In(time.FixedZone("", pick(rng, 0, 0, 19800, -28800, 45900)))
	}
	return t.Format(pick(rng, time.RFC3339Nano, "2006-01-02T15:04:05.000000000Z07:00"))
}

// variants returns other queries, for which tokens of q must be refused and vice versa.
func variants(rng *rand.Rand, q Query) (out []Query) {
	add := func(is bool, change func(*Query)) {
		if is {
			other := q
			for _, names := range []*[]string{&other.Tags, &other.All, &other.None, &other.Langs, &other.By, &other.NotBy, &other.Media} {
				*names = slices.Clone(*names)
			}
			change(&other)
			out = append(out, other)
		}
	}
	some := func(names []string) int { return rng.IntN(max(len(names), 1)) }
	i, j, k, l := some(q.Tags), some(q.None), some(q.Langs), some(q.All)
	has, several, requires, excludes, speaks := len(q.Tags) > 0, len(q.Tags) > 1, len(q.All) > 0, len(q.None) > 0, len(q.Langs) > 0
	room := len(q.Tags)+len(q.All)+len(q.None) < maxQueryTagsTogether
	tagRoom, allRoom, noneRoom := room && len(q.Tags) < maxQueryTags, room && len(q.All) < maxQueryTags, room && len(q.None) < maxQueryTags
	const other = "another tag"
	add(has, func(o *Query) { o.Tags[i] = other })
	add(tagRoom, func(o *Query) { o.Tags = append(o.Tags, other) })
	add(several, func(o *Query) { o.Tags = slices.Delete(o.Tags, i, i+1) })
	add(requires, func(o *Query) { o.All[l] = other })
	add(allRoom, func(o *Query) { o.All = append(o.All, other) })
	add(requires && len(q.Tags)+len(q.All) > 1, func(o *Query) { o.All = slices.Delete(o.All, l, l+1) })
	add(!slices.Equal(q.Tags, q.All), func(o *Query) { o.Tags, o.All = o.All, o.Tags })
	add(true, func(o *Query) { o.MaxTags = o.MaxTags%100 + 1 })
	add(true, func(o *Query) {
		o.SelfLabels = map[string]string{"": "only", "only": "exclude", "exclude": ""}[o.SelfLabels]
	})
	add(!slices.Contains(q.Media, "none"), func(o *Query) { o.Media = append(o.Media, "none") })
	add(len(q.Media) > 0, func(o *Query) { o.Media = o.Media[1:] })
	add(len(q.By) == 0, func(o *Query) { o.By = []string{"did:plc:another"} })
	add(len(q.NotBy) == 0, func(o *Query) { o.NotBy = []string{"did:plc:another"} })
	add(len(q.By) > 0, func(o *Query) { o.By = o.By[1:] })
	add(len(q.NotBy) > 0, func(o *Query) { o.NotBy = o.NotBy[1:] })
	add(!slices.Equal(q.By, q.NotBy), func(o *Query) { o.By, o.NotBy = o.NotBy, o.By })
	add(several && noneRoom, func(o *Query) { o.None, o.Tags = append(o.None, o.Tags[i]), slices.Delete(o.Tags, i, i+1) })
	add(noneRoom, func(o *Query) { o.None = append(o.None, other) })
	add(excludes, func(o *Query) { o.None[j] = other })
	add(excludes, func(o *Query) { o.None = slices.Delete(o.None, j, j+1) })
	add(excludes && tagRoom, func(o *Query) { o.Tags, o.None = append(o.Tags, o.None[j]), slices.Delete(o.None, j, j+1) })
	add(len(q.Langs) < maxQueryLangs, func(o *Query) { o.Langs = append(o.Langs, "qaa-x-another") })
	add(speaks, func(o *Query) { o.Langs[k] = "qaa-x-other" })
	add(speaks, func(o *Query) { o.Langs = slices.Delete(o.Langs, k, k+1) })
	add(true, func(o *Query) { o.Since = shifted(o.Since) })
	add(true, func(o *Query) { o.Until = shifted(o.Until) })
	add(!q.Since.IsZero(), func(o *Query) { o.Since = time.Time{} })
	add(!q.Until.IsZero(), func(o *Query) { o.Until = time.Time{} })
	add(!q.Since.Equal(q.Until), func(o *Query) { o.Since, o.Until = o.Until, o.Since })
	return out
}

// shifted returns a time next to t, or any time if t is zero.
func shifted(t time.Time) time.Time {
	if t.IsZero() {
		return time.UnixMicro(1).UTC()
	}
	return t.Add(time.Microsecond)
}
