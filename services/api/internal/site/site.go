// Package site renders the HTML pages from templates, one style sheet and one script, all embedded.
//
// Everything from posts is escaped by html/template, limited in length, and linked with
// rel="nofollow ugc noopener". No page needs the script, has an inline script or style, or sets a
// cookie. Pages load nothing from other hosts except, if configured, pictures from the CDNs. Links
// are relative, so the pages work under any path.
package site

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"path"
	"strings"

	"github.com/tagstream/tagstream/services/api/internal/feeds"
	"github.com/tagstream/tagstream/services/api/internal/record"
)

//go:embed templates static
var files embed.FS

// Site renders pages. It is safe for concurrent use.
type Site struct {
	media  feeds.Media
	pages  map[string]*template.Template
	assets map[string]Asset
}

// Asset is a file that pages load.
type Asset struct {
	Type string
	Body []byte
	// Version changes with the body.
	Version string
}

var assetTypes = map[string]string{
	".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8",
}

// New parses the embedded templates. It panics if one is invalid.
func New(media feeds.Media) *Site {
	s := &Site{media: media, pages: map[string]*template.Template{}, assets: map[string]Asset{}}
	for _, file := range list("static") {
		body, _ := files.ReadFile("static/" + file) // it was just listed
		sum := sha256.Sum256(body)
		s.assets[file] = Asset{assetTypes[path.Ext(file)], body, hex.EncodeToString(sum[:6])}
	}
	base := template.Must(template.New("base").Funcs(template.FuncMap{
		"asset": func(root, file string) string { return root + "static/" + file + "?v=" + s.assets[file].Version },
		"count": Count, "dict": dict,
	}).ParseFS(files, "templates/partials/*.html"))
	for _, file := range list("templates") {
		page := template.Must(template.Must(base.Clone()).ParseFS(files, "templates/"+file))
		s.pages[strings.TrimSuffix(file, ".html")] = page
	}
	return s
}

func list(folder string) (names []string) {
	entries, err := fs.ReadDir(files, folder)
	if err != nil {
		panic(err) // it is embedded
	}
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// Asset returns a file that pages load.
func (s *Site) Asset(name string) (Asset, bool) {
	a, ok := s.assets[name]
	return a, ok
}

// Page is the data that all pages have.
type Page struct {
	// Root is the relative URL from the page to the site's root: "./", "../" and so on.
	Root string
	// URL is the page's absolute URL, "" if unknown.
	URL, Title, Description string
	// NoIndex keeps search engines away.
	NoIndex bool
	// Feeds are for autodiscovery.
	Feeds []Feed
	// OwnSearch reports that the page has its own search bar.
	OwnSearch bool
	// Theme is "", "light" or "dark"; Accent and Size are options of walls and embeds.
	Theme, Accent, Size string
	// LiveQuery is the query of /v1/stream that the page follows, "" for none.
	LiveQuery string
	// Body is the data of the page's own template.
	Body any
}

// Feed is the page's list as a feed.
type Feed struct{ Type, Title, URL string }

// Draw returns a page as HTML.
func (s *Site) Draw(name string, p *Page) ([]byte, error) {
	t := s.pages[name]
	if t == nil {
		return nil, fmt.Errorf("render the page %s: there is no such template", name)
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, "page", p); err != nil {
		return nil, fmt.Errorf("render the page %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// Policy returns a page's Content-Security-Policy. Other sites may frame the page only if framed.
func (s *Site) Policy(framed bool) string {
	images, ancestors := "'self'", "'none'"
	if s.media == feeds.MediaCDN {
		images += " " + record.CDN + " " + record.VideoCDN
	}
	if framed {
		ancestors = "*"
	}
	return "default-src 'none'; script-src 'self'; style-src 'self'; img-src " + images +
		"; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors " + ancestors
}

// dict returns the data of a partial that needs several values.
func dict(pairs ...any) map[string]any {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[fmt.Sprint(pairs[i])] = pairs[i+1]
	}
	return m
}
