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

// The pages' routes, as metrics and logs have them.
const (
	routePageSearch = "page_search"
	routePageTag    = "page_tag"
	routePageTagAsk = "page_tag_by_query"
	routePagePost   = "page_post"
	routePageWall   = "page_wall"
	routePageEmbed  = "page_embed"
	routePageStatus = "page_status"
	routePageDocs   = "page_docs"
	routeEmbedJS    = "embed_script"
	routeAsset      = "asset"
	routeRobots     = "robots"
)

const (
	contentHTML = "text/html; charset=utf-8"
	// pageSize is how many posts a page of the site has.
	pageSize = 25
	// assetAge is that of files whose name has their version.
	assetAge = "public, max-age=31536000, immutable"
)

// pageRoutes are those that people visit. The first page is at "/", beside the list of routes.
func (h *Handler) pageRoutes() []route {
	return []route{
		{routePageSearch, "/search", "posts by tags, for people", h.searchPage},
		{routePageTag, "/tag/{tag}", "one tag, for people", h.tagPage},
		{routePageTagAsk, "/tag", "the same with ?tag=", h.tagPageByQuery},
		{routePagePost, "/post/{did}/{rkey}", "one post, for people", h.postPageOne},
		{routePageWall, "/wall", "posts as they come, on a big screen", h.show("wall")},
		{routePageEmbed, "/embed", "posts as they come, within another site's page", h.show("embed")},
		{routePageStatus, "/status", "how fresh the index is, in words", h.statusPage},
		{routePageDocs, "/docs", "every route with a form that asks it", h.docsPage},
		{routeEmbedJS, "/embed.js", "the line of script that makes an embed", h.embedScript},
		{routeAsset, "/static/{file}", "what the pages load", h.asset},
		{routeRobots, "/robots.txt", "what crawlers may read", h.robots},
	}
}

