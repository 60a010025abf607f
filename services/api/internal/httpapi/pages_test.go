package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"github.com/tagstream/tagstream/services/api/internal/feeds"
)

const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

// visit requests a page like a browser, and follows redirects.
func (s *served) visit(t testing.TB, target string) pageAnswer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+target, nil)
	require.NoError(t, err)
	req.Header.Set("Accept", browser)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	a := pageAnswer{status: res.StatusCode, header: res.Header, url: res.Request.URL, body: string(body)}
	require.Equal(t, contentHTML, a.header.Get("Content-Type"), "%s", body)
	policy := a.header.Get("Content-Security-Policy")
	require.Contains(t, policy, "default-src 'none'; script-src 'self'; style-src 'self'; ")
	require.NotContains(t, policy, "unsafe")
	require.Empty(t, res.Cookies())
	a.root, err = html.Parse(strings.NewReader(a.body))
	require.NoError(t, err)
	a.check(t)
	return a
}

type pageAnswer struct {
	status int
	header http.Header
	url    *url.URL
	body   string
	root   *html.Node
}

// check checks what is true of every page: no inline script or style, only pictures from other
// hosts, and rel on links to other hosts.
func (a pageAnswer) check(t testing.TB) {
	t.Helper()
	for n := range a.root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "script":
			require.NotEmpty(t, attr(n, "src"))
			require.Nil(t, n.FirstChild, "no inline script")
		case "base":
			require.Empty(t, attr(n, "href"))
		case "style", "iframe", "object", "embed":
			t.Errorf("a page has <%s>", n.Data)
		case "a":
			target := attr(n, "href")
			require.NotContains(t, target, "ZgotmplZ")
			if u, err := a.url.Parse(target); err == nil && u.Host != a.url.Host {
				require.Contains(t, []string{"http", "https"}, u.Scheme)
				require.Equal(t, "nofollow ugc noopener", attr(n, "rel"), target)
			}
		}
		for _, at := range n.Attr {
			require.False(t, strings.HasPrefix(at.Key, "on") || at.Key == "style", "%s=%q", at.Key, at.Val)
			if at.Key == "src" || at.Key == "href" && n.Data == "link" {
				require.True(t, !strings.Contains(at.Val, "//") || n.Data == "img" && (strings.HasPrefix(at.Val, "https://cdn.bsky.app/img/") || strings.HasPrefix(at.Val, "https://video.bsky.app/watch/")), "%s loads %s", n.Data, at.Val)
			}
		}
	}
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func text(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return b.String()
}

// all returns the elements with a class.
func (a pageAnswer) all(class string) (out []*html.Node) {
	for n := range a.root.Descendants() {
		if n.Type == html.ElementNode && strings.Contains(" "+attr(n, "class")+" ", " "+class+" ") {
			out = append(out, n)
		}
	}
	return out
}

// shown returns the at-uris of the cards.
func (a pageAnswer) shown() (uris []string) {
	for _, card := range a.all("card") {
		uris = append(uris, attr(card, "id"))
	}
	return uris
}

// link returns the URL of the first link with this text, relative to the site.
func (a pageAnswer) link(t testing.TB, label string) string {
	t.Helper()
	for n := range a.root.Descendants() {
		if n.Type == html.ElementNode && n.Data == "a" && text(n) == label {
			u, err := a.url.Parse(attr(n, "href"))
			require.NoError(t, err)
			return u.RequestURI()
		}
	}
	t.Fatalf("%s has no link %q", a.url, label)
	return ""
}

// rich writes a post with a record.
func (x *index) rich(t testing.TB, rkey string, sortAt time.Time, record string, tags ...string) string {
	t.Helper()
	uri, c := x.newPost(rkey, sortAt, tags...)
	c.New.Record = []byte(record)
	x.write(t, c)
	return uri
}

// TestHome: "/" is a page for clients that explicitly prefer HTML, and the list of routes for
// others.
func TestHome(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	s := serve(t, x.open(t))
	require.Contains(t, s.visit(t, "/").body, "Nothing is indexed yet.")
	for i := range 30 {
		x.add(t, fmt.Sprint("p", i), t0.Add(time.Duration(i)*time.Second), "art", fmt.Sprint("t", i%3))
	}
	s = serve(t, x.open(t))
	for _, accept := range []string{"", "*/*", "application/json", "application/json, text/html;q=0.9", "text/html;q=0", "text/*"} {
		a := s.get(t, "/", "Accept", accept)
		require.Equal(t, contentJSON, a.header.Get("Content-Type"), accept)
		require.Equal(t, "Accept-Encoding, Accept", a.header.Get("Vary"))
	}
	home := s.visit(t, "/")
	require.Equal(t, http.StatusOK, home.status)
	require.Len(t, home.shown(), homePosts)
	require.Contains(t, home.body, "Popular in the last day")
	require.Contains(t, text(home.all("fresh")[0]), "30 posts with 4 tags")
	require.Equal(t, http.StatusOK, s.visit(t, home.link(t, "#art")).status)
	require.Len(t, s.visit(t, home.link(t, "More posts with these tags")).shown(), pageSize)
}

