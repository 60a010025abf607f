package httpapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
)

func manyTags(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "&tags=t%d", i)
	}
	return b.String()[1:]
}

func manyDIDs(n int, name string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "&%s=did:plc:a%d", name, i)
	}
	return b.String()
}

// tokenFor returns a token for a list, with the keys of testCodec.
func tokenFor(t testing.TB, key string, tags ...string) string {
	t.Helper()
	q := values{}
	for _, tag := range tags {
		q = append(q, pair{"tags", tag})
	}
	return tokenOf(t, key, q)
}

// filteredToken returns a token for the list of art with filters, each "name=value".
func filteredToken(t testing.TB, filters ...string) string {
	t.Helper()
	q := values{{"tags", "art"}}
	for _, f := range filters {
		name, value, _ := strings.Cut(f, "=")
		q = append(q, pair{name, value})
	}
	return tokenOf(t, "k1", q)
}

func tokenOf(t testing.TB, key string, q values) string {
	t.Helper()
	list, err := parsePostList(q)
	require.NoError(t, err)
	return testCodec(t, key).Encode(keyset.Below(keyset.UUID(event.NewKey(t0, "at://x"))), list.fingerprint)
}

// TestRefused: invalid requests are refused without the index, which cannot be reached.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, deadIndex(t))
	good := tokenFor(t, "k1", "art")
	filtered := func(filters ...string) string { return filteredToken(t, filters...) }
	flipped := []byte(good)
	flipped[len(flipped)/2] ^= 1
	const (
		posts  = "/v1/posts?"
		recent = "/v1/getRecentRootPostsWithTags?"
	)
	for _, c := range []struct {
		name, target string
		want         code
	}{
		{"no tags", "/v1/posts", codeMissingTags},
		{"no tags, another parameter", posts + "limit=5", codeMissingTags},
		{"empty tag", posts + "tags=", codeInvalidTag},
		{"tag without value", posts + "tags", codeInvalidTag},
		{"an empty tag and a valid one", posts + "tags=art&tags=", codeInvalidTag},
		{"tag of only #", posts + "tags=%23%23", codeInvalidTag},
		{"tag of white space", posts + "tags=+%C2%A0%09", codeInvalidTag},
		{"tag with NUL", posts + "tags=a%00b", codeInvalidTag},
		{"tag of 65 characters", posts + "tags=" + strings.Repeat("a", 65), codeInvalidTag},
		{"tag of 641 bytes", posts + "tags=" + url.QueryEscape(strings.Repeat("👨‍👩‍👧‍👦", 26)), codeInvalidTag},
		{"21 tags", posts + manyTags(21), codeTooManyTags},
		{"tags over 4 KB", posts + "tags=" + strings.Repeat("a", maxTagsBytes+1), codeTagsTooLong},
		{"tags over 4 KB together", posts + strings.Repeat("tags="+strings.Repeat("a", 41)+"&", 100), codeTagsTooLong},
		{"query over 16 KB", posts + "tags=" + strings.Repeat("a", maxRawQuery), codeQueryTooLong},
		{"query over 100 KB", posts + "tags=" + strings.Repeat("a", 100<<10), codeQueryTooLong},
		{"percent at the end", posts + "tags=art%", codeInvalidQuery},
		{"percent and one digit", posts + "tags=art%4", codeInvalidQuery},
		{"percent and no hex", posts + "tags=%zz", codeInvalidQuery},
		{"percent in a name", posts + "t%gs=art", codeInvalidQuery},
		{"not UTF-8", posts + "tags=%ff", codeInvalidQuery},
		{"half a character", posts + "tags=%F0%9F%8E", codeInvalidQuery},
		{"unknown parameter", posts + "tags=art&color=red", codeUnknownParameter},
		{"unknown parameter in upper case", posts + "tags=art&LIMIT=5", codeUnknownParameter},
		{"parameter without name", posts + "tags=art&=5", codeUnknownParameter},
		{"array brackets", posts + "tags[]=art", codeUnknownParameter},
		{"match of another kind", posts + "tags=art&match=some", codeInvalidMatch},
		{"match empty", posts + "tags=art&match=", codeInvalidMatch},
		{"match in upper case", posts + "tags=art&match=ALL", codeInvalidMatch},
		{"match twice", posts + "tags=art&match=all&match=all", codeRepeatedParameter},
		{"none empty", posts + "tags=art&none=", codeInvalidTag},
		{"only none", posts + "none=nsfw", codeMissingTags},
		{"21 in none", posts + "tags=art&" + strings.ReplaceAll(manyTags(21), "tags", "none"), codeTooManyTags},
		{"tags and none over 4 KB together", posts + "tags=art" + strings.Repeat("&none="+strings.Repeat("a", 64), 64), codeTagsTooLong},
		{"21 in all", posts + strings.ReplaceAll(manyTags(21), "tags", "all"), codeTooManyTags},
		{"21 in tags and all, which mean the same", posts + manyTags(20) + "&all=b&match=all", codeTooManyTags},
		{"41 tags together", posts + manyTags(20) + "&" + strings.ReplaceAll(manyTags(20), "tags", "none") + "&all=b", codeTooManyTags},
		{"all empty", posts + "tags=art&all=", codeInvalidTag},
		{"tags, all and none over 4 KB together", posts + "tags=art" + strings.Repeat("&all="+strings.Repeat("a", 64), 32) + strings.Repeat("&none="+strings.Repeat("a", 64), 32), codeTagsTooLong},
		{"author of a handle", posts + "tags=art&author=alice.example", codeInvalidAuthor},
		{"author empty", posts + "tags=art&author=", codeInvalidAuthor},
		{"only author", posts + "author=did:plc:a", codeMissingTags},
		{"21 authors", posts + "tags=art" + manyDIDs(21, "author"), codeInvalidAuthor},
		{"21 excluded authors", posts + "tags=art" + manyDIDs(21, "notAuthor"), codeInvalidAuthor},
		{"token with a tag required", posts + "tags=art&all=ink&after=" + good, codeCursorMismatch},
		{"token with an author", posts + "tags=art&author=did:plc:a&after=" + good, codeCursorMismatch},
		{"token of another author", posts + "tags=art&author=did:plc:a&after=" + filtered("author=did:plc:b"), codeCursorMismatch},
		{"token of an excluded author", posts + "tags=art&author=did:plc:a&after=" + filtered("notAuthor=did:plc:a"), codeCursorMismatch},
		{"maxTags 0", posts + "tags=art&maxTags=0", codeInvalidMaxTags},
		{"maxTags 101", posts + "tags=art&maxTags=101", codeInvalidMaxTags},
		{"maxTags in words", posts + "tags=art&maxTags=five", codeInvalidMaxTags},
		{"maxTags twice", posts + "tags=art&maxTags=5&maxTags=5", codeRepeatedParameter},
		{"media of another kind", posts + "tags=art&media=audio", codeInvalidMedia},
		{"media empty", posts + "tags=art&media=", codeInvalidMedia},
		{"selfLabels of another kind", posts + "tags=art&selfLabels=include", codeInvalidSelfLabels},
		{"token with fewer tags", posts + "tags=art&maxTags=5&after=" + filtered("maxTags=6"), codeCursorMismatch},
		{"token with media", posts + "tags=art&media=image&after=" + filtered("media=any"), codeCursorMismatch},
		{"token with self-labels", posts + "tags=art&selfLabels=only&after=" + filtered("selfLabels=exclude"), codeCursorMismatch},
		{"any language", posts + "tags=art&lang=*", codeInvalidLang},
		{"lang empty", posts + "tags=art&lang=", codeInvalidLang},
		{"lang with an underscore", posts + "tags=art&lang=en_US", codeInvalidLang},
		{"lang with nine letters", posts + "tags=art&lang=abcdefghi", codeInvalidLang},
		{"21 languages", posts + "tags=art&lang=" + strings.Join(strings.Split("abcdefghijklmnopqrstu", ""), "&lang="), codeInvalidLang},
		{"since without a zone", posts + "tags=art&since=2026-01-01T00:00:00", codeInvalidTime},
		{"since of a day", posts + "tags=art&since=2026-01-01", codeInvalidTime},
		{"since in seconds", posts + "tags=art&since=1767225600", codeInvalidTime},
		{"since with a bare plus", posts + "tags=art&since=2026-01-01T00:00:00+01:00", codeInvalidTime},
		{"until empty", posts + "tags=art&until=", codeInvalidTime},
		{"until twice", posts + "tags=art&until=2026-01-01T00:00:00Z&until=2026-01-01T00:00:00Z", codeRepeatedParameter},
		{"token with another match", posts + "tags=art&match=all&after=" + good, codeCursorMismatch},
		{"token with an excluded tag", posts + "tags=art&none=nsfw&after=" + good, codeCursorMismatch},
		{"token with a language", posts + "tags=art&lang=en&after=" + good, codeCursorMismatch},
		{"token with a time", posts + "tags=art&since=2026-01-01T00:00:00Z&after=" + good, codeCursorMismatch},
		{"token with the other time", posts + "tags=art&until=2026-01-01T00:00:00Z&before=" + filtered("since=2026-01-01T00:00:00Z"), codeCursorMismatch},
		{"recent: a filter", recent + "tags=art&match=all", codeUnknownParameter},
		{"the other route's parameter", posts + "tags=art&quantity=5", codeUnknownParameter},
		{"limit twice", posts + "tags=art&limit=5&limit=5", codeRepeatedParameter},
		{"after twice", posts + "tags=art&after=" + good + "&after=" + good, codeRepeatedParameter},
		{"limit 0", posts + "tags=art&limit=0", codeInvalidLimit},
		{"limit 101", posts + "tags=art&limit=101", codeInvalidLimit},
		{"limit below zero", posts + "tags=art&limit=-1", codeInvalidLimit},
		{"limit with a sign", posts + "tags=art&limit=%2B5", codeInvalidLimit},
		{"limit with a space", posts + "tags=art&limit=+5", codeInvalidLimit},
		{"limit with a leading zero", posts + "tags=art&limit=05", codeInvalidLimit},
		{"limit empty", posts + "tags=art&limit=", codeInvalidLimit},
		{"limit not whole", posts + "tags=art&limit=1.5", codeInvalidLimit},
		{"limit in hex", posts + "tags=art&limit=0x10", codeInvalidLimit},
		{"limit not a number", posts + "tags=art&limit=all", codeInvalidLimit},
		{"limit beyond integers", posts + "tags=art&limit=99999999999999999999", codeInvalidLimit},
		{"first 0", posts + "tags=art&first=0", codeInvalidLimit},
		{"last 101", posts + "tags=art&last=101", codeInvalidLimit},
		{"after and before", posts + "tags=art&after=" + good + "&before=" + good, codeConflicting},
		{"first and last", posts + "tags=art&first=5&last=5", codeConflicting},
		{"first and limit", posts + "tags=art&first=5&limit=5", codeConflicting},
		{"last and limit", posts + "tags=art&last=5&limit=5", codeConflicting},
		{"first and before", posts + "tags=art&first=5&before=" + good, codeConflicting},
		{"last and after", posts + "tags=art&last=5&after=" + good, codeConflicting},
		{"made up token", posts + "tags=art&after=1", codeInvalidCursor},
		{"cut token", posts + "tags=art&after=" + good[:len(good)-2], codeInvalidCursor},
		{"extended token", posts + "tags=art&before=" + good + "AA", codeInvalidCursor},
		{"changed token", posts + "tags=art&after=" + string(flipped), codeInvalidCursor},
		{"token with a line break", posts + "tags=art&after=%0A" + good, codeInvalidCursor},
		{"token of another key", posts + "tags=art&after=" + tokenFor(t, "k2", "art"), codeInvalidCursor},
		{"long token", posts + "tags=art&after=" + strings.Repeat("A", 5000), codeInvalidCursor},
		{"token of other tags", posts + "tags=art&after=" + tokenFor(t, "k1", "photo"), codeCursorMismatch},
		{"token of more tags", posts + "tags=art&before=" + tokenFor(t, "k1", "art", "photo"), codeCursorMismatch},
		{"recent: no tags", recent, codeMissingTags},
		{"recent: 21 tags", recent + manyTags(21), codeTooManyTags},
		{"recent: quantity 0", recent + "tags=art&quantity=0", codeInvalidLimit},
		{"recent: quantity 101", recent + "tags=art&quantity=101", codeInvalidLimit},
		{"recent: quantity twice", recent + "tags=art&quantity=1&quantity=1", codeRepeatedParameter},
		{"recent: the other route's parameter", recent + "tags=art&limit=5", codeUnknownParameter},
		{"recent: made up paginator", recent + "tags=art&paginator=2", codeInvalidCursor},
		{"recent: paginator of other tags", recent + "tags=photo&paginator=" + good, codeCursorMismatch},
		{"post: parameter", "/v1/posts/did:plc:x/y?full=1", codeUnknownParameter},
		{"post: no DID", "/v1/posts/alice.example/y", codeNotFound},
		{"post: NUL in the DID", "/v1/posts/did:plc:x%00/y", codeNotFound},
		{"post: not UTF-8", "/v1/posts/did:plc:%ff/y", codeNotFound},
		{"post: no record key", "/v1/posts/did:plc:x/a%2Fb", codeNotFound},
		{"post: dots", "/v1/posts/did:plc:x/%2E%2E", codeNotFound},
		{"post: half a path", "/v1/posts/did:plc:x", codeNotFound},
		{"post: more path", "/v1/posts/did:plc:x/y/z", codeNotFound},
		{"status: parameter", "/v1/status?verbose=1", codeUnknownParameter},
		{"index: parameter", "/?x", codeUnknownParameter},
		{"openapi: parameter", "/openapi.yaml?x=1", codeUnknownParameter},
		{"no such path", "/v1/nothing", codeNotFound},
		{"slash at the end", "/v1/posts/?tags=art", codeNotFound},
		{"two slashes", "//v1/posts?tags=art", codeNotFound},
		{"dots in the path", "/v1/../v1/posts?tags=art", codeNotFound},
		// These are valid, so they need the index.
		{"valid", posts + "tags=art", codeUnavailable},
		{"20 tags", posts + manyTags(20), codeUnavailable},
		{"21 tags, two of them the same", posts + manyTags(20) + "&tags=%23T1", codeUnavailable},
		{"tag of 64 characters", posts + "tags=" + strings.Repeat("a", 64), codeUnavailable},
		{"tags of 4 KB", posts + strings.Repeat("tags="+strings.Repeat("a", 64)+"&", 64), codeUnavailable},
		{"empty pairs", posts + "&tags=art&&", codeUnavailable},
		{"token", posts + "tags=art&after=" + good, codeUnavailable},
		{"token, tags in another form", posts + "tags=%23ART&tags=art&before=" + good, codeUnavailable},
		{"first and after", posts + "tags=art&first=5&after=" + good, codeUnavailable},
		{"last and before", posts + "tags=art&last=5&before=" + good, codeUnavailable},
		{"last", posts + "tags=art&last=100", codeUnavailable},
		{"token, explicit match", posts + "tags=art&match=any&after=" + good, codeUnavailable},
		{"every filter", posts + "tags=art&match=all&none=nsfw&lang=en&lang=pt-BR&since=2026-01-01T00:00:00%2B01:00&until=2026-02-01t00:00:00z", codeUnavailable},
		{"token of the same filters in another spelling", posts + "tags=art&none=b&none=%23A&lang=EN&since=2026-01-01T01:00:00%2B01:00&after=" +
			filtered("none=a", "none=b", "none=a", "lang=en", "lang=En", "since=2025-12-31T23:59:59.9999991Z"), codeUnavailable},
		{"recent", recent + "tags=art&quantity=1&paginator=" + good, codeUnavailable},
		{"post", "/v1/posts/did:web:localhost%253A80/self", codeUnavailable},
		{"status", "/v1/status", codeUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := s.get(t, c.target).requireProblem(t, c.want)
			require.NotContains(t, p.Detail, "127.0.0.1")
			require.NotContains(t, p.Detail, "nobody")
		})
	}
}

