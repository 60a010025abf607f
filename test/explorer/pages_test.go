package explorer_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store/write"
)

// numbered returns the texts of fill's posts with these numbers, newest first.
func numbered(newest, oldest int) (out []string) {
	for i := newest; i >= oldest; i-- {
		out = append(out, fmt.Sprint("post ", i))
	}
	return out
}

// visit opens a page of a site with n posts.
func visit(t *testing.T, n int, path string) (*explorer, *tab) {
	t.Helper()
	x := newExplorer(t)
	x.fill(t, n, "art")
	b := x.browse(t, options{})
	b.open(path)
	return x, b
}

// TestSearch goes from the home page to a list, with completion, chips and filters in the URL.
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

// Every filter of the search bar is in the URL, which is the state of the page, also with the back
// button and without JavaScript.
func TestFilters(t *testing.T) {
	x := newExplorer(t)
	now := time.Now()
	post := func(text string, ago time.Duration, more string, tags ...string) *write.Post {
		c := x.change(text, now.Add(-ago), fmt.Sprintf(`{"text":%q%s}`, text, more), append([]string{"art"}, tags...)...)
		x.write(t, c)
		return c.New
	}
	post("nsfw", time.Minute, "", "photo", "nsfw")
	post("photo", 2*time.Minute, "", "photo")
	post("video", 3*time.Minute, `,"embed":{"$type":"app.bsky.embed.video","video":{"ref":{"$link":"bafkvideo"}}}`)
	post("many", 4*time.Minute, "", "t1", "t2", "t3")
	post("old", 72*time.Hour, "")
	german := x.change("german", now.Add(-5*time.Minute), `{"text":"german"}`, "art")
	german.New.Langs = []string{"de"}
	x.write(t, german)
	x.author = &write.Account{DID: "did:plc:friend"}
	post("friend", 6*time.Minute, "")

	for _, noScript := range []bool{false, true} {
		b := x.browse(t, options{noScript: noScript})
		shows := func(query string, texts ...string) {
			t.Helper()
			b.arrive(fmt.Sprintf(`location.search.replace(/=\d{4}-[^&]+/, '=…') === %q`, query))
			require.Equal(t, texts, b.texts(), query)
		}
		add := func(as, words string) {
			t.Helper()
			b.run(chromedp.SetValue(`select[name=as]`, as), chromedp.SendKeys("#q", words+kb.Enter))
		}
		filter := func(name, value string) {
			t.Helper()
			// By script: chromedp finds no elements on a page restored by the back button.
			b.run(chromedp.Evaluate(fmt.Sprintf(`document.querySelector('[name=%s]').value = %q; document.querySelector('.search .go').click()`, name, value), nil))
		}
		b.open("/search")
		add("tags", "art nothing")
		shows("?tags=art&tags=nothing", "nsfw", "photo", "video", "many", "german", "friend", "old")
		b.run(chromedp.Click(`.chip a[aria-label="Remove #nothing"]`))
		shows("?tags=art", "nsfw", "photo", "video", "many", "german", "friend", "old")
		add("all", "photo")
		shows("?tags=art&all=photo", "nsfw", "photo")
		if !noScript {
			b.run(chromedp.SendKeys("#q", "-ns"))
			b.until(`document.querySelector('#tags option')?.label === 'nsfw · 1'`)
			require.Equal(t, "-nsfw", eval[string](b, `document.querySelector('#tags option').value`))
			b.run(chromedp.Evaluate(`document.querySelector('#q').value = ''`, nil))
		}
		add("none", "nsfw")
		shows("?tags=art&all=photo&none=nsfw", "photo")
		require.Equal(t, []string{"any #art ×", "all #photo ×", "not #nsfw ×"}, eval[[]string](b, `[...document.querySelectorAll('.chip')].map(c => c.innerText.replace(/\s+/g, ' '))`))
		b.run(chromedp.Click(`.chip.all a`))
		shows("?tags=art&none=nsfw", "photo", "video", "many", "german", "friend", "old")
		filter("lang", "de")
		shows("?tags=art&none=nsfw&lang=de", "german")
		require.Equal(t, "de", eval[string](b, `document.querySelector('.filters[open] [name=lang]').value`))
		b.step(-1)
		shows("?tags=art&none=nsfw", "photo", "video", "many", "german", "friend", "old")
		if noScript { // the browser restores the input
			b.run(chromedp.Evaluate(`document.querySelector('[name=lang]').value = ''`, nil))
		} else {
			b.until(`document.querySelector('[name=lang]').value === ''`)
		}
		filter("media", "video")
		shows("?tags=art&none=nsfw&media=video", "video")
		filter("media", "none")
		shows("?tags=art&none=nsfw&media=none", "photo", "many", "german", "friend", "old")
		filter("author", "did:plc:friend")
		shows("?tags=art&none=nsfw&author=did%3Aplc%3Afriend&media=none", "friend")
		filter("author", "")
		shows("?tags=art&none=nsfw&media=none", "photo", "many", "german", "friend", "old")
		filter("maxTags", "1")
		shows("?tags=art&none=nsfw&media=none&maxTags=1", "german", "friend", "old")
		filter("window", "day")
		shows("?tags=art&none=nsfw&media=none&maxTags=1&since=…", "german", "friend")
		b.step(-2)
		shows("?tags=art&none=nsfw&media=none", "photo", "many", "german", "friend", "old")
		b.step(1)
		shows("?tags=art&none=nsfw&media=none&maxTags=1", "german", "friend", "old")
	}
}

