package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/mmcdole/gofeed"
	"github.com/mmcdole/gofeed/atom"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/services/api/internal/feeds"
)

// TestFeedsWalk follows the paging links of each format to the end, with an independent parser: the
// items are those of the list, in order.
func TestFeedsWalk(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	at := time.Date(2026, 11, 20, 21, 0, 0, 0, time.UTC)
	var want []string
	for i := range 7 {
		_, c := x.newPost("post"+string(rune('a'+i)), at.Add(-time.Duration(i)*time.Second), "art & ink")
		x.write(t, c)
		want = append(want, "at://"+x.author.DID+"/app.bsky.feed.post/"+c.New.Rkey)
	}
	s := serve(t, x.open(t))
	for _, format := range []string{"rss", "atom", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			next := "/v1/feeds/posts." + format + "?tags=Art+%26+ink&limit=3"
			var got []string
			for pages := 0; next != ""; pages++ {
				require.Less(t, pages, 4)
				a := s.get(t, next)
				require.Equal(t, http.StatusOK, a.status, "%s", a.body)
				require.Equal(t, "max-age=60", a.header.Get("Cache-Control"))
				f, err := gofeed.NewParser().Parse(bytes.NewReader(a.body))
				require.NoError(t, err)
				require.Equal(t, format, f.FeedType)
				require.Equal(t, "Posts tagged #art & ink", f.Title)
				require.Equal(t, s.url+next, f.FeedLink)
				for _, it := range f.Items {
					got = append(got, it.GUID)
				}
				next = nextPage(t, s, format, a.body)
			}
			require.Equal(t, want, got)
		})
	}
}

// nextPage returns the path of the next page that a feed names.
func nextPage(t *testing.T, s *served, format string, body []byte) string {
	t.Helper()
	target := ""
	if format == "json" {
		var doc struct {
			Next string `json:"next_url"`
		}
		require.NoError(t, json.Unmarshal(body, &doc))
		target = doc.Next
	} else {
		f, err := gofeed.NewParser().Parse(bytes.NewReader(body))
		require.NoError(t, err)
		// The parser returns paging links as an extension in RSS, and with the links in Atom.
		for _, e := range f.Extensions["atom"]["link"] {
			if e.Attrs["rel"] == "next" {
				target = e.Attrs["href"]
			}
		}
		if format == "atom" {
			target = atomLinkTo(t, body, "next")
		}
	}
	if target == "" {
		return ""
	}
	u, err := url.Parse(target)
	require.NoError(t, err)
	require.Equal(t, s.url, u.Scheme+"://"+u.Host)
	return u.RequestURI()
}

func TestFeedsAreRefused(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	s := serve(t, x.open(t))
	for target, code := range map[string]code{
		"/v1/feeds/posts.rss":                      codeMissingTags,
		"/v1/feeds/posts.rss?tags=a&first=3":       codeUnknownParameter,
		"/v1/feeds/posts.atom?tags=a&after=x":      codeInvalidCursor,
		"/v1/feeds/posts.json?tags=a&limit=101":    codeInvalidLimit,
		"/v1/feeds/tags.opml":                      codeMissingTags,
		"/v1/feeds/tags.opml?tags=a&match=all":     codeUnknownParameter,
		"/v1/feeds/posts.rss?tags=a&tags=%23&x=%2": codeInvalidQuery,
	} {
		a := s.get(t, target)
		require.Equal(t, http.StatusBadRequest, a.status, target)
		require.Contains(t, string(a.body), `"code":"`+string(code)+`"`, target)
	}
	a := s.get(t, "/v1/feeds/posts.rss?tags=a", "Host", "")
	require.Equal(t, http.StatusOK, a.status, "an empty feed is valid")
}

// TestPublicURL: feeds have the configured URL, or else that of the request's host if it is valid.
func TestPublicURL(t *testing.T) {
	t.Parallel()
	h := &Handler{}
	for host, want := range map[string]string{
		"tags.example": "http://tags.example", "127.0.0.1:8080": "http://127.0.0.1:8080", "[::1]:80": "http://[::1]:80", "[::1]": "http://[::1]",
	} {
		base, err := h.baseURL(&http.Request{Host: host})
		require.NoError(t, err, host)
		require.Equal(t, want, base)
	}
	for _, host := range []string{"", "a b", "a/b", "a@b", `a"b`, "a:b", "a?b", "[x]"} {
		_, err := h.baseURL(&http.Request{Host: host})
		require.ErrorContains(t, err, string(codeInvalidHost), host)
	}
	x := newIndex(t)
	s := serve(t, x.open(t), func(c *Config) { c.PublicURL, c.Media = "https://example.com/tags-api", feeds.MediaOff })
	a := s.get(t, "/v1/feeds/tags.opml?tags=b&tags=a")
	require.Contains(t, string(a.body), `xmlUrl="https://example.com/tags-api/v1/feeds/posts.rss?tags=a"`)
	a = s.get(t, "/v1/feeds/posts.rss?tags=a")
	require.Contains(t, string(a.body), `rel="self" type="application/rss+xml" href="https://example.com/tags-api/v1/feeds/posts.rss?tags=a"`)
}

func atomLinkTo(t *testing.T, body []byte, rel string) string {
	t.Helper()
	a, err := (&atom.Parser{}).Parse(bytes.NewReader(body))
	require.NoError(t, err)
	for _, l := range a.Links {
		if l.Rel == rel {
			return l.Href
		}
	}
	return ""
}
