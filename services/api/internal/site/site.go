// Package site draws the pages that people see: templates, one style sheet and one script, all of
// them embedded.
//
// Everything from posts is escaped by html/template, bounded, and linked with
// rel="nofollow ugc noopener". No page needs the script, holds an inline script or style, sets a
// cookie, or loads anything from elsewhere but pictures from the CDNs, if they are wanted. Links are
// relative, so the pages work under any path.
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

// Site draws pages. It is safe for concurrent use.
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

// New parses the embedded templates; they are part of the program, so failing is a defect.
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

// Page is what all pages have.
type Page struct {
	// Root leads from the page to the site's root: "./", "../" and so on.
	Root string
	// URL is the page's own, absolute, "" where it has none.
	URL, Title, Description string
	// NoIndex keeps search engines away.
	NoIndex bool
	// Feeds are for autodiscovery.
	Feeds []Feed
	// OwnSearch says that the page has its own search bar.
	OwnSearch bool
	// Theme is "", "light" or "dark"; Accent and Size are those of embeds.
	Theme, Accent, Size string
	// Stream is the query of the live tail that the page follows, "" for none.
	Stream string
	Body   any
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

// Policy is the pages' Content-Security-Policy. Other sites may frame only embeds.
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

// dict makes the data of a partial that needs several values.
func dict(pairs ...any) map[string]any {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[fmt.Sprint(pairs[i])] = pairs[i+1]
	}
	return m
}
