package obs_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/obs"
)

const patience = time.Minute

func TestOpsHandler(t *testing.T) {
	t.Parallel()
	health := obs.NewHealth(slog.New(slog.DiscardHandler), "nats", "database")
	registry := obs.NewRegistry(health, "v1")
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "tagstream_test_total", Help: "h"})
	registry.MustRegister(counter)
	extra := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "extra "+r.URL.Path) })
	get := func(h http.Handler, method, path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w
	}
	h := obs.OpsHandler(health, registry, nil)

	w := get(h, http.MethodGet, "/healthz")
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "ok\n", w.Body.String(), "also while it is not ready")

	type readiness struct {
		Ready    bool
		NotReady map[string]string
	}
	readyz := func() (code int, body readiness) {
		w := get(h, http.MethodGet, "/readyz")
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
		require.Contains(t, w.Body.String(), `"notReady":{`)
		return w.Code, body
	}
	code, body := readyz()
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Equal(t, readiness{NotReady: map[string]string{"nats": "starting", "database": "starting"}}, body)
	health.Set("nats", nil)
	health.Set("database", errors.New("refused"))
	code, body = readyz()
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Equal(t, map[string]string{"database": "refused"}, body.NotReady)
	metrics := get(h, http.MethodGet, "/metrics").Body.String()
	require.Contains(t, metrics, "tagstream_component_ready{component=\"database\"} 0\n")
	require.Contains(t, metrics, "tagstream_component_ready{component=\"nats\"} 1\n")
	health.Set("database", nil)
	code, body = readyz()
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, readiness{Ready: true, NotReady: map[string]string{}}, body)

	counter.Inc()
	w = get(h, http.MethodGet, "/metrics")
	require.Contains(t, w.Body.String(), "tagstream_test_total 1\n")
	require.Contains(t, w.Body.String(), "tagstream_build_info{version=\"v1\"} 1\n")
	require.Contains(t, w.Body.String(), "go_goroutines ")
	require.Contains(t, w.Body.String(), "process_cpu_seconds_total ")
	require.Contains(t, get(h, http.MethodGet, "/debug/pprof/").Body.String(), "goroutine")
	require.Equal(t, http.StatusOK, get(h, http.MethodGet, "/debug/pprof/heap").Code)
	require.Equal(t, http.StatusOK, get(h, http.MethodGet, "/debug/pprof/cmdline").Code)

	require.Equal(t, http.StatusNotFound, get(h, http.MethodGet, "/v1/admin/tags").Code)
	require.Equal(t, http.StatusMethodNotAllowed, get(h, http.MethodPost, "/healthz").Code)
	require.Equal(t, "extra /v1/admin/tags", get(obs.OpsHandler(health, registry, extra), http.MethodGet, "/v1/admin/tags").Body.String())
}

// slow is a handler that signals when a request is in it and waits to be released.
type slow struct{ entered, release chan struct{} }

func (s slow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.entered <- struct{}{}
	select {
	case <-s.release:
		_, _ = io.WriteString(w, "done")
	case <-r.Context().Done():
	}
}

func serve(t *testing.T, h http.Handler, drain time.Duration) (url string, stop context.CancelFunc, result <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	ended := make(chan error, 1)
	go func() { ended <- obs.Serve(ctx, l, h, drain) }()
	return "http://" + l.Addr().String(), cancel, ended
}

func request(t *testing.T, url string) <-chan string {
	t.Helper()
	out := make(chan string, 1)
	go func() {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			out <- "error"
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		out <- string(body)
	}()
	return out
}

func TestServeLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	h := slow{make(chan struct{}, 1), make(chan struct{})}
	url, stop, result := serve(t, h, patience)
	answer := request(t, url)
	<-h.entered
	stop()
	require.Equal(t, "error", <-request(t, url+"/refused-or-reset"), "nothing new is taken")
	close(h.release)
	require.Equal(t, "done", <-answer)
	require.NoError(t, <-result)
}

func TestServeBreaksOffWhatLastsTooLong(t *testing.T) {
	t.Parallel()
	h := slow{make(chan struct{}, 1), make(chan struct{})}
	url, stop, result := serve(t, h, 20*time.Millisecond)
	answer := request(t, url)
	<-h.entered
	stop()
	require.Equal(t, "error", <-answer)
	require.NoError(t, <-result)
}

func TestServeTellsOfItsListener(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.ErrorContains(t, obs.Serve(t.Context(), l, http.NotFoundHandler(), time.Second), l.Addr().String())
}

func TestRunOps(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		health := obs.NewHealth(slog.New(slog.DiscardHandler))
		ended <- obs.RunOps(ctx, l, health, obs.NewRegistry(health, "v1"), nil)
	}()
	require.Equal(t, "ok\n", <-request(t, "http://"+l.Addr().String()+"/healthz"))
	cancel()
	require.NoError(t, <-ended)
}
