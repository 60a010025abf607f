package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/services/api/internal/site"
)

// specParam is a parameter in openapi.yaml.
type specParam struct {
	Ref      string `yaml:"$ref"`
	Name     string
	Required bool
	Schema   struct {
		Type any
		Enum []string
	}
	Example any
}

// specParams returns the parameters of each path in openapi.yaml, which is part of the program.
var specParams = sync.OnceValue(func() map[string][]specParam {
	var doc struct {
		Paths map[string]struct {
			Get struct{ Parameters []specParam }
		}
		Components struct{ Parameters map[string]specParam }
	}
	if err := yaml.Unmarshal(openapi, &doc); err != nil {
		panic(err) // TestSpecIsValid
	}
	out := map[string][]specParam{}
	for path, item := range doc.Paths {
		for _, p := range item.Get.Parameters {
			if p.Ref != "" {
				p = doc.Components.Parameters[p.Ref[strings.LastIndexByte(p.Ref, '/')+1:]]
			}
			out[path] = append(out[path], p)
		}
	}
	return out
})

// docsSize is how many posts the forms request.
const docsSize = "3"

// docsPage is /docs. With the name of a route it redirects to that route with the form's fields
// that are not empty; the page's script shows the response on the page instead.
func (h *Handler) docsPage(r *http.Request) (*response, error) {
	if r.URL.RawQuery != "" {
		return h.redirectToRoute(r)
	}
	given, err := h.examples(r)
	if err != nil {
		return nil, err
	}
	var body []site.Route
	for _, route := range h.routes() {
		if h.feeds.Load() == nil && (strings.HasPrefix(route.path, "/xrpc/app.bsky.feed") || strings.HasPrefix(route.path, "/.well-known")) {
			continue // no feeds are declared
		}
		one := site.Route{Name: route.name, Path: route.path, Target: strings.TrimPrefix(route.path, "/"), About: sentence(route.about)}
		for _, p := range specParams()[route.path] {
			in := site.Input{Name: p.Name, Required: p.Required, Options: p.Schema.Enum, Hint: hint(p.Example)}
			if p.Required || p.Name == "limit" || p.Name == "quantity" || p.Name == "tags" || p.Name == "q" {
				in.Value = given[p.Name]
			}
			one.Inputs = append(one.Inputs, in)
		}
		body = append(body, one)
	}
	return h.renderPage("docs", &site.Page{Root: "./", URL: h.address(r), Title: "The API", Description: "Every route, with a form that requests it.", Body: body})
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

// hint returns an example as one line.
func hint(example any) string {
	switch e := example.(type) {
	case nil:
		return ""
	case []any:
		if len(e) == 0 {
			return ""
		}
		return fmt.Sprint(e[0])
	default:
		return fmt.Sprint(e)
	}
}

// examples returns values of parameters for which this index has results: its most used tag and
// that tag's newest post.
func (h *Handler) examples(r *http.Request) (map[string]string, error) {
	given := map[string]string{"limit": docsSize, "quantity": docsSize, "tags": "art", "tag": "art", "q": "#art", "did": "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "rkey": "3lb2wjkv5nk2e"}
	if f := h.feeds.Load(); f != nil && len(f.feeds) > 0 {
		given["feed"] = f.uri(f.feeds[0])
	}
	top, err := h.index.Tags(r.Context(), query.TagQuery{From: keyset.Start(), Direction: keyset.Forward, Limit: 1})
	if err != nil || len(top.Rows) == 0 {
		return given, err
	}
	tag := top.Rows[0].Name
	given["tags"], given["tag"], given["q"] = tag, tag, "#"+tag
	page, err := h.index.Posts(r.Context(), query.PostQuery{Tags: []string{tag}, From: keyset.Start(), Direction: keyset.Forward, Limit: 1})
	if err != nil || len(page.Rows) == 0 {
		return given, err
	}
	given["did"], given["rkey"] = page.Rows[0].DID, page.Rows[0].Rkey
	return given, nil
}

// redirectToRoute redirects to a route with its form's fields.
func (h *Handler) redirectToRoute(r *http.Request) (*response, error) {
	q, err := parseForm(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	name, _ := q.get("route")
	routes := h.routes()
	i := slices.IndexFunc(routes, func(r route) bool { return r.name == name })
	if i < 0 {
		return nil, fail(codeNotFound, "The API has no route %s.", quote(name))
	}
	path := strings.TrimPrefix(routes[i].path, "/")
	var rest values
	for _, p := range q {
		switch {
		case p.name == "route" || p.value == "":
		case strings.Contains(path, "{"+p.name+"}"):
			path = strings.Replace(path, "{"+p.name+"}", url.PathEscape(p.value), 1)
		default:
			rest = append(rest, p)
		}
	}
	return &response{status: http.StatusSeeOther, header: map[string]string{"Location": "./" + path + prefixed("?", rest.replace(nil, nil))}}, nil
}

// parseForm reads parameters with any names; the route of the form checks them.
func parseForm(raw string) (values, error) {
	var names []string
	for part := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(part, "=")
		if name, err := url.QueryUnescape(name); err == nil {
			names = append(names, name)
		}
	}
	return parseQuery(raw, params{repeated: names})
}
