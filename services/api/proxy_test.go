//go:build linux

package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// TestProxyAnswers: web pages can read every answer that the proxy in deploy/proxy sends itself,
// and it is a problem in openapi.yaml.
func TestProxyAnswers(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/late":
			<-r.Context().Done()
		case "/torn":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		case "/plain":
			http.Error(w, "no URL", http.StatusBadRequest)
		}
	}))
	t.Cleanup(backend.Close)
	proxy := startProxy(t, backend.Listener.Addr().String(), 1000)
	proxy.until(t, http.StatusOK)
	spec, err := os.ReadFile("internal/httpapi/openapi.yaml")
	require.NoError(t, err)
	problem := func(a *http.Response, status int, code string) {
		t.Helper()
		var p struct {
			Type, Title, Code, Detail string
			Status                    int
		}
		require.NoError(t, json.NewDecoder(a.Body).Decode(&p))
		require.Equal(t, status, a.StatusCode, p.Code)
		require.Equal(t, code, p.Code)
		require.Equal(t, status, p.Status)
		require.Equal(t, http.StatusText(status), p.Title)
		require.Equal(t, "about:blank", p.Type)
		require.NotEmpty(t, p.Detail)
		require.Equal(t, "application/problem+json", a.Header.Get("Content-Type"))
		require.Equal(t, "no-store", a.Header.Get("Cache-Control"))
		require.NotEmpty(t, a.Header.Get("Retry-After"))
		require.Contains(t, string(spec), fmt.Sprintf("    | `%s` | %d |", code, status), "the code is documented")
	}
	for _, path := range []string{"/late", "/torn"} {
		problem(proxy.get(t, http.MethodGet, path), http.StatusServiceUnavailable, "unavailable")
	}
	require.Equal(t, http.StatusBadRequest, proxy.get(t, http.MethodGet, "/plain").StatusCode)
	backend.Close()
	proxy.until(t, http.StatusServiceUnavailable)
	problem(proxy.get(t, http.MethodGet, "/"), http.StatusServiceUnavailable, "unavailable")

	limited := startProxy(t, backend.Listener.Addr().String(), 0)
	limited.until(t, http.StatusTooManyRequests)
	problem(limited.get(t, http.MethodGet, "/"), http.StatusTooManyRequests, "rate_limited")
	preflight := limited.get(t, http.MethodOptions, "/")
	require.Equal(t, http.StatusNoContent, preflight.StatusCode, "a browser can send the request and read why it is refused")
	require.Contains(t, preflight.Header.Get("Access-Control-Allow-Methods"), "GET")
	require.Equal(t, "*", preflight.Header.Get("Access-Control-Allow-Headers"))
}

// TestProxyForwards: the proxy forwards all requests and answers of the API unchanged.
func TestProxyForwards(t *testing.T) {
	t.Parallel()
	r := start(t, "postgres://127.0.0.1:1/nowhere")
	proxy := startProxy(t, strings.TrimPrefix(r.url, "http://"), 1000)
	proxy.until(t, http.StatusOK) // in tests "/" is the readiness check
	a := proxy.get(t, http.MethodGet, "/v1/posts?tags="+strings.Repeat("x", 30<<10))
	body, err := io.ReadAll(a.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "query_too_long")
	a = proxy.get(t, http.MethodGet, "/v1/tags/art%")
	require.Equal(t, http.StatusBadRequest, a.StatusCode)
	a = proxy.get(t, http.MethodGet, "/v1/tags/a%2Fb?x=1")
	body, err = io.ReadAll(a.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "unknown_parameter", "an encoded slash stays encoded")
}

// TestProxyStreams: events of /v1/stream pass immediately through the proxy, also with HTTP/2, and
// through nginx as configured in docs/deployment.md. Silence beyond the timeout of other answers
// does not end a stream.
func TestProxyStreams(t *testing.T) {
	t.Parallel()
	events := make(chan string)
	ended := make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/stream" {
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Accel-Buffering", "no")
		for text := ""; ; {
			_, _ = io.WriteString(w, text)
			_ = http.NewResponseController(w).Flush()
			select {
			case text = <-events:
			case <-r.Context().Done():
				ended <- struct{}{}
				return
			}
		}
	}))
	t.Cleanup(backend.Close)
	address := backend.Listener.Addr().String()
	proxy, nginx := startProxy(t, address, 1000), startNginx(t, address)
	http2 := &http.Transport{DialContext: proxy.client.Transport.(*http.Transport).DialContext, Protocols: new(http.Protocols)}
	http2.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(http2.CloseIdleConnections)
	proxy.until(t, http.StatusOK)
	nginx.until(t, http.StatusOK)
	for name, via := range map[string]*proxied{"proxy": proxy, "HTTP/2": {&http.Client{Transport: http2}, ""}, "nginx": nginx} {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://tags.example"+via.prefix+"/v1/stream?tags=art", nil)
		require.NoError(t, err)
		req.Header.Set("Accept-Encoding", "gzip")
		a, err := via.client.Do(req)
		require.NoError(t, err, name)
		require.Equal(t, http.StatusOK, a.StatusCode, name)
		require.Empty(t, a.Header.Get("Content-Encoding"))
		buffer := make([]byte, 100)
		for _, text := range []string{"data: one\n\n", "data: two\n\n"} {
			select {
			case <-time.After(2 * proxyTimeout):
			case <-ended:
				require.Fail(t, "a silent stream was ended", name)
			}
			events <- text
			n, err := a.Body.Read(buffer)
			require.NoError(t, err, name)
			require.Equal(t, text, string(buffer[:n]), name)
		}
		cancel()
		_ = a.Body.Close()
		<-ended // the backend notices
	}
}

// TestBehindAPathPrefix: if nginx serves the API under a path, as configured in docs/deployment.md,
// links work and every tag can be requested.
func TestBehindAPathPrefix(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	migrate(t, db.URL)
	w, err := write.Open(t.Context(), store.Options{URL: db.URL}, "test")
	require.NoError(t, err)
	t.Cleanup(w.Close)
	_, err = w.Acquire(t.Context())
	require.NoError(t, err)
	c := write.Changes{Accounts: []*write.Account{{DID: "did:plc:author", Seq: 1}}}
	const posts, slashed = 7, "ac/dc"
	for i := range posts {
		rkey := fmt.Sprint("post", i)
		c.Posts = append(c.Posts, write.PostChange{NewVisible: true, New: &write.Post{
			Key: event.NewKey(time.Unix(1e9+int64(i), 0), event.URI(c.Accounts[0].DID, rkey)), Account: c.Accounts[0], Rkey: rkey, Rev: "3abcdefghijkl",
			CID: "bafy", Tags: []string{"art", slashed, "art & photo"}, IndexedAt: time.Unix(1e9, 0), Seq: 1, Record: []byte(`{}`),
		}})
	}
	require.NoError(t, w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) { return cp, tx.Write(t.Context(), c) }))
	r := start(t, db.URL)
	r.until(t, http.StatusOK, "")
	nginx := startNginx(t, strings.TrimPrefix(r.url, "http://"))
	nginx.until(t, http.StatusOK)

	here, err := url.Parse("http://tags.example" + nginx.prefix + "/")
	require.NoError(t, err)
	follow := func(from *url.URL, reference string) *url.URL {
		t.Helper()
		to, err := from.Parse(reference)
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(to.Path, nginx.prefix+"/"), "%s leads to %s", reference, to)
		return to
	}
	ask := func(u *url.URL, into any) http.Header {
		t.Helper()
		a := nginx.get(t, http.MethodGet, strings.TrimPrefix(u.RequestURI(), nginx.prefix))
		require.Equal(t, http.StatusOK, a.StatusCode, u)
		require.NoError(t, json.NewDecoder(a.Body).Decode(into))
		return a.Header
	}
	var index struct{ Routes []struct{ Path string } }
	ask(here, &index)
	routes := map[string]*url.URL{}
	for _, route := range index.Routes {
		routes[strings.TrimPrefix(route.Path, ".")] = follow(here, route.Path)
	}

	link := regexp.MustCompile(`<([^>]*)>; rel="next"`)
	for path, size := range map[string]string{"/v1/posts": "limit=2", "/v1/getRecentRootPostsWithTags": "quantity=2"} {
		for _, tag := range []string{"art", slashed, "art & photo"} {
			seen := 0
			for at := follow(routes[path], "?"+size+"&tags="+url.QueryEscape(tag)); at != nil; {
				var page struct{ Posts []struct{ URI string } }
				header := ask(at, &page)
				seen += len(page.Posts)
				if m := link.FindStringSubmatch(header.Get("Link")); m != nil {
					at = follow(at, m[1])
				} else {
					at = nil
				}
			}
			require.Equal(t, posts, seen, "%s of %q", path, tag)
		}
	}
	tags := 0
	for at := follow(routes["/v1/tags"], "?limit=1"); at != nil; tags++ {
		var page struct{ Tags []struct{ Tag string } }
		header := ask(at, &page)
		var one struct {
			Tag   string
			Posts int
		}
		ask(follow(routes["/v1/tag"], "?tag="+url.QueryEscape(page.Tags[0].Tag)), &one)
		require.Equal(t, page.Tags[0].Tag, one.Tag)
		require.Equal(t, posts, one.Posts)
		at = nil
		if m := link.FindStringSubmatch(header.Get("Link")); m != nil {
			at = follow(routes["/v1/tags"], m[1])
		}
	}
	require.Equal(t, 3, tags)
	reference := regexp.MustCompile(`(?:href|src|action)="([^"]*)"`)
	for _, path := range []string{"search?tags=art", "tag/art", "tag?tag=ac%2Fdc", "post/did:plc:author/post0", "wall?tags=art", "embed?tags=art", "status", "docs"} {
		at := follow(here, path)
		a := nginx.get(t, http.MethodGet, strings.TrimPrefix(at.RequestURI(), nginx.prefix))
		page, err := io.ReadAll(a.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, a.StatusCode, path)
		for _, m := range reference.FindAllStringSubmatch(string(page), -1) {
			if to := html.UnescapeString(m[1]); !strings.HasPrefix(to, "https://bsky.app/") {
				follow(at, to)
			}
		}
	}
	var post struct{ Rkey string }
	ask(follow(here, "v1/posts/did:plc:author/post0"), &post)
	require.Equal(t, "post0", post.Rkey)
}

