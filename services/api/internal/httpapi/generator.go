package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
)

// The three documents of a Bluesky feed generator. An AppView resolves the did:web of the public
// URL, requests a skeleton, a list of at-uris, from its service #bsky_fg, and fills it in. Errors
// have the form of XRPC, and unknown parameters are ignored, as XRPC requires.

// skeletonTimeout bounds the search for the first posts of a page. AppViews give up after 5 s.
const skeletonTimeout = 3 * time.Second

var (
	errNoFeeds     = fail(codeNotFound, "This service declares no Bluesky feeds.")
	errUnknownFeed = &problem{Status: http.StatusBadRequest, Code: "UnknownFeed", Detail: "This service has no such feed: describeFeedGenerator lists its feeds."}
	errNoneInTime  = fail(codeTimeout, "Few posts match, and none was found in time; try again in a few seconds.")
)

// SetFeeds replaces the feeds; nil means none. It may be called while requests are answered.
func (h *Handler) SetFeeds(f *Feeds) { h.feeds.Store(f) }

// identity returns the service's base URL and its did:web. The error is a *problem. A URL with a
// path is one, since atproto's did:web has no paths.
func (h *Handler) identity(r *http.Request) (base, did string, err error) {
	if base, err = h.baseURL(r); err != nil {
		return "", "", err
	}
	if did, err = webDID(base); err != nil {
		return "", "", fail(codeNotFound, "A feed generator needs a public URL without a path.")
	}
	return base, did, nil
}

type didService struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Endpoint string `json:"serviceEndpoint"`
}

type didDocument struct {
	Context  []string     `json:"@context"`
	ID       string       `json:"id"`
	Services []didService `json:"service"`
}

// showDID is /.well-known/did.json.
func (h *Handler) showDID(r *http.Request) (*response, error) {
	if h.feeds.Load() == nil {
		return nil, errNoFeeds
	}
	base, did, err := h.identity(r)
	if err != nil {
		return nil, err
	}
	return jsonResponse(didDocument{[]string{"https://www.w3.org/ns/did/v1"}, did, []didService{{"#bsky_fg", "BskyFeedGenerator", base}}})
}

type feedURI struct {
	URI string `json:"uri"`
}

type feedList struct {
	DID   string    `json:"did"`
	Feeds []feedURI `json:"feeds"`
}

// describeFeeds is app.bsky.feed.describeFeedGenerator.
func (h *Handler) describeFeeds(r *http.Request) (*response, error) {
	feeds := h.feeds.Load()
	if feeds == nil {
		return nil, errNoFeeds
	}
	_, did, err := h.identity(r)
	if err != nil {
		return nil, err
	}
	out := feedList{DID: did}
	for _, f := range feeds.feeds {
		out.Feeds = append(out.Feeds, feedURI{feeds.uri(f)})
	}
	return jsonResponse(out)
}

type skeletonPost struct {
	Post string `json:"post"`
}

type feedSkeleton struct {
	Cursor string         `json:"cursor,omitempty"`
	Feed   []skeletonPost `json:"feed"`
}

// showSkeleton is app.bsky.feed.getFeedSkeleton.
func (h *Handler) showSkeleton(r *http.Request) (*response, error) {
	feeds := h.feeds.Load()
	if feeds == nil {
		return nil, errUnknownFeed
	}
	q, err := xrpcQuery(r, "feed", "limit", "cursor")
	if err != nil {
		return nil, err
	}
	name, given := q.get("feed")
	if !given {
		return nil, &problem{Status: http.StatusBadRequest, Code: "InvalidRequest", Detail: "Name a feed by the at-uri of its record: describeFeedGenerator lists them."}
	}
	var list *postList
	for i, f := range feeds.feeds {
		if feeds.uri(f) == name {
			list = &feeds.feeds[i].list
		}
	}
	if list == nil {
		return nil, errUnknownFeed
	}
	pq, fingerprint := list.query, list.fingerprint
	pq.From, pq.Direction, pq.NamesOnly = keyset.Start(), keyset.Forward, true
	if pq.Limit, err = q.limit("limit", defaultLimit); err != nil {
		return nil, err
	}
	if token, given := q.get("cursor"); given && token != "" {
		if pq.From, err = h.postPosition("cursor", token, fingerprint); err != nil {
			return nil, err
		}
	}
	page, err := h.nonEmptyPage(r, pq)
	if err != nil {
		return nil, err
	}
	out := feedSkeleton{Feed: make([]skeletonPost, len(page.Rows))}
	for i, row := range page.Rows {
		out.Feed[i].Post = event.URI(row.DID, row.Rkey)
	}
	if page.HasNext {
		out.Cursor = h.codec.Encode(page.Next, fingerprint)
	}
	return jsonResponse(out)
}

// nonEmptyPage reads pages until one has posts or the list ends, since AppViews take an empty page
// for the end. The error is errNoneInTime if that takes too long.
func (h *Handler) nonEmptyPage(r *http.Request, q query.PostQuery) (query.PostPage, error) {
	ctx, cancel := context.WithTimeout(r.Context(), skeletonTimeout)
	defer cancel()
	for {
		page, err := h.index.Posts(ctx, q)
		switch {
		case err != nil && ctx.Err() != nil && r.Context().Err() == nil:
			return page, errNoneInTime
		case err != nil:
			return page, err
		}
		h.metrics.countPage(page)
		if len(page.Rows) > 0 || !page.HasNext {
			return page, nil
		}
		q.From = page.Next
	}
}

// xrpcQuery reads the named parameters of an XRPC method, each at most once, and ignores the
// others. The error is a *problem.
func xrpcQuery(r *http.Request, names ...string) (values, error) {
	return parseQuery(r.URL.RawQuery, params{single: names, others: true})
}

// xrpcNames are XRPC's names of errors that no method defines.
var xrpcNames = map[int]string{
	http.StatusBadRequest: "InvalidRequest", http.StatusNotFound: "NotFound", http.StatusMethodNotAllowed: "InvalidRequest",
	http.StatusInternalServerError: "InternalServerError", http.StatusServiceUnavailable: "NotEnoughResources",
}

// writeXRPCError sends p in XRPC's form.
func writeXRPCError(w http.ResponseWriter, p *problem) {
	name := string(p.Code)
	if known, ours := xrpcNames[p.Status]; ours && strings.ToLower(name) == name {
		name = known
	}
	body, err := json.Marshal(struct {
		Error   string `json:"error"`
		Message string `json:"message"`
	}{name, p.Detail})
	if err != nil {
		panic(err) // strings always marshal
	}
	h := w.Header()
	h.Set("Content-Type", contentJSON)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	if p.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", p.retryAfter())
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // an error means that the client is gone
}
