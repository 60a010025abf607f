package feeds

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/mmcdole/gofeed"
	gofeedatom "github.com/mmcdole/gofeed/atom"
	"github.com/rivo/uniseg"
	"github.com/stretchr/testify/require"
)

const cid = "bafkreibme22gw2h7y2h7tg2fhqotaqjucnbc24deqo72b6mkl2egezxhvy"

var published = time.Date(2026, 11, 20, 21, 44, 58, 123456000, time.UTC)

func post(rec string) Post {
	return Post{
		DID: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", Rkey: "3m5xk2u7ab2c2", Tags: []string{"art", "<b>&"}, Langs: []string{"en", "de"},
		Published: published, Updated: published.Add(time.Hour), Record: json.RawMessage(rec),
	}
}

func feed(posts ...Post) Feed {
	return Feed{
		Title: "Posts tagged #art & #photo", Description: "any of", Self: "https://x.example/feed?tags=art&after=2", Home: "https://x.example/?tags=art",
		First: "https://x.example/feed?tags=art", Next: "https://x.example/feed?tags=art&after=3", Previous: "https://x.example/feed?tags=art&before=1",
		Updated: published, Posts: posts,
	}
}

const rich = `{"text":"First <line>\nsecond #art","facets":[{"index":{"byteStart":20,"byteEnd":24},"features":[{"$type":"app.bsky.richtext.facet#tag","tag":"art"}]}],
	"embed":{"$type":"app.bsky.embed.images","images":[{"alt":"a \"cat\"","image":{"ref":{"$link":"` + cid + `"}}}]}}`

const richHTML = `<p>First &lt;line&gt;<br>second <a href="https://bsky.app/hashtag/art" rel="nofollow ugc noopener">#art</a></p>` +
	`<p><img src="https://cdn.bsky.app/img/feed_fullsize/plain/did:plc:ewvi7nxzyoun6zhxrhs64oiz/` + cid + `" alt="a &#34;cat&#34;"></p>`

const (
	richID   = "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3m5xk2u7ab2c2"
	richLink = "https://bsky.app/profile/did:plc:ewvi7nxzyoun6zhxrhs64oiz/post/3m5xk2u7ab2c2"
)

// TestParsers reads each format back with an independent parser.
func TestParsers(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(Feed) ([]byte, error){"rss": MediaCDN.RSS, "atom": MediaCDN.Atom, "json": MediaCDN.JSON} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body, err := write(feed(post(rich)))
			require.NoError(t, err)
			f, err := gofeed.NewParser().Parse(bytes.NewReader(body))
			require.NoError(t, err)
			require.Equal(t, name, f.FeedType)
			require.Equal(t, "Posts tagged #art & #photo", f.Title)
			require.Equal(t, "any of", f.Description)
			require.Equal(t, "https://x.example/?tags=art", f.Link)
			require.Equal(t, "https://x.example/feed?tags=art&after=2", f.FeedLink)
			require.Len(t, f.Items, 1)
			it := f.Items[0]
			require.Equal(t, richID, it.GUID)
			require.Equal(t, richLink, it.Link)
			require.Equal(t, "First <line>", it.Title)
			require.Equal(t, richHTML, it.Content)
			require.Equal(t, []string{"art", "<b>&"}, it.Categories)
			require.Equal(t, published.Truncate(time.Second), it.PublishedParsed.UTC())
			require.Equal(t, "did:plc:ewvi7nxzyoun6zhxrhs64oiz", it.Authors[0].Name)
			if name != "rss" {
				require.Equal(t, published.Add(time.Hour).Truncate(time.Second), it.UpdatedParsed.UTC())
			}
		})
	}
}

func TestPagingLinks(t *testing.T) {
	t.Parallel()
	body, err := MediaCDN.Atom(feed())
	require.NoError(t, err)
	a, err := (&gofeedatom.Parser{}).Parse(bytes.NewReader(body))
	require.NoError(t, err)
	links := map[string]string{}
	for _, l := range a.Links {
		links[l.Rel] = l.Href
	}
	require.Equal(t, map[string]string{
		"self": "https://x.example/feed?tags=art&after=2", "first": "https://x.example/feed?tags=art",
		"next": "https://x.example/feed?tags=art&after=3", "previous": "https://x.example/feed?tags=art&before=1",
		"alternate": "https://x.example/?tags=art",
	}, links)
	last := feed()
	last.Next = ""
	body, err = MediaCDN.JSON(last)
	require.NoError(t, err)
	require.NotContains(t, string(body), "next_url")
	require.Contains(t, string(body), `"items":[]`)
}

