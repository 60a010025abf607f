package httpapi

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/services/api/internal/feeds"
)

// feedParams are the parameters of /v1/posts without those for Relay clients.
var feedParams = filters.and("limit", "after", "before")

// feedAge is how long a feed may be cached: readers poll every few minutes, and many poll the same
// feed.
const feedAge = "max-age=60"

// feedFormat is how a feed is written.
type feedFormat struct {
	contentType string
	write       func(feeds.Media, feeds.Feed) ([]byte, error)
}

var (
	rssFeed  = feedFormat{feeds.RSSType, feeds.Media.RSS}
	atomFeed = feedFormat{feeds.AtomType, feeds.Media.Atom}
	jsonFeed = feedFormat{feeds.JSONType, feeds.Media.JSON}
)

// feed is /v1/feeds/posts.*: a page of /v1/posts for feed readers.
func (h *Handler) feed(f feedFormat) func(*http.Request) (*response, error) {
	return func(r *http.Request) (*response, error) {
		base, err := h.baseURL(r)
		if err != nil {
			return nil, err
		}
		q, err := parseQuery(r.URL.RawQuery, feedParams)
		if err != nil {
			return nil, err
		}
		list, page, err := h.readPosts(r.Context(), q)
		if err != nil {
			return nil, err
		}

		here := base + r.URL.EscapedPath() + "?"
		without := func(with ...pair) string { return here + q.replace([]string{"after", "before"}, nil, with...) }
		doc := feeds.Feed{
			Title: list.title(), Description: "Root posts on Bluesky, newest first.",
			Self: here + q.replace(nil, nil), First: without(), Home: base + "/v1/posts?" + q.replace([]string{"after", "before"}, nil),
		}
		if page.HasNext {
			doc.Next = without(pair{"after", h.codec.Encode(page.Next, list.fingerprint)})
		}
		if page.HasPrevious {
			doc.Previous = without(pair{"before", h.codec.Encode(page.Previous, list.fingerprint)})
		}
		for _, row := range page.Rows {
			doc.Posts = append(doc.Posts, feeds.Post{
				DID: row.DID, Rkey: row.Rkey, Tags: row.Tags, Langs: row.Langs,
				Published: row.Key.SortAt(), Updated: row.IndexedAt, Record: row.Record,
			})
			if row.IndexedAt.After(doc.Updated) {
				doc.Updated = row.IndexedAt
			}
		}
		body, err := f.write(h.media, doc)
		if err != nil {
			return nil, err
		}
		return &response{contentType: f.contentType, body: body, cache: feedAge}, nil
	}
}

// title describes a list in words.
func (l *postList) title() string {
	q := l.query
	title := "Posts tagged "
	switch {
	case len(q.All) == 0:
		title += hashed(q.Tags, " or ")
	case len(q.Tags) == 0:
		title += hashed(q.All, " and ")
	default:
		title += hashed(q.All, " and ") + ", and " + hashed(q.Tags, " or ")
	}
	if len(q.None) > 0 {
		title += ", without " + hashed(q.None, " or ")
	}
	for _, part := range []struct {
		before string
		names  []string
	}{{", in ", q.Langs}, {", by ", q.Authors}, {", not by ", q.NotAuthors}} {
		if len(part.names) > 0 {
			title += part.before + strings.Join(part.names, " or ")
		}
	}
	if q.MaxTags > 0 {
		title += fmt.Sprintf(", with at most %d tags", q.MaxTags)
	}
	if len(l.media) > 0 {
		title += ", with " + strings.ReplaceAll(strings.Join(l.media, " or ")+" media", "none media", "no media")
	}
	switch q.SelfLabels {
	case query.ExcludeSelfLabels:
		title += ", without labels from the author"
	case query.OnlySelfLabels:
		title += ", with labels from the author"
	}
	return title
}

func hashed(tags []string, separator string) string { return "#" + strings.Join(tags, separator+"#") }

var opmlParams = params{repeated: []string{"tags"}}

// opml is /v1/feeds/tags.opml: a feed for each tag, for import into feed readers.
func (h *Handler) opml(r *http.Request) (*response, error) {
	q, err := parseQuery(r.URL.RawQuery, opmlParams)
	if err != nil {
		return nil, err
	}
	tags, _, _, err := q.tags()
	if err != nil {
		return nil, err
	}
	base, err := h.baseURL(r)
	if err != nil {
		return nil, err
	}
	var list []feeds.Subscription
	for _, tag := range tags {
		rawQuery := "?tags=" + url.QueryEscape(tag)
		list = append(list, feeds.Subscription{Title: "#" + tag, Feed: base + "/v1/feeds/posts.rss" + rawQuery, Home: base + "/v1/posts" + rawQuery})
	}
	body, err := feeds.OPML("Posts tagged "+hashed(tags, ", "), list)
	if err != nil {
		return nil, err
	}
	return &response{contentType: feeds.OPMLType, body: body, cache: feedAge}, nil
}

// validHost matches a host name or address in a URL, without a port.
var validHost = regexp.MustCompile(`^(\[[0-9a-fA-F:.]+\]|[0-9A-Za-z._-]{1,253})$`)

// baseURL returns the public URL of this service, without a trailing slash: the configured one, or
// that of the request. The error is a *problem.
func (h *Handler) baseURL(r *http.Request) (string, error) {
	if h.publicURL != "" {
		return h.publicURL, nil
	}
	host, port, err := net.SplitHostPort(r.Host)
	switch {
	case err != nil:
		host = r.Host
	case strings.Contains(host, ":"):
		host = "[" + host + "]"
	}
	if !validHost.MatchString(host) || strings.Trim(port, "0123456789") != "" {
		return "", fail(codeInvalidHost, "Send the service's name in the Host header: %s is not a host name.", quote(r.Host))
	}
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	return scheme + r.Host, nil
}