// TestSearchPages: following the links of the search page shows the whole list.
func TestSearchPages(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	var want []string
	for i := range 60 {
		tags := []string{"art"}
		if i%2 == 0 {
			tags = append(tags, "a/b?c&d")
		}
		want = append([]string{x.add(t, fmt.Sprint("p", i), t0.Add(time.Duration(i)*time.Minute), tags...)}, want...)
	}
	s := serve(t, x.open(t))
	page := s.visit(t, "/search?q=art")
	require.Equal(t, "/search?tags=art", page.url.RequestURI(), "the state is the URL")
	require.Empty(t, page.all("newer"))
	seen := page.shown()
	for len(page.all("older")) > 0 {
		page = s.visit(t, page.link(t, "Older posts"))
		seen = append(seen, page.shown()...)
	}
	require.Equal(t, want, seen)
	require.Contains(t, page.body, "No more posts.")
	require.Equal(t, want[pageSize:2*pageSize], s.visit(t, page.link(t, "Newer posts")).shown())

	require.Len(t, s.visit(t, "/search?tags=art&none=a%2Fb%3Fc%26d").shown(), pageSize)
	var out postsJSON
	s.get(t, page.link(t, "JSON")).json(t, &out)
	require.Equal(t, want[:50], uris(out.Posts))
	require.Equal(t, feeds.RSSType, s.get(t, page.link(t, "Feed")).header.Get("Content-Type"))
}

// TestSearchForm: the search bar's parameters are redirected to the URL of a list.
func TestSearchForm(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.add(t, "one", t0, "art")
	s := serve(t, x.open(t))
	for form, want := range map[string]string{
		"q=&as=tags&lang=&since=&until=":           "",
		"q=%23Art,+photo++-nsfw":                   "tags=Art&tags=photo&none=nsfw",
		"tags=art&q=nsfw&as=none":                  "tags=art&none=nsfw",
		"tags=art&q=art":                           "tags=art",
		"tags=art&tags=photo&match=all":            "all=art&all=photo",
		"q=art+%2Bphoto+-%23nsfw&as=all":           "all=art&all=photo&none=nsfw",
		"tags=art&lang=en,pt-BR":                   "tags=art&lang=en&lang=pt-BR",
		"tags=art&since=2026-11-01T12%3A00&until=": "tags=art&since=2026-11-01T12%3A00%3A00Z",
	} {
		page := s.visit(t, "/search?"+form)
		require.Equal(t, want, page.url.RawQuery, form)
	}
	recent := s.visit(t, "/search?tags=art&window=day").url.Query().Get("since")
	since, err := time.Parse(time.RFC3339, recent)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(-24*time.Hour), since, 2*time.Minute)

	invalid := s.visit(t, "/search?tags=art&since=yesterday")
	require.Equal(t, http.StatusBadRequest, invalid.status)
	require.Contains(t, text(invalid.all("problem")[0]), "RFC 3339")
	chips := s.visit(t, "/search?tags=art&tags=photo&none=nsfw").all("chip")
	require.Len(t, chips, 3)
	require.Contains(t, text(chips[2]), "not #nsfw")
	require.Equal(t, http.StatusBadRequest, s.visit(t, "/search?tags=art&x=1").status)
}

// TestTagPages: a tag's page has its numbers, posts and feeds, with any characters in the tag.
func TestTagPages(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	names := []string{"art", "a/b", "..", "%2f", "a?b&c", "日本", "<b>", `"x"`}
	for i, name := range names {
		x.add(t, fmt.Sprint("p", i), t0.Add(time.Duration(i)*time.Second), name, "common")
	}
	s := serve(t, x.open(t))
	common := s.visit(t, "/tag/common")
	require.Contains(t, text(common.all("numbers")[0]), "8 posts")
	require.Len(t, common.all("line"), 1, "a history is drawn")
	for _, name := range names {
		page := s.visit(t, common.link(t, "#"+name))
		require.Equal(t, "#"+name, strings.TrimSpace(text(page.all("tagname")[0])))
		require.Len(t, page.shown(), 1)
		require.Equal(t, "/tag/common", page.link(t, "#common"))
	}
	require.Equal(t, http.StatusNotFound, s.visit(t, "/tag/nothing").status)
	require.Equal(t, http.StatusBadRequest, s.visit(t, "/tag?tag=").status)
	kinds := regexp.MustCompile(`<link rel="alternate" type="([^"]+)" title="Posts tagged #common" href="\.\./v1/feeds/posts\.(\w+)\?tags=common">`).FindAllStringSubmatch(common.body, -1)
	require.Len(t, kinds, 3)
}

// TestPagesHideRemovedPosts: no page shows a removed post.
func TestPagesHideRemovedPosts(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	uri := x.add(t, "one", t0, "art")
	s := serve(t, x.open(t))
	require.Equal(t, []string{uri}, s.visit(t, "/search?tags=art").shown())
	x.remove(t, uri)
	require.Empty(t, s.visit(t, "/search?tags=art").shown())
	require.Equal(t, http.StatusNotFound, s.visit(t, "/tag/art").status)
	require.Equal(t, http.StatusNotFound, s.visit(t, "/post/"+author+"/one").status)
}

