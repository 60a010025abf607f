package site

import (
	"cmp"
	"hash/fnv"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/services/api/internal/feeds"
	"github.com/tagstream/tagstream/services/api/internal/record"
)

// Limits of what a card shows. Posts from Bluesky's own app have at most 3,000 bytes of text; of
// longer ones only the first excerpt bytes are shown.
const (
	maxText     = 3000
	excerpt     = 1000
	maxLinks    = 60
	maxShort    = 300 // names, titles, alt texts and quoted text
	maxCardTags = 20
	openTags    = 3
	maxGrid     = 4
	avatarHues  = 8
	shortDIDEnd = 3
	// The largest size of a picture or video in pixels, equal to the style sheet's medium size.
	boxWidth, boxHeight = 640, 480
)

// Post is a post to show.
type Post struct {
	DID, Rkey, CID string
	Author         Author
	Tags, Langs    []string
	SortAt         time.Time
	Record         []byte
}

// Author is what is known about an account; every field may be "". Avatar is the picture's CID.
type Author struct{ Handle, DisplayName, Avatar string }

// Card is the template data of a post.
type Card struct {
	URI, CID, Lang        string
	Name, Handle, Profile string
	Avatar                string // a URL; "" shows the initial
	Initial               string
	Hue                   int
	Time                  Time
	// Link is the URL of the post on bsky.app, Page that of its page here.
	Link, Page string
	Text       []Text
	Cut        bool
	// Covered names the labels that cover the media, "" for none.
	Covered          string
	Media            Media
	Quote            *Quote // nil for none
	Tags, FoldedTags []Tag
	MoreTags         int
}

// Text is a run of a post's text; Href is "" if it is not a link.
type Text struct{ Text, Href string }

// Quote is a quoted post: a link and, if the post is visible, its author and an excerpt.
type Quote struct {
	DID, Rkey, Link          string
	Name, Handle, Lang, Text string
}

// Tag is a tag with its page here.
type Tag struct{ Name, URL string }

// Media is what is attached to a post.
type Media struct {
	// Pictures are the first four pictures, More the number of the others.
	Pictures []Picture
	More     int
	// Undrawn are pictures that are shown as text: as a link, or without URL as a description.
	Undrawn []Picture
	Video   *Picture
	Card    *LinkCard
}

// Picture is one picture. Width and Height are its size if it is the only one, so that the layout
// does not shift when it loads; 0 if unknown.
type Picture struct {
	Thumb, URL, Alt string
	Width, Height   int
}

// fit scales the declared aspect ratio to the box.
func (p *Picture) fit() {
	if p.Width > 0 && p.Height > 0 {
		scale := min(boxWidth/float64(p.Width), boxHeight/float64(p.Height))
		p.Width, p.Height = max(int(scale*float64(p.Width)), 1), max(int(scale*float64(p.Height)), 1)
	}
}

// LinkCard is a card for a web page.
type LinkCard struct{ URL, Title, Description, Host, Thumb string }

// Any reports whether there is something to show.
func (m Media) Any() bool {
	return len(m.Pictures)+len(m.Undrawn) > 0 || m.Video != nil || m.Card != nil
}

// Card returns the card of a post; root is the relative URL from the page to the site's root.
func (s *Site) Card(p Post, root string, now time.Time) Card {
	rec := record.Parse(p.Record)
	uri := event.URI(p.DID, p.Rkey)
	c := Card{
		URI: uri, CID: p.CID, Profile: record.ProfileURL(p.DID), Time: At(p.SortAt, now),
		Link: record.PostURL(uri), Page: root + "post/" + url.PathEscape(p.DID) + "/" + url.PathEscape(p.Rkey),
		Covered: shorten(strings.Join(rec.Labels, ", ")),
	}
	if did, rkey, ok := record.PostName(rec.Quote); ok {
		c.Quote = &Quote{DID: did, Rkey: rkey, Link: record.PostURL(rec.Quote)}
	}
	c.author(p, s.media == feeds.MediaCDN)
	if len(p.Langs) > 0 {
		c.Lang = p.Langs[0]
	}
	c.text(rec.Spans, root)
	for i, tag := range p.Tags[:min(len(p.Tags), maxCardTags)] {
		t := Tag{shorten(tag), TagURL(root, tag)}
		if i < openTags {
			c.Tags = append(c.Tags, t)
		} else {
			c.FoldedTags = append(c.FoldedTags, t)
		}
	}
	c.MoreTags = len(p.Tags) - len(c.Tags)
	c.Media = s.attached(p.DID, c.Link, rec)
	return c
}

// Fill adds the quoted post's author and an excerpt.
func (q *Quote) Fill(p Post) {
	var c Card
	c.author(p, false)
	q.Name, q.Handle, q.Text = c.Name, c.Handle, shorten(strings.TrimSpace(record.Parse(p.Record).Text()))
	if len(p.Langs) > 0 {
		q.Lang = p.Langs[0]
	}
}