// startNginx starts nginx with the location in docs/deployment.md in front of the API at address.
func startNginx(t *testing.T, address string) *proxied {
	t.Helper()
	program := installed(t, "nginx")
	docs, err := os.ReadFile("../../docs/deployment.md")
	require.NoError(t, err)
	location := regexp.MustCompile("(?s)```nginx\n(.*?)```").FindSubmatch(docs)
	require.NotNil(t, location, "docs/deployment.md has the configuration")
	const upstream = "http://127.0.0.1:8080/"
	require.Contains(t, string(location[1]), upstream)
	dir := t.TempDir()
	var config strings.Builder
	fmt.Fprintf(&config, "daemon off; master_process off; pid %[1]s/pid; error_log stderr;\nevents {}\nhttp {\n  access_log off;\n", dir)
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&config, "  %s_temp_path %s/%s;\n", kind, dir, kind)
	}
	fmt.Fprintf(&config, "  server {\n    listen unix:%s/public;\n%s  }\n}\n", dir, strings.ReplaceAll(string(location[1]), upstream, "http://"+address+"/"))
	file := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(file, []byte(config.String()), 0o600))
	run(t, exec.Command(program, "-e", "stderr", "-p", dir, "-c", file))
	return overSocket(filepath.Join(dir, "public"), "/tags-api")
}

// proxyTimeout is the proxy's server timeout in tests.
const proxyTimeout = 300 * time.Millisecond

// proxied is an API behind a proxy.
type proxied struct {
	client *http.Client
	prefix string // of paths
}

// startProxy starts HAProxy with the configuration in deploy/proxy in front of one server at
// address, on sockets in a temporary directory and with short timeouts.
func startProxy(t *testing.T, address string, rate int) *proxied {
	t.Helper()
	program := installed(t, "haproxy")
	source, err := filepath.Abs("../../deploy/proxy")
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(source, "haproxy.cfg"))
	require.NoError(t, err)
	dir := t.TempDir()
	config := string(text)
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	for old, changed := range map[string]string{
		"/etc/tagstream/":                    source + "/",
		"bind :8080":                         "bind unix@" + dir + "/public",
		"bind :8404":                         "bind unix@" + dir + "/operators",
		"server-template api 10 api:8080":    "server api1 " + address,
		"server-template stream 10 api:8080": "server stream1 " + address,
		"check port 9093":                    "check port " + port,
		"meth GET uri /readyz":               "meth GET uri /",
		"timeout server 15s":                 "timeout server " + proxyTimeout.String(),
		// Unix sockets have no client address to limit: all requests count for one.
		"track-sc0 src": "track-sc0 ipv6(::1)",
	} {
		require.Contains(t, config, old, "the configuration has the text that this test replaces")
		config = strings.ReplaceAll(config, old, changed)
	}
	file := filepath.Join(dir, "haproxy.cfg")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	run(t, exec.Command(program, "-db", "-f", file), fmt.Sprint("RATE_PER_10S=", rate))
	return overSocket(filepath.Join(dir, "public"), "")
}

// installed returns the path of a program from the Debian package of the same name. If it is
// missing, the test is skipped, or fails in CI.
func installed(t *testing.T, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is required here; Debian's package %s has it", name, name)
	}
	t.Skipf("nothing is tested through %s: it is not installed (Debian's package %s has it)", name, name)
	return ""
}

// run starts a program and ends it with the test.
func run(t *testing.T, cmd *exec.Cmd, env ...string) {
	t.Helper()
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(cmd.Path, "printed:", output.String())
		}
	})
}

func overSocket(path, prefix string) *proxied {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	return &proxied{&http.Client{Transport: transport, Timeout: time.Minute}, prefix}
}

// get sends a request and checks that web pages can read the answer.
func (b *proxied) get(t *testing.T, method, target string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://tags.example", nil)
	require.NoError(t, err)
	req.URL.Opaque = b.prefix + target // sent without further encoding
	a, err := b.client.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = a.Body.Close() })
	require.Equal(t, []string{"*"}, a.Header.Values("Access-Control-Allow-Origin"))
	require.Contains(t, a.Header.Get("Access-Control-Expose-Headers"), "Retry-After")
	return a
}

// until waits until the proxy answers with a status.
func (b *proxied) until(t *testing.T, status int) {
	t.Helper()
	poll.Until(t, reachLimit, func() (bool, string) {
		a, err := b.client.Get("http://tags.example" + b.prefix + "/")
		if err != nil {
			return false, err.Error()
		}
		defer a.Body.Close()
		return a.StatusCode == status, a.Status
	})
}
