package httpapi

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
)

func (f fakeIndex) Tags(_ context.Context, q query.TagQuery) (query.TagPage, error) {
	return query.TagPage{Next: q.From, Previous: q.From}, nil
}

func (f fakeIndex) TagsWithPrefix(context.Context, string) ([]query.TagCount, error) {
	return nil, nil
}

func (f fakeIndex) TagHistory(context.Context, string) (query.TagHistory, error) {
	return query.TagHistory{}, query.ErrNotFound
}

func (f fakeIndex) Popular(context.Context, int) (query.Popularity, error) {
	return query.Popularity{}, nil
}

func (f fakeIndex) TagsInUse(context.Context, []string) ([]string, error) { return nil, nil }

func (f fakeIndex) RankedTags(context.Context, int, int) ([]query.TagCount, int64, error) {
	return nil, 0, nil
}

// tagPage requests a page of /v1/tags.
func (s *served) tagPage(t testing.TB, parameters ...string) (tagsJSON, answer) {
	t.Helper()
	a := s.get(t, "/v1/tags?"+strings.Join(parameters, "&"))
	require.Equal(t, http.StatusOK, a.status, "%s", a.body)
	var out tagsJSON
	a.json(t, &out)
	return out, a
}

// allTags returns the expected list of tags.
func (x *index) allTags() []tagJSON {
	counts := map[string]int64{}
	for _, p := range x.posts {
		for _, tag := range p.Tags {
			counts[tag]++
		}
	}
	var out []tagJSON
	for tag, n := range counts {
		out = append(out, tagJSON{tag, n})
	}
	slices.SortFunc(out, func(a, b tagJSON) int {
		return cmp.Or(cmp.Compare(b.Posts, a.Posts), strings.Compare(a.Tag, b.Tag))
	})
	return out
}

// fillTags writes posts with many tags, most of which have the same count as others.
func (x *index) fillTags(t testing.TB) {
	t.Helper()
	var changes []write.PostChange
	for i := range 60 {
		tags := []string{"art"}
		for n := 2; n < 40; n += 3 {
			if i%n == 0 {
				tags = append(tags, fmt.Sprintf("t%d", n), fmt.Sprintf("ü/%d", n))
			}
		}
		_, c := x.newPost(fmt.Sprint("p", i), t0.Add(time.Duration(i)*time.Minute), tags...)
		changes = append(changes, c)
	}
	x.write(t, changes...)
}

func TestTagPaging(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.fillTags(t)
	s := serve(t, x.open(t))
	want := x.allTags()
	for _, limit := range []int{1, 4, 100} {
		t.Run(fmt.Sprint("by ", limit), func(t *testing.T) {
			t.Parallel()
			size := "limit=" + strconv.Itoa(limit)
			check := func(p tagsJSON, a answer, from, to int) {
				t.Helper()
				require.Equal(t, append([]tagJSON{}, want[from:to]...), p.Tags)
				require.Equal(t, to < len(want), p.Page.HasNext)
				require.Equal(t, from > 0, p.Page.HasPrevious)
				require.Equal(t, to < len(want), strings.Contains(a.header.Get("Link"), `rel="next"`))
				require.Equal(t, from > 0, strings.Contains(a.header.Get("Link"), `rel="prev"`))
			}
			p, a := s.tagPage(t, size)
			at := 0
			for {
				to := min(at+limit, len(want))
				check(p, a, at, to)
				if at = to; at == len(want) {
					break
				}
				link, token := "/v1/tags"+linkOf(t, a, "next"), p.Page.Next
				p, a = s.tagPage(t, size, "after="+token)
				require.Equal(t, string(a.body), string(s.get(t, link).body), "the link is the next page")
				relay, _ := s.tagPage(t, "first="+strconv.Itoa(limit), "after="+token)
				require.Equal(t, p, relay, "first is like limit")
			}
			beyond, a := s.tagPage(t, size, "after="+p.Page.Next)
			check(beyond, a, len(want), len(want))
			p, a = s.tagPage(t, size, "before="+beyond.Page.Previous)
			oldest, _ := s.tagPage(t, "last="+strconv.Itoa(limit))
			require.Equal(t, p.Tags, oldest.Tags, "last without a token gives the last page")
			for at = len(want); ; {
				from := max(0, at-limit)
				check(p, a, from, at)
				if at = from; at == 0 {
					break
				}
				link, token := "/v1/tags"+linkOf(t, a, "prev"), p.Page.Previous
				p, a = s.tagPage(t, size, "before="+token)
				require.Equal(t, string(a.body), string(s.get(t, link).body), "the link is the previous page")
				relay, _ := s.tagPage(t, "last="+strconv.Itoa(limit), "before="+token)
				require.Equal(t, p, relay, "last is like limit")
			}
			above, a := s.tagPage(t, size, "before="+p.Page.Previous)
			check(above, a, 0, 0)
		})
	}
	p, a := s.tagPage(t, "limit=2")
	require.Equal(t, `{"tags":[{"tag":"art","posts":60},{"tag":"t2","posts":30}],"page":{"hasNext":true,"hasPrevious":false,"next":"`+
		p.Page.Next+`","previous":"`+p.Page.Previous+`"}}`+"\n", string(a.body))
}

