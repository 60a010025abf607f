// Package explorer visits the site with a real browser: Debian's chromium, driven by chromedp.
package explorer_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"log/slog"
	"math"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
	"github.com/tagstream/tagstream/services/api"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// pageWait bounds one wait in the browser.
const pageWait = time.Minute

// chromium is the browser's program. Without one a test is skipped, and fails with CI=true.
func chromium(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("chromium is needed: install Debian's package")
	}
	t.Skip("skipped: chromium is missing; install Debian's package")
	return ""
}

// explorer is a site with its index.
type explorer struct {
	url    string
	writer *write.Writer
	author *write.Account
	posts  map[string]*write.Post // by record key
	seq    uint64
}

func newExplorer(t *testing.T) *explorer {
	t.Helper()
	chromium(t)
	o := storetest.Database(t)
	x := &explorer{writer: storetest.Leader(t, o), author: &write.Account{DID: "did:plc:ewvi7nxzyoun6zhxrhs64oiz"}, posts: map[string]*write.Post{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	x.url = "http://" + listener.Addr().String()
	key, err := keyset.NewKey("k1", bytes.Repeat([]byte("k"), keyset.MinSecret))
	require.NoError(t, err)
	quiet := slog.New(slog.DiscardHandler)
	a, err := api.New(api.Config{Database: o, CursorKeys: []keyset.Key{key}}, api.Deps{
		Logger: quiet, Registry: prometheus.NewRegistry(), Health: obs.NewHealth(quiet, api.HealthDatabase, api.HealthListener), Listener: listener,
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = a.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	return x
}

func (x *explorer) write(t testing.TB, changes ...write.PostChange) {
	t.Helper()
	x.seq++
	require.NoError(t, x.writer.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		c := write.Changes{Posts: changes}
		for _, p := range changes {
			if p.New != nil && p.New.Account.ID == 0 && !slices.Contains(c.Accounts, p.New.Account) {
				c.Accounts = append(c.Accounts, p.New.Account)
			}
		}
		cp.Seq = x.seq
		cp.Source = event.Position{Host: "https://upstream.test", Seq: x.seq, Time: time.Now()}
		return cp, tx.Write(t.Context(), c)
	}))
}

// change returns a new post or an edit of a post.
func (x *explorer) change(rkey string, at time.Time, record string, tags ...string) write.PostChange {
	p := &write.Post{
		Account: x.author, Rkey: rkey, Rev: fmt.Sprintf("3lb2wjkv%05d", x.seq), CID: fmt.Sprint("bafy", x.seq), Tags: tags, Langs: []string{"en"},
		IndexedAt: at, Seq: x.seq + 1, Record: []byte(record),
	}
	old := x.posts[rkey]
	if p.Key = event.NewKey(at, event.URI(x.author.DID, rkey)); old != nil {
		p.Key = old.Key
	}
	x.posts[rkey] = p
	return write.PostChange{Old: old, New: p, OldVisible: old != nil, NewVisible: true}
}

func (x *explorer) add(t testing.TB, rkey string, at time.Time, text string, tags ...string) {
	t.Helper()
	x.write(t, x.change(rkey, at, fmt.Sprintf(`{"text":%q}`, text), tags...))
}

func (x *explorer) remove(t testing.TB, rkey string) {
	t.Helper()
	x.write(t, write.PostChange{Old: x.posts[rkey], OldVisible: true})
	delete(x.posts, rkey)
}

// fill writes n posts, one minute apart, the newest one minute old.
func (x *explorer) fill(t testing.TB, n int, tags ...string) {
	t.Helper()
	var changes []write.PostChange
	for i := range n {
		changes = append(changes, x.change(fmt.Sprintf("p%03d", i), time.Now().Add(time.Duration(i-n)*time.Minute), fmt.Sprintf(`{"text":"post %d"}`, i), tags...))
	}
	x.write(t, changes...)
}

// options are the settings of a browser tab.
type options struct {
	width, height int64
	dark          bool
	noScript      bool
}

// tab is a page in the browser.
type tab struct {
	t   testing.TB
	url string
	ctx context.Context
	mu  sync.Mutex
	// wrong are script errors and violations of the policy, external the requests to other sites.
	wrong, external []string
}

// browser is the browser shared by all tests, which ends with them.
var browser = func() func(path string) context.Context {
	var once sync.Once
	var ctx context.Context
	return func(path string) context.Context {
		once.Do(func() {
			options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WSURLReadTimeout(pageWait))
			ctx, _ = chromedp.NewExecAllocator(context.Background(), options...)
			ctx, _ = chromedp.NewContext(ctx)
			if err := chromedp.Run(ctx); err != nil {
				panic(fmt.Sprintf("start %s: %v", path, err))
			}
		})
		return ctx
	}
}()

// browse opens a tab. The test fails if a script failed, the policy refused something, or a request
// went to another site, except for pictures of the CDNs, which the test draws.
func (x *explorer) browse(t testing.TB, o options) *tab {
	t.Helper()
	b := &tab{t: t, url: x.url}
	var closeTab context.CancelFunc
	b.ctx, closeTab = chromedp.NewContext(browser(chromium(t)))
	t.Cleanup(closeTab)
	chromedp.ListenTarget(b.ctx, b.note)
	if o.width == 0 {
		o.width, o.height = 1280, 900
	}
	scheme := "light"
	if o.dark {
		scheme = "dark"
	}
	require.NoError(t, chromedp.Run(b.ctx)) // the tab lives as long as its first context
	b.run(page.BringToFront(), network.Enable(), runtime.Enable(), log.Enable(), fetch.Enable().WithPatterns([]*fetch.RequestPattern{{URLPattern: "https://cdn.bsky.app/*"}, {URLPattern: "https://video.bsky.app/*"}}),
		emulation.SetDeviceMetricsOverride(o.width, o.height, 1, o.width < 600),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}),
		emulation.SetScriptExecutionDisabled(o.noScript))
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		require.Empty(t, b.wrong)
		require.Empty(t, b.external)
	})
	return b
}

