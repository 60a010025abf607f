package explorer_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// Changes of a list show on screen: new posts wait until the reader requests them; late posts,
// edits and deletions apply immediately.
func TestLive(t *testing.T) {
	x := newExplorer(t)
	x.fill(t, 10, "art")
	b := x.browse(t, options{})
	b.open("/search?tags=art&none=nsfw")
	b.live()
	for i := range 12 {
		x.add(t, fmt.Sprint("new", i), time.Now(), fmt.Sprint("new ", i), "art")
	}
	b.until(`document.querySelector('.new')?.innerText === '12 new posts'`)
	require.Equal(t, numbered(9, 0), b.texts(), "the page must not move under the reader")
	b.run(chromedp.Click(".new"))
	b.until(texts + `.length === 22`)
	require.Equal(t, "new 11", b.texts()[0])
	b.until(`!document.querySelector('.new')`)

	x.remove(t, "new5")
	b.until(texts + `.length === 21`)
	require.NotContains(t, b.texts(), "new 5")
	x.add(t, "p007", time.Now(), "edited", "art")
	b.until(texts + `.includes('edited')`)
	require.NotContains(t, b.texts(), "post 7")
	x.add(t, "p006", time.Now(), "post 6", "art", "nsfw")
	b.until(`!` + texts + `.includes('post 6')`)
	x.add(t, "late", time.Now().Add(-3*time.Minute-30*time.Second), "late", "art")
	b.until(texts + `.includes('late')`)
	got := b.texts()
	require.Equal(t, []string{"edited", "late"}, got[len(got)-8:len(got)-6], "%v", got)

	x.write(t, x.change("quotes", time.Now(), `{"text":"quotes","embed":{"$type":"app.bsky.embed.record","record":{"uri":"at://`+x.author.DID+`/app.bsky.feed.post/new1"}}}`, "art"))
	b.open("/tag/art")
	b.live()
	b.until(`document.querySelector('.quote')?.innerText.includes('new 1')`)
	x.remove(t, "new1")
	b.until(`!` + texts + `.includes('new 1')`)
	b.until(`document.querySelector('.quote').innerText === 'Quoted post'`)
}

// A wall shows new posts automatically, unless it is paused.
func TestWall(t *testing.T) {
	x := newExplorer(t)
	x.fill(t, 5, "art")
	b := x.browse(t, options{width: 1920, height: 1080})
	b.open("/wall?tags=art")
	b.live()
	x.add(t, "one", time.Now(), "one", "art")
	b.until(texts + `[0] === 'one'`)
	b.run(chromedp.KeyEvent(" "))
	b.until(`document.querySelector('#pause').innerText === 'Continue'`)
	x.add(t, "two", time.Now(), "two", "art")
	x.remove(t, "p004")
	b.until(`!` + texts + `.includes('post 4')`)
	require.NotContains(t, b.texts(), "two")
	b.run(chromedp.Click("#pause"))
	b.until(texts + `[0] === 'two'`)
}