func TestNoTags(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	s := serve(t, x.open(t))
	empty, a := s.tagPage(t)
	require.Contains(t, string(a.body), `{"tags":[],`)
	require.Empty(t, a.header.Get("Link"))
	_, a = s.tagPage(t, "prefix=a")
	require.Equal(t, `{"tags":[]}`+"\n", string(a.body))
	uri := x.add(t, "one", t0, "art")
	for _, token := range []string{"after=" + empty.Page.Next, "before=" + empty.Page.Previous} {
		p, _ := s.tagPage(t, token)
		require.Equal(t, []tagJSON{{"art", 1}}, p.Tags)
	}
	x.remove(t, uri)
	p, _ := s.tagPage(t)
	require.Empty(t, p.Tags, "a tag without posts is not shown")
}

func TestTagTokensAreSeparate(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	uri := x.add(t, "one", t0, "art", "photo")
	s := serve(t, x.open(t))
	tags, _ := s.tagPage(t)
	posts, _ := s.page(t, []string{"art"})
	var single postJSON
	s.get(t, "/v1/posts/"+strings.TrimPrefix(strings.Replace(uri, "/app.bsky.feed.post", "", 1), "at://")).json(t, &single)
	for _, token := range []string{posts.Page.Next, posts.Page.Previous, posts.Posts[0].Cursor, single.Cursor} {
		s.get(t, "/v1/tags?after="+token).requireProblem(t, codeCursorMismatch)
		s.get(t, "/v1/tags?before="+token).requireProblem(t, codeCursorMismatch)
	}
	for _, token := range []string{tags.Page.Next, tags.Page.Previous} {
		s.get(t, "/v1/posts?tags=art&after="+token).requireProblem(t, codeCursorMismatch)
		s.get(t, "/v1/getRecentRootPostsWithTags?tags=art&paginator="+token).requireProblem(t, codeCursorMismatch)
	}
}

