package httpapi

import (
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
)

// page requests a page of /v1/posts with tags and other parameters, each "name=value".
func (s *served) page(t testing.TB, tags []string, more ...string) (postsJSON, answer) {
	t.Helper()
	q := url.Values{"tags": tags}
	for _, m := range more {
		name, value, _ := strings.Cut(m, "=")
		q.Add(name, value)
	}
	a := s.get(t, "/v1/posts?"+q.Encode())
	require.Equal(t, http.StatusOK, a.status, "%s", a.body)
	var out postsJSON
	a.json(t, &out)
	return out, a
}

// list returns the expected list of posts with any of the tags, newest first.
func (x *index) list(tags ...string) []string {
	out := x.listWhere(func(p *write.Post) bool { return hasAny(p, tags...) })
	if out == nil {
		return []string{}
	}
	return out
}

// listWhere returns the posts that match, newest first.
func (x *index) listWhere(matches func(*write.Post) bool) []string {
	posts := slices.SortedFunc(maps.Values(x.posts), func(a, b *write.Post) int { return slices.Compare(b.Key[:], a.Key[:]) })
	var out []string
	for _, p := range posts {
		if matches(p) {
			out = append(out, event.URI(p.Account.DID, p.Rkey))
		}
	}
	return out
}

// fill writes n posts, a third of them within a few microseconds, each with one to three of the
// tags.
func (x *index) fill(t testing.TB, n int, tags ...string) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var changes []write.PostChange
	for i := range n {
		at := t0.Add(time.Duration(r.IntN(1000)) * time.Second)
		if r.IntN(3) == 0 {
			at = t0.Add(time.Duration(r.IntN(3)) * time.Microsecond)
		}
		own := slices.Clone(tags)
		r.Shuffle(len(own), func(i, j int) { own[i], own[j] = own[j], own[i] })
		_, c := x.newPost(fmt.Sprintf("p%d", i), at, own[:1+r.IntN(min(3, len(own)))]...)
		changes = append(changes, c)
	}
	x.write(t, changes...)
}

func TestPaging(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.fill(t, 120, "art", "photo", "a,b", "c++")
	s := serve(t, x.open(t))
	for _, tags := range [][]string{{"art"}, {"photo", "c++"}, {"art", "a,b", "photo", "c++"}, {"unknown", "art"}} {
		for _, limit := range []int{3, 25, 100} {
			want := x.list(tags...)
			t.Run(fmt.Sprintf("%s by %d", strings.Join(tags, " "), limit), func(t *testing.T) {
				t.Parallel()
				walk(t, s, tags, limit, want)
			})
		}
	}
}