// TestRefusalsHelp: refusals explain common mistakes.
func TestRefusalsHelp(t *testing.T) {
	t.Parallel()
	s := serve(t, deadIndex(t))
	const posts = "/v1/posts?tags=art&"
	for _, c := range []struct{ target, want string }{
		{posts + "since=2026-01-01", `"2026-01-01" is only a date.`},
		{posts + "until=2026-01-01T00:00:00", "is without a zone: add Z for UTC."},
		{posts + "since=2026-01-01T00:00:00+01:00", "is the result of a plus sign that is not sent as %2B."},
		{posts + "since=2016-12-31T23:59:60Z", "is a leap second, which no post has: give the next second."},
		{posts + "since=2016-12-31T23:59:60.5z", "is a leap second, which no post has: give the next second."},
		{posts + "since=2026-01-01T00:60:00Z", `"2026-01-01T00:60:00Z" is not one.`},
		{posts + "since=yesterday", `"yesterday" is not one.`},
		{posts + "lang=*", "Leave out lang to get posts in all languages"},
		{posts + "lang=en_US", `for "en_US" write en-US.`},
		{posts + "lang=en-*", `for "en-*" write en.`},
		{posts + "lang=%3F", `"?" is not one.`},
		{posts + "limit=+5", `it is " 5" (a plus sign in a URL is a space, a real one is %2B; neither is needed).`},
		{posts + "limit=%2B5", `in digits without leading zeros: it is "+5".`},
		{posts + "limit=05", "without leading zeros"},
		{"/v1/status?x=1", `Remove the unknown parameter "x": this route takes no parameters.`},
		{"/v1/tags/%23", `Name another tag than "#": nothing is left of it without white space, leading # and invisible characters.`},
		{"/v1/tags/%00", "tags contain no NUL."},
		{"/v1/tags/%FF", `"%FF" does not decode to UTF-8.`},
		{posts + "a%26b=<1>", `Remove the unknown parameter "a&b"`},
	} {
		a := s.get(t, c.target)
		require.Equal(t, http.StatusBadRequest, a.status, c.target)
		var p problem
		a.json(t, &p)
		require.Contains(t, p.Detail, c.want, c.target)
		require.NotContains(t, string(a.body), `\u00`, "%s: the sentence is readable as sent", c.target)
	}
}

