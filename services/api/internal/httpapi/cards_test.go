package httpapi

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/services/api/internal/feeds"
)

// TestCards: a card shows the parts of a post, within its limits.
func TestCards(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	image := func(n int) string {
		one := `{"alt":"<alt> & \"more\"","image":{"ref":{"$link":"bafkimage"}},"aspectRatio":{"width":4,"height":3}}`
		return `{"$type":"app.bsky.embed.images","images":[` + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + `]}`
	}
	posts := map[string]string{}
	add := func(rkey, record string, tags ...string) {
		posts[rkey] = x.rich(t, rkey, t0.Add(time.Duration(len(posts))*time.Second), record, append(tags, "art")...)
	}
	add("pictures", `{"text":"six","embed":`+image(6)+`}`)
	add("labelled", `{"text":"one","embed":`+image(1)+`,"labels":{"values":[{"val":"<porn>"}]}}`)
	add("facets", `{"text":"see x #y @z","facets":[
		{"index":{"byteStart":4,"byteEnd":5},"features":[{"$type":"app.bsky.richtext.facet#link","uri":"javascript:alert(1)"}]},
		{"index":{"byteStart":6,"byteEnd":8},"features":[{"$type":"app.bsky.richtext.facet#tag","tag":"y"}]},
		{"index":{"byteStart":9,"byteEnd":11},"features":[{"$type":"app.bsky.richtext.facet#mention","did":"did:plc:friend"}]}]}`)
	add("card", `{"embed":{"$type":"app.bsky.embed.external","external":{"uri":"https://shop.example/a","title":"<Shop>","description":"d","thumb":{"ref":{"$link":"bafkthumb"}}}}}`)
	add("quote", `{"text":"q","embed":{"$type":"app.bsky.embed.record","record":{"uri":"at://did:plc:friend/app.bsky.feed.post/3lb2wjkv5nk2e"}}}`)
	add("video", `{"embed":{"$type":"app.bsky.embed.video","alt":"a <cat>","video":{"ref":{"$link":"bafkvideo"}},"aspectRatio":{"width":16,"height":9}}}`)
	add("tags", `{"text":"many"}`, "t1", "t2", "t3", "t4")
	add("long", `{"text":"`+strings.Repeat("x", 64<<10)+`"}`)
	s := serve(t, x.open(t), func(c *Config) { c.Media = feeds.MediaCDN })
	card := func(s *served, rkey string) (pageAnswer, string) {
		a := s.visit(t, "/post/"+author+"/"+rkey)
		require.Equal(t, []string{posts[rkey]}, a.shown())
		return a, text(a.root)
	}
	a, _ := card(s, "pictures")
	require.Contains(t, a.body, `<img src="https://cdn.bsky.app/img/feed_thumbnail/plain/did:plc:author/bafkimage" alt="&lt;alt&gt; &amp; &#34;more&#34;" loading="lazy" width="640" height="480">`)
	require.Equal(t, 4, strings.Count(a.body, "<img "))
	require.Equal(t, "+2", text(a.all("plus")[0]))
	a, _ = card(s, "labelled")
	require.Contains(t, text(a.all("covered")[0]), "Labelled <porn> by its author.")
	require.Regexp(t, `(?s)<details class="covered"><summary>.*<img .*</details>`, a.body, "closed, with all pictures inside")
	require.Equal(t, 1, strings.Count(a.body, "<img "))
	a, content := card(s, "facets")
	require.NotContains(t, a.body, "javascript")
	require.Contains(t, content, "see x #y @z")
	require.Equal(t, "/tag/y", a.link(t, "#y"))
	require.Equal(t, "/profile/did:plc:friend", a.link(t, "@z"))
	a, content = card(s, "card")
	require.Contains(t, content, "shop.example<Shop>d")
	require.Contains(t, a.body, "feed_thumbnail/plain/did:plc:author/bafkthumb")
	a, _ = card(s, "quote")
	require.Equal(t, "/profile/did:plc:friend/post/3lb2wjkv5nk2e", a.link(t, "Quoted post"))
	a, _ = card(s, "video")
	require.Contains(t, a.body, `aria-label="Video: a &lt;cat&gt;"><img src="https://video.bsky.app/watch/did%3Aplc%3Aauthor/bafkvideo/thumbnail.jpg" alt="a &lt;cat&gt;" loading="lazy" width="640" height="360">`)
	require.Equal(t, "https://bsky.app/profile/did:plc:author/post/video", attr(a.all("video")[0], "href"))
	require.Contains(t, a.header.Get("Content-Security-Policy"), "; img-src 'self' https://cdn.bsky.app https://video.bsky.app;")
	a, _ = card(s, "tags")
	require.Equal(t, "+2#t4#art", text(a.all("moretags")[0]))
	a, _ = card(s, "long")
	require.Less(t, len(a.body), 8<<10)

	for media, want := range map[feeds.Media]string{feeds.MediaLink: `<p class="words"><a href="https://cdn.bsky.app/`, feeds.MediaOff: `<p class="words">[&lt;alt&gt;`} {
		s := serve(t, x.open(t), func(c *Config) { c.Media = media })
		a, _ := card(s, "pictures")
		require.NotContains(t, a.body, "<img")
		require.Contains(t, a.body, want)
		require.Contains(t, a.header.Get("Content-Security-Policy"), "; img-src 'self';")
		a, _ = card(s, "video")
		require.NotContains(t, a.body, "<img")
		require.Contains(t, text(a.all("video")[0]), "a <cat>")
	}
}