// walk pages through a list to its end and back, and checks every page.
func walk(t *testing.T, s *served, tags []string, limit int, want []string) {
	size := "limit=" + strconv.Itoa(limit)
	check := func(p postsJSON, from, to int) {
		t.Helper()
		require.Equal(t, want[from:to], uris(p.Posts))
		require.Equal(t, to < len(want), p.Page.HasNext)
		require.Equal(t, from > 0, p.Page.HasPrevious)
		require.NotEmpty(t, p.Page.Next)
		require.NotEmpty(t, p.Page.Previous)
	}
	p, a := s.page(t, tags, size)
	at := 0
	for {
		to := min(at+limit, len(want))
		check(p, at, to)
		if at = to; at == len(want) {
			break
		}
		link, token := "/v1/posts"+linkOf(t, a, "next"), p.Page.Next
		p, a = s.page(t, tags, size, "after="+token)
		require.Equal(t, string(a.body), string(s.get(t, link).body), "the link is the next page")
		relay, _ := s.page(t, tags, "first="+strconv.Itoa(limit), "after="+token)
		require.Equal(t, p, relay, "first is like limit")
	}
	// After the end there is an empty page; going back from it gives the last rows.
	beyond, _ := s.page(t, tags, size, "after="+p.Page.Next)
	check(beyond, len(want), len(want))
	p, a = s.page(t, tags, size, "before="+beyond.Page.Previous)
	oldest, _ := s.page(t, tags, "last="+strconv.Itoa(limit))
	require.Equal(t, uris(p.Posts), uris(oldest.Posts), "last without a token gives the oldest page")
	check(oldest, max(0, len(want)-limit), len(want))
	for at = len(want); ; {
		from := max(0, at-limit)
		check(p, from, at)
		if at = from; at == 0 {
			break
		}
		link := "/v1/posts" + linkOf(t, a, "prev")
		token := p.Page.Previous
		p, a = s.page(t, tags, size, "before="+token)
		require.Equal(t, string(a.body), string(s.get(t, link).body), "the link is the previous page")
		relay, _ := s.page(t, tags, "last="+strconv.Itoa(limit), "before="+token)
		require.Equal(t, p, relay, "last is like limit")
	}
	require.NotContains(t, a.header.Get("Link"), `rel="prev"`)
	above, _ := s.page(t, tags, size, "before="+p.Page.Previous)
	check(above, 0, 0)

	// The other endpoint returns the same list and accepts the same tokens.
	var got []string
	target := "/v1/getRecentRootPostsWithTags?" + url.Values{"tags": tags, "quantity": {strconv.Itoa(limit)}}.Encode()
	for more := ""; ; {
		var r recentJSON
		s.get(t, target+more).json(t, &r)
		got = append(got, uris(r.Posts)...)
		if len(got) < len(want) {
			same, _ := s.page(t, tags, size, "after="+r.Paginator)
			require.Equal(t, want[len(got):min(len(got)+limit, len(want))], uris(same.Posts))
			more = "&paginator=" + same.Posts[0].Cursor // a row's cursor is accepted, too
			got = append(got, uris(same.Posts[:1])...)
		}
		if r.Paginator == "" || len(got) == len(want) {
			break
		}
	}
	require.Equal(t, want, got)
}

func lastParam(link string) string { return link[strings.LastIndex(link, "=")+1:] }

func linkOf(t testing.TB, a answer, rel string) string {
	t.Helper()
	m := regexp.MustCompile(`<([^>]*)>; rel="` + rel + `"`).FindStringSubmatch(a.header.Get("Link"))
	require.NotNil(t, m, "no %s in Link: %q", rel, a.header.Get("Link"))
	require.True(t, strings.HasPrefix(m[1], "?"), "only a query, which keeps the path under any prefix")
	return m[1]
}

func TestLinksKeepParameters(t *testing.T) {
	t.Parallel()
	row := query.PostRow{Key: event.NewKey(t0, "at://x"), DID: author, Rkey: "x", Tags: []string{"art"}, Record: []byte(`{}`)}
	s := serve(t, fakeIndex{posts: onePage(query.PostPage{Rows: []query.PostRow{row}, HasNext: true, HasPrevious: true})})
	token := func(a answer, rel string) string { return lastParam(linkOf(t, a, rel)) }
	for _, c := range []struct{ name, query, next, prev string }{
		{"plain", "tags=art", "tags=art&after=", "tags=art&before="},
		{"in order", "tags=b&limit=5&tags=%23A&&tags=b", "tags=b&limit=5&tags=%23A&tags=b&after=", "tags=b&limit=5&tags=%23A&tags=b&before="},
		{"encoded", "tags=a+%2B%26%E2%9C%93,>", "tags=a+%2B%26%E2%9C%93%2C%3E&after=", "tags=a+%2B%26%E2%9C%93%2C%3E&before="},
		{"first becomes last for the previous page", "first=9&tags=art", "first=9&tags=art&after=", "last=9&tags=art&before="},
		{"last becomes first for the next page", "last=9&tags=art", "first=9&tags=art&after=", "last=9&tags=art&before="},
		{"the old token is dropped", "after=" + tokenFor(t, "k1", "art") + "&tags=art", "tags=art&after=", "tags=art&before="},
	} {
		a := s.get(t, "/v1/posts?"+c.query)
		require.Equal(t, "?"+c.next+token(a, "next"), linkOf(t, a, "next"), c.name)
		require.Equal(t, "?"+c.prev+token(a, "prev"), linkOf(t, a, "prev"), c.name)
	}
	a := s.get(t, "/v1/getRecentRootPostsWithTags?paginator="+tokenFor(t, "k1", "art")+"&tags=art&quantity=3")
	require.Equal(t, "?tags=art&quantity=3&paginator="+token(a, "next"), linkOf(t, a, "next"))
}