// TestQueryDecoding: a query string is decoded like that of an HTML form.
func TestQueryDecoding(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, query string
		want        []string
	}{
		{"plus is a space", "tags=new+york", []string{"new york"}},
		{"encoded plus is a plus", "tags=c%2B%2B", []string{"c++"}},
		{"encoded space", "tags=new%20york", []string{"new york"}},
		{"comma is part of a tag", "tags=a,b", []string{"a,b"}},
		{"semicolon is part of a tag", "tags=a;b", []string{"a;b"}},
		{"equals sign is part of a tag", "tags=a=b", []string{"a=b"}},
		{"encoded ampersand", "tags=r%26b", []string{"r&b"}},
		{"encoded name", "%74ags=art", []string{"art"}},
		{"plain UTF-8", "tags=café", []string{"café"}},
		{"normalized, sorted, without duplicates", "tags=%23Photo&tags=ART&tags=+art+&tags=photo", []string{"art", "photo"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			q, err := parseQuery(c.query, postsParams)
			require.NoError(t, err)
			tags, _, _, err := q.tags()
			require.NoError(t, err)
			require.Equal(t, c.want, tags)
		})
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	s := serve(t, fakeIndex{})
	for _, path := range []string{"/", "/openapi.yaml", "/v1/posts?tags=art", "/v1/getRecentRootPostsWithTags?tags=art", "/v1/status"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, "BREW"} {
			a := s.do(t, method, path)
			a.requireProblem(t, codeMethodNotAllowed)
			require.Equal(t, "GET, HEAD, OPTIONS", a.header.Get("Allow"))
		}
		get, head := s.get(t, path), s.do(t, http.MethodHead, path)
		require.Equal(t, http.StatusOK, head.status)
		require.Empty(t, head.body)
		for _, name := range []string{"ETag", "Content-Length", "Content-Type", "Link"} {
			require.Equal(t, get.header.Get(name), head.header.Get(name), name)
		}
		preflight := s.do(t, http.MethodOptions, path,
			"Origin", "https://site.example", "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "if-none-match")
		require.Equal(t, http.StatusNoContent, preflight.status)
		require.Contains(t, preflight.header.Get("Access-Control-Allow-Methods"), "GET")
		require.Equal(t, "*", preflight.header.Get("Access-Control-Allow-Headers"))
		require.Equal(t, "GET, HEAD, OPTIONS", preflight.header.Get("Allow"))
	}
	s.do(t, http.MethodPost, "/nothing").requireProblem(t, codeNotFound)
	s.do(t, http.MethodOptions, "/nothing").requireProblem(t, codeNotFound)
}