// note records an event of the browser.
func (b *tab) note(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *runtime.EventExceptionThrown:
		b.wrong = append(b.wrong, ev.ExceptionDetails.Error())
	case *log.EventEntryAdded:
		if strings.Contains(ev.Entry.Text, "Content Security Policy") {
			b.wrong = append(b.wrong, ev.Entry.Text)
		}
	case *network.EventRequestWillBeSent:
		if u := ev.Request.URL; !strings.HasPrefix(u, b.url) && !strings.HasPrefix(u, "https://cdn.bsky.app/img/") && !strings.HasPrefix(u, "https://video.bsky.app/watch/") && !strings.HasPrefix(u, "about:") && !strings.HasPrefix(u, "data:") {
			b.external = append(b.external, u)
		}
	case *fetch.EventRequestPaused:
		go func() {
			body := base64.StdEncoding.EncodeToString(pictures[crc32.ChecksumIEEE([]byte(ev.Request.URL))%uint32(len(pictures))]())
			_ = chromedp.Run(b.ctx, fetch.FulfillRequest(ev.RequestID, 200).WithBody(body).
				WithResponseHeaders([]*fetch.HeaderEntry{{Name: "Content-Type", Value: "image/png"}}))
		}()
	}
}

// pictures are the pictures of the CDNs, each drawn once.
var pictures [6]func() []byte

func init() {
	for i := range pictures {
		pictures[i] = sync.OnceValue(func() []byte { return drawn(i) })
	}
}

// drawn returns a picture of hills in front of an evening sky.
func drawn(i int) []byte {
	const w, h = 480, 360
	im := image.NewRGBA(image.Rect(0, 0, w, h))
	for x := range w {
		hill := 190 + int(40*math.Sin(float64(x+90*i)/70)+18*math.Sin(float64(x*(i+2))/55))
		for y := range h {
			c := color.RGBA{uint8(60 + 30*i%120 + y/3), uint8(70 + y/4), uint8(150 - y/5), 255}
			if y > hill {
				c = color.RGBA{uint8(20 + 8*i), uint8(50 + (y-hill)/6 + 6*i), uint8(60 + (y-hill)/8), 255}
			}
			if dx, dy := x-110-45*i, y-110; dx*dx+dy*dy < 900 {
				c = color.RGBA{250, 220, 150, 255}
			}
			im.SetRGBA(x, y, c)
		}
	}
	var b bytes.Buffer
	_ = png.Encode(&b, im) // a Buffer never fails
	return b.Bytes()
}

func (b *tab) run(actions ...chromedp.Action) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, pageWait)
	defer cancel()
	require.NoError(b.t, chromedp.Run(ctx, actions...))
}

// step presses the back button or, for 1, the forward button. It does not wait: the page may be
// restored unchanged.
func (b *tab) step(by int) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Second)
	defer cancel()
	_ = chromedp.Run(ctx, chromedp.Evaluate(fmt.Sprintf(`history.go(%d)`, by), nil)) // the page may be left before it answers
}

// open visits a page of the site and waits until it is rendered.
func (b *tab) open(path string) {
	b.t.Helper()
	b.run(chromedp.Navigate(b.url+path), chromedp.WaitReady("body"))
}

// eval returns the value of an expression.
func eval[T any](b *tab, expression string) (out T) {
	b.t.Helper()
	b.run(chromedp.Evaluate(expression, &out))
	return out
}

// until waits until an expression is true, also across navigation.
func (b *tab) until(expression string) {
	b.t.Helper()
	poll.Until(b.t, pageWait, func() (bool, string) {
		var is bool
		err := chromedp.Run(b.ctx, chromedp.Evaluate(`Boolean(`+expression+`)`, &is))
		if err == nil && is {
			return true, ""
		}
		var page string
		_ = chromedp.Run(b.ctx, chromedp.Evaluate(`location.href + '\n' + document.querySelector('main')?.innerText.slice(0, 2000)`, &page))
		return false, fmt.Sprintf("%s: %v\n%s", expression, err, page)
	})
}

// arrive waits until the browser has loaded another page.
func (b *tab) arrive(where string) {
	b.t.Helper()
	b.until(where + ` && document.readyState === 'complete'`)
}

// live waits until the page follows the live tail.
func (b *tab) live() {
	b.t.Helper()
	b.until(`document.body.dataset.live !== undefined`)
}

const texts = `[...document.querySelectorAll('article.card .text')].map(e => e.innerText)`

func (b *tab) texts() []string {
	b.t.Helper()
	return eval[[]string](b, texts)
}