func TestRowCursors(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.fill(t, 20, "art")
	s := serve(t, x.open(t))
	tags := []string{"art"}
	want := x.list("art")
	first, _ := s.page(t, tags, "limit=10")
	row := first.Posts[4]
	checkBoth := func(when string) {
		t.Helper()
		after, _ := s.page(t, tags, "limit=3", "after="+row.Cursor)
		require.Equal(t, want[5:8], uris(after.Posts), when)
		before, _ := s.page(t, tags, "limit=3", "before="+row.Cursor)
		require.Equal(t, want[1:4], uris(before.Posts), when)
		require.True(t, before.Page.HasPrevious && before.Page.HasNext && after.Page.HasNext && after.Page.HasPrevious)
	}
	checkBoth("with its row")

	// The cursor of a single post is valid in every list.
	var single postJSON
	s.get(t, "/v1/posts/"+author+"/"+row.Rkey).json(t, &single)
	require.NotEqual(t, row.Cursor, single.Cursor)
	bound := row
	row.Cursor = single.Cursor
	require.Equal(t, row, single, "equal except for the cursor")
	checkBoth("by the cursor of a single post")
	other, _ := s.page(t, []string{"art", "photo"}, "limit=3", "after="+single.Cursor)
	require.Equal(t, want[5:8], uris(other.Posts))

	row = bound
	x.remove(t, row.URI)
	checkBoth("after its row was deleted")
	s.get(t, "/v1/posts/"+author+"/"+row.Rkey).requireProblem(t, codeNotFound)

	// The cursors of the first and the last row lead to the ends.
	last, _ := s.page(t, tags, "last=1")
	end, _ := s.page(t, tags, "after="+last.Posts[0].Cursor)
	require.Empty(t, end.Posts)
	require.True(t, !end.Page.HasNext && end.Page.HasPrevious)
	back, _ := s.page(t, tags, "limit=1", "before="+end.Page.Previous)
	require.Equal(t, uris(last.Posts), uris(back.Posts), "going back from an empty page gives the last row")
	top, _ := s.page(t, tags, "before="+first.Posts[0].Cursor)
	require.Empty(t, top.Posts)
	require.True(t, top.Page.HasNext && !top.Page.HasPrevious)
	again, _ := s.page(t, tags, "limit=1", "after="+top.Page.Next)
	require.Equal(t, uris(first.Posts[:1]), uris(again.Posts))
}