// FuzzQuery sends any query string: it is answered or refused, and the links in the answer are
// answered.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"", "tags=art", "tags=art&tags=photo&limit=5", "tags=%23a%2Cb&first=1", "last=3&tags=x", "tags=a&after=AQ", "tags=%", "a;b&=&==",
		"tags=a+b&limit=+1", "tags=a&match=all&tags=b&none=c&lang=en-GB&since=2026-01-01T00:00:00Z&until=2026-01-01T00:00:00.0000001Z", "tags=%00", "tags=\xff", "tags=" + strings.Repeat("%F0%9F", 100),
	} {
		f.Add(seed)
	}
	row := query.PostRow{Key: event.NewKey(t0, "at://x"), DID: author, Rkey: "x", Tags: []string{"art"}, Record: []byte(`{}`)}
	s := serve(f, fakeIndex{})
	h := serve(f, fakeIndex{posts: onePage(query.PostPage{
		Rows: []query.PostRow{row}, HasNext: true, HasPrevious: true,
		Next: keyset.Below(query.PostKey(row)...), Previous: keyset.Above(query.PostKey(row)...),
	})}).handler
	f.Fuzz(func(t *testing.T, raw string) {
		for _, path := range []string{"/v1/posts", "/v1/getRecentRootPostsWithTags"} {
			ask := func(h http.Handler, rawQuery string) *httptest.ResponseRecorder {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
				r.URL.RawQuery = rawQuery
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				return w
			}
			w := ask(h, raw)
			if w.Code != http.StatusOK && w.Code != http.StatusBadRequest {
				t.Fatalf("%s?%s: status %d: %s", path, raw, w.Code, w.Body)
			}
			for link := range strings.SplitSeq(w.Header().Get("Link"), ", ") {
				if link == "" {
					continue
				}
				target, _, _ := strings.Cut(strings.TrimPrefix(link, "<"), ">")
				u, err := url.Parse(target)
				if err != nil || u.Path != "" {
					t.Fatalf("%s?%s: link %q: %v", path, raw, link, err)
				}
				if w := ask(s.handler, u.RawQuery); w.Code != http.StatusOK {
					t.Fatalf("%s?%s: link %q: status %d: %s", path, raw, link, w.Code, w.Body)
				}
			}
		}
	})
}