// URI returns the post's at-uri.
func (q *Quote) URI() string { return event.URI(q.DID, q.Rkey) }

func (c *Card) author(p Post, pictures bool) {
	id := p.DID[strings.LastIndexByte(p.DID, ':')+1:]
	c.Handle = shorten(p.Author.Handle)
	if c.Handle == "" || c.Handle == "handle.invalid" {
		c.Handle = shortDID(p.DID)
	}
	c.Name = shorten(cmp.Or(strings.TrimSpace(p.Author.DisplayName), c.Handle))
	initial := cmp.Or(strings.TrimSpace(p.Author.DisplayName), strings.TrimSpace(p.Author.Handle), id)
	r, _ := utf8.DecodeRuneInString(initial)
	c.Initial = strings.ToUpper(string(r))
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(p.DID)) // never fails
	c.Hue = int(sum.Sum32() % avatarHues)
	if pictures && p.Author.Avatar != "" {
		c.Avatar = record.ImageURL(record.Avatar, p.DID, url.PathEscape(p.Author.Avatar))
	}
}

// shortDID returns an abbreviated DID that people can tell apart from others.
func shortDID(did string) string {
	const plc, start = "did:plc:", 6
	id, ok := strings.CutPrefix(did, plc)
	if !ok || len(id) <= start+shortDIDEnd {
		return shorten(did)
	}
	return plc + id[:start] + "…" + id[len(id)-shortDIDEnd:]
}

// shorten cuts a text to maxShort.
func shorten(s string) string {
	if s, cut := cutText(s, maxShort); cut {
		return s + "…"
	}
	return s
}

// text adds as much of the text as a card shows. Links after the first maxLinks become plain text.
func (c *Card) text(spans []record.Span, root string) {
	left, links := 0, 0
	for _, span := range spans {
		left += len(span.Text)
	}
	if left > maxText {
		left = excerpt
	}
	for _, span := range spans {
		part, cut := cutText(span.Text, left)
		left -= len(part)
		t := Text{Text: part}
		if span.Kind != record.Plain && links < maxLinks {
			links++
			switch span.Kind {
			case record.URL:
				t.Href = span.Target
			case record.Mention:
				t.Href = record.ProfileURL(span.Target)
			case record.Tag:
				t.Href = TagURL(root, span.Target)
			}
		}
		if n := len(c.Text); n > 0 && t.Href == "" && c.Text[n-1].Href == "" {
			c.Text[n-1].Text += part
		} else if part != "" {
			c.Text = append(c.Text, t)
		}
		if cut {
			c.Cut = true
			return
		}
	}
}

// attached returns a post's attachments, with pictures as the operator configured.
func (s *Site) attached(did, link string, rec *record.Post) (m Media) {
	for _, im := range rec.Images {
		p := Picture{
			Thumb: record.ImageURL(record.Thumbnail, did, im.CID), URL: record.ImageURL(record.Fullsize, did, im.CID),
			Alt: shorten(im.Alt), Width: im.Width, Height: im.Height,
		}
		p.fit()
		switch {
		case s.media == feeds.MediaOff:
			m.Undrawn = append(m.Undrawn, Picture{Alt: p.Alt})
		case s.media == feeds.MediaLink:
			m.Undrawn = append(m.Undrawn, p)
		case len(m.Pictures) < maxGrid:
			m.Pictures = append(m.Pictures, p)
		default:
			m.More++
		}
	}
	if v := rec.Video; v != nil {
		m.Video = &Picture{URL: link, Alt: shorten(v.Alt), Width: v.Width, Height: v.Height}
		m.Video.fit()
		if s.media == feeds.MediaCDN {
			m.Video.Thumb = record.VideoThumbURL(did, v.CID)
		}
	}
	if l := rec.Link; l != nil {
		m.Card = &LinkCard{URL: l.URL, Title: shorten(l.Title), Description: shorten(l.Description)}
		if u, err := url.Parse(l.URL); err == nil {
			m.Card.Host = shorten(u.Hostname())
		}
		m.Card.Title = cmp.Or(m.Card.Title, m.Card.Host)
		if l.Thumb != "" && s.media == feeds.MediaCDN {
			m.Card.Thumb = record.ImageURL(record.Thumbnail, did, l.Thumb)
		}
	}
	return m
}

// Grid returns the CSS classes for the layout of the pictures.
func (m Media) Grid() string { return "grid grid" + strconv.Itoa(len(m.Pictures)) }

// MoreLabel returns the number of further pictures, such as "+3".
func (m Media) MoreLabel() string { return "+" + strconv.Itoa(m.More) }