// wantsPage reports whether a client prefers HTML by name, as browsers do.
func wantsPage(r *http.Request) bool {
	html, json := 0.0, 0.0
	for item := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		media, params, _ := strings.Cut(item, ";")
		q := 1.0
		for param := range strings.SplitSeq(params, ";") {
			if name, value, _ := strings.Cut(strings.TrimSpace(param), "="); strings.EqualFold(name, "q") {
				q, _ = strconv.ParseFloat(value, 64) // 0 where it is none
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

// showsPage reports whether a route's errors are pages, too.
func showsPage(route string, r *http.Request) bool {
	return strings.HasPrefix(route, "page_") || (route == routeIndex || route == routeNone) && wantsPage(r)
}

// page draws a page.
func (h *Handler) page(name string, p *site.Page) (*response, error) {
	body, err := h.site.Draw(name, p)
	if err != nil {
		return nil, err
	}
	return &response{contentType: contentHTML, body: body, header: map[string]string{
		"Content-Security-Policy": h.site.Policy(name == "embed"),
		"Referrer-Policy":         "same-origin",
	}}, nil
}

// errorPage draws a failure.
func (h *Handler) errorPage(r *http.Request, p *problem) (*response, error) {
	// The path may be any: what leads back is as deep as it.
	root := "./" + strings.Repeat("../", strings.Count(r.URL.EscapedPath(), "/")-1)
	res, err := h.page("error", &site.Page{Root: root, Title: p.Title, Description: p.Title, NoIndex: true, Body: p.Detail})
	if err == nil {
		res.status, res.cache = p.Status, "no-store"
	}
	return res, err
}

// address is a page's absolute URL, where the operator says what that is.
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

// cards draws posts for a page, without what they quote.
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

// quotedBy reads the posts that cards quote: all in one query, and in none where there is no quote.
// Where that fails, the cards only link to them.
func (h *Handler) quotedBy(ctx context.Context, cards []site.Card) []query.PostRow {
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

// showQuoted adds posts to the cards that quote them.
func showQuoted(cards []site.Card, quoted []query.PostRow) {
	for _, c := range cards {
		for _, row := range quoted {
			if q := c.Quote; q != nil && q.DID == row.DID && q.Rkey == row.Rkey {
				q.Show(sitePost(row))
			}
		}
	}
}

// withQuoted adds to cards what is in sight of the posts that they quote.
func (h *Handler) withQuoted(ctx context.Context, cards []site.Card) {
	showQuoted(cards, h.quotedBy(ctx, cards))
}

// siteTags links tags to their pages.
func siteTags(root string, names ...string) []site.Tag {
	out := make([]site.Tag, len(names))
	for i, name := range names {
		out[i] = site.Tag{Name: name, URL: site.TagURL(root, name)}
	}
	return out
}

// pageOfPosts reads a page of posts for people, and where older and newer ones are: q has the
// parameters of the list, here those of the page.
func (h *Handler) pageOfPosts(r *http.Request, q, here values, root string) (list postList, out site.List, page query.PostPage, err error) {
	list, page, err = h.postsOf(r.Context(), append(slices.Clone(q), pair{"limit", strconv.Itoa(pageSize)}))
	if err != nil {
		return list, out, page, err
	}
	out.Posts = h.cards(page.Rows, root)
	tokens := []string{"after", "before"}
	if page.HasNext {
		out.Older = "?" + here.replace(tokens, nil, pair{"after", h.codec.Encode(page.Next, list.fingerprint)})
	}
	if page.HasPrevious {
		out.Newer = "?" + here.replace(tokens, nil, pair{"before", h.codec.Encode(page.Previous, list.fingerprint)})
	}
	return list, out, page, nil
}

// siteFeeds are a list's feeds, for autodiscovery.
func siteFeeds(root, title, query string) []site.Feed {
	var out []site.Feed
	for _, f := range []struct{ kind, ext string }{{feeds.RSSType, "rss"}, {feeds.AtomType, "atom"}, {feeds.JSONType, "json"}} {
		kind, _, _ := strings.Cut(f.kind, ";")
		out = append(out, site.Feed{Type: kind, Title: title, URL: root + "v1/feeds/posts." + f.ext + "?" + query})
	}
	return out
}

// listLinks lead from a page to other forms of its list.
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
	return h.showTag(r, q, raw, "../")
}

// tagPageByQuery is /tag?tag=.
func (h *Handler) tagPageByQuery(r *http.Request) (*response, error) {
	q, err := parseQuery(r.URL.RawQuery, params{single: []string{"tag", "after", "before"}})
	if err != nil {
		return nil, err
	}
	raw, _ := q.get("tag")
	return h.showTag(r, q, raw, "./")
}

func (h *Handler) showTag(r *http.Request, here values, raw, root string) (*response, error) {
	q := append(values{{"tags", raw}}, slices.DeleteFunc(slices.Clone(here), func(p pair) bool { return p.name == "tag" })...)
	list, posts, page, err := h.pageOfPosts(r, q, here, root)
	if err != nil {
		return nil, err
	}
	name := list.query.Tags[0]
	var history query.TagHistory
	var quoted []query.PostRow
	both, ctx := errgroup.WithContext(r.Context())
	both.Go(func() (err error) { history, err = h.index.TagHistory(ctx, name); return err })
	both.Go(func() error { quoted = h.quotedBy(ctx, posts.Posts); return nil })
	err = both.Wait()
	if errors.Is(err, query.ErrNotFound) {
		return nil, fail(codeNotFound, "No post has the tag %s at the moment.", quote(name))
	}
	if err != nil {
		return nil, err
	}
	showQuoted(posts.Posts, quoted)
	newest := !here.has("after") && !here.has("before")
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
		NoIndex: len(here) > 0, Feeds: siteFeeds(root, list.title(), only), Body: body,
	}
	if newest {
		p.Stream = only
	}
	return h.page("tag", p)
}

const maxRelated = 12

// related returns the tags that stand beside one in posts, the most frequent first.
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

// postPageOne is /post/{did}/{rkey}.
func (h *Handler) postPageOne(r *http.Request) (*response, error) {
	if _, err := parseQuery(r.URL.RawQuery, params{}); err != nil {
		return nil, err
	}
	row, err := h.postAt(r)
	if err != nil {
		return nil, err
	}
	const root = "../../"
	cards := h.cards([]query.PostRow{row}, root)
	h.withQuoted(r.Context(), cards)
	return h.page("post", &site.Page{Root: root, URL: h.address(r), Title: "Post by " + cards[0].Name, Description: "A post on Bluesky: " + event.URI(row.DID, row.Rkey), Body: cards[0]})
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

// robots is /robots.txt. It keeps crawlers to what people begin with.
func (h *Handler) robots(*http.Request) (*response, error) {
	a, _ := h.site.Asset("robots.txt")
	return &response{contentType: a.Type, body: a.Body}, nil
}
