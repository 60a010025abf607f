package explorer_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// numbered are the texts of fill's posts, from the newest of these numbers to the oldest.
func numbered(newest, oldest int) (out []string) {
	for i := newest; i >= oldest; i-- {
		out = append(out, fmt.Sprint("post ", i))
	}
	return out
}

// TestSearch: from the first page to a list, with completion, chips and filters in the URL.
func TestSearch(t *testing.T) {
	x := newExplorer(t)
	x.fill(t, 30, "art", "artist")
	b := x.browse(t, options{})
	b.open("/")
	b.run(chromedp.SendKeys("#q", "#ar"))
	b.until(`document.querySelectorAll('#tags option').length === 2`)
	require.Equal(t, []string{"#art", "#artist"}, eval[[]string](b, `[...document.querySelectorAll('#tags option')].map(o => o.value)`))
	require.Equal(t, "art · 30", eval[string](b, `document.querySelector('#tags option').label`))
	b.run(chromedp.SendKeys("#q", "t -nsfw"+kb.Enter))
	b.arrive(`location.search === '?tags=art&none=nsfw'`)
	require.Equal(t, []string{"any #art ×", "not #nsfw ×"}, eval[[]string](b, `[...document.querySelectorAll('.chip')].map(c => c.innerText.replace(/\s+/g, ' '))`))
	b.run(chromedp.Click(`.chip.none a`))
	b.arrive(`location.search === '?tags=art'`)
	b.run(chromedp.Click(`.filters summary`), chromedp.SetValue(`select[name=window]`, "hour"), chromedp.Click(`.search .go`))
	b.arrive(`location.search.startsWith('?tags=art&since=')`)
	require.Len(t, b.texts(), 25)
}

// TestScrolling: older posts come as one scrolls, each once, to the end.
func TestScrolling(t *testing.T) {
	x := newExplorer(t)
	x.fill(t, 90, "art")
	b := x.browse(t, options{})
	b.open("/search?tags=art")
	require.Equal(t, numbered(89, 65), b.texts()[:25])
	for range 4 {
		b.run(chromedp.Evaluate(`scrollTo(0, document.body.scrollHeight)`, nil))
	}
	b.until(`(scrollTo(0, document.body.scrollHeight), document.querySelector('.end'))`)
	require.Equal(t, numbered(89, 0), b.texts())
	require.Zero(t, eval[int](b, `document.querySelectorAll('.skeleton').length`))
}

// TestWithoutScript: reading, paging and searching need no JavaScript.
func TestWithoutScript(t *testing.T) {
	x := newExplorer(t)
	x.fill(t, 30, "art", "t1", "t2", "t3", "t4")
	b := x.browse(t, options{noScript: true})
	b.open("/")
	b.run(chromedp.SendKeys("#q", "art"+kb.Enter), chromedp.WaitVisible(".chip"))
	require.Equal(t, numbered(29, 5), b.texts())
	b.run(chromedp.Click(`.moretags summary`), chromedp.WaitVisible(`.moretags a[href$="tag/t4"]`))
	b.run(chromedp.Click("#older"), chromedp.WaitVisible(".newer"))
	require.Equal(t, numbered(4, 0), b.texts())
	b.run(chromedp.Click(".newer a"), chromedp.WaitNotPresent(".newer"))
	require.Equal(t, numbered(29, 5), b.texts())
	b.open("/docs")
	b.run(chromedp.Click(`section[aria-labelledby=tag_by_query] button`))
	b.until(`location.pathname === '/v1/tag' && location.search === '?tag=art'`)
}

// TestKeys: j and k walk, / searches, . shows what is new.
func TestKeys(t *testing.T) {
	x := newExplorer(t)
	x.fill(t, 10, "art")
	b := x.browse(t, options{})
	b.open("/search?tags=art")
	b.live()
	at := func(want string) {
		t.Helper()
		b.until(fmt.Sprintf(`document.activeElement.querySelector('.text')?.innerText === %q`, want))
	}
	b.run(chromedp.KeyEvent("j"))
	at("post 9")
	b.run(chromedp.KeyEvent("jj"))
	at("post 7")
	b.run(chromedp.KeyEvent("k"))
	at("post 8")
	x.add(t, "new", time.Now(), "new", "art")
	b.until(`document.querySelector('.new')?.innerText === '1 new post'`)
	b.run(chromedp.KeyEvent("."))
	at("new")
	b.run(chromedp.KeyEvent("/"))
	b.until(`document.activeElement.id === 'q'`)
	b.run(chromedp.KeyEvent("j"))
	require.Contains(t, eval[string](b, `document.activeElement.value`), "j", "keys that are typed walk nowhere")
}

// TestAPIPage: a form of the API page shows its answer below it.
func TestAPIPage(t *testing.T) {
	x := newExplorer(t)
	x.fill(t, 3, "art")
	b := x.browse(t, options{})
	b.open("/docs")
	for name, want := range map[string]string{"posts": `"text": "post 2"`, "post": `"rkey": "p002"`, "stream": "retry: 3000"} {
		section := "section[aria-labelledby=" + name + "]"
		b.run(chromedp.Click(section + " button"))
		b.until(fmt.Sprintf(`document.querySelector('%s pre')?.innerText.includes(%q)`, section, want))
	}
}

// TestEmbed: one line of script on another site shows a list there.
func TestEmbed(t *testing.T) {
	x := newExplorer(t)
	x.fill(t, 3, "art")
	b := x.browse(t, options{})
	b.open("/robots.txt") // a page of no script
	b.run(chromedp.Evaluate(`const s = document.createElement('script'); s.src = '/embed.js'; s.dataset.query = 'tags=art'; s.dataset.theme = 'dark'; document.body.append(s)`, nil))
	b.until(`document.querySelector('iframe')?.contentDocument?.querySelectorAll('article.card').length === 3`)
	require.Equal(t, "/embed?tags=art&theme=dark", eval[string](b, `{ const l = document.querySelector('iframe').contentWindow.location; l.pathname + l.search }`))
}