// TestCodesAreDocumented compares the codes with openapi.yaml.
func TestCodesAreDocumented(t *testing.T) {
	t.Parallel()
	doc, _ := spec()
	var documented []string
	for _, v := range doc.Components.Schemas["Problem"].Value.Properties["code"].Value.Enum {
		documented = append(documented, v.(string))
	}
	var want []string
	for _, c := range []code{
		codeInvalidQuery, codeQueryTooLong, codeUnknownParameter, codeRepeatedParameter, codeConflicting, codeMissingTags,
		codeTooManyTags, codeTagsTooLong, codeInvalidTag, codeInvalidMatch, codeInvalidLang, codeInvalidAuthor, codeInvalidMaxTags, codeInvalidMedia, codeInvalidSelfLabels, codeInvalidTime, codeInvalidWindow, codeInvalidPrefix, codeInvalidLimit, codeInvalidPage, codeInvalidCursor, codeCursorMismatch, codeCursorExpired, codeInvalidHost, codeNotFound,
		codeMethodNotAllowed, codeRateLimited, codeInternal, codeUnavailable, codeTimeout, codeOverloaded, codeFilterNotReady,
	} {
		want = append(want, string(c))
		require.Contains(t, doc.Info.Description, fmt.Sprintf("| `%s` | %d |", c, c.status()))
	}
	require.Equal(t, want, documented)
	require.Equal(t, len(want), strings.Count(doc.Info.Description, "\n| `"), "rows in the table")
}

