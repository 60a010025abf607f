package httpapi

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"golang.org/x/sync/errgroup"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/services/api/internal/feeds"
	"github.com/tagstream/tagstream/services/api/internal/site"
)

// The names of the pages' routes in metrics and logs.
const (
	routePageSearch   = "page_search"
	routePageTag      = "page_tag"
	routePageTagQuery = "page_tag_by_query"
	routePagePost     = "page_post"
	routePageWall     = "page_wall"
	routePageEmbed    = "page_embed"
	routePageStatus   = "page_status"
	routePageDocs     = "page_docs"
	routeEmbedJS      = "embed_script"
	routeAsset        = "asset"
	routeRobots       = "robots"
)

const (
	contentHTML = "text/html; charset=utf-8"
	// pageSize is the number of posts on an HTML page.
	pageSize = 25
	// assetAge is the Cache-Control of files with their version in the URL.
	assetAge = "public, max-age=31536000, immutable"
)

// pageRoutes returns the HTML pages and their files. The home page shares "/" with the list of
// routes.
func (h *Handler) pageRoutes() []route {
	return []route{
		{routePageSearch, "/search", "page of posts by tags", h.searchPage},
		{routePageTag, "/tag/{tag}", "page of a tag", h.tagPage},
		{routePageTagQuery, "/tag", "the same with ?tag=", h.tagPageByQuery},
		{routePagePost, "/post/{did}/{rkey}", "page of a post", h.singlePostPage},
		{routePageWall, "/wall", "new posts on a big screen", h.frame("wall")},
		{routePageEmbed, "/embed", "new posts within another site's page", h.frame("embed")},
		{routePageStatus, "/status", "how fresh the index is, in words", h.statusPage},
		{routePageDocs, "/docs", "every route with a form that requests it", h.docsPage},
		{routeEmbedJS, "/embed.js", "the script that inserts an embed", h.embedScript},
		{routeAsset, "/static/{file}", "files that the pages load", h.asset},
		{routeRobots, "/robots.txt", "what crawlers may read", h.robots},
	}
}

// wantsPage reports whether a client explicitly prefers HTML to JSON, as browsers do.
func wantsPage(r *http.Request) bool {
	html, json := 0.0, 0.0
	for item := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		media, params, _ := strings.Cut(item, ";")
		q := 1.0
		for param := range strings.SplitSeq(params, ";") {
			if name, value, _ := strings.Cut(strings.TrimSpace(param), "="); strings.EqualFold(name, "q") {
				q, _ = strconv.ParseFloat(value, 64) // 0 if it is invalid
			}
		}
		switch strings.ToLower(strings.TrimSpace(media)) {
		case "text/html":
			html = max(html, q)
		case contentJSON:
			json = max(json, q)
		}
	}
	return html > json
}

// showsPage reports whether errors of a route are shown as pages.
func showsPage(route string, r *http.Request) bool {
	return strings.HasPrefix(route, "page_") || (route == routeIndex || route == routeNone) && wantsPage(r)
}

// renderPage renders a page.
func (h *Handler) renderPage(name string, p *site.Page) (*response, error) {
	body, err := h.site.Draw(name, p)
	if err != nil {
		return nil, err
	}
	return &response{contentType: contentHTML, body: body, header: map[string]string{
		"Content-Security-Policy": h.site.Policy(name == "embed"),
		"Referrer-Policy":         "same-origin",
	}}, nil
}

// errorPage renders a problem.
func (h *Handler) errorPage(r *http.Request, p *problem) (*response, error) {
	// The path may have any depth.
	root := "./" + strings.Repeat("../", strings.Count(r.URL.EscapedPath(), "/")-1)
	res, err := h.renderPage("error", &site.Page{Root: root, Title: p.Title, Description: p.Title, NoIndex: true, Body: p.Detail})
	if err == nil {
		res.status, res.cache = p.Status, "no-store"
	}
	return res, err
}

