package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
)

const publisher = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"

// withFeeds declares feeds: pairs of a record key and a query.
func withFeeds(t testing.TB, feeds ...string) func(*Config) {
	t.Helper()
	text := "publisher: " + publisher + "\nfeeds:\n"
	for i := 0; i < len(feeds); i += 2 {
		text += fmt.Sprintf("  - {rkey: %s, name: Art, description: d, query: %q}\n", feeds[i], feeds[i+1])
	}
	f, err := parseFeeds([]byte(text))
	require.NoError(t, err)
	return func(c *Config) { c.Feeds = f }
}

type skeletonJSON struct {
	Feed []struct {
		Post string `json:"post"`
	} `json:"feed"`
	Cursor string `json:"cursor"`
}

func (s *served) skeleton(t testing.TB, feed, limit, cursor string) skeletonJSON {
	t.Helper()
	q := url.Values{"feed": {"at://" + publisher + "/app.bsky.feed.generator/" + feed}, "limit": {limit}}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	a := s.get(t, "/xrpc/app.bsky.feed.getFeedSkeleton?"+q.Encode())
	require.Equal(t, http.StatusOK, a.status, "%s", a.body)
	var out skeletonJSON
	a.json(t, &out)
	return out
}

// TestSkeletonWalk: paging through a skeleton returns the whole list.
func TestSkeletonWalk(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.fill(t, 40, "art", "ink", "photo")
	s := serve(t, x.open(t), withFeeds(t, "any", "tags=art&tags=ink", "narrow", "tags=art&tags=ink&match=all&none=photo"))
	for feed, want := range map[string][]string{
		"any":    x.list("art", "ink"),
		"narrow": x.listWhere(func(p *write.Post) bool { return hasAny(p, "art") && hasAny(p, "ink") && !hasAny(p, "photo") }),
	} {
		var got []string
		seen := map[string]bool{}
		for cursor := ""; ; {
			page := s.skeleton(t, feed, "3", cursor)
			for _, p := range page.Feed {
				got = append(got, p.Post)
			}
			if page.Cursor == "" {
				break
			}
			require.NotEmpty(t, page.Feed, "a page with a cursor has posts")
			require.False(t, seen[page.Cursor], "cursors are unique")
			seen[page.Cursor], cursor = true, page.Cursor
		}
		require.Equal(t, want, got, feed)
	}
}

// TestSkeletonSearchesFurther: if the work of one page finds nothing, the search continues in the
// same request, and ends with an error instead of an empty page.
func TestSkeletonSearchesFurther(t *testing.T) {
	t.Parallel()
	pages := 0
	s := serve(t, fakeIndex{posts: func(_ context.Context, q query.PostQuery) (query.PostPage, error) {
		if pages++; pages < 4 {
			return query.PostPage{HasNext: true, Next: q.From}, nil
		}
		return query.PostPage{Rows: []query.PostRow{{DID: author, Rkey: "3"}}}, nil
	}}, withFeeds(t, "art", "tags=art"))
	require.Len(t, s.skeleton(t, "art", "3", "").Feed, 1)
	require.Equal(t, 4, pages)

	s = serve(t, fakeIndex{posts: func(ctx context.Context, q query.PostQuery) (query.PostPage, error) {
		<-ctx.Done()
		return query.PostPage{}, ctx.Err()
	}}, withFeeds(t, "art", "tags=art"))
	start := time.Now()
	a := s.get(t, "/xrpc/app.bsky.feed.getFeedSkeleton?feed=at://"+publisher+"/app.bsky.feed.generator/art")
	require.Equal(t, http.StatusServiceUnavailable, a.status)
	require.Contains(t, string(a.body), `"error":"NotEnoughResources"`)
	require.Less(t, time.Since(start), requestTimeout)
}

