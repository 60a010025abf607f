package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

const (
	// waitLimit bounds one wait of a test.
	waitLimit = 2 * time.Minute
	// childEnv makes the test binary start the cluster in the directory it
	// names, print the server's process id and URL, and wait to be killed.
	childEnv = "PGSERVER_TEST_CHILD"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(child(dir))
	}
	code := m.Run()
	if dir, _ := template(); dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

func child(dir string) int {
	ctx := context.Background()
	found, err := Find(ctx, dir)
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	server, err := Start(ctx, testConfig(dir, found))
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Println(server.PID(), server.URL("writer"))
	io.Copy(io.Discard, os.Stdin)
	return 0
}

// testConfig is the configuration of most tests.
func testConfig(dir string, binaries Binaries) Config {
	return Config{
		Dir:      dir,
		Binaries: binaries,
		Database: "tagstream",
		Owner:    "owner",
		Roles:    []string{"owner", "writer"},
		Settings: map[string]string{"shared_buffers": "16MB", "fsync": "off"},
		Logger:   slog.New(slog.DiscardHandler),
	}
}

// testBinaries gives the machine's Postgres.
func testBinaries(t testing.TB) Binaries {
	t.Helper()
	found, err := Find(t.Context(), "")
	if errors.Is(err, ErrNotFound) && os.Getenv("CI") != "true" {
		t.Skipf("SKIPPED: %v", err)
	}
	require.NoError(t, err)
	return found
}

// template is the directory of a stopped server, created once: initdb takes most of a second.
var template = sync.OnceValues(func() (string, error) {
	ctx := context.Background()
	found, err := Find(ctx, "")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "pgserver-test-")
	if err != nil {
		return "", err
	}
	server, err := Start(ctx, testConfig(dir, found))
	if err != nil {
		return dir, err
	}
	return dir, server.Stop(ctx)
})

// testDir gives a directory with a cluster in it.
func testDir(t testing.TB) (string, Binaries) {
	t.Helper()
	binaries := testBinaries(t)
	from, err := template()
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "my 100% + data")
	require.NoError(t, os.CopyFS(dir, os.DirFS(from)))
	return dir, binaries
}

// start starts a server that ends with the test.
func start(t testing.TB, cfg Config) *Server {
	t.Helper()
	server, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, stop(server)) })
	return server
}

func stop(server *Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	return server.Stop(ctx)
}

// query gives one value as text.
func query(t testing.TB, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	var text string
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&text))
	return text
}

func execute(t testing.TB, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err)
}

// wait returns when done does, and fails the test at waitLimit.
func wait(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	timer := time.NewTimer(waitLimit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		t.Fatalf("%s: not within %v", what, waitLimit)
	}
}