// TestQuotes: while a quoted post is visible, every page shows its author and an excerpt, with one
// more query. Otherwise it is only a link.
func TestQuotes(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.author.Author = write.Author{DisplayName: "<Ada>", Handle: "ada.example"}
	quoted := x.rich(t, "quoted", t0, `{"text":"\n<b>first</b> `+strings.Repeat("long ", 200)+`"}`, "said")
	const quote = `{"text":"so true","embed":{"$type":"app.bsky.embed.record","record":{"uri":"at://did:plc:author/app.bsky.feed.post/quoted"}}}`
	x.rich(t, "one", t0.Add(time.Second), quote, "art")
	x.rich(t, "two", t0.Add(time.Second), quote, "art")
	x.add(t, "plain", t0, "plain")
	counted := &countedQuotes{Index: x.open(t)}
	s := serve(t, counted)
	pages := []string{"/", "/search?tags=art", "/tag/art", "/post/did:plc:author/one", "/wall?tags=art", "/embed?tags=art"}
	for _, target := range pages {
		counted.calls = 0
		quotes := s.visit(t, target).all("quote")
		require.NotEmpty(t, quotes, target)
		for _, q := range quotes {
			content := text(q)
			require.Contains(t, content, "Quoted post by <Ada> @ada.example<b>first</b> long long", target)
			require.Less(t, len(content), 400)
			require.Equal(t, quoted, attr(q, "data-post"))
		}
		require.Equal(t, 1, counted.calls, target)
	}
	counted.calls = 0
	s.visit(t, "/tag/plain")
	require.Zero(t, counted.calls)
	counted.fails = true
	for _, target := range pages {
		require.Equal(t, "Quoted post", text(s.visit(t, target).all("quote")[0]), "%s: the page is shown with links as quotes", target)
	}
	counted.fails = false
	x.remove(t, quoted)
	for _, target := range pages {
		for _, q := range s.visit(t, target).all("quote") {
			require.Equal(t, "Quoted post", text(q), target)
		}
	}
}

type countedQuotes struct {
	Index
	calls int
	fails bool
}

func (c *countedQuotes) Quoted(ctx context.Context, names []query.PostName) ([]query.PostRow, error) {
	c.calls++
	if c.fails {
		return nil, errors.New("no quotes")
	}
	return c.Index.Quoted(ctx, names)
}

// TestAuthorsOnCards: a card names the author by the display name, else by the handle, else by a
// short form of the DID.
func TestAuthorsOnCards(t *testing.T) {
	t.Parallel()
	row := func(handle, name, avatar string) query.PostRow {
		return query.PostRow{DID: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", Rkey: "3lb2wjkv5nk2e", Handle: handle, DisplayName: name, Avatar: avatar, Record: []byte(`{}`)}
	}
	h := serve(t, fakeIndex{}, func(c *Config) { c.Media = feeds.MediaCDN }).handler
	cards := h.cards([]query.PostRow{row("alice.example", "Alice", "bafkavatar"), row("alice.example", "", ""), row("handle.invalid", "", "")}, "./")
	require.Equal(t, [3]string{"Alice", "alice.example", "https://cdn.bsky.app/img/avatar_thumbnail/plain/did:plc:ewvi7nxzyoun6zhxrhs64oiz/bafkavatar"}, [3]string{cards[0].Name, cards[0].Handle, cards[0].Avatar})
	require.Equal(t, [3]string{"alice.example", "alice.example", ""}, [3]string{cards[1].Name, cards[1].Handle, cards[1].Avatar})
	require.Equal(t, "did:plc:ewvi7n…oiz", cards[2].Name)
}
