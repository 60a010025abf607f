package record

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

const cid = "bafkreibme22gw2h7y2h7tg2fhqotaqjucnbc24deqo72b6mkl2egezxhvy"

func TestText(t *testing.T) {
	t.Parallel()
	link := func(start, end string) string {
		return `{"index":{"byteStart":` + start + `,"byteEnd":` + end + `},"features":[{"$type":"app.bsky.richtext.facet#link","uri":"https://example.com/a"}]}`
	}
	for name, c := range map[string]struct {
		text, facets string
		want         []Span
	}{
		"no facets":   {"hello", `[]`, []Span{{Text: "hello"}}},
		"empty":       {"", `[]`, nil},
		"bytes":       {"é link", "[" + link("3", "7") + "]", []Span{{Text: "é "}, {URL, "link", "https://example.com/a"}}},
		"unsorted":    {"ab cd", "[" + link("3", "5") + "," + link("0", "2") + "]", []Span{{URL, "ab", "https://example.com/a"}, {Text: " "}, {URL, "cd", "https://example.com/a"}}},
		"overlapping": {"abcd", "[" + link("0", "3") + "," + link("2", "4") + "]", []Span{{URL, "abc", "https://example.com/a"}, {Text: "d"}}},
		"inverted":    {"abcd", "[" + link("3", "1") + "]", []Span{{Text: "abcd"}}},
		"beyond":      {"abcd", "[" + link("2", "9") + "]", []Span{{Text: "abcd"}}},
		"negative":    {"abcd", "[" + link("-1", "2") + "]", []Span{{Text: "abcd"}}},
		"inside é":    {"é", "[" + link("1", "2") + "]", []Span{{Text: "é"}}},
		"a number":    {"abcd", "[7," + link("0", "4") + "]", []Span{{URL, "abcd", "https://example.com/a"}}},
		"script": {"abcd", `[{"index":{"byteStart":0,"byteEnd":4},"features":[{"$type":"app.bsky.richtext.facet#link","uri":"javascript:alert(1)"}]}]`,
			[]Span{{Text: "abcd"}}},
		"mention and tag": {"@a #b", `[{"index":{"byteStart":0,"byteEnd":2},"features":[{"$type":"app.bsky.richtext.facet#mention","did":"did:plc:abc"}]},
			{"index":{"byteStart":3,"byteEnd":5},"features":[{"$type":"unknown"},{"$type":"app.bsky.richtext.facet#tag","tag":"b"}]}]`,
			[]Span{{Mention, "@a", "did:plc:abc"}, {Text: " "}, {Tag, "#b", "b"}}},
		"facets are an object": {"abcd", `{"a":1}`, []Span{{Text: "abcd"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := json.Marshal(c.text)
			require.NoError(t, err)
			p := Parse(json.RawMessage(`{"text":` + string(text) + `,"facets":` + c.facets + `}`))
			require.Equal(t, c.want, p.Spans)
			require.Equal(t, c.text, p.Text())
		})
	}
}

func TestEmbeds(t *testing.T) {
	t.Parallel()
	blob := `{"$type":"blob","ref":{"$link":"` + cid + `"},"mimeType":"image/jpeg","size":3}`
	image := `{"alt":"a cat","image":` + blob + `,"aspectRatio":{"width":4,"height":3}}`
	images := `{"$type":"app.bsky.embed.images","images":[` + image + `,{"alt":"nothing"},7]}`
	want := []Image{{CID: cid, Alt: "a cat", Width: 4, Height: 3}}
	for name, c := range map[string]struct {
		embed string
		want  Post
	}{
		"images":     {images, Post{Images: want}},
		"early blob": {`{"$type":"app.bsky.embed.images","images":[{"alt":"a","image":{"cid":"` + cid + `","mimeType":"image/png"}}]}`, Post{Images: []Image{{CID: cid, Alt: "a"}}}},
		"gallery":    {`{"$type":"app.bsky.embed.gallery","items":[` + image + `]}`, Post{Images: want}},
		"video":      {`{"$type":"app.bsky.embed.video","video":` + blob + `,"alt":"moves","aspectRatio":{"width":16,"height":9}}`, Post{Video: &Image{cid, "moves", 16, 9}}},
		"link": {`{"$type":"app.bsky.embed.external","external":{"uri":"https://example.com/x y","title":"T","description":"D","thumb":` + blob + `}}`,
			Post{Link: &Link{"https://example.com/x%20y", "T", "D", cid}}},
		"a link to no web page": {`{"$type":"app.bsky.embed.external","external":{"uri":"data:text/html,x","title":"T"}}`, Post{}},
		"quote":                 {`{"$type":"app.bsky.embed.record","record":{"uri":"at://did:plc:a/app.bsky.feed.post/3","cid":"x"}}`, Post{Quote: "at://did:plc:a/app.bsky.feed.post/3"}},
		"quote with images": {`{"$type":"app.bsky.embed.recordWithMedia","record":{"record":{"uri":"at://did:plc:a/app.bsky.feed.post/3"}},"media":` + images + `}`,
			Post{Quote: "at://did:plc:a/app.bsky.feed.post/3", Images: want}},
		"nested in itself": {`{"$type":"app.bsky.embed.recordWithMedia","media":{"$type":"app.bsky.embed.recordWithMedia"}}`, Post{}},
		"a path as a CID":  {`{"$type":"app.bsky.embed.video","video":{"ref":{"$link":"../../x"}}}`, Post{}},
		"a string":         {`"x"`, Post{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, &c.want, Parse(json.RawMessage(`{"embed":`+c.embed+`}`)))
		})
	}
}

func TestLabels(t *testing.T) {
	t.Parallel()
	p := Parse(json.RawMessage(`{"labels":{"$type":"com.atproto.label.defs#selfLabels","values":[{"val":"porn"},{"val":3},{"val":"nudity"}]}}`))
	require.Equal(t, []string{"porn", "nudity"}, p.Labels)
}

// FuzzParse: text is never cut inside a character, and links have safe schemes.
func FuzzParse(f *testing.F) {
	f.Add(`{"text":"é #a","facets":[{"index":{"byteStart":3,"byteEnd":5},"features":[{"$type":"app.bsky.richtext.facet#tag","tag":"a"}]}]}`)
	f.Add(`{"text":1,"facets":7,"embed":[],"labels":"x"}`)
	f.Fuzz(func(t *testing.T, raw string) {
		p := Parse(json.RawMessage(raw))
		for _, s := range p.Spans {
			require.NotEmpty(t, s.Text)
			require.True(t, utf8.ValidString(s.Text))
			if s.Kind == URL {
				require.True(t, strings.HasPrefix(s.Target, "http://") || strings.HasPrefix(s.Target, "https://"), s.Target)
			}
		}
	})
}
