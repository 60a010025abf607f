package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/api"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const reachLimit = time.Minute

// running is a running API.
type running struct {
	api      *api.API
	url      string
	health   *obs.Health
	registry *prometheus.Registry
	stop     context.CancelFunc
	done     chan error // the error of Run
	log      logText
}

// logText is a log that can be read while it is written.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func testKey(t testing.TB) keyset.Key {
	t.Helper()
	key, err := keyset.NewKey("k1", bytes.Repeat([]byte("k"), keyset.MinSecret))
	require.NoError(t, err)
	return key
}

func start(t testing.TB, databaseURL string, change ...func(*api.Config)) *running {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &running{
		url: "http://" + listener.Addr().String(), registry: prometheus.NewRegistry(), done: make(chan error, 1),
		health: obs.NewHealth(slog.New(slog.DiscardHandler), api.HealthDatabase, api.HealthListener),
	}
	cfg := api.Config{Database: store.Options{URL: databaseURL}, CursorKeys: []keyset.Key{testKey(t)}}
	for _, f := range change {
		f(&cfg)
	}
	a, err := api.New(cfg, api.Deps{Logger: slog.New(slog.NewTextHandler(&r.log, nil)), Registry: r.registry, Health: r.health, Listener: listener})
	require.NoError(t, err)
	r.api = a
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		r.done <- a.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-finished
	})
	return r
}

func (r *running) get(t testing.TB, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+path, nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(body)
}

// until waits for a status, a text in the answer, and the readiness that matches the status.
func (r *running) until(t testing.TB, status int, code string) {
	t.Helper()
	poll.Until(t, reachLimit, func() (bool, string) {
		got, body := r.get(t, "/v1/posts?tags=art")
		notReady := r.health.NotReady()
		return got == status && strings.Contains(body, code) && (len(notReady) == 0) == (status == http.StatusOK),
			fmt.Sprintf("%d %s, not ready: %v", got, body, notReady)
	})
}

func migrate(t testing.TB, url string) {
	t.Helper()
	require.NoError(t, store.Migrate(t.Context(), store.Options{URL: url}, slog.New(slog.DiscardHandler)))
}

// TestDatabaseOutage: the API is unready and answers 503 while the database is not migrated,
// stopped, killed or paused, and recovers afterwards.
func TestDatabaseOutage(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t)
	r := start(t, server.URL)
	r.until(t, http.StatusServiceUnavailable, "unavailable")
	poll.Until(t, reachLimit, func() (bool, string) {
		why := r.health.NotReady()[api.HealthDatabase]
		return strings.Contains(why, "indexer migrate"), why
	})
	migrate(t, server.URL)
	r.until(t, http.StatusOK, "")

	server.Stop(t)
	r.until(t, http.StatusServiceUnavailable, "unavailable")
	server.Start(t)
	r.until(t, http.StatusOK, "")
	server.Kill(t)
	r.until(t, http.StatusServiceUnavailable, "unavailable")
	server.Start(t)
	r.until(t, http.StatusOK, "")
	server.Pause(t)
	r.until(t, http.StatusServiceUnavailable, "timeout")
	status, _ := r.get(t, "/v1/posts?tags=art&limit=0")
	require.Equal(t, http.StatusBadRequest, status, "an invalid request is refused without the database")
	server.Resume(t)
	r.until(t, http.StatusOK, "")
}

// TestGraceful stops the API while a request waits for the database.
func TestGraceful(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t)
	migrate(t, server.URL)
	r := start(t, server.URL)
	r.until(t, http.StatusOK, "")
	server.Pause(t)
	answered := make(chan int, 1)
	go func() {
		res, err := http.Get(r.url + "/v1/posts?tags=art")
		if err != nil {
			answered <- 0
			return
		}
		res.Body.Close()
		answered <- res.StatusCode
	}()
	poll.Until(t, reachLimit, func() (bool, string) {
		n := r.gauge(t, "tagstream_api_requests_in_flight")
		return n == 1, fmt.Sprint(n, " in flight")
	})
	r.stop()
	poll.Until(t, reachLimit, func() (bool, string) {
		why := r.health.NotReady()[api.HealthListener]
		return why == "stopping", why
	})
	server.Resume(t)
	require.Equal(t, http.StatusOK, <-answered, "open requests are finished")
	require.NoError(t, <-r.done)
	_, err := http.Get(r.url + "/")
	require.Error(t, err, "the listener is closed")
}