// address returns a page's absolute URL, or "" if no public URL is configured.
func (h *Handler) address(r *http.Request) string {
	if h.publicURL == "" {
		return ""
	}
	return h.publicURL + r.URL.EscapedPath() + prefixed("?", r.URL.RawQuery)
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// cards returns the cards of posts, without their quoted posts.
func (h *Handler) cards(rows []query.PostRow, root string) []site.Card {
	out, now := make([]site.Card, len(rows)), time.Now()
	for i, row := range rows {
		out[i] = h.site.Card(sitePost(row), root, now)
	}
	return out
}

func sitePost(row query.PostRow) site.Post {
	return site.Post{
		DID: row.DID, Rkey: row.Rkey, CID: row.CID, Author: site.Author{Handle: row.Handle, DisplayName: row.DisplayName, Avatar: row.Avatar},
		Tags: row.Tags, Langs: row.Langs, SortAt: row.Key.SortAt(), Record: row.Record,
	}
}

// readQuoted returns the posts that cards quote, read in at most one query. If that fails, the
// cards only link to them.
func (h *Handler) readQuoted(ctx context.Context, cards []site.Card) []query.PostRow {
	var names []query.PostName
	for _, c := range cards {
		if q := c.Quote; q != nil && !slices.Contains(names, query.PostName{DID: q.DID, Rkey: q.Rkey}) {
			names = append(names, query.PostName{DID: q.DID, Rkey: q.Rkey})
		}
	}
	if len(names) == 0 {
		return nil
	}
	rows, err := h.index.Quoted(ctx, names)
	if err != nil {
		h.logger.Debug("reading quoted posts failed", "posts", len(names), "err", err)
	}
	return rows
}

// fillQuotes adds posts to the cards that quote them.
func fillQuotes(cards []site.Card, quoted []query.PostRow) {
	for _, c := range cards {
		for _, row := range quoted {
			if q := c.Quote; q != nil && q.DID == row.DID && q.Rkey == row.Rkey {
				q.Fill(sitePost(row))
			}
		}
	}
}

// addQuoted adds to cards the visible posts that they quote.
func (h *Handler) addQuoted(ctx context.Context, cards []site.Card) {
	fillQuotes(cards, h.readQuoted(ctx, cards))
}

// siteTags returns tags with links to their pages.
func siteTags(root string, names ...string) []site.Tag {
	out := make([]site.Tag, len(names))
	for i, name := range names {
		out[i] = site.Tag{Name: name, URL: site.TagURL(root, name)}
	}
	return out
}

// pageOfPosts reads the posts of an HTML page and links to the older and newer ones. q has the
// parameters of the list, own those of the page's URL.
func (h *Handler) pageOfPosts(r *http.Request, q, own values, root string) (list postList, out site.List, page query.PostPage, err error) {
	list, page, err = h.readPosts(r.Context(), append(slices.Clone(q), pair{"limit", strconv.Itoa(pageSize)}))
	if err != nil {
		return list, out, page, err
	}
	out.Posts = h.cards(page.Rows, root)
	tokens := []string{"after", "before"}
	if page.HasNext {
		out.Older = "?" + own.replace(tokens, nil, pair{"after", h.codec.Encode(page.Next, list.fingerprint)})
	}
	if page.HasPrevious {
		out.Newer = "?" + own.replace(tokens, nil, pair{"before", h.codec.Encode(page.Previous, list.fingerprint)})
	}
	return list, out, page, nil
}

// siteFeeds returns a list's feeds, for autodiscovery.
func siteFeeds(root, title, query string) []site.Feed {
	var out []site.Feed
	for _, f := range []struct{ kind, ext string }{{feeds.RSSType, "rss"}, {feeds.AtomType, "atom"}, {feeds.JSONType, "json"}} {
		kind, _, _ := strings.Cut(f.kind, ";")
		out = append(out, site.Feed{Type: kind, Title: title, URL: root + "v1/feeds/posts." + f.ext + "?" + query})
	}
	return out
}

// listLinks returns links from a page to other forms of its list.
func listLinks(root, query string) []site.Link {
	return []site.Link{
		{Name: "Feed", URL: root + "v1/feeds/posts.rss?" + query},
		{Name: "JSON", URL: root + "v1/posts?" + query},
		{Name: "Live", URL: root + "v1/stream?" + query},
		{Name: "Wall", URL: root + "wall?" + query},
		{Name: "Embed", URL: root + "embed?" + query},
	}
}

// tagPage is /tag/{tag}.
func (h *Handler) tagPage(r *http.Request) (*response, error) {
	q, err := parseQuery(r.URL.RawQuery, params{single: []string{"after", "before"}})
	if err != nil {
		return nil, err
	}
	raw, err := url.PathUnescape(mux.Vars(r)["tag"])
	if err != nil {
		return nil, fail(codeInvalidQuery, "Percent-encode the tag in the path as UTF-8.")
	}
	return h.pageOfTag(r, q, raw, "../")
}

// tagPageByQuery is /tag?tag=.
func (h *Handler) tagPageByQuery(r *http.Request) (*response, error) {
	q, err := parseQuery(r.URL.RawQuery, params{single: []string{"tag", "after", "before"}})
	if err != nil {
		return nil, err
	}
	raw, _ := q.get("tag")
	return h.pageOfTag(r, q, raw, "./")
}

// pageOfTag renders a tag's page.
func (h *Handler) pageOfTag(r *http.Request, own values, raw, root string) (*response, error) {
	q := append(values{{"tags", raw}}, slices.DeleteFunc(slices.Clone(own), func(p pair) bool { return p.name == "tag" })...)
	list, posts, page, err := h.pageOfPosts(r, q, own, root)
	if err != nil {
		return nil, err
	}
	name := list.query.Tags[0]
	var history query.TagHistory
	var quoted []query.PostRow
	both, ctx := errgroup.WithContext(r.Context())
	both.Go(func() (err error) { history, err = h.index.TagHistory(ctx, name); return err })
	both.Go(func() error { quoted = h.readQuoted(ctx, posts.Posts); return nil })
	err = both.Wait()
	if errors.Is(err, query.ErrNotFound) {
		return nil, fail(codeNotFound, "No post has the tag %s at the moment.", quote(name))
	}
	if err != nil {
		return nil, err
	}
	fillQuotes(posts.Posts, quoted)
	newest := !own.has("after") && !own.has("before")
	if newest {
		posts.Newer = ""
	}
	now, only := time.Now(), values{{"tags", name}}.replace(nil, nil)
	body := site.TagPage{List: posts, Name: name, Count: history.Posts, Week: site.DrawWeek(history.Hours), Links: listLinks(root, only)}
	if !history.First.IsZero() {
		first := site.At(history.First, now)
		body.First = &first
	}
	if !history.Last.IsZero() {
		last := site.At(history.Last, now)
		body.Last = &last
	}
	body.Related = siteTags(root, related(page.Rows, name)...)
	p := &site.Page{
		Root: root, URL: h.address(r), Title: "#" + name, Description: site.Count(history.Posts) + " posts on Bluesky tagged #" + name + ", newest first.",
		NoIndex: len(own) > 0, Feeds: siteFeeds(root, list.title(), only), Body: body,
	}
	if newest {
		p.LiveQuery = only
	}
	return h.renderPage("tag", p)
}

const maxRelated = 12

// related returns the other tags of posts with a tag, the most frequent first.
func related(rows []query.PostRow, name string) []string {
	counts := map[string]int{}
	var names []string
	for _, row := range rows {
		for _, tag := range row.Tags {
			if tag == name {
				continue
			}
			if counts[tag]++; counts[tag] == 1 {
				names = append(names, tag)
			}
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return counts[b] - counts[a] })
	return names[:min(len(names), maxRelated)]
}

// singlePostPage is /post/{did}/{rkey}.
func (h *Handler) singlePostPage(r *http.Request) (*response, error) {
	if _, err := parseQuery(r.URL.RawQuery, params{}); err != nil {
		return nil, err
	}
	row, err := h.readPost(r)
	if err != nil {
		return nil, err
	}
	const root = "../../"
	cards := h.cards([]query.PostRow{row}, root)
	h.addQuoted(r.Context(), cards)
	return h.renderPage("post", &site.Page{Root: root, URL: h.address(r), Title: "Post by " + cards[0].Name, Description: "A post on Bluesky: " + event.URI(row.DID, row.Rkey), Body: cards[0]})
}

// asset is /static/{file}.
func (h *Handler) asset(r *http.Request) (*response, error) {
	q, err := parseQuery(r.URL.RawQuery, params{single: []string{"v"}})
	if err != nil {
		return nil, err
	}
	a, found := h.site.Asset(mux.Vars(r)["file"])
	if !found {
		return nil, fail(codeNotFound, "The pages have no such file.")
	}
	res := &response{contentType: a.Type, body: a.Body}
	if version, _ := q.get("v"); version == a.Version {
		res.cache = assetAge
	}
	return res, nil
}

// robots is /robots.txt. It keeps crawlers to the first pages of lists.
func (h *Handler) robots(*http.Request) (*response, error) {
	a, _ := h.site.Asset("robots.txt")
	return &response{contentType: a.Type, body: a.Body}, nil
}
