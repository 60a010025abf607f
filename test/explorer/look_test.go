package explorer_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/npmtest"
)

var shots = flag.String("shots", "", "a folder for pictures of every page")

// gallery fills an index with realistic posts of every form.
func (x *explorer) gallery(t testing.TB) {
	t.Helper()
	picture := func(n, w, h int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`{"alt":"A picture of a harbour at dusk, number %d","image":{"ref":{"$link":"bafk%d%d%d"}},"aspectRatio":{"width":%d,"height":%d}}`, i+1, n, w, i, w, h))
		}
		return `"embed":{"$type":"app.bsky.embed.images","images":[` + strings.Join(all, ",") + `]}`
	}
	tagged := func(text string) string {
		var facets []string
		for _, word := range strings.Fields(text) {
			if tag, ok := strings.CutPrefix(word, "#"); ok {
				at := strings.Index(text, word)
				facets = append(facets, fmt.Sprintf(`{"index":{"byteStart":%d,"byteEnd":%d},"features":[{"$type":"app.bsky.richtext.facet#tag","tag":%q}]}`, at, at+len(word), tag))
			}
		}
		return fmt.Sprintf(`"text":%q,"facets":[%s]`, text, strings.Join(facets, ","))
	}
	records := []string{
		`"text":"Finished this one at two in the morning and I regret nothing.",` + picture(1, 4, 3),
		tagged("First try with the new brushes, be kind. Light over the harbour today was unreal. #art #painting"),
		`"text":"Two from the same roll.",` + picture(2, 4, 3),
		`"text":"صباح الخير من القاهرة، لوحة جديدة اليوم"`,
		`"text":"New print in the shop.","embed":{"$type":"app.bsky.embed.external","external":{"uri":"https://shop.example/prints/heron","title":"Heron, linocut on washi paper","description":"Hand pulled, edition of thirty, signed and numbered.","thumb":{"ref":{"$link":"bafkthumb"}}}}`,
		`"text":"Three studies before work ☕",` + picture(3, 4, 3),
		`"text":"A study I would not show at work.",` + picture(1, 3, 4) + `,"labels":{"values":[{"val":"nudity"}]}`,
		`"text":"今日の一枚です。ラフができました！"`,
		`"text":"Timelapse of the whole thing, four hours in forty seconds.","embed":{"$type":"app.bsky.embed.video","alt":"A canvas fills with colour","video":{"ref":{"$link":"bafkvideo"}},"aspectRatio":{"width":16,"height":9}}`,
		`"text":"The whole sketchbook.",` + picture(7, 4, 3),
		`"text":"This, exactly.","embed":{"$type":"app.bsky.embed.record","record":{"uri":"at://did:plc:person000000000000000001/app.bsky.feed.post/g001"}}`,
		`"text":"Walked 12 km for this view and it was worth every one.\n\nMore tomorrow.",` + picture(1, 9, 16),
	}
	tags := [][]string{{"art"}, {"art", "painting"}, {"art", "photo", "film", "analog", "35mm"}, {"art", "فن"}, {"art", "linocut", "printmaking"}, {"art", "sketch", "wip", "coffee"}}
	var people []*write.Account
	for i, named := range []write.Author{
		{DisplayName: "Ada Lindqvist", Handle: "ada.example", Avatar: "bafkada"}, {DisplayName: "Bruno 🎨 (commissions open)", Handle: "bruno.example"},
		{DisplayName: "فاطمة", Handle: "fatma.example", Avatar: "bafkfatma"}, {Handle: "nameless.example"}, {DisplayName: "千代 Chiyo", Handle: "chiyo.example", Avatar: "bafkchiyo"}, {},
	} {
		person := &write.Account{DID: fmt.Sprintf("did:plc:person%018d", i), Author: named}
		if i == 0 {
			x.author.Author, person = named, x.author
		}
		people = append(people, person)
	}
	var changes []write.PostChange
	for day := range 160 {
		x.author = people[day%len(people)]
		at := time.Now().Add(-time.Duration(day*day) * 20 * time.Second)
		changes = append(changes, x.change(fmt.Sprintf("g%03d", day), at, "{"+records[day%len(records)]+"}", tags[day%len(tags)]...))
	}
	x.author = people[0]
	for i := range 300 {
		at := time.Now().Add(-time.Duration(i) * 30 * time.Minute)
		changes = append(changes, x.change(fmt.Sprintf("o%03d", i), at, `{"text":"Small study before work ☕"}`, []string{"photography", "nature", "birds", "gamedev"}[i%4]))
		if i < 40 {
			changes = append(changes, x.change(fmt.Sprintf("e%03d", i), time.Now().Add(-time.Duration(i)*5*time.Minute), `{"text":"Look up!"}`, "eclipse"))
		}
	}
	x.write(t, changes...)
}