func (r *running) gauge(t testing.TB, name string) float64 {
	t.Helper()
	families, err := r.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// TestOps: the operators' routes are served by Ops and not by the public listener.
func TestOps(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	role := db.SharedRole(t, "tagstream_reader")
	migrate(t, db.URL)
	r := start(t, role.URL)
	registry := obs.NewRegistry(r.health, "test")
	ops := func() (int, string) {
		w := httptest.NewRecorder()
		obs.OpsHandler(r.health, registry, r.api.Ops()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/admin/tags", nil))
		return w.Code, w.Body.String()
	}
	r.until(t, http.StatusOK, "")
	status, body := ops()
	require.Equal(t, http.StatusOK, status)
	require.JSONEq(t, `{"page":1,"perPage":50,"pages":0,"total":0,"tags":[]}`, body)
	status, body = r.get(t, "/v1/admin/tags")
	require.Equal(t, http.StatusNotFound, status)
	require.Contains(t, body, "not_found")
	r.stop()
	require.NoError(t, <-r.done)
	status, body = ops()
	require.Equal(t, http.StatusServiceUnavailable, status, "the operators' listener outlives the API")
	require.Contains(t, body, "starting or stopping")
}

// TestReaderCannotWrite: the API's database role cannot write.
func TestReaderCannotWrite(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	role := db.SharedRole(t, "tagstream_reader")
	migrate(t, db.URL)
	r := start(t, role.URL)
	r.until(t, http.StatusOK, "")
	conn := pgtest.Pool(t, role.URL)
	for _, statement := range []string{
		"INSERT INTO tagstream.tags (name) VALUES ('x')", "UPDATE tagstream.checkpoint SET seq = 1", "DELETE FROM tagstream.posts",
		"TRUNCATE tagstream.posts", "CREATE TABLE tagstream.x ()", "CREATE SCHEMA x",
	} {
		_, err := conn.Exec(t.Context(), statement)
		var pg *pgconn.PgError
		require.True(t, errors.As(err, &pg), "%s: %v", statement, err)
		require.Equal(t, "42501", pg.Code, statement)
	}
}

func quietDeps() api.Deps {
	return api.Deps{Logger: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()}
}

func goodConfig(t testing.TB) api.Config {
	t.Helper()
	return api.Config{Database: store.Options{URL: "postgres://db.example/x"}, CursorKeys: []keyset.Key{testKey(t)}}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	deps, good := quietDeps(), goodConfig(t)
	_, err := api.New(good, deps)
	require.NoError(t, err)
	for _, c := range []struct {
		name   string
		change func(*api.Config)
	}{
		{"no database", func(c *api.Config) { c.Database.URL = "" }},
		{"bad database URL", func(c *api.Config) { c.Database.URL = "postgres://%" }},
		{"no keys", func(c *api.Config) { c.CursorKeys = nil }},
		{"missing keys file", func(c *api.Config) { c.CursorKeys, c.CursorKeysFile = nil, "/nonexistent/keys" }},
		{"same key twice", func(c *api.Config) { c.CursorKeys = append(c.CursorKeys, c.CursorKeys[0]) }},
		{"bad media", func(c *api.Config) { c.Media = "all" }},
		{"negative limit", func(c *api.Config) { c.MaxInFlight = -1 }},
	} {
		bad := good
		c.change(&bad)
		_, err := api.New(bad, deps)
		require.Error(t, err, c.name)
	}
}

func TestListenError(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	a, err := api.New(api.Config{
		Database: store.Options{URL: "postgres://db.example/x"}, CursorKeys: []keyset.Key{testKey(t)}, Listen: taken.Addr().String(),
	}, api.Deps{Logger: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()})
	require.NoError(t, err)
	require.ErrorContains(t, a.Run(t.Context()), taken.Addr().String())
}

// Invariant: a client that is slow, silent, sends too much or is one too many is cut off or
// refused, and does not delay others. See also TestOverload.
func TestSockets(t *testing.T) {
	t.Parallel()
	r := start(t, "postgres://127.0.0.1:1/nowhere")
	head := "GET /v1/posts?tags=art&limit=0 HTTP/1.1\r\nHost: x\r\n"
	for _, c := range []struct {
		name, sends, answer string
	}{
		{"a header that is too big", head + "X: " + strings.Repeat("x", 256<<10) + "\r\n\r\n", "431 "},
		{"a query string that is too long", "GET /v1/posts?tags=" + strings.Repeat("x", 20<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", "query_too_long"},
		{"a body, which is not read", head + "Content-Length: 1000000000\r\n\r\n" + strings.Repeat("x", 1<<20), "invalid_limit"},
		{"a header that does not end", head, ""},
		{"nothing", "", ""},
		{"garbage", "\x16\x03\x01\r\n\r\n", "400 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
			go func() { _, _ = io.WriteString(conn, c.sends) }() // the server may close the connection early
			if c.answer == "" {
				answer, err := io.ReadAll(conn)
				require.NoError(t, err, "the connection is closed")
				require.Empty(t, answer)
				return
			}
			answer := make([]byte, 0, 8<<10)
			for !strings.Contains(string(answer), c.answer) {
				n, err := conn.Read(answer[len(answer):cap(answer)])
				answer = answer[:len(answer)+n]
				require.NoError(t, err, "%s", answer)
			}
			require.NotContains(t, string(answer), "127.0.0.1:1", "internals are not exposed")
		})
	}
	status, body := r.get(t, "/v1/posts?tags=art")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.JSONEq(t, `{"type":"about:blank","title":"Service Unavailable","status":503,"code":"unavailable","detail":"The index cannot be reached at the moment; try again in a few seconds."}`, body)
}
