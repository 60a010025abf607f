package feeds

import "encoding/xml"

// OPMLType is the media type of OPML.
const OPMLType = "text/x-opml; charset=utf-8"

type opml struct {
	XMLName  xml.Name  `xml:"opml"`
	Version  string    `xml:"version,attr"`
	Title    string    `xml:"head>title"`
	Outlines []outline `xml:"body>outline"`
}

type outline struct {
	Type string `xml:"type,attr"`
	Text string `xml:"text,attr"`
	XML  string `xml:"xmlUrl,attr"`
	HTML string `xml:"htmlUrl,attr"`
}

// Subscription is one feed of an OPML document; its URLs are absolute.
type Subscription struct{ Title, Feed, Home string }

// OPML writes a list of feeds as OPML 2.0, which feed readers can import.
func OPML(title string, list []Subscription) ([]byte, error) {
	doc := opml{Version: "2.0", Title: clean(title)}
	for _, s := range list {
		doc.Outlines = append(doc.Outlines, outline{Type: "rss", Text: clean(s.Title), XML: s.Feed, HTML: s.Home})
	}
	return document(doc)
}