// TestTokensFindLaterPosts: the tokens of pages at the ends of a list, even of an empty one, lead
// to posts that are added later.
func TestTokensFindLaterPosts(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.add(t, "other", t0, "other")
	s := serve(t, x.open(t))
	tags := []string{"art"}
	empty, a := s.page(t, tags)
	require.Empty(t, empty.Posts)
	require.Contains(t, string(a.body), `"posts":[]`)
	require.Empty(t, a.header.Get("Link"))
	require.False(t, empty.Page.HasNext || empty.Page.HasPrevious)
	emptyLast, _ := s.page(t, tags, "last=5")
	emptyAgain, _ := s.page(t, tags, "before="+empty.Page.Previous)
	require.Empty(t, emptyAgain.Posts)
	emptyAfter, _ := s.page(t, tags, "after="+emptyLast.Page.Next)
	require.Empty(t, emptyAfter.Posts)

	one := x.add(t, "one", t0, "art")
	for name, p := range map[string]postsJSON{"first page": empty, "last page": emptyLast, "page before an empty one": emptyAgain, "page after an empty one": emptyAfter} {
		next, _ := s.page(t, tags, "after="+p.Page.Next)
		require.Equal(t, []string{one}, uris(next.Posts), name)
		require.False(t, next.Page.HasNext || next.Page.HasPrevious, name)
		previous, _ := s.page(t, tags, "before="+p.Page.Previous)
		require.Equal(t, []string{one}, uris(previous.Posts), name)
		require.False(t, previous.Page.HasNext || previous.Page.HasPrevious, name)
	}

	top, _ := s.page(t, tags)
	newer := x.add(t, "newer", t0.Add(time.Second), "art")
	older := x.add(t, "older", t0.Add(-time.Second), "art")
	up, _ := s.page(t, tags, "before="+top.Page.Previous)
	require.Equal(t, []string{newer}, uris(up.Posts))
	require.True(t, up.Page.HasNext && !up.Page.HasPrevious)
	down, _ := s.page(t, tags, "after="+top.Page.Next)
	require.Equal(t, []string{older}, uris(down.Posts))
	require.True(t, !down.Page.HasNext && down.Page.HasPrevious)

	// All posts are removed during a walk.
	for _, uri := range []string{one, newer, older} {
		x.remove(t, uri)
	}
	gone, _ := s.page(t, tags, "after="+top.Page.Next)
	require.Empty(t, gone.Posts)
	require.False(t, gone.Page.HasNext || gone.Page.HasPrevious)
	newest := x.add(t, "newest", t0.Add(time.Minute), "art")
	up, _ = s.page(t, tags, "before="+gone.Page.Previous)
	require.Equal(t, []string{newest}, uris(up.Posts))
}

// TestNothingMissed: a walk while posts are added and removed sees each post that stays exactly
// once.
func TestNothingMissed(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.fill(t, 60, "art", "photo")
	s := serve(t, x.open(t))
	tags := []string{"art", "photo"}
	stayed := x.list(tags...)
	var seen []string
	p, _ := s.page(t, tags, "limit=7")
	for i := 0; ; i++ {
		seen = append(seen, uris(p.Posts)...)
		if !p.Page.HasNext {
			break
		}
		// A post is added at the top, and the last row of the page is removed.
		x.add(t, fmt.Sprintf("new%d", i), t0.Add(time.Hour+time.Duration(i)*time.Second), "art")
		x.remove(t, seen[len(seen)-1])
		p, _ = s.page(t, tags, "limit=7", "after="+p.Page.Next)
	}
	require.Equal(t, stayed, seen)
}

func TestHiddenAndUnknown(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	uri := x.add(t, "one", t0, "art")
	s := serve(t, x.open(t))
	require.Equal(t, http.StatusOK, s.get(t, "/v1/posts/"+author+"/one").status)
	require.Equal(t, http.StatusOK, s.get(t, "/v1/posts/did%3Aplc%3Aauthor/one").status, "encoded")
	s.get(t, "/v1/posts/"+author+"/two").requireProblem(t, codeNotFound)
	s.get(t, "/v1/posts/did:plc:nobody/one").requireProblem(t, codeNotFound)

	x.author.State = store.Hidden
	err := x.writer.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		p := x.posts[uri]
		return cp, tx.Write(t.Context(), write.Changes{
			Accounts: []*write.Account{x.author}, Posts: []write.PostChange{{Old: p, New: p, OldVisible: true}},
		})
	})
	require.NoError(t, err)
	s.get(t, "/v1/posts/"+author+"/one").requireProblem(t, codeNotFound)
	p, _ := s.page(t, []string{"art"})
	require.Empty(t, p.Posts)
}

func TestStatus(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	s := serve(t, x.open(t))
	var out statusJSON
	s.get(t, "/v1/status").json(t, &out)
	require.Nil(t, out.IndexedThrough)
	require.Nil(t, out.SeenAt)
	require.Nil(t, out.Lag.Seconds)

	x.add(t, "one", t0, "art", "photo")
	x.add(t, "two", t0, "art")
	databaseBytes, err := x.writer.Heartbeat(t.Context(), 1, 5, 1000, true)
	require.NoError(t, err)
	require.Positive(t, databaseBytes)
	require.NoError(t, s.handler.Check(t.Context()))
	out = statusJSON{}
	s.get(t, "/v1/status").json(t, &out)
	require.Equal(t, totalsJSON{Posts: 2, VisiblePosts: 2, Tags: 2}, out.Totals)
	require.Equal(t, streamJSON{1, 5, 1000}, out.Stream)
	require.Equal(t, "https://upstream.test", out.Checkpoint.Source.Host)
	require.EqualValues(t, 2, out.Checkpoint.Seq)
	require.EqualValues(t, 3, out.Lag.Messages)
	require.WithinDuration(t, t0.Add(2*time.Second), time.Time(*out.IndexedThrough), 0)
	require.WithinDuration(t, time.Now(), time.Time(*out.SeenAt), time.Minute)
	require.InDelta(t, time.Since(t0.Add(2*time.Second)).Seconds(), *out.Lag.Seconds, 60)
	require.Positive(t, out.Database.Bytes)
	require.Equal(t, "test", out.Version)
}

// TestTokensOfEmptyPages: the tokens of an empty page are valid.
func TestTokensOfEmptyPages(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	s := serve(t, x.open(t))
	tags := []string{"nothing", "unused"}
	for _, more := range []string{"limit=1", "last=1", "first=1"} {
		p, _ := s.page(t, tags, more)
		for range 3 {
			require.Empty(t, p.Posts)
			a, _ := s.page(t, tags, "after="+p.Page.Next)
			b, _ := s.page(t, tags, "before="+p.Page.Previous)
			c, _ := s.page(t, tags, "after="+p.Page.Previous)
			d, _ := s.page(t, tags, "before="+p.Page.Next)
			require.Empty(t, slices.Concat(a.Posts, b.Posts, c.Posts, d.Posts))
			p = b
		}
	}
	var r recentJSON
	require.Equal(t, http.StatusOK, s.get(t, "/v1/getRecentRootPostsWithTags?tags=nothing&paginator=").status)
	a := s.get(t, "/v1/getRecentRootPostsWithTags?tags=nothing")
	a.json(t, &r)
	require.Equal(t, `{"posts":[]}`+"\n", string(a.body))
}

// TestOldTokens: the tokens of a query do not change when filters are added to the API, in every
// spelling of the query.
func TestOldTokens(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ queries, posts, changes string }{
		{"tags=art", "1c5e3a0543ca77870d87a740bbb05815", "76aab00989dbea53035e67efa9092137"},
		{"tags=art&tags=photo&match=any", "c9c2da67e48825a8ed83f17bb090e92b", "ec2f7c27be7ce3dc11b6e05b80b6662e"},
		{"tags=photo&tags=Art&match=all all=art&all=photo tags=art&all=photo&match=all", "3ae950dbd4a2d3294844f94a385fd46f", "fa74d24143267ea42c38032bbed5e486"},
		{"tags=art&match=all all=art", "1cd5629ccbf49e391de598d60588da51", "c5fa578f5b75e20e2ad9c42de30b3a8e"},
		{"tags=art&tags=photo&none=ink&none=old&match=all&lang=en&lang=pt-BR&since=2026-11-01T00:00:00Z&until=2026-11-02T00:00:00Z", "33185f5c1be76976c4aa8b2986429a57", "66d4e2340e7e9094ae144735f8749f5f"},
		{"tags=art&none=ink", "ebbaf7f4490ae441ea8478fff7ae9515", "ba9eaa883ea69cba82e5be37dc0506fb"},
		{"tags=art&lang=en", "eeae41eccbf77fb2b92f3da0d44120af", "8c95933c3a72125d31d20f2ae7f6ccfb"},
	} {
		for raw := range strings.FieldsSeq(c.queries) {
			q, err := parseQuery(raw, postsParams)
			require.NoError(t, err)
			list, err := parsePostList(q)
			require.NoError(t, err)
			require.Equal(t, c.posts, hex.EncodeToString(list.fingerprint[:]), raw)
			require.Equal(t, c.changes, hex.EncodeToString(list.feedFingerprint[:]), raw)
		}
	}
}