func TestMedia(t *testing.T) {
	t.Parallel()
	images := `{"$type":"app.bsky.embed.images","images":[{"alt":"a cat","image":{"ref":{"$link":"` + cid + `"}}}]}`
	full := "https://cdn.bsky.app/img/feed_fullsize/plain/did:plc:ewvi7nxzyoun6zhxrhs64oiz/" + cid
	for name, c := range map[string]struct {
		media    Media
		record   string
		want     string
		pictures int
	}{
		"cdn":  {MediaCDN, `{"embed":` + images + `}`, `<p><img src="` + full + `" alt="a cat"></p>`, 1},
		"link": {MediaLink, `{"embed":` + images + `}`, `<p><a href="` + full + `" rel="nofollow ugc noopener">a cat</a></p>`, 0},
		"off":  {MediaOff, `{"embed":` + images + `}`, `<p>[a cat]</p>`, 0},
		"labelled": {MediaCDN, `{"embed":` + images + `,"labels":{"values":[{"val":"porn"}]}}`,
			`<p><a href="` + full + `" rel="nofollow ugc noopener">Labelled porn by its author: a cat</a></p>`, 0},
		"labelled, no link": {MediaOff, `{"embed":` + images + `,"labels":{"values":[{"val":"porn"}]}}`, `<p>[Labelled porn by its author: a cat]</p>`, 0},
		"link card": {MediaCDN, `{"embed":{"$type":"app.bsky.embed.external","external":{"uri":"https://e.example/?a=1&b=2","title":"<T>","description":"D"}}}`,
			`<blockquote><a href="https://e.example/?a=1&amp;b=2" rel="nofollow ugc noopener">&lt;T&gt;</a><br>D</blockquote>`, 0},
		"quote": {MediaCDN, `{"embed":{"$type":"app.bsky.embed.record","record":{"uri":"at://did:plc:a/app.bsky.feed.post/3"}}}`,
			`<p><a href="https://bsky.app/profile/did:plc:a/post/3" rel="nofollow ugc noopener">Quoted post</a></p>`, 0},
		"quoted list": {MediaCDN, `{"embed":{"$type":"app.bsky.embed.record","record":{"uri":"at://did:plc:a/app.bsky.graph.list/3"}}}`, ``, 0},
		"script":      {MediaCDN, `{"text":"<script>alert(1)</script>"}`, `<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			it := c.media.item(post(c.record))
			require.Equal(t, c.want, strings.TrimPrefix(it.html, "<p></p>"))
			require.Len(t, it.pictures, c.pictures)
		})
	}
}

func TestTitles(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("👩‍👩‍👧 ", 100)
	for name, c := range map[string]struct{ text, embed, want string }{
		"first line":    {"\n\n  Hello \t there \nsecond", `null`, "Hello there"},
		"80 is not cut": {strings.Repeat("é", 80), `null`, strings.Repeat("é", 80)},
		"81 is cut":     {strings.Repeat("é", 81), `null`, strings.Repeat("é", 79) + "…"},
		"alt text":      {"", `{"$type":"app.bsky.embed.images","images":[{"alt":"a cat","image":{"ref":{"$link":"` + cid + `"}}}]}`, "a cat"},
		"tags":          {" ", `null`, "#art #<b>&"},
		"control only":  {"\x01", `null`, "#art #<b>&"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := json.Marshal(c.text)
			require.NoError(t, err)
			it := MediaCDN.item(post(`{"text":` + string(text) + `,"embed":` + c.embed + `}`))
			require.Equal(t, c.want, it.title)
		})
	}
	text, err := json.Marshal(long)
	require.NoError(t, err)
	it := MediaCDN.item(post(`{"text":` + string(text) + `}`))
	require.LessOrEqual(t, uniseg.GraphemeClusterCount(it.title), maxTitle)
}

func TestOPML(t *testing.T) {
	t.Parallel()
	body, err := OPML("Tags", []Subscription{{"#a&b", "https://x.example/a?x=1&y=2", "https://x.example/"}})
	require.NoError(t, err)
	require.Equal(t, xml.Header+`<opml version="2.0"><head><title>Tags</title></head><body>`+
		`<outline type="rss" text="#a&amp;b" xmlUrl="https://x.example/a?x=1&amp;y=2" htmlUrl="https://x.example/"></outline></body></opml>`+"\n", string(body))
}

// FuzzFeeds: every document is well-formed, whatever a post contains.
func FuzzFeeds(f *testing.F) {
	f.Add(rich, "art")
	f.Add(`{"text":"\u0000\u001f\ufffe ]]> &amp;"}`, "\x0b")
	f.Fuzz(func(t *testing.T, rec, tag string) {
		p := post(rec)
		p.Tags = []string{tag}
		for _, write := range []func(Feed) ([]byte, error){MediaCDN.RSS, MediaCDN.Atom} {
			body, err := write(feed(p))
			require.NoError(t, err)
			d := xml.NewDecoder(bytes.NewReader(body))
			for err == nil {
				_, err = d.Token()
			}
			require.ErrorIs(t, err, io.EOF)
		}
		body, err := MediaCDN.JSON(feed(p))
		require.NoError(t, err)
		require.True(t, json.Valid(body))
	})
}
