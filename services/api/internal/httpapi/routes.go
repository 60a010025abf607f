package httpapi

import (
	_ "embed"
	"net/http"

	"github.com/gorilla/mux"
)

//go:embed openapi.yaml
var openapi []byte

// The names of the routes in metrics and logs.
const (
	routeIndex         = "index"
	routeOpenAPI       = "openapi"
	routeRecent        = "recent"
	routePosts         = "posts"
	routePost          = "post"
	routeChanges       = "changes"
	routeStream        = "stream"
	routeTags          = "tags"
	routeTag           = "tag"
	routeTagQuery      = "tag_by_query"
	routeStatus        = "status"
	routeFeedRSS       = "feed_rss"
	routeFeedAtom      = "feed_atom"
	routeFeedJSON      = "feed_json"
	routeFeedOPML      = "feed_opml"
	routeDID           = "did"
	routeDescribeFeeds = "describe_feeds"
	routeSkeleton      = "feed_skeleton"
	routeSearch        = "search_skeleton"
	routeNone          = "none" // no such path or method

	routeAdminTags = "admin_tags" // on the operators' listener
)

var routeNames = []string{
	routeIndex, routeOpenAPI, routeRecent, routePosts, routePost, routeChanges, routeStream, routeTags, routeTag, routeTagQuery, routeStatus, routeFeedRSS, routeFeedAtom, routeFeedJSON, routeFeedOPML,
	routeDID, routeDescribeFeeds, routeSkeleton, routeSearch, routeNone, routeAdminTags,
	routePageSearch, routePageTag, routePageTagQuery, routePagePost, routePageWall, routePageEmbed, routePageStatus, routePageDocs, routeEmbedJS, routeAsset, routeRobots,
}

// allowedMethods are the methods of every route.
const allowedMethods = "GET, HEAD, OPTIONS"

// route is a path and its handler.
type route struct {
	name, path, about string
	answer            func(*http.Request) (*response, error)
}

func (h *Handler) routes() []route {
	return []route{
		{routeIndex, "/", "this list; a page for browsers", h.root},
		{routeOpenAPI, "/openapi.yaml", "the description of this API", h.spec},
		{routeRecent, "/v1/getRecentRootPostsWithTags", "the newest root posts with any of the tags, page by page", h.recent},
		{routePosts, "/v1/posts", "root posts with any or all of the tags, filtered, paged in both directions", h.listPosts},
		{routePost, "/v1/posts/{did}/{rkey}", "one post", h.showPost},
		{routeChanges, "/v1/changes", "changes of a list of posts: get a position, list everything, then follow", h.listChanges},
		{routeStream, "/v1/stream", "the same as Server-Sent Events", h.follow},
		{routeTags, "/v1/tags", "tags in use, most used first, paged in both directions; or those that begin with a prefix", h.listTags},
		{routeTag, "/v1/tags/{tag}", "one tag: its number of posts, the first and the last one, and posts by hour", h.showTag},
		{routeTagQuery, "/v1/tag", "the same with ?tag=, if a proxy decodes paths", h.showTagByQuery},
		{routeFeedRSS, "/v1/feeds/posts.rss", "the list of posts as RSS 2.0", h.feed(rssFeed)},
		{routeFeedAtom, "/v1/feeds/posts.atom", "the same as Atom", h.feed(atomFeed)},
		{routeFeedJSON, "/v1/feeds/posts.json", "the same as JSON Feed", h.feed(jsonFeed)},
		{routeFeedOPML, "/v1/feeds/tags.opml", "a feed for each of several tags, as OPML", h.opml},
		{routeDID, "/.well-known/did.json", "this service's DID document, for Bluesky", h.showDID},
		{routeDescribeFeeds, "/xrpc/app.bsky.feed.describeFeedGenerator", "the Bluesky feeds of this service", h.describeFeeds},
		{routeSkeleton, "/xrpc/app.bsky.feed.getFeedSkeleton", "a page of one of them, for AppViews", h.showSkeleton},
		{routeSearch, "/xrpc/app.bsky.unspecced.searchPostsSkeleton", "a search by tags, for AppViews", h.searchPosts},
		{routeStatus, "/v1/status", "how fresh and how big the index is", h.status},
	}
}

// serveOnly returns a router of these routes and no others.
func (h *Handler) serveOnly(routes []route) *mux.Router {
	// Paths are matched as sent: they are not cleaned, and an encoded slash does not separate
	// segments, so a segment can have any text.
	m := mux.NewRouter().UseEncodedPath().SkipClean(true)
	for _, r := range routes {
		m.Handle(r.path, h.handle(r.name, r.answer)).Methods(http.MethodGet, http.MethodHead, http.MethodOptions).Name(r.name)
	}
	m.NotFoundHandler = h.handle(routeNone, func(*http.Request) (*response, error) {
		return nil, fail(codeNotFound, "There is nothing at this path: the API's root lists the routes.")
	})
	m.MethodNotAllowedHandler = h.handle(routeNone, func(*http.Request) (*response, error) {
		return nil, fail(codeMethodNotAllowed, "Use GET or HEAD: this service is read only.")
	})
	return m
}

type indexJSON struct {
	Service string      `json:"service"`
	Version string      `json:"version"`
	Routes  []routeJSON `json:"routes"`
}

// routeJSON has a path relative to the list of routes, which may have any path on its host.
type routeJSON struct {
	Path  string `json:"path"`
	About string `json:"about"`
}

func (h *Handler) listRoutes(r *http.Request) (*response, error) {
	if _, err := parseQuery(r.URL.RawQuery, params{}); err != nil {
		return nil, err
	}
	out := indexJSON{Service: "tagstream", Version: h.version}
	for _, r := range h.routes() {
		out.Routes = append(out.Routes, routeJSON{"." + r.path, r.about})
	}
	return jsonResponse(out)
}

func (h *Handler) spec(r *http.Request) (*response, error) {
	if _, err := parseQuery(r.URL.RawQuery, params{}); err != nil {
		return nil, err
	}
	return &response{contentType: "application/yaml", body: openapi}, nil
}