// sites are all the pages.
var sites = []struct{ name, path string }{
	{"home", "/"}, {"search", "/search?tags=art&none=nsfw"}, {"form", "/search"}, {"problem", "/search?tags=art&since=yesterday"}, {"tag", "/tag/art"},
	{"post", "/post/did:plc:ewvi7nxzyoun6zhxrhs64oiz/g000"}, {"wall", "/wall?tags=art"}, {"embed", "/embed?tags=art&accent=pink"}, {"status", "/status"}, {"docs", "/docs"}, {"missing", "/no/such/page"},
}

// axe-core finds no problem on any page, light and dark, on a phone and on a desktop. No page is
// wider than its screen. With -shots the test also takes screenshots.
func TestAccessible(t *testing.T) {
	x := newExplorer(t)
	node := npmtest.Packages(t, "axe-core@4.14.1")
	var axe string
	node.Run(t, `
		import { readFileSync } from 'node:fs'
		import { createRequire } from 'node:module'
		console.log(JSON.stringify(readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')))`, nil, &axe)
	x.gallery(t)
	for _, o := range []options{{width: 390, height: 844}, {width: 390, height: 844, dark: true}, {width: 1280, height: 900}, {width: 1280, height: 900, dark: true}, {width: 3840, height: 2160}} {
		b := x.browse(t, o)
		for _, page := range sites {
			name := fmt.Sprintf("%s-%d", page.name, o.width)
			if o.dark {
				name += "-dark"
			}
			b.open(page.path)
			if *shots != "" {
				var picture []byte
				b.until(`[...document.images].slice(0, 4).every(i => i.complete)`)
				b.run(chromedp.CaptureScreenshot(&picture))
				require.NoError(t, os.WriteFile(filepath.Join(*shots, name+".png"), picture, 0o644))
			}
			require.LessOrEqual(t, eval[int](b, `document.documentElement.scrollWidth`), int(o.width), "%s scrolls sideways", name)
			if o.width > 2000 { // like on a desktop
				continue
			}
			b.run(chromedp.Evaluate(axe, nil))
			var found string
			b.run(chromedp.Evaluate(`axe.run(document, { resultTypes: ['violations'] }).then(r => JSON.stringify(r.violations.map(v => [v.id, v.nodes.slice(0, 3).map(n => n.html.slice(0, 300) + ' ' + n.failureSummary)])))`, &found, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
			var violations []any
			require.NoError(t, json.Unmarshal([]byte(found), &violations))
			if len(violations) > 0 {
				t.Errorf("%s: %s", name, found)
			}
		}
	}
}

// A page of usual posts is under 100 KB, uncompressed and without pictures.
func TestPagesAreSmall(t *testing.T) {
	x := newExplorer(t)
	x.gallery(t)
	for _, page := range sites {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, x.url+page.path, nil)
		require.NoError(t, err)
		req.Header.Set("Accept", "text/html")
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		require.NoError(t, err)
		require.NotEmpty(t, body)
		t.Logf("%s: %d bytes", page.name, len(body))
		require.Less(t, len(body), 100_000, page.name)
	}
}

// Hostile contents of posts cannot run, leave their card, or break the page.
func TestHostile(t *testing.T) {
	x := newExplorer(t)
	const script = `<script>alert(1)</script><img src=x onerror=alert(1)>"'><svg onload=alert(1)>`
	quoted := func(s string) string {
		b, err := json.Marshal(s)
		require.NoError(t, err)
		return string(b)
	}
	var facets []string
	for i := range 1000 {
		facets = append(facets, fmt.Sprintf(`{"index":{"byteStart":%d,"byteEnd":%d},"features":[{"$type":"app.bsky.richtext.facet#link","uri":"https://x.example/%d"}]}`, 2*i, 2*i+1, i))
	}
	tag := strings.ToLower(`<script>alert(1)</script>`)
	records := []string{
		`{"text":` + quoted(script) + `,"facets":[{"index":{"byteStart":0,"byteEnd":20},"features":[{"$type":"app.bsky.richtext.facet#link","uri":"javascript:alert(1)"}]},{"index":{"byteStart":20,"byteEnd":30},"features":[{"$type":"app.bsky.richtext.facet#link","uri":` + quoted(`https://x.example/"onmouseover="alert(1)`) + `}]}]}`,
		`{"text":"labelled","labels":{"values":[{"val":` + quoted(script) + `}]},"embed":{"$type":"app.bsky.embed.images","images":[{"alt":` + quoted(script) + `,"image":{"ref":{"$link":"bafk1"}},"aspectRatio":{"width":1,"height":100000}}]}}`,
		`{"text":"card","embed":{"$type":"app.bsky.embed.external","external":{"uri":"https://x.example/","title":` + quoted(script) + `,"description":` + quoted(script+strings.Repeat("d", 64<<10)) + `}}}`,
		`{"text":` + quoted(strings.Repeat("w", 64<<10)) + `}`,
		`{"text":` + quoted(strings.Repeat("\u202e\u0301\u0489", 2000)) + `}`,
		`{"text":` + quoted("שלום "+strings.Repeat("\u202e", 20)+" عالم") + `}`,
		`{"text":` + quoted(strings.Repeat("a ", 1000)) + `,"facets":[` + strings.Join(facets, ",") + `]}`,
		`{"text":"wide","embed":{"$type":"app.bsky.embed.images","images":[{"alt":` + quoted(strings.Repeat("Ж", 64<<10)) + `,"image":{"ref":{"$link":"bafk2"}},"aspectRatio":{"width":100000,"height":1}}]}}`,
	}
	for i, record := range records {
		x.write(t, x.change(fmt.Sprint("h", i), time.Now().Add(-time.Duration(i)*time.Minute), record, "art", tag, strings.Repeat("x", 64), strings.Repeat("\u0301", 60)))
	}
	for _, width := range []int64{320, 1280} {
		b := x.browse(t, options{width: width, height: 900})
		for _, path := range []string{"/", "/search?tags=art", "/search?tags=" + url.QueryEscape(tag), "/wall?tags=art", "/embed?tags=art", "/search?q=" + url.QueryEscape(script), "/search?tags=art&lang=" + url.QueryEscape(script)} {
			b.open(path)
			require.LessOrEqual(t, eval[int](b, `document.documentElement.scrollWidth`), int(width), "%s scrolls sideways", path)
			require.Equal(t, 1, eval[int](b, `document.scripts.length`), path)
			require.Zero(t, eval[int](b, `document.querySelectorAll('[onerror], [onload], [onmouseover], [style], a[href^=javascript]').length`), path)
			require.Zero(t, eval[int](b, `[...document.querySelectorAll('article.card')].filter(c => c.getBoundingClientRect().height > 4000).length`), path)
		}
	}
}
