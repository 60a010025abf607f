// Package record reads app.bsky.feed.post records for display: the text cut at its facets, the
// pictures, the link, the quoted post and the author's own labels.
//
// Records are untrusted. Parse never fails: a part that does not match the lexicon is left out, and
// the rest is kept.
package record

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tagstream/tagstream/pkg/event"
)

// Limits of what one post shows. The lexicon allows four images and a gallery of twenty.
const (
	maxImages = 20
	maxFacets = 1000
)

// Post is the displayable part of a record.
type Post struct {
	// Spans are consecutive and cover the whole text.
	Spans  []Span
	Images []Image
	// Video is the attached video, nil if there is none.
	Video *Image
	// Link is the attached link card, nil if there is none.
	Link *Link
	// Quote is the at-uri of the quoted record, "" if there is none.
	Quote string
	// Labels are the author's own labels of the media, such as "porn"
	// (com.atproto.label.defs#selfLabels).
	Labels []string
}

// Kind is the kind of a span.
type Kind int

// The kinds of spans.
const (
	Plain   Kind = iota
	URL          // Target is an http or https URL
	Mention      // Target is the DID
	Tag          // Target is the tag as written, without #
)

// Span is a run of text.
type Span struct {
	Kind   Kind
	Text   string
	Target string
}

// Image is a picture or a video: a blob of the author's repository.
type Image struct {
	CID string
	Alt string
	// Width and Height are the declared aspect ratio, 0 if there is none.
	Width, Height int
}

// Link is a card for a web page.
type Link struct {
	URL, Title, Description string
	// Thumb is the CID of the card's picture, "" if there is none.
	Thumb string
}

// Text returns the whole text.
func (p *Post) Text() string {
	var b strings.Builder
	for _, s := range p.Spans {
		b.WriteString(s.Text)
	}
	return b.String()
}

// Parse reads a record.
func Parse(raw json.RawMessage) *Post {
	var r struct {
		Text   loose[string]         `json:"text"`
		Facets loose[[]loose[facet]] `json:"facets"`
		Embed  loose[quote]          `json:"embed"`
	}
	p := &Post{}
	if json.Unmarshal(raw, &r) != nil {
		return p
	}
	p.Spans = cut(r.Text.v, r.Facets.v)
	p.Quote = r.Embed.v.uri()
	kind, media, labels := event.Media(raw)
	p.Labels = labels
	var e embed
	if kind != 0 && json.Unmarshal(media, &e) == nil {
		p.attach(kind, &e)
	}
	return p
}

// loose is a field that stays zero if the record has a value of another type there.
type loose[T any] struct{ v T }

func (l *loose[T]) UnmarshalJSON(data []byte) error {
	var v T
	if json.Unmarshal(data, &v) == nil {
		l.v = v
	}
	return nil
}

// quote is an embed with a reference: app.bsky.embed.record or recordWithMedia.
type quote struct {
	Type   loose[string] `json:"$type"`
	Record loose[struct {
		URI    loose[string] `json:"uri"`
		Record loose[struct {
			URI loose[string] `json:"uri"`
		}] `json:"record"`
	}] `json:"record"`
}

func (q quote) uri() string {
	switch q.Type.v {
	case "app.bsky.embed.record":
		return q.Record.v.URI.v
	case "app.bsky.embed.recordWithMedia":
		return q.Record.v.Record.v.URI.v
	}
	return ""
}

// blob is a reference to a file, in the current or the early form.
type blob struct {
	Ref loose[struct {
		Link loose[string] `json:"$link"`
	}] `json:"ref"`
	CID loose[string] `json:"cid"`
}

func (b blob) id() string {
	if cid := b.Ref.v.Link.v; cid != "" {
		return cid
	}
	return b.CID.v
}

type image struct {
	Image loose[blob]   `json:"image"`
	Alt   loose[string] `json:"alt"`
	Ratio loose[ratio]  `json:"aspectRatio"`
}

type ratio struct {
	Width  loose[int] `json:"width"`
	Height loose[int] `json:"height"`
}

// embed is an embed with media: app.bsky.embed.images, gallery, video or external.
type embed struct {
	Images loose[[]loose[image]] `json:"images"`
	Items  loose[[]loose[image]] `json:"items"`
	Video  loose[blob]           `json:"video"`
	Alt    loose[string]         `json:"alt"`
	Ratio  loose[ratio]          `json:"aspectRatio"`
	Link   loose[struct {
		URI         loose[string] `json:"uri"`
		Title       loose[string] `json:"title"`
		Description loose[string] `json:"description"`
		Thumb       loose[blob]   `json:"thumb"`
	}] `json:"external"`
}