// TestPageErrors: errors are shown as pages, with the same status as for programs.
func TestPageErrors(t *testing.T) {
	t.Parallel()
	s := serve(t, deadIndex(t))
	for target, status := range map[string]int{
		"/": http.StatusServiceUnavailable, "/search?tags=art": http.StatusServiceUnavailable, "/tag/art": http.StatusServiceUnavailable,
		"/search?tags=art&after=zzz": http.StatusBadRequest, "/no/such/page": http.StatusNotFound, "/post/a/b": http.StatusNotFound, "/tag/art?x=1": http.StatusBadRequest,
	} {
		a := s.visit(t, target)
		require.Equal(t, status, a.status, target)
		require.NotEmpty(t, a.all("problem"), target)
		require.Equal(t, "no-store", a.header.Get("Cache-Control"), target)
	}
	s.get(t, "/no/such/page").requireProblem(t, codeNotFound)
}

// TestAssets: files of the pages are cached under the URL with their version.
func TestAssets(t *testing.T) {
	t.Parallel()
	s := serve(t, fakeIndex{})
	home := s.visit(t, "/")
	files := regexp.MustCompile(`(?:href|src)="(\./static/[^"]+)"`).FindAllStringSubmatch(home.body, -1)
	require.Len(t, files, 3)
	for _, f := range files {
		res, err := http.Get(s.url + strings.TrimPrefix(f[1], "."))
		require.NoError(t, err)
		res.Body.Close()
		require.Equal(t, http.StatusOK, res.StatusCode)
		require.Equal(t, assetAge, res.Header.Get("Cache-Control"), f[1])
		require.NotEmpty(t, res.Header.Get("Content-Type"))
	}
	a, err := http.Get(s.url + "/static/site.css")
	require.NoError(t, err)
	a.Body.Close()
	require.Equal(t, "no-cache", a.Header.Get("Cache-Control"))
	a, err = http.Get(s.url + "/robots.txt")
	require.NoError(t, err)
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "Disallow: /*after=")
	res, err := http.Get(s.url + "/static/nothing.css")
	require.NoError(t, err)
	res.Body.Close()
	require.Equal(t, http.StatusNotFound, res.StatusCode)
}

// TestWallAndEmbed: a wall and an embed are the newest page of a list that follows /v1/stream;
// only embeds may be framed.
func TestWallAndEmbed(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	uri := x.add(t, "one", t0, "art")
	s := serve(t, x.open(t))
	for path, framed := range map[string]bool{"/wall": false, "/embed": true} {
		a := s.visit(t, path+"?tags=art&theme=dark&accent=pink&size=large")
		require.Equal(t, []string{uri}, a.shown())
		require.Contains(t, a.body, `<html lang="en" data-theme="dark" data-accent="pink" data-size="large">`)
		require.Contains(t, a.body, `data-stream="tags=art"`)
		require.Equal(t, framed, strings.Contains(a.header.Get("Content-Security-Policy"), "frame-ancestors *"), path)
		require.Equal(t, http.StatusBadRequest, s.visit(t, path+"?tags=art&theme=x%22").status)
		require.Equal(t, http.StatusBadRequest, s.visit(t, path).status)
	}
	res, err := http.Get(s.url + "/embed.js")
	require.NoError(t, err)
	res.Body.Close()
	require.Contains(t, res.Header.Get("Content-Type"), "javascript")
}

// TestStatusPage: the page describes the state of the index in words.
func TestStatusPage(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	s := serve(t, x.open(t))
	require.Contains(t, s.visit(t, "/status").body, "Nothing is indexed yet.")
	x.add(t, "one", t0, "art")
	require.Contains(t, text(s.visit(t, "/status").root), "1 post with 1 tag")
}

// TestDocsPage: each route has a form, and the values that it is filled in with are accepted.
func TestDocsPage(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.add(t, "one", t0, "art")
	s := serve(t, x.open(t), withFeeds(t, "art", "tags=art"))
	a := s.visit(t, "/docs")
	forms := 0
	for form := range a.root.Descendants() {
		if form.Type != html.ElementNode || form.Data != "form" || attr(form, "class") != "try" {
			continue
		}
		forms++
		sent := url.Values{}
		for n := range form.Descendants() {
			if name := attr(n, "name"); name != "" {
				sent.Set(name, attr(n, "value"))
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/docs?"+sent.Encode(), nil)
		require.NoError(t, err)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, res.StatusCode, "%s", res.Request.URL)
		require.NotEqual(t, contentHTML, res.Header.Get("Content-Type"), "%s", res.Request.URL)
		cancel() // the stream's response does not end
		res.Body.Close()
	}
	require.Equal(t, len(s.handler.routes()), forms)
	require.Equal(t, http.StatusNotFound, s.visit(t, "/docs?route=nothing").status)
}
