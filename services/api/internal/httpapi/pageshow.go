package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/tagstream/tagstream/services/api/internal/site"
)

// styles are the parameters for the style of a wall or an embed. The first value of each is the
// default.
var styles = []struct {
	name   string
	values []string
}{
	{"theme", []string{"auto", "light", "dark"}},
	{"accent", []string{"teal", "blue", "violet", "pink", "orange", "grey"}},
	{"size", []string{"medium", "small", "large"}},
}

// style returns the values of styles, "" for a default. The error is a *problem.
func (q values) style() (out [3]string, err error) {
	for i, s := range styles {
		value, given := q.get(s.name)
		switch {
		case !given || value == s.values[0]:
		case slices.Contains(s.values, value):
			out[i] = value
		default:
			return out, fail(codeInvalidQuery, "Give %s as one of %s: it is %s.", s.name, strings.Join(s.values, ", "), quote(value))
		}
	}
	return out, nil
}

// frame is /wall and /embed: a list that adds new posts by itself.
func (h *Handler) frame(name string) func(*http.Request) (*response, error) {
	return func(r *http.Request) (*response, error) {
		const root = "./"
		f, redirect, err := h.find(r, styles[0].name, styles[1].name, styles[2].name)
		if redirect != nil {
			return redirect, nil
		}
		if err != nil {
			return nil, err
		}
		style, err := f.form.style()
		if err != nil {
			return nil, err
		}
		return h.renderPage(name, &site.Page{
			Root: root, URL: h.address(r), Title: f.list.title(), Description: "New posts on Bluesky.", NoIndex: true,
			Theme: style[0], Accent: style[1], Size: style[2], LiveQuery: f.query,
			Body: site.Frame{List: f.body.List, SearchURL: root + "search?" + f.query},
		})
	}
}

// statusPage is /status.
func (h *Handler) statusPage(r *http.Request) (*response, error) {
	if _, err := parseQuery(r.URL.RawQuery, params{}); err != nil {
		return nil, err
	}
	s, err := h.index.Status(r.Context())
	if err != nil {
		return nil, err
	}
	lag, _ := h.freshness.observe(s)
	body := site.Status{Fresh: h.freshnessText(s)}
	if lag.Messages > 0 {
		body.Notes = append(body.Notes, site.Count(int64(lag.Messages))+" events are waiting to be indexed.")
	}
	if s.Sweeps > 0 {
		body.Notes = append(body.Notes, fmt.Sprintf("%s large accounts are being hidden, shown or erased; the counts change afterwards.", site.Count(s.Sweeps)))
	}
	if s.DeadLetters > 0 {
		body.Notes = append(body.Notes, site.Count(s.DeadLetters)+" events could not be applied and are kept for later.")
	}
	const megabyte = 1 << 20
	body.Figures = []site.Figure{
		{Name: "Posts", Value: site.Count(s.VisiblePosts)}, {Name: "Hidden posts", Value: site.Count(s.Posts - s.VisiblePosts)}, {Name: "Tags", Value: site.Count(s.Tags)},
		{Name: "Index", Value: site.Count(s.DatabaseBytes/megabyte) + " MB"}, {Name: "Stream", Value: site.Count(int64(s.StreamBytes/megabyte)) + " MB"},
		{Name: "Events indexed", Value: site.Count(int64(s.Checkpoint.Seq))}, {Name: "Source", Value: strings.TrimPrefix(s.Checkpoint.Source.Host, "https://")}, {Name: "Version", Value: h.version},
	}
	return h.renderPage("status", &site.Page{Root: "./", URL: h.address(r), Title: "Status", Description: body.Fresh, Body: body})
}

// embedScript is /embed.js. Other sites load it, so its URL never changes.
func (h *Handler) embedScript(*http.Request) (*response, error) {
	a, found := h.site.Asset("embed.js")
	if !found {
		return nil, errors.New("the script of embeds is missing")
	}
	return &response{contentType: a.Type, body: a.Body, cache: "public, max-age=3600"}, nil
}
