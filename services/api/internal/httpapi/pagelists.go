package httpapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/services/api/internal/site"
)

// root is "/": the home page for browsers, the list of routes for other clients.
func (h *Handler) root(r *http.Request) (*response, error) {
	if !wantsPage(r) {
		return h.listRoutes(r)
	}
	if _, err := parseQuery(r.URL.RawQuery, params{}); err != nil {
		return nil, err
	}
	return h.homePage(r)
}

const (
	homeTags         = 8
	homeTimelineTags = 4 // number of tags whose posts the home page shows
	homePosts        = 12
)

func (h *Handler) homePage(r *http.Request) (*response, error) {
	const root = "./"
	status, err := h.index.Status(r.Context())
	if err != nil {
		return nil, err
	}
	found, err := h.popularTags(r.Context(), dayHours)
	if err != nil {
		return nil, err
	}
	body := site.Home{Search: searchBar(nil), Fresh: h.freshnessText(status), Title: "Popular in the last day"}
	for _, t := range found.Tags[:min(homeTags, len(found.Tags))] {
		body.Popular = append(body.Popular, ranked(root, t.Name, t.Posts, found.Tags[0].Posts))
	}
	if len(body.Popular) == 0 { // the index has only older posts
		all, err := h.index.Tags(r.Context(), query.TagQuery{From: keyset.Start(), Direction: keyset.Forward, Limit: homeTags})
		if err != nil {
			return nil, err
		}
		body.Title = "Most used"
		for _, t := range all.Rows {
			body.Popular = append(body.Popular, ranked(root, t.Name, t.Posts, all.Rows[0].Posts))
		}
	}
	for _, t := range found.rising[:min(homeTags, len(found.rising))] {
		one := ranked(root, t.Name, t.Posts, t.Posts)
		one.Factor = site.Factor(t.Posts, t.expected)
		body.Rising = append(body.Rising, one)
	}
	if err := h.addTimeline(r.Context(), &body, root); err != nil {
		return nil, err
	}
	return h.renderPage("home", &site.Page{
		Root: root, OwnSearch: true, URL: h.address(r), Title: "Tagstream: every hashtag on Bluesky", Description: "The newest Bluesky posts with any tags, page by page.", Body: body,
	})
}

func ranked(root, name string, posts, most int64) site.Ranked {
	return site.Ranked{Tag: site.Tag{Name: name, URL: site.TagURL(root, name)}, Posts: posts, Share: int(100 * posts / max(most, 1))}
}

// addTimeline adds the newest posts of a few rising and popular tags.
func (h *Handler) addTimeline(ctx context.Context, body *site.Home, root string) error {
	var names []string
	for i := range homeTags {
		for _, list := range [][]site.Ranked{body.Rising, body.Popular} {
			if i < len(list) && len(names) < homeTimelineTags && !slices.Contains(names, list[i].Name) {
				names = append(names, list[i].Name)
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	page, err := h.index.Posts(ctx, query.PostQuery{Tags: names, From: keyset.Start(), Direction: keyset.Forward, Limit: homePosts})
	if err != nil {
		return err
	}
	h.metrics.countPage(page)
	var q values
	for _, name := range names {
		q = append(q, pair{"tags", name})
	}
	body.Posts, body.TimelineTags, body.More = h.cards(page.Rows, root), siteTags(root, names...), root+"search?"+q.replace(nil, nil)
	h.addQuoted(ctx, body.Posts)
	return nil
}

// freshnessText says how fresh the index is.
func (h *Handler) freshnessText(s query.Status) string {
	lag, silent := h.freshness.observe(s)
	delay := time.Duration(-1)
	if lag.Seconds != nil {
		delay = time.Duration(*lag.Seconds * float64(time.Second))
	}
	return site.Freshness(delay, silent != nil, s.VisiblePosts, s.Tags)
}

// found is a list that a page shows.
type found struct {
	form values // all parameters
	q    values // the list's parameters
	list postList
	body site.Found
	// query is q without a page token.
	query string
	page  query.PostPage
}

// find reads the list of a search page, wall or embed. redirect is not nil if the list has another
// canonical URL.
func (h *Handler) find(r *http.Request, extra ...string) (f found, redirect *response, err error) {
	allowed := formParams
	allowed.single = append(slices.Clone(allowed.single), extra...)
	form, err := parseQuery(r.URL.RawQuery, allowed)
	if err != nil {
		return f, nil, err
	}
	q, changed := canonical(form, time.Now())
	if changed {
		return f, &response{status: http.StatusSeeOther, header: map[string]string{"Location": "?" + q.replace(nil, nil)}}, nil
	}
	f.form, f.q = q, slices.DeleteFunc(slices.Clone(q), func(p pair) bool { return slices.Contains(extra, p.name) })
	f.query = f.q.replace([]string{"after", "before"}, nil)
	f.body.Search = searchBar(f.q)
	f.list, f.body.List, f.page, err = h.pageOfPosts(r, f.q, q, "./")
	if err == nil {
		h.addQuoted(r.Context(), f.body.Posts)
		f.body.Hints, err = h.hints(r.Context(), f.q, f.list.query, f.page)
	}
	return f, nil, err
}

// isNewest reports whether the page is the newest of its list, which follows /v1/stream.
func (f *found) isNewest() bool { return !f.q.has("after") && !f.q.has("before") }

// searchPage is /search.
func (h *Handler) searchPage(r *http.Request) (*response, error) {
	const root = "./"
	f, redirect, err := h.find(r)
	if redirect != nil {
		return redirect, nil
	}
	p := &site.Page{Root: root, OwnSearch: true, Title: "Search", Description: "Posts on Bluesky by their tags.", NoIndex: true}
	status := http.StatusOK
	var wrong *problem
	switch {
	case errors.As(err, &wrong) && wrong.Code == codeMissingTags && len(f.q) == 0:
		f.body.Heading, f.body.Search.Open = "Search by tags", true
	case errors.As(err, &wrong) && wrong.Status < http.StatusInternalServerError:
		f.body.Heading, f.body.Problem, status = "Search by tags", wrong.Detail, wrong.Status
		f.body.Search.Open = true
	case err != nil:
		return nil, err
	default:
		f.body.Searched, f.body.Heading, f.body.Links = true, f.list.title(), listLinks(root, f.query)
		p.Title, p.URL, p.Feeds = f.body.Heading, h.address(r), siteFeeds(root, f.body.Heading, f.query)
	}
	if f.isNewest() {
		f.body.Newer = ""
		if f.body.Searched {
			p.LiveQuery = f.query
		}
	}
	p.Body = f.body
	res, err := h.renderPage("search", p)
	if err == nil && status != http.StatusOK {
		res.status, res.cache = status, "no-store"
	}
	return res, err
}
