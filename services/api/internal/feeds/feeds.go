// Package feeds writes lists of posts as RSS 2.0, Atom (RFC 4287) and JSON Feed 1.1, and lists of
// feeds as OPML 2.0.
//
// Text from posts is escaped, and characters that XML cannot hold are removed, so every document
// parses whatever a post contains. An item's id is the post's at-uri, which never changes; its link
// is the post on bsky.app.
package feeds

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html"
	"slices"
	"strings"
	"time"

	"github.com/rivo/uniseg"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/services/api/internal/record"
)

// maxTitle bounds an item's title, in graphemes.
const maxTitle = 80

// Media says how pictures are shown.
type Media string

// The ways to show pictures.
const (
	MediaCDN  Media = "cdn"  // from Bluesky's CDN
	MediaLink Media = "link" // as links to the CDN
	MediaOff  Media = "off"  // only as their alt texts
)

// Feed is a page of a feed. All URLs are absolute.
type Feed struct {
	Title, Description string
	// Self is the page itself, Home the page for browsers.
	Self, Home string
	// Next has older posts, Previous newer ones, First is the newest page (RFC 5005); "" if there
	// is none.
	Next, Previous, First string
	// Updated is when the newest item changed; zero for an empty feed.
	Updated time.Time
	Posts   []Post
}

// Post is a post of the index.
type Post struct {
	DID, Rkey   string
	Tags, Langs []string
	// Published is the post's sortAt, Updated when its record last changed.
	Published, Updated time.Time
	Record             json.RawMessage
}

// item is a post with the parts that all formats share.
type item struct {
	id, link, title, html, text string
	author, profile             string
	lang                        string
	tags                        []string
	pictures                    []picture
	post                        Post
}

type picture struct{ url, alt string }

func (m Media) items(posts []Post) []item {
	items := make([]item, len(posts))
	for i, p := range posts {
		items[i] = m.item(p)
	}
	return items
}

func (m Media) item(p Post) item {
	rec := record.Parse(p.Record)
	uri := event.URI(p.DID, p.Rkey)
	it := item{
		id: uri, link: record.PostURL(uri), text: clean(rec.Text()), author: p.DID, profile: record.ProfileURL(p.DID), post: p,
	}
	for _, tag := range p.Tags {
		if tag = clean(tag); tag != "" {
			it.tags = append(it.tags, tag)
		}
	}
	if len(p.Langs) > 0 {
		it.lang = p.Langs[0]
	}
	var b strings.Builder
	b.WriteString("<p>")
	for _, s := range rec.Spans {
		b.WriteString(spanHTML(s))
	}
	b.WriteString("</p>")
	it.media(&b, m, rec)
	it.html = clean(b.String())
	it.title = title(it.text, rec, p.Tags)
	return it
}

// media adds a post's attachments to the text, and its pictures to the item. If the author labelled
// the post, pictures become links that name the labels.
func (it *item) media(b *strings.Builder, m Media, rec *record.Post) {
	labels := strings.Join(rec.Labels, ", ")
	show := func(cid, alt string) {
		full := record.ImageURL(record.Fullsize, it.post.DID, cid)
		caption := alt
		if labels != "" {
			caption = strings.TrimSuffix("Labelled "+labels+" by its author: "+alt, ": ")
		}
		switch {
		case m == MediaOff:
			if caption != "" {
				fmt.Fprintf(b, "<p>[%s]</p>", html.EscapeString(caption))
			}
		case m == MediaLink || labels != "":
			if caption == "" {
				caption = "Picture"
			}
			fmt.Fprintf(b, `<p><a href="%s" rel="nofollow ugc noopener">%s</a></p>`, full, html.EscapeString(caption))
		default:
			fmt.Fprintf(b, `<p><img src="%s" alt="%s"></p>`, full, html.EscapeString(alt))
			it.pictures = append(it.pictures, picture{full, clean(alt)})
		}
	}
	for _, im := range rec.Images {
		show(im.CID, im.Alt)
	}
	if v := rec.Video; v != nil {
		fmt.Fprintf(b, `<p><a href="%s">%s</a></p>`, html.EscapeString(it.link), html.EscapeString(strings.TrimSuffix("Video: "+v.Alt, ": ")))
	}
	if l := rec.Link; l != nil {
		if l.Thumb != "" && labels == "" && m == MediaCDN {
			thumb := record.ImageURL(record.Thumbnail, it.post.DID, l.Thumb)
			fmt.Fprintf(b, `<p><img src="%s" alt=""></p>`, thumb)
			it.pictures = append(it.pictures, picture{url: thumb})
		}
		name := l.Title
		if name == "" {
			name = l.URL
		}
		fmt.Fprintf(b, `<blockquote><a href="%s" rel="nofollow ugc noopener">%s</a>`, html.EscapeString(l.URL), html.EscapeString(name))
		if l.Description != "" {
			b.WriteString("<br>" + html.EscapeString(l.Description))
		}
		b.WriteString("</blockquote>")
	}
	if quote := record.PostURL(rec.Quote); quote != "" {
		fmt.Fprintf(b, `<p><a href="%s" rel="nofollow ugc noopener">Quoted post</a></p>`, html.EscapeString(quote))
	}
}

func spanHTML(s record.Span) string {
	text := strings.ReplaceAll(html.EscapeString(s.Text), "\n", "<br>")
	var target string
	switch s.Kind {
	case record.URL:
		target = s.Target
	case record.Mention:
		target = record.ProfileURL(s.Target)
	case record.Tag:
		target = record.HashtagURL(s.Target)
	default:
		return text
	}
	return `<a href="` + html.EscapeString(target) + `" rel="nofollow ugc noopener">` + text + `</a>`
}

// title returns the first line of the text that is not empty, cut to maxTitle. Without a text it
// returns the first alt text, the link's title, or the tags.
func title(text string, rec *record.Post, tags []string) string {
	candidates := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	for _, im := range rec.Images {
		candidates = append(candidates, im.Alt)
	}
	if rec.Link != nil {
		candidates = append(candidates, rec.Link.Title)
	}
	candidates = append(candidates, "#"+strings.Join(tags, " #"))
	for _, c := range candidates {
		if c = strings.Join(strings.Fields(clean(c)), " "); c != "" {
			return cut(c)
		}
	}
	return "Post"
}

// cut shortens a text that is longer than maxTitle.
func cut(s string) string {
	graphemes := uniseg.NewGraphemes(s)
	for n := 1; graphemes.Next(); n++ {
		if end, _ := graphemes.Positions(); n == maxTitle && graphemes.Next() {
			return strings.TrimSpace(s[:end]) + "…"
		}
	}
	return s
}

// clean removes the characters that XML 1.0 cannot contain (its production Char).
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' || r == '\r' || r >= 0x20 && r <= 0xD7FF || r >= 0xE000 && r <= 0xFFFD || r >= 0x10000 {
			return r
		}
		return -1
	}, s)
}

// document returns v as XML with its declaration.
func document(v any) ([]byte, error) {
	body, err := xml.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write XML: %w", err)
	}
	return slices.Concat([]byte(xml.Header), body, []byte("\n")), nil
}
