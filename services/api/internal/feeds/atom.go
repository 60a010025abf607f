package feeds

import (
	"encoding/xml"
	"time"
)

// AtomType is the media type of Atom.
const AtomType = "application/atom+xml; charset=utf-8"

const atomNS = "http://www.w3.org/2005/Atom"

type atomLink struct {
	Rel  string `xml:"rel,attr"`
	Type string `xml:"type,attr,omitempty"`
	Href string `xml:"href,attr"`
}

type atom struct {
	XMLName  xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
	ID       string      `xml:"id"`
	Title    string      `xml:"title"`
	Subtitle string      `xml:"subtitle,omitempty"`
	Updated  string      `xml:"updated"`
	Links    []atomLink  `xml:"link"`
	Entries  []atomEntry `xml:"entry"`
}

type atomEntry struct {
	Lang       string         `xml:"xml:lang,attr,omitempty"`
	ID         string         `xml:"id"`
	Title      string         `xml:"title"`
	Links      []atomLink     `xml:"link"`
	Published  string         `xml:"published"`
	Updated    string         `xml:"updated"`
	Author     atomAuthor     `xml:"author"`
	Categories []atomCategory `xml:"category"`
	Content    atomContent    `xml:"content"`
}

type atomAuthor struct {
	Name string `xml:"name"`
	URI  string `xml:"uri"`
}

type atomCategory struct {
	Term string `xml:"term,attr"`
}

type atomContent struct {
	Type string `xml:"type,attr"`
	Body string `xml:",chardata"`
}

// Atom writes a feed as Atom, with the links of RFC 5005.
func (m Media) Atom(f Feed) ([]byte, error) {
	a := atom{ID: f.First, Title: clean(f.Title), Subtitle: clean(f.Description), Updated: rfc3339(f.Updated), Links: f.links("application/atom+xml")}
	a.Links = append(a.Links, atomLink{Rel: "alternate", Href: f.Home})
	for _, it := range m.items(f.Posts) {
		e := atomEntry{
			Lang: it.lang, ID: it.id, Title: it.title, Links: []atomLink{{Rel: "alternate", Type: "text/html", Href: it.link}},
			Published: rfc3339(it.post.Published), Updated: rfc3339(it.post.Updated),
			Author: atomAuthor{it.author, it.profile}, Content: atomContent{"html", it.html},
		}
		for _, tag := range it.tags {
			e.Categories = append(e.Categories, atomCategory{tag})
		}
		a.Entries = append(a.Entries, e)
	}
	return document(a)
}

// links returns a page's links to itself and to other pages of the feed.
func (f Feed) links(mediaType string) []atomLink {
	var links []atomLink
	for _, l := range []atomLink{{Rel: "self", Href: f.Self}, {Rel: "first", Href: f.First}, {Rel: "next", Href: f.Next}, {Rel: "previous", Href: f.Previous}} {
		if l.Href != "" {
			l.Type = mediaType
			links = append(links, l)
		}
	}
	return links
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }
