package explorer_test

import (
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/npmtest"
)

// lighthouse visits pages as a phone and as a desktop. Pictures come from the server at cdn.
const lighthouse = `
	import lighthouse, { desktopConfig } from 'lighthouse'
	import * as launcher from 'chrome-launcher'
	const { url, chrome, cdn } = JSON.parse(process.argv[2])
	const browser = await launcher.launch({ chromePath: chrome, logLevel: 'silent', chromeFlags: [
		'--headless=new', '--no-sandbox', '--disable-gpu', '--ignore-certificate-errors',
		'--host-resolver-rules=MAP cdn.bsky.app ' + cdn + ', MAP video.bsky.app ' + cdn] })
	const out = {}
	for (const [form, config] of [['phone', undefined], ['desk', desktopConfig]]) {
		let lhr // the best of three: other programs' work costs performance
		for (let i = 0; i < 3 && !(lhr?.categories.performance.score > 0.95); i++) {
			const run = await lighthouse(url, { port: browser.port, logLevel: 'silent' }, config)
			if (!(lhr?.categories.performance.score > run.lhr.categories.performance.score)) lhr = run.lhr
		}
		const wrong = c => c.auditRefs.map(r => lhr.audits[r.id]).filter(a => a.score !== null && a.score < 1 && a.scoreDisplayMode !== 'informative')
		out[form] = Object.fromEntries(Object.values(lhr.categories).map(c => [c.id, { score: c.score ?? -1,
			wrong: wrong(c).map(a => a.id + ' ' + (a.displayValue ?? '') + ' ' + JSON.stringify(a.details?.items?.slice(0, 3) ?? '').slice(0, 600)) }]))
	}
	browser.kill()
	console.log(JSON.stringify(out))
	process.exit(0)`

// Lighthouse gives every page that search engines may list more than 95 in every category. Search
// results must not be indexed, which lowers their SEO score.
func TestLighthouse(t *testing.T) {
	node := npmtest.Heavy(t, npmtest.Node22, "lighthouse@13.5.0")
	x := newExplorer(t)
	x.gallery(t)
	cdn := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("Cache-Control", "public, max-age=31536000")
		_, _ = w.Write(pictures[crc32.ChecksumIEEE([]byte(r.URL.Path))%uint32(len(pictures))]())
	}))
	t.Cleanup(cdn.Close)
	for _, page := range sites {
		if !slices.Contains([]string{"home", "search", "tag", "post", "status", "docs"}, page.name) {
			continue
		}
		var out map[string]map[string]struct {
			Score float64
			Wrong []string
		}
		node.Run(t, lighthouse, map[string]string{"url": x.url + page.path, "chrome": chromium(t), "cdn": strings.TrimPrefix(cdn.URL, "https://")}, &out)
		require.Len(t, out, 2)
		for form, categories := range out {
			for category, got := range categories {
				t.Logf("%s %s %s: %.0f %s", page.name, form, category, 100*got.Score, strings.Join(got.Wrong, "\n    "))
				if category == "agentic-browsing" || category == "seo" && page.name == "search" {
					continue
				}
				if got.Score <= .95 {
					t.Errorf("%s %s %s: %.0f", page.name, form, category, 100*got.Score)
				}
			}
		}
	}
}
