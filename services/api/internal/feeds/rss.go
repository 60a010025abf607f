package feeds

import (
	"encoding/xml"
	"time"
)

// RSSType is the media type of RSS.
const RSSType = "application/rss+xml; charset=utf-8"

type rss struct {
	XMLName xml.Name   `xml:"rss"`
	Version string     `xml:"version,attr"`
	Atom    string     `xml:"xmlns:atom,attr"`
	Content string     `xml:"xmlns:content,attr"`
	DC      string     `xml:"xmlns:dc,attr"`
	Media   string     `xml:"xmlns:media,attr"`
	Channel rssChannel `xml:"channel"`
}

type rssChannel struct {
	Title       string     `xml:"title"`
	Link        string     `xml:"link"`
	Description string     `xml:"description"`
	Built       string     `xml:"lastBuildDate,omitempty"`
	TTL         int        `xml:"ttl"`
	Links       []atomLink `xml:"atom:link"`
	Items       []rssItem  `xml:"item"`
}

type rssItem struct {
	Title       string     `xml:"title"`
	Link        string     `xml:"link"`
	Description string     `xml:"description"`
	Encoded     string     `xml:"content:encoded"`
	Creator     string     `xml:"dc:creator"`
	Language    string     `xml:"dc:language,omitempty"`
	Categories  []string   `xml:"category"`
	GUID        rssGUID    `xml:"guid"`
	Published   string     `xml:"pubDate"`
	Media       []rssMedia `xml:"media:content"`
}

type rssGUID struct {
	IsPermaLink bool   `xml:"isPermaLink,attr"`
	Value       string `xml:",chardata"`
}

type rssMedia struct {
	URL         string `xml:"url,attr"`
	Medium      string `xml:"medium,attr"`
	Description string `xml:"media:description,omitempty"`
}

// ttl is how many minutes a feed reader may cache a response.
const ttl = 5

// RSS writes a feed as RSS 2.0, with the links of RFC 5005.
func (m Media) RSS(f Feed) ([]byte, error) {
	ch := rssChannel{Title: clean(f.Title), Link: f.Home, Description: clean(f.Description), TTL: ttl, Links: f.links("application/rss+xml")}
	if !f.Updated.IsZero() {
		ch.Built = rfc1123(f.Updated)
	}
	for _, it := range m.items(f.Posts) {
		x := rssItem{
			Title: it.title, Link: it.link, Description: it.html, Encoded: it.html, Creator: it.author, Language: it.lang,
			Categories: it.tags, GUID: rssGUID{Value: it.id}, Published: rfc1123(it.post.Published),
		}
		for _, p := range it.pictures {
			x.Media = append(x.Media, rssMedia{URL: p.url, Medium: "image", Description: p.alt})
		}
		ch.Items = append(ch.Items, x)
	}
	return document(rss{
		Version: "2.0", Atom: atomNS, Content: "http://purl.org/rss/1.0/modules/content/",
		DC: "http://purl.org/dc/elements/1.1/", Media: "http://search.yahoo.com/mrss/", Channel: ch,
	})
}

func rfc1123(t time.Time) string { return t.UTC().Format(time.RFC1123Z) }