func TestFeedGenerator(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	s := serve(t, x.open(t), withFeeds(t, "art", "tags=art", "ink", "tags=ink"), func(c *Config) { c.PublicURL = "https://tags.example:8443" })
	a := s.get(t, "/.well-known/did.json")
	require.JSONEq(t, `{"@context":["https://www.w3.org/ns/did/v1"],"id":"did:web:tags.example%3A8443",
		"service":[{"id":"#bsky_fg","type":"BskyFeedGenerator","serviceEndpoint":"https://tags.example:8443"}]}`, string(a.body))
	a = s.get(t, "/xrpc/app.bsky.feed.describeFeedGenerator?unknown=1")
	require.JSONEq(t, `{"did":"did:web:tags.example%3A8443","feeds":[{"uri":"at://`+publisher+`/app.bsky.feed.generator/art"},
		{"uri":"at://`+publisher+`/app.bsky.feed.generator/ink"}]}`, string(a.body))
	require.Empty(t, s.skeleton(t, "art", "5", "").Feed)

	one := "/xrpc/app.bsky.feed.getFeedSkeleton?feed=at://" + publisher + "/app.bsky.feed.generator/art"
	for target, want := range map[string]string{
		"/xrpc/app.bsky.feed.getFeedSkeleton":          "InvalidRequest",
		"/xrpc/app.bsky.feed.getFeedSkeleton?feed=art": "UnknownFeed",
		one + "x":           "UnknownFeed",
		one + "&limit=101":  "InvalidRequest",
		one + "&limit=0":    "InvalidRequest",
		one + "&cursor=x":   "InvalidRequest",
		one + "&feed=twice": "InvalidRequest",
	} {
		a := s.get(t, target)
		require.Equal(t, http.StatusBadRequest, a.status, target)
		var e struct{ Error, Message string }
		a.json(t, &e)
		require.Equal(t, want, e.Error, target)
		require.NotEmpty(t, e.Message)
	}

	// Feeds may be removed and declared while requests are answered.
	s.handler.SetFeeds(nil)
	require.Equal(t, http.StatusNotFound, s.get(t, "/.well-known/did.json").status)
	require.Equal(t, http.StatusNotFound, s.get(t, "/xrpc/app.bsky.feed.describeFeedGenerator").status)
	require.Contains(t, string(s.get(t, one).body), "UnknownFeed")
}

// TestFeedsCheck: for each document the check says why an AppView would reject it.
func TestFeedsCheck(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.fill(t, 3, "art", "ink")
	s := serve(t, x.open(t), withFeeds(t, "art", "tags=art", "ink", "tags=ink"))
	declared := s.handler.feeds.Load()
	problems := func(f *Feeds, base string) map[string]string {
		out := map[string]string{}
		for _, c := range f.Check(t.Context(), http.DefaultClient, base) {
			if c.Problem != "" {
				out[c.Document] = c.Problem
			}
		}
		return out
	}
	https := "AppViews use only https"
	require.Len(t, declared.Check(t.Context(), http.DefaultClient, s.url), 5)
	require.Equal(t, map[string]string{"public URL": https}, problems(declared, s.url))

	var other Config
	withFeeds(t, "photo", "tags=photo")(&other)
	got := problems(other.Feeds, s.url)
	require.Contains(t, got["list of feeds"], "lacks at://"+publisher+"/app.bsky.feed.generator/photo")
	require.Contains(t, got["feed photo"], "UnknownFeed")

	s.handler.SetFeeds(nil)
	got = problems(declared, s.url)
	require.Contains(t, got["DID document"], "status 404")

	invalid := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "did.json"):
			_, _ = fmt.Fprint(w, `{"id":"did:web:elsewhere.example"}`)
		case strings.HasSuffix(r.URL.Path, "Generator"):
			_, _ = fmt.Fprint(w, `<html>`)
		case strings.Contains(r.URL.RawQuery, "ink"):
			_, _ = fmt.Fprint(w, `{"feed":[{"post":"https://bsky.app/"}]}`)
		default:
			_, _ = fmt.Fprint(w, `{"feed":[],"cursor":"x"}`)
		}
	}))
	t.Cleanup(invalid.Close)
	got = problems(declared, invalid.URL)
	require.Contains(t, got["DID document"], "did:web:elsewhere.example")
	require.Contains(t, got["list of feeds"], "not the expected JSON")
	require.Contains(t, got["feed art"], "empty page with a cursor")
	require.Contains(t, got["feed ink"], "not the at-uri")

	record, err := declared.Record("https://tags.example", "art", time.Unix(0, 0))
	require.NoError(t, err)
	require.JSONEq(t, `{"repo":"`+publisher+`","collection":"app.bsky.feed.generator","rkey":"art","record":{"$type":"app.bsky.feed.generator",
		"did":"did:web:tags.example","displayName":"Art","description":"d","createdAt":"1970-01-01T00:00:00Z"}}`, string(record))
	_, err = declared.Record("https://tags.example", "arts", time.Unix(0, 0))
	require.ErrorContains(t, err, `no feed "arts": it has art, ink`)
	_, err = declared.Record("https://tags.example/api", "art", time.Unix(0, 0))
	require.ErrorContains(t, err, "has a path")
}

func TestFeedsFile(t *testing.T) {
	t.Parallel()
	good := "publisher: did:plc:abc\nfeeds:\n  - rkey: art\n    name: Art\n    query: tags=art&none=nsfw&lang=en\n"
	path := filepath.Join(t.TempDir(), "feeds.yaml")
	require.NoError(t, os.WriteFile(path, []byte(good), 0o600))
	f, err := LoadFeeds(path)
	require.NoError(t, err)
	require.Equal(t, []string{"nsfw"}, f.feeds[0].list.query.None)

	_, err = LoadFeeds(path + ".none")
	require.ErrorIs(t, err, os.ErrNotExist)
	entry := func(lines string) string { return "publisher: did:plc:abc\nfeeds:\n" + lines }
	for name, c := range map[string]struct{ text, want string }{
		"empty":         {"", "is empty"},
		"not YAML":      {"publisher: [", "line 1"},
		"unknown key":   {"publisher: did:plc:abc\npublishers: x\n", "line 2"},
		"no publisher":  {"feeds: [{rkey: a, name: A, query: tags=a}]\n", "publisher"},
		"no feeds":      {"publisher: did:plc:abc\n", "there are 0"},
		"not a mapping": {entry("  - art\n"), "line 3"},
		"misspelt key":  {entry("  - rkey: a\n    nam: A\n    query: tags=a\n"), `line 4: a feed has no "nam"`},
		"bad rkey":      {entry("  - {rkey: a/b, name: A, query: tags=a}\n"), "line 3: rkey"},
		"long rkey":     {entry("  - {rkey: abcdefghijklmnop, name: A, query: tags=a}\n"), "line 3: rkey"},
		"twice":         {entry("  - {rkey: a, name: A, query: tags=a}\n  - {rkey: a, name: B, query: tags=b}\n"), "line 4: rkey"},
		"no name":       {entry("  - {rkey: a, query: tags=a}\n"), "line 3: name"},
		"no tags":       {entry("  - {rkey: a, name: A, query: lang=en}\n"), "line 3: query: Name 1 to 20 tags"},
		"unknown param": {entry("  - {rkey: a, name: A, query: tags=a&limit=3}\n"), "line 3: query: Remove the unknown parameter"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseFeeds([]byte(c.text))
			require.ErrorContains(t, err, c.want)
		})
	}
}

func FuzzFeedsFile(f *testing.F) {
	f.Add([]byte("publisher: did:plc:abc\nfeeds: [{rkey: a, name: A, query: tags=a}]"))
	f.Add([]byte("&a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if f, err := parseFeeds(data); err == nil {
			require.NotEmpty(t, f.feeds)
		}
	})
}
