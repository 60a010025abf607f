package httpapi

import (
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store/query"
)

// Limits of what a client may send, in bytes.
const (
	// maxRawQuery bounds the query string as sent.
	maxRawQuery = 16 << 10
	// maxTagsBytes bounds all values of tags, all and none together, decoded.
	maxTagsBytes = 4 << 10
	// maxEchoed bounds how much of a client's text an answer quotes.
	maxEchoed = 60
)

// tokenParams take a token from an earlier answer. An empty one means none, for clients that begin
// a loop with an empty variable.
var tokenParams = []string{"after", "before", "paginator"}

// params are the parameters that a route accepts. All others are refused.
type params struct {
	single   []string
	repeated []string
	// others means that unknown parameters are ignored instead.
	others bool
}

// filters are the parameters that select the posts of a list, on all routes with lists.
var filters = params{
	single:   []string{"match", "maxTags", "selfLabels", "since", "until"},
	repeated: []string{"tags", "all", "none", "lang", "author", "notAuthor", "media"},
}

// and returns p with more parameters that may be given once.
func (p params) and(single ...string) params {
	p.single = slices.Concat(p.single, single)
	return p
}

// values are the parameters of a request, decoded, in the order of the URL.
type values []pair

type pair struct{ name, value string }

// parseQuery reads a raw query as HTML forms write it: pairs joined by '&', '%' escapes, and '+'
// for a space (a literal plus is %2B). The error is a *problem if the query is too long or cannot
// be decoded, or a parameter is unknown to the route or must not be repeated.
func parseQuery(raw string, allowed params) (values, error) {
	if len(raw) > maxRawQuery {
		return nil, fail(codeQueryTooLong, "Shorten the query string: it has %d bytes, and at most %d are allowed.", len(raw), maxRawQuery)
	}
	var q values
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, err1 := url.QueryUnescape(name)
		value, err2 := url.QueryUnescape(value)
		switch {
		case err1 != nil || err2 != nil:
			return nil, fail(codeInvalidQuery, "Percent-encode the query string as UTF-8: %s has a '%%' without two hex digits after it (a literal one is %%25).", quote(part))
		case !utf8.ValidString(name) || !utf8.ValidString(value):
			return nil, fail(codeInvalidQuery, "Percent-encode the query string as UTF-8: %s does not decode to UTF-8.", quote(part))
		}
		switch {
		case slices.Contains(allowed.repeated, name):
		case !slices.Contains(allowed.single, name) && allowed.others:
			continue
		case !slices.Contains(allowed.single, name):
			return nil, fail(codeUnknownParameter, "Remove the unknown parameter %s: this route takes %s.", quote(name), allowed.list())
		case value == "" && slices.Contains(tokenParams, name):
			continue
		case slices.ContainsFunc(q, func(p pair) bool { return p.name == name }):
			return nil, fail(codeRepeatedParameter, "Give the parameter %s only once.", name)
		}
		q = append(q, pair{name, value})
	}
	return q, nil
}