func (p *Post) attach(kind event.Traits, e *embed) {
	switch kind {
	case event.HasImage:
		p.images(e.Images.v)
	case event.HasGallery:
		p.images(e.Items.v)
	case event.HasVideo:
		if v, ok := shown(e.Video.v, e.Alt.v, e.Ratio.v); ok {
			p.Video = &v
		}
	case event.HasLink:
		if target, ok := webURL(e.Link.v.URI.v); ok {
			p.Link = &Link{URL: target, Title: e.Link.v.Title.v, Description: e.Link.v.Description.v}
			if cid := e.Link.v.Thumb.v.id(); validBlob(cid) {
				p.Link.Thumb = cid
			}
		}
	}
}

func (p *Post) images(all []loose[image]) {
	for _, im := range all {
		if one, ok := shown(im.v.Image.v, im.v.Alt.v, im.v.Ratio.v); ok && len(p.Images) < maxImages {
			p.Images = append(p.Images, one)
		}
	}
}

// shown returns a picture or a video; ok is false if it has no valid file.
func shown(file blob, alt string, r ratio) (one Image, ok bool) {
	one = Image{CID: file.id(), Alt: alt}
	if w, h := r.Width.v, r.Height.v; w > 0 && h > 0 {
		one.Width, one.Height = w, h
	}
	return one, validBlob(one.CID)
}

// facet is an app.bsky.richtext.facet. Its index is in bytes of UTF-8, the end exclusive.
type facet struct {
	Index loose[struct {
		Start *int `json:"byteStart"`
		End   *int `json:"byteEnd"`
	}] `json:"index"`
	Features loose[[]loose[struct {
		Type loose[string] `json:"$type"`
		URI  loose[string] `json:"uri"`
		DID  loose[string] `json:"did"`
		Tag  loose[string] `json:"tag"`
	}]] `json:"features"`
}

// run is a part of the text that a facet covers.
type run struct {
	start, end int
	span       Span
}

// cut cuts a text at its facets, in the order of the text. It ignores a facet that overlaps an
// earlier one, is empty or inverted, or begins or ends inside a character or outside the text.
func cut(text string, facets []loose[facet]) []Span {
	var runs []run
	for _, f := range facets[:min(len(facets), maxFacets)] {
		if r, ok := f.v.run(text); ok {
			runs = append(runs, r)
		}
	}
	slices.SortStableFunc(runs, func(a, b run) int { return a.start - b.start })
	var spans []Span
	at := 0
	plain := func(end int) {
		if end > at {
			spans = append(spans, Span{Text: text[at:end]})
		}
	}
	for _, r := range runs {
		if r.start < at {
			continue
		}
		plain(r.start)
		spans, at = append(spans, r.span), r.end
	}
	plain(len(text))
	return spans
}

func (f *facet) run(text string) (run, bool) {
	start, end := f.Index.v.Start, f.Index.v.End
	if start == nil || end == nil || *start < 0 || *start >= *end || *end > len(text) || !boundary(text, *start) || !boundary(text, *end) {
		return run{}, false
	}
	r := run{*start, *end, Span{Text: text[*start:*end]}}
	for _, feature := range f.Features.v {
		switch f := feature.v; f.Type.v {
		case "app.bsky.richtext.facet#link":
			if target, ok := webURL(f.URI.v); ok {
				r.span.Kind, r.span.Target = URL, target
				return r, true
			}
		case "app.bsky.richtext.facet#mention":
			if event.ValidDID(f.DID.v) {
				r.span.Kind, r.span.Target = Mention, f.DID.v
				return r, true
			}
		case "app.bsky.richtext.facet#tag":
			if f.Tag.v != "" {
				r.span.Kind, r.span.Target = Tag, f.Tag.v
				return r, true
			}
		}
	}
	return run{}, false
}

// validBlob reports whether a CID has a form that blobs can have: base32 or base58, which needs no
// escaping in a URL.
func validBlob(cid string) bool {
	const maxBytes = 100
	if cid == "" || len(cid) > maxBytes {
		return false
	}
	for _, c := range []byte(cid) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

// boundary reports whether a byte offset is at the start or end of a character.
func boundary(text string, i int) bool { return i == len(text) || utf8.RuneStart(text[i]) }

// webURL returns an http or https URL in its escaped form.
func webURL(s string) (string, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return "", false
	}
	return u.String(), true
}