// TestTagsRefused: invalid requests are refused without the index, which cannot be reached.
func TestTagsRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, deadIndex(t))
	token := func(id string) string {
		return testCodec(t, id).Encode(keyset.Below(query.TagKey(query.TagCount{Name: "art", Posts: 7})...), allTags)
	}
	good := token("k1")
	flipped := []byte(good)
	flipped[len(flipped)/2] ^= 1
	for _, c := range []struct {
		name, target string
		want         code
	}{
		{"tags", "/v1/tags?tags=art", codeUnknownParameter},
		{"match", "/v1/tags?match=all", codeUnknownParameter},
		{"page number", "/v1/tags?page=2", codeUnknownParameter},
		{"limit 0", "/v1/tags?limit=0", codeInvalidLimit},
		{"limit 101", "/v1/tags?limit=101", codeInvalidLimit},
		{"first -1", "/v1/tags?first=-1", codeInvalidLimit},
		{"last empty", "/v1/tags?last=", codeInvalidLimit},
		{"limit twice", "/v1/tags?limit=1&limit=1", codeRepeatedParameter},
		{"after and before", "/v1/tags?after=" + good + "&before=" + good, codeConflicting},
		{"first and before", "/v1/tags?first=1&before=" + good, codeConflicting},
		{"last and after", "/v1/tags?last=1&after=" + good, codeConflicting},
		{"first and limit", "/v1/tags?first=1&limit=1", codeConflicting},
		{"made up token", "/v1/tags?before=7", codeInvalidCursor},
		{"cut token", "/v1/tags?after=" + good[:len(good)-3], codeInvalidCursor},
		{"changed token", "/v1/tags?after=" + string(flipped), codeInvalidCursor},
		{"token of another key", "/v1/tags?after=" + token("k2"), codeInvalidCursor},
		{"token of posts", "/v1/tags?after=" + tokenFor(t, "k1", "art"), codeCursorMismatch},
		{"empty prefix", "/v1/tags?prefix=", codeInvalidPrefix},
		{"prefix of only #", "/v1/tags?prefix=%23", codeInvalidPrefix},
		{"prefix of white space", "/v1/tags?prefix=+%C2%A0", codeInvalidPrefix},
		{"prefix with NUL", "/v1/tags?prefix=a%00", codeInvalidPrefix},
		{"long prefix", "/v1/tags?prefix=" + strings.Repeat("a", 65), codeInvalidPrefix},
		{"very long prefix", "/v1/tags?prefix=" + strings.Repeat("%23", maxTagsBytes) + "a", codeInvalidPrefix},
		{"prefix twice", "/v1/tags?prefix=a&prefix=b", codeRepeatedParameter},
		{"prefix not UTF-8", "/v1/tags?prefix=%ff", codeInvalidQuery},
		{"prefix and limit", "/v1/tags?prefix=a&limit=5", codeConflicting},
		{"prefix and token", "/v1/tags?after=" + good + "&prefix=a", codeConflicting},
		{"prefix and last", "/v1/tags?last=5&prefix=a", codeConflicting},
		{"one tag: parameter", "/v1/tags/art?limit=5", codeUnknownParameter},
		{"one tag: only #", "/v1/tags/%23%23", codeInvalidTag},
		{"one tag: white space", "/v1/tags/%20", codeInvalidTag},
		{"one tag: NUL", "/v1/tags/a%00", codeInvalidTag},
		{"one tag: too long", "/v1/tags/" + strings.Repeat("a", 65), codeInvalidTag},
		{"one tag: very long", "/v1/tags/" + strings.Repeat("%F0%9F%8E%A8", 5000), codeTagsTooLong},
		{"one tag: long until normalized", "/v1/tags/" + strings.Repeat("%23", maxTagsBytes) + "a", codeTagsTooLong},
		{"one tag: not UTF-8", "/v1/tags/%ff", codeInvalidQuery},
		{"one tag: none", "/v1/tags/", codeNotFound},
		{"one tag: two segments", "/v1/tags/a/b", codeNotFound},
		{"one tag: operators' route", "/v1/admin/tags", codeNotFound},
		{"operators' route, encoded", "/v1/%61dmin/tags", codeNotFound},
		// These are valid, so they need the index.
		{"only tags", "/v1/tags", codeUnavailable},
		{"token", "/v1/tags?limit=100&after=" + good, codeUnavailable},
		{"last", "/v1/tags?last=1", codeUnavailable},
		{"prefix of 64 characters", "/v1/tags?prefix=" + strings.Repeat("a", 64), codeUnavailable},
		{"one tag", "/v1/tags/art", codeUnavailable},
		{"one tag, 4 KB until normalized", "/v1/tags/" + strings.Repeat("%23", maxTagsBytes-1) + "a", codeUnavailable},
		{"tag with a slash", "/v1/tags/a%2Fb", codeUnavailable},
		{"tag of dots", "/v1/tags/%2E%2E", codeUnavailable},
		{"tag admin", "/v1/tags/admin", codeUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := s.get(t, c.target).requireProblem(t, c.want)
			require.NotContains(t, p.Detail, "127.0.0.1")
			require.NotContains(t, p.Detail, "nobody")
		})
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.fillTags(t)
	x.add(t, "more", t0, "a b", "a%b", "a_b", "artist", "ünder", "#\u20E3")
	s := serve(t, x.open(t))
	for _, c := range []struct {
		name, prefix string
		want         []tagJSON
	}{
		{"most used first", "a", []tagJSON{{"art", 60}, {"a b", 1}, {"a%b", 1}, {"a_b", 1}, {"artist", 1}}},
		{"in any spelling", "＃ ART", []tagJSON{{"art", 60}, {"artist", 1}}},
		{"a whole tag", "artist", []tagJSON{{"artist", 1}}},
		{"percent is not a wildcard", "a%", []tagJSON{{"a%b", 1}}},
		{"underscore is not a wildcard", "a_", []tagJSON{{"a_b", 1}}},
		{"backslash", `a\`, []tagJSON{}},
		{"composed", "u\u0308n", []tagJSON{{"ünder", 1}}},
		{"keycap", "#\uFE0F\u20E3", []tagJSON{{"#\u20E3", 1}}},
		{"invisible", "a\u00adrtis\u200b", []tagJSON{{"artist", 1}}},
		{"nothing", "zzz", []tagJSON{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, a := s.tagPage(t, "prefix="+url.QueryEscape(c.prefix))
			require.Equal(t, c.want, got.Tags)
			require.Nil(t, got.Page)
			require.Empty(t, a.header.Get("Link"))
		})
	}
}

func (s *served) tag(t testing.TB, segment string) tagHistoryJSON {
	t.Helper()
	a := s.get(t, "/v1/tags/"+segment)
	require.Equal(t, http.StatusOK, a.status, "%s: %s", segment, a.body)
	var out tagHistoryJSON
	a.json(t, &out)
	return out
}

// TestOneTag requests tags with characters that have a meaning in a path.
func TestOneTag(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	names := []string{"art", "a/b", "/", "..", ".", "%", "%2f", "a?b", "c#", "c++", "a b", "a,b", "日本", "🎨", "\ufffd", `"x"`, "admin", "?", "a;b", "a%00b"}
	for i, name := range names {
		x.add(t, fmt.Sprint("r", i), t0.Add(time.Duration(i)*time.Minute), name, "all")
	}
	s := serve(t, x.open(t))
	for i, name := range names {
		at := t0.Add(time.Duration(i) * time.Minute)
		got := s.tag(t, url.PathEscape(name))
		if name == "." || name == ".." {
			got = s.tag(t, strings.ReplaceAll(name, ".", "%2E"))
		}
		require.Equal(t, tagJSON{name, 1}, got.tagJSON)
		require.Equal(t, at.UTC(), time.Time(*got.FirstSeen))
		require.Equal(t, at.UTC(), time.Time(*got.LastSeen))
		require.Len(t, got.History, store.HistoryHours)
		var total int64
		for h, hour := range got.History {
			require.Equal(t, t0.Truncate(time.Hour).Add(time.Duration(h-store.HistoryHours+1)*time.Hour), time.Time(hour.Hour))
			total += hour.Posts
			if hour.Posts > 0 {
				require.Equal(t, at.Truncate(time.Hour), time.Time(hour.Hour))
			}
		}
		require.EqualValues(t, 1, total)
	}
	all := s.tag(t, "all")
	require.EqualValues(t, len(names), all.Posts)
	require.Equal(t, t0.UTC(), time.Time(*all.FirstSeen))
	require.Equal(t, t0.Add(time.Duration(len(names)-1)*time.Minute).UTC(), time.Time(*all.LastSeen))
	require.EqualValues(t, len(names), all.History[store.HistoryHours-1].Posts)

	for _, segment := range []string{"ART", "%23art", "%23%23Art%20", "%EF%BD%81rt"} {
		require.Equal(t, s.tag(t, "art"), s.tag(t, segment), "another spelling")
	}
	body := string(s.get(t, "/v1/tags/art").body)
	require.True(t, strings.HasPrefix(body, `{"tag":"art","posts":1,"firstSeen":"2026-11-01T12:00:00.123456Z","lastSeen":"2026-11-01T12:00:00.123456Z","history":[{"hour":"2026-10-25T13:00:00.000000Z","posts":0},`), body)

	for _, segment := range []string{"unknown", "ar", "artt", "a%2Fb%2F"} {
		p := s.get(t, "/v1/tags/"+segment).requireProblem(t, codeNotFound)
		require.Contains(t, p.Detail, "No post has the tag")
	}

	// A tag is gone when its last post is removed or hidden.
	x.remove(t, event.URI(author, "r0"))
	s.get(t, "/v1/tags/art").requireProblem(t, codeNotFound)
	hidden := x.posts[event.URI(author, "r1")]
	x.write(t, write.PostChange{Old: hidden, New: hidden, OldVisible: true})
	s.get(t, "/v1/tags/a%2Fb").requireProblem(t, codeNotFound)
	require.EqualValues(t, len(names)-2, s.tag(t, "all").Posts)
}

// sweptIndex has a tag without visible posts.
type sweptIndex struct{ fakeIndex }

func (sweptIndex) TagHistory(_ context.Context, tag string) (query.TagHistory, error) {
	return query.TagHistory{TagCount: query.TagCount{Name: tag, Posts: 7}, Hours: []query.HourCount{{Hour: t0.Truncate(time.Hour), Posts: 7}}}, nil
}

func TestTagWhileSweeping(t *testing.T) {
	t.Parallel()
	a := serve(t, sweptIndex{}).get(t, "/v1/tags/art")
	require.Equal(t, `{"tag":"art","posts":7,"firstSeen":null,"lastSeen":null,"history":[{"hour":"2026-11-01T12:00:00.000000Z","posts":7}]}`+"\n", string(a.body))
}

// FuzzTags requests any path under /v1/tags/ and any prefix: it is answered or refused, and the
// index is only queried for normalized tags.
func FuzzTags(f *testing.F) {
	for _, seed := range []string{"art", "%23Art", "a%2Fb", "%2E%2E", "..", "%", "%ff", "%00", "a;b", "a?b", "", "#%EF%B8%8F", "\xff", strings.Repeat("%F0%9F%8E%A8", 100)} {
		f.Add(seed)
	}
	var queried []string
	h := serve(f, namesIndex{queried: &queried}, func(c *Config) { c.MaxInFlight = 1 }).handler
	f.Fuzz(func(t *testing.T, raw string) {
		for _, u := range []*url.URL{{RawPath: "/v1/tags/" + raw, Path: "/v1/tags/x"}, {Path: "/v1/tags/" + raw}, {Path: "/v1/tags", RawQuery: "prefix=" + raw}} {
			if path, err := url.PathUnescape(u.RawPath); err == nil && u.RawPath != "" {
				u.Path = path
			}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.URL = u
			queried = nil
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusOK && w.Code != http.StatusBadRequest && w.Code != http.StatusNotFound {
				t.Fatalf("%+v: status %d: %s", u, w.Code, w.Body)
			}
			for _, name := range queried {
				if normal, err := event.NormalizeTag(name); err != nil || normal != name {
					t.Fatalf("%+v: the index was queried for %q", u, name)
				}
			}
		}
	})
}

// namesIndex records the names it is queried for.
type namesIndex struct {
	fakeIndex
	queried *[]string
}

func (n namesIndex) TagsWithPrefix(_ context.Context, prefix string) ([]query.TagCount, error) {
	*n.queried = append(*n.queried, prefix)
	return nil, nil
}

func (n namesIndex) TagHistory(_ context.Context, tag string) (query.TagHistory, error) {
	*n.queried = append(*n.queried, tag)
	return query.TagHistory{}, nil
}
