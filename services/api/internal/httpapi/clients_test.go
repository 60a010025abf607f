package httpapi

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/npmtest"
)

// TestOfficialClient reads skeletons of a feed and of a search with Bluesky's own client, which
// checks parameters, answers and errors against the lexicons.
func TestOfficialClient(t *testing.T) {
	t.Parallel()
	node := npmtest.Packages(t, "@atproto/api@0.19.19")
	x := newIndex(t)
	x.fill(t, 20, "art", "ink")
	s := serve(t, x.open(t), withFeeds(t, "art", "tags=art"))
	var out struct {
		DID     string
		Feeds   []string
		Posts   []string
		Unknown string
		Found   []string
		Refused string
	}
	node.Run(t, `
		import { AtpAgent } from '@atproto/api'
		const { url, feed } = JSON.parse(process.argv[2])
		const agent = new AtpAgent({ service: url })
		const described = await agent.app.bsky.feed.describeFeedGenerator()
		const posts = []
		let cursor
		do {
			const page = await agent.app.bsky.feed.getFeedSkeleton({ feed, limit: 4, cursor })
			posts.push(...page.data.feed.map(p => p.post))
			cursor = page.data.cursor
		} while (cursor)
		let unknown = ''
		try {
			await agent.app.bsky.feed.getFeedSkeleton({ feed: feed + 'x' })
		} catch (err) {
			unknown = err.error
		}
		const found = []
		let refused = ''
		do {
			const page = await agent.app.bsky.unspecced.searchPostsSkeleton({ q: '#Art *', tag: ['ink'], sort: 'latest', limit: 3, cursor })
			found.push(...page.data.posts.map(p => p.uri))
			cursor = page.data.cursor
		} while (cursor)
		try {
			await agent.app.bsky.unspecced.searchPostsSkeleton({ q: 'some words' })
		} catch (err) {
			refused = err.error
		}
		console.log(JSON.stringify({ did: described.data.did, feeds: described.data.feeds.map(f => f.uri), posts, unknown, found, refused }))
	`, map[string]string{"url": s.url, "feed": "at://" + publisher + "/app.bsky.feed.generator/art"}, &out)
	require.Contains(t, out.DID, "did:web:127.0.0.1%3A")
	require.Equal(t, []string{"at://" + publisher + "/app.bsky.feed.generator/art"}, out.Feeds)
	require.Equal(t, x.list("art"), out.Posts)
	require.Equal(t, "UnknownFeed", out.Unknown)
	require.Equal(t, x.listWhere(func(p *write.Post) bool { return hasAny(p, "art") && hasAny(p, "ink") }), out.Found)
	require.Equal(t, "BadQueryString", out.Refused)
}

// TestNPMParser reads each format with a parser from npm, and compares the fields and paging links.
func TestNPMParser(t *testing.T) {
	t.Parallel()
	node := npmtest.Packages(t, "feedsmith@3.0.1")
	x := newIndex(t)
	at := time.Date(2026, 11, 20, 21, 44, 58, 0, time.UTC)
	for i := range 3 {
		x.add(t, "p"+string(rune('a'+i)), at.Add(-time.Duration(i)*time.Second), "art", "ink")
	}
	s := serve(t, x.open(t))
	type item struct {
		ID, Link, Title string
		Tags            []string
		Date            time.Time
	}
	type page struct {
		Format, Title, Next string
		Items               []item
	}
	var out []page
	node.Run(t, `
		import { parseFeed } from 'feedsmith'
		const { url } = JSON.parse(process.argv[2])
		const out = []
		for (const format of ['rss', 'atom', 'json']) {
			const text = await (await fetch(url + '/v1/feeds/posts.' + format + '?tags=art&limit=2')).text()
			const { format: found, feed } = parseFeed(text)
			const links = feed.links ?? feed.atom?.links ?? []
			out.push({
				format: found, title: feed.title.value ?? feed.title,
				next: feed.next_url ?? links.find(l => l.rel === 'next')?.href,
				items: (feed.items ?? feed.entries).map(i => ({
					id: i.guid?.value ?? i.id, link: i.link ?? i.url ?? i.links[0].href, title: i.title.value ?? i.title,
					tags: i.tags ?? i.categories.map(c => c.term ?? c.name),
					date: new Date(i.pubDate ?? i.published ?? i.date_published).toISOString(),
				})),
			})
		}
		console.log(JSON.stringify(out))
	`, map[string]string{"url": s.url}, &out)
	require.Len(t, out, 3)
	posts := x.list("art")
	for i, format := range []string{"rss", "atom", "json"} {
		p := out[i]
		require.Equal(t, format, p.Format)
		require.Equal(t, "Posts tagged #art", p.Title, format)
		require.Contains(t, p.Next, s.url+"/v1/feeds/posts."+format+"?tags=art&limit=2&after=")
		require.Len(t, p.Items, 2)
		for j, it := range p.Items {
			require.Equal(t, posts[j], it.ID)
			require.Contains(t, it.Link, "https://bsky.app/profile/"+author+"/post/p")
			require.NotEmpty(t, it.Title)
			require.Equal(t, []string{"art", "ink"}, it.Tags)
			require.Equal(t, at.Add(-time.Duration(j)*time.Second), it.Date.UTC())
		}
	}
}
