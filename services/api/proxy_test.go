//go:build linux

package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// TestProxyAnswersForItself makes the proxy of deploy/proxy answer by itself: web
// pages can read each answer, and it is a problem that openapi.yaml has.
func TestProxyAnswersForItself(t *testing.T) {
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
		require.Contains(t, string(spec), fmt.Sprintf("    | `%s` | %d |", code, status), "it is documented")
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
	require.Equal(t, http.StatusNoContent, preflight.StatusCode, "a browser may ask, and then reads why not")
	require.Contains(t, preflight.Header.Get("Access-Control-Allow-Methods"), "GET")
	require.Equal(t, "*", preflight.Header.Get("Access-Control-Allow-Headers"))
}

// TestProxyPassesOn: what the API takes and says comes through the proxy as it is.
func TestProxyPassesOn(t *testing.T) {
	t.Parallel()
	r := start(t, "postgres://127.0.0.1:1/nowhere")
	proxy := startProxy(t, strings.TrimPrefix(r.url, "http://"), 1000)
	proxy.until(t, http.StatusOK) // what is asked for readiness there is "/"
	a := proxy.get(t, http.MethodGet, "/v1/posts?tags="+strings.Repeat("x", 30<<10))
	body, err := io.ReadAll(a.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "query_too_long")
	a = proxy.get(t, http.MethodGet, "/v1/tags/art%")
	require.Equal(t, http.StatusBadRequest, a.StatusCode)
	a = proxy.get(t, http.MethodGet, "/v1/tags/a%2Fb?x=1")
	body, err = io.ReadAll(a.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "unknown_parameter", "an encoded slash stays one")
}

// behind is a way to an API through a server that stands before it.
type behind struct {
	client *http.Client
	prefix string // of paths
}

// startProxy starts HAProxy with the configuration of deploy/proxy, before one
// server at address, on sockets of the test's own and with time-outs that a test
// can wait for.
func startProxy(t *testing.T, address string, rate int) *behind {
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
		"/etc/tagstream/":                 source + "/",
		"bind :8080":                      "bind unix@" + dir + "/public",
		"bind :8404":                      "bind unix@" + dir + "/operators",
		"server-template api 10 api:8080": "server api1 " + address,
		"check port 9093":                 "check port " + port,
		"meth GET uri /readyz":            "meth GET uri /",
		"timeout server 15s":              "timeout server 300ms",
		// A socket of a file system has no address to limit: all of it is one caller.
		"track-sc0 src": "track-sc0 ipv6(::1)",
	} {
		require.Contains(t, config, old, "the configuration has what this test changes")
		config = strings.ReplaceAll(config, old, changed)
	}
	file := filepath.Join(dir, "haproxy.cfg")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	run(t, exec.Command(program, "-db", "-f", file), fmt.Sprint("RATE_PER_10S=", rate))
	return overSocket(filepath.Join(dir, "public"), "")
}

// installed returns the path of a program from Debian's package of the same name.
// Where it is missing the test is skipped, or fails in CI.
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
			t.Log(cmd.Path, "said:", output.String())
		}
	})
}

func overSocket(path, prefix string) *behind {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	return &behind{&http.Client{Transport: transport, Timeout: time.Minute}, prefix}
}

// get asks, and checks that a web page could read the answer.
func (b *behind) get(t *testing.T, method, target string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://tags.example", nil)
	require.NoError(t, err)
	req.URL.Opaque = b.prefix + target // as it is: nothing is encoded anew
	a, err := b.client.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = a.Body.Close() })
	require.Equal(t, []string{"*"}, a.Header.Values("Access-Control-Allow-Origin"))
	require.Contains(t, a.Header.Get("Access-Control-Expose-Headers"), "Retry-After")
	return a
}

// until waits until the server that stands before the API is there and answers with
// a status.
func (b *behind) until(t *testing.T, status int) {
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