// TestRoutesAreDocumented compares the routes and their parameters with openapi.yaml.
func TestRoutesAreDocumented(t *testing.T) {
	t.Parallel()
	doc, _ := spec()
	accepted := map[string]params{routePosts: postsParams, routeChanges: changesParams, routeStream: followParams, routeRecent: recentParams, routeTags: tagsParams, routeTagQuery: oneTagParams, routeAdminTags: adminTagsParams,
		routeFeedRSS: feedParams, routeFeedAtom: feedParams, routeFeedJSON: feedParams, routeFeedOPML: opmlParams,
		routeSkeleton: {single: []string{"feed", "limit", "cursor"}}, routeSearch: searchParams}
	h := serve(t, fakeIndex{}).handler
	routes := slices.Concat(h.routes(), h.adminRoutes())
	require.Len(t, routes, doc.Paths.Len())
	for _, r := range routes {
		item := doc.Paths.Value(r.path)
		require.NotNil(t, item, r.path)
		require.Equal(t, []string{http.MethodGet}, keys(item.Operations()), r.path)
		var single, repeated []string
		for _, p := range item.Get.Parameters {
			switch {
			case p.Value.In == "header":
			case p.Value.In != "query":
				require.Contains(t, r.path, "{"+p.Value.Name+"}")
			case p.Value.Schema.Value.Type.Is("array"):
				repeated = append(repeated, p.Value.Name)
			default:
				single = append(single, p.Value.Name)
			}
			if s := p.Value.Schema.Value; s.Type.Is("integer") && p.Value.Name != "page" {
				require.EqualValues(t, 1, *s.Min)
				require.EqualValues(t, query.MaxLimit, *s.Max)
			}
		}
		require.Equal(t, accepted[r.name].single, single, r.path)
		require.Equal(t, accepted[r.name].repeated, repeated, r.path)
	}
	parameter := func(path, name string) any {
		return doc.Paths.Value(path).Get.Parameters.GetByInAndName("query", name).Schema.Value.Default
	}
	require.EqualValues(t, defaultLimit, parameter("/v1/posts", "limit"))
	require.EqualValues(t, defaultQuantity, parameter("/v1/getRecentRootPostsWithTags", "quantity"))
	require.EqualValues(t, defaultLimit, parameter("/v1/tags", "limit"))
	require.EqualValues(t, defaultPerPage, parameter("/v1/admin/tags", "perPage"))
}

func keys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