func (p params) list() string {
	names := slices.Concat(p.repeated, p.single)
	switch len(names) {
	case 0:
		return "no parameters"
	case 1:
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// quote quotes a client's text, cut to maxEchoed bytes.
func quote(s string) string {
	if len(s) > maxEchoed {
		s = strings.ToValidUTF8(s[:maxEchoed], "") + "…"
	}
	return strconv.Quote(s)
}

// get returns the value of a single parameter, and whether it was given.
func (q values) get(name string) (string, bool) {
	i := slices.IndexFunc(q, func(p pair) bool { return p.name == name })
	if i < 0 {
		return "", false
	}
	return q[i].value, true
}

// all returns the values of a parameter.
func (q values) all(name string) (all []string) {
	for _, p := range q {
		if p.name == name {
			all = append(all, p.value)
		}
	}
	return all
}

func (q values) has(name string) bool {
	_, given := q.get(name)
	return given
}

// tags returns the tags of which posts must have at least one, those of which they must have all,
// and those that they must not have. Each list is normalized, sorted, without duplicates, and
// within the limits of query.PostQuery. The error is a *problem.
func (q values) tags() (tags, all, none []string, err error) {
	total := 0
	for _, p := range q {
		if p.name == "tags" || p.name == "all" || p.name == "none" {
			total += len(p.value)
		}
	}
	if total > maxTagsBytes {
		return nil, nil, nil, fail(codeTagsTooLong, "Ask for fewer or shorter tags: together they have %d bytes, and at most %d are allowed.", total, maxTagsBytes)
	}
	matchAll, err := q.matchAll()
	if err != nil {
		return nil, nil, nil, err
	}
	if matchAll {
		all, err = q.tagsIn("all", "tags")
	} else if tags, err = q.tagsIn("tags"); err == nil {
		all, err = q.tagsIn("all")
	}
	if err == nil {
		none, err = q.tagsIn("none")
	}
	together := len(tags) + len(all) + len(none)
	switch {
	case err != nil:
	case len(tags)+len(all) == 0:
		err = fail(codeMissingTags, "Name 1 to %d tags, as in tags=art&tags=photo.", query.MaxTagsEach)
	case together > query.MaxTagsTogether:
		err = fail(codeTooManyTags, "Name at most %d tags in tags, all and none together: there are %d.", query.MaxTagsTogether, together)
	}
	return tags, all, none, err
}

// normalTag returns a tag in normal form. The error is a *problem.
func normalTag(s string) (string, error) {
	tag, err := event.NormalizeTag(s)
	switch {
	case errors.Is(err, event.ErrTagEmpty):
		return "", fail(codeInvalidTag, "Name another tag than %s: nothing is left of it without white space, leading # and invisible characters.", quote(s))
	case errors.Is(err, event.ErrTagTooLong):
		return "", fail(codeInvalidTag, "Name another tag than %s: tags have at most %d bytes and %d characters.", quote(s), event.MaxTagBytes, event.MaxTagGraphemes)
	case err != nil:
		return "", fail(codeInvalidTag, "Name another tag than %s: tags contain no NUL.", quote(s))
	}
	return tag, nil
}

// tagsIn returns the tags in parameters.
func (q values) tagsIn(names ...string) ([]string, error) {
	var tags []string
	for _, p := range q {
		if !slices.Contains(names, p.name) {
			continue
		}
		tag, err := normalTag(p.value)
		if err != nil {
			return nil, err
		}
		tags = append(tags, tag)
	}
	slices.Sort(tags)
	tags = slices.Compact(tags)
	if len(tags) > query.MaxTagsEach {
		return nil, fail(codeTooManyTags, "Name at most %d tags in %s: there are %d different ones.", query.MaxTagsEach, strings.Join(names, " and "), len(tags))
	}
	return tags, nil
}

// matchAll reads match. The error is a *problem.
func (q values) matchAll() (bool, error) {
	s, given := q.get("match")
	switch {
	case !given, s == "any":
		return false, nil
	case s == "all":
		return true, nil
	}
	return false, fail(codeInvalidMatch, "Give match as any (the default) or all: it is %s.", quote(s))
}

// langs returns the language ranges in lower case, sorted, without duplicates. The error is a
// *problem.
func (q values) langs() ([]string, error) {
	var langs []string
	for _, value := range q.all("lang") {
		lang, ok := event.NormalizeLang(value)
		if !ok {
			return nil, badLang(value)
		}
		langs = append(langs, lang)
	}
	slices.Sort(langs)
	langs = slices.Compact(langs)
	if len(langs) > query.MaxLangs {
		return nil, fail(codeInvalidLang, "Name at most %d languages: there are %d different ones.", query.MaxLangs, len(langs))
	}
	return langs, nil
}

// authors returns the accounts in a parameter, sorted, without duplicates. The error is a *problem.
func (q values) authors(name string) ([]string, error) {
	dids := q.all(name)
	for _, did := range dids {
		if !event.ValidDID(did) {
			return nil, fail(codeInvalidAuthor, "Give %s as a DID such as did:plc:ewvi7nxzyoun6zhxrhs64oiz: %s is not one.", name, quote(did))
		}
	}
	slices.Sort(dids)
	dids = slices.Compact(dids)
	if len(dids) > query.MaxAuthors {
		return nil, fail(codeInvalidAuthor, "Name at most %d accounts in %s: there are %d different ones.", query.MaxAuthors, name, len(dids))
	}
	return dids, nil
}

// maxTags returns the most tags that posts may have, 0 if the parameter is not given. The error is
// a *problem.
func (q values) maxTags() (int, error) {
	s, given := q.get("maxTags")
	if !given {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n > event.MaxTagsPerPost || !isNumber(s) {
		return 0, fail(codeInvalidMaxTags, "Give maxTags as a whole number from 1 to %d, in digits without leading zeros: it is %s%s.", event.MaxTagsPerPost, quote(s), plusHint(s))
	}
	return n, nil
}

// mediaKinds are the values of media, except for "none".
var mediaKinds = map[string]event.Traits{
	"image": event.HasImage, "video": event.HasVideo, "gallery": event.HasGallery, "link": event.HasLink, "any": event.HasMedia,
}

// media returns the requested kinds of media, as sorted names and as traits, and whether posts
// without media are requested. The error is a *problem.
func (q values) media() (names []string, kinds event.Traits, none bool, err error) {
	names = q.all("media")
	for _, name := range names {
		kind, ok := mediaKinds[name]
		if !ok && name != "none" {
			return nil, 0, false, fail(codeInvalidMedia, "Give media as image, video, gallery, link, any or none: it is %s.", quote(name))
		}
		kinds, none = kinds|kind, none || !ok
	}
	slices.Sort(names)
	return slices.Compact(names), kinds, none, nil
}

// selfLabels reads selfLabels. The error is a *problem.
func (q values) selfLabels() (query.SelfLabels, error) {
	s, given := q.get("selfLabels")
	switch {
	case !given:
		return query.AnySelfLabels, nil
	case s == "exclude":
		return query.ExcludeSelfLabels, nil
	case s == "only":
		return query.OnlySelfLabels, nil
	}
	return 0, fail(codeInvalidSelfLabels, "Give selfLabels as exclude or only, or leave it out: it is %s.", quote(s))
}

// badLang says what to send instead of an invalid language.
func badLang(s string) *problem {
	if s == "*" {
		return fail(codeInvalidLang, "Leave out lang to get posts in all languages: \"*\" is not accepted.")
	}
	if other := strings.TrimSuffix(strings.ReplaceAll(s, "_", "-"), "-*"); len(other) <= maxEchoed {
		if _, ok := event.NormalizeLang(other); ok {
			return fail(codeInvalidLang, "Give lang as a language tag such as en or pt-BR: for %s write %s.", quote(s), other)
		}
	}
	return fail(codeInvalidLang, "Give lang as a language tag such as en or pt-BR: %s is not one.", quote(s))
}

// time returns the time in a parameter, in UTC and rounded up to whole microseconds as in sortAt,
// or zero if it is not given. The error is a *problem.
func (q values) time(name string) (time.Time, error) {
	s, given := q.get(name)
	if !given {
		return time.Time{}, nil
	}
	t, ok := event.ParseTime(s)
	if !ok {
		return time.Time{}, fail(codeInvalidTime, "Give %s as an RFC 3339 time with a zone, such as 2026-11-20T21:44:58Z: %s is %s.", name, quote(s), wrongTime(s))
	}
	t = t.UTC().Add(time.Microsecond - 1).Truncate(time.Microsecond)
	if t.IsZero() {
		t = t.Add(time.Microsecond) // the zero time would mean no bound
	}
	return t, nil
}

// wrongTime says what is wrong with an invalid time.
func wrongTime(s string) string {
	parses := func(layout, s string) bool {
		_, err := time.Parse(layout, s)
		return err == nil
	}
	const seconds = len("2026-11-20T21:44:")
	_, leap := event.ParseTime(strings.Replace(s, ":60", ":59", 1))
	_, plus := event.ParseTime(strings.Replace(s, " ", "+", 1))
	switch {
	case parses(time.DateOnly, s):
		return "only a date"
	case parses("2006-01-02T15:04:05", s):
		return "without a zone: add Z for UTC"
	case plus && strings.LastIndex(s, " ") > seconds:
		return "the result of a plus sign that is not sent as %2B"
	case leap && strings.Index(s, ":60") == seconds-1:
		return "a leap second, which no post has: give the next second"
	}
	return "not one"
}

// isNumber reports whether s is a whole number above zero in canonical form: digits, the first not
// zero.
func isNumber(s string) bool {
	return s != "" && s[0] != '0' && strings.Trim(s, "0123456789") == ""
}

// plusHint explains the space in a value that was sent with a plus sign.
func plusHint(s string) string {
	if strings.HasPrefix(s, " ") {
		return " (a plus sign in a URL is a space, a real one is %2B; neither is needed)"
	}
	return ""
}

// limit returns the page size in a parameter, or byDefault if it is not given. The error is a
// *problem.
func (q values) limit(name string, byDefault int) (int, error) {
	s, given := q.get(name)
	if !given {
		return byDefault, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n > query.MaxLimit || !isNumber(s) {
		return 0, fail(codeInvalidLimit, "Give %s as a whole number from 1 to %d, in digits without leading zeros: it is %s%s.", name, query.MaxLimit, quote(s), plusHint(s))
	}
	return n, nil
}
