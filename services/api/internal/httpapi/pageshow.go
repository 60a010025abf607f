package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/tagstream/tagstream/services/api/internal/site"
)

// looks are what a wall's or an embed's URL may say of how it looks, each one of a few.
var looks = []struct {
	name   string
	values []string
}{
	{"theme", []string{"auto", "light", "dark"}},
	{"accent", []string{"teal", "blue", "violet", "pink", "orange", "grey"}},
	{"size", []string{"medium", "small", "large"}},
}

// look reads a look; the first of each is the default, and is "". The error is a *problem.
func (q values) look() (out [3]string, err error) {
	for i, l := range looks {
		value, given := q.get(l.name)
		switch {
		case !given || value == l.values[0]:
		case slices.Contains(l.values, value):
			out[i] = value
		default:
			return out, fail(codeInvalidQuery, "Give %s as one of %s: it is %s.", l.name, strings.Join(l.values, ", "), quote(value))
		}
	}
	return out, nil
}

// show is /wall and /embed: a list that shows by itself what is new.
func (h *Handler) show(name string) func(*http.Request) (*response, error) {
	return func(r *http.Request) (*response, error) {
		const root = "./"
		f, elsewhere, err := h.find(r, looks[0].name, looks[1].name, looks[2].name)
		if elsewhere != nil {
			return elsewhere, nil
		}
		if err != nil {
			return nil, err
		}
		look, err := f.form.look()
		if err != nil {
			return nil, err
		}
		return h.page(name, &site.Page{
			Root: root, URL: h.address(r), Title: f.list.title(), Description: "Posts on Bluesky, as they come.", NoIndex: true,
			Theme: look[0], Accent: look[1], Size: look[2], Stream: f.query,
			Body: site.Show{List: f.body.List, Plain: root + "search?" + f.query},
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
	body := site.Status{Fresh: h.freshWords(s)}
	if lag.Messages > 0 {
		body.Words = append(body.Words, site.Count(int64(lag.Messages))+" events of the network wait to be indexed.")
	}
	if s.Sweeps > 0 {
		body.Words = append(body.Words, fmt.Sprintf("%s large accounts are being hidden, shown again or erased; counts follow.", site.Count(s.Sweeps)))
	}
	if s.DeadLetters > 0 {
		body.Words = append(body.Words, site.Count(s.DeadLetters)+" events could not be applied and are kept.")
	}
	const megabyte = 1 << 20
	body.Figures = []site.Figure{
		{Name: "Posts", Value: site.Count(s.VisiblePosts)}, {Name: "Hidden posts", Value: site.Count(s.Posts - s.VisiblePosts)}, {Name: "Tags", Value: site.Count(s.Tags)},
		{Name: "Index", Value: site.Count(s.DatabaseBytes/megabyte) + " MB"}, {Name: "Stream", Value: site.Count(int64(s.StreamBytes/megabyte)) + " MB"},
		{Name: "Events indexed", Value: site.Count(int64(s.Checkpoint.Seq))}, {Name: "Source", Value: strings.TrimPrefix(s.Checkpoint.Source.Host, "https://")}, {Name: "Version", Value: h.version},
	}
	return h.page("status", &site.Page{Root: "./", URL: h.address(r), Title: "Status", Description: body.Fresh, Body: body})
}

// embedScript is /embed.js. It is asked for by other sites' pages, under a name that stays.
func (h *Handler) embedScript(*http.Request) (*response, error) {
	a, found := h.site.Asset("embed.js")
	if !found {
		return nil, errors.New("the script of embeds is missing")
	}
	return &response{contentType: a.Type, body: a.Body, cache: "public, max-age=3600"}, nil
}