// A list restored by the back button follows the live tail again.
func TestBack(t *testing.T) {
	x, b := visit(t, 3, "/search?tags=art")
	b.live()
	b.open("/status")
	x.remove(t, "p001")
	b.step(-1)
	b.until(`location.pathname === '/search' && !` + texts + `.includes('post 1')`)
	x.add(t, "new", time.Now(), "new", "art")
	b.until(`document.querySelector('.new')?.innerText === '1 new post'`)
}

// Scrolling loads older posts, each once, to the end.
func TestScrolling(t *testing.T) {
	_, b := visit(t, 90, "/search?tags=art&none=nsfw&maxTags=3")
	require.Equal(t, numbered(89, 65), b.texts()[:25])
	for range 4 {
		b.run(chromedp.Evaluate(`scrollTo(0, document.body.scrollHeight)`, nil))
	}
	b.until(`(scrollTo(0, document.body.scrollHeight), document.querySelector('.end'))`)
	require.Equal(t, numbered(89, 0), b.texts())
	require.Zero(t, eval[int](b, `document.querySelectorAll('.skeleton').length`))
}

// Reading, paging and searching need no JavaScript.
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

// j and k move between posts, / searches, . shows new posts.
func TestKeys(t *testing.T) {
	x, b := visit(t, 10, "/search?tags=art")
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
	require.Contains(t, eval[string](b, `document.activeElement.value`), "j", "typing must not move between posts")
}

// A form of the API page shows its answer below it.
func TestAPIPage(t *testing.T) {
	_, b := visit(t, 3, "/docs")
	for name, want := range map[string]string{"posts": `"text": "post 2"`, "post": `"rkey": "p002"`, "stream": "retry: 3000"} {
		section := "section[aria-labelledby=" + name + "]"
		b.run(chromedp.Click(section + " button"))
		b.until(fmt.Sprintf(`document.querySelector('%s pre')?.innerText.includes(%q)`, section, want))
	}
}

// One line of script on another site shows a list there.
func TestEmbed(t *testing.T) {
	_, b := visit(t, 3, "/robots.txt") // a page without script
	b.run(chromedp.Evaluate(`const s = document.createElement('script'); s.src = '/embed.js'; s.dataset.query = 'tags=art'; s.dataset.theme = 'dark'; document.body.append(s)`, nil))
	b.until(`document.querySelector('iframe')?.contentDocument?.querySelectorAll('article.card').length === 3`)
	require.Equal(t, "/embed?tags=art&theme=dark", eval[string](b, `{ const l = document.querySelector('iframe').contentWindow.location; l.pathname + l.search }`))
}

// Changes of a list show on screen: new posts wait until the reader requests them; late posts,
// edits and deletions apply immediately.
func TestLive(t *testing.T) {
	x, b := visit(t, 10, "/search?tags=art&none=nsfw")
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
