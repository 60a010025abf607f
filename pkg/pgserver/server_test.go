package pgserver

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/dirlock"
)

func TestStartFromNothing(t *testing.T) {
	t.Parallel()
	binaries := testBinaries(t)
	// Deeper than the length limit of a socket's path and, for root, below a directory that
	// Postgres's account cannot enter; and with a space in it.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30), "my data")
	// Leftovers of a kill during initdb.
	require.NoError(t, os.MkdirAll(filepath.Join(dir, newClusterName, "base"), 0o700))

	begin := time.Now()
	server := start(t, testConfig(dir, binaries))
	t.Logf("initialized and ready in %v", time.Since(begin))

	for name, check := range map[string]struct{ sql, want string }{
		"encoding":       {"SHOW server_encoding", "UTF8"},
		"order of text":  {"SELECT datcollate FROM pg_database WHERE datname = 'tagstream'", "C"},
		"checksums":      {"SHOW data_checksums", "on"},
		"passwords":      {"SHOW password_encryption", "scram-sha-256"},
		"no TCP":         {"SHOW listen_addresses", ""},
		"our settings":   {"SHOW jit", "off"},
		"given settings": {"SHOW shared_buffers", "16MB"},
		"owner":          {"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()", "owner"},
		"no superuser":   {"SELECT string_agg(rolname, ',') FROM pg_roles WHERE rolsuper", Superuser},
	} {
		require.Equal(t, check.want, query(t, server.URL("writer"), check.sql), name)
	}
	for _, role := range []string{"owner", "writer", Superuser} {
		require.Equal(t, role, query(t, server.URL(role), "SELECT current_user"))
		info, err := os.Stat(filepath.Join(dir, "secrets", role))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "password of %s", role)
	}
	_, err := pgx.Connect(t.Context(), server.URL("stranger"))
	require.ErrorContains(t, err, "password authentication failed")

	info, err := os.Stat(server.socketDir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

func TestRestartKeepsDataAndPasswords(t *testing.T) {
	t.Parallel()
	dir, binaries := testDir(t)
	cfg := testConfig(dir, binaries)
	begin := time.Now()
	first, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Logf("ready in %v", time.Since(begin))
	execute(t, first.URL("owner"), "CREATE TABLE kept AS SELECT 'yes' AS answer")
	begin = time.Now()
	require.NoError(t, stop(first))
	t.Logf("stopped in %v", time.Since(begin))
	require.NoError(t, stop(first), "a second stop is harmless")
	wait(t, "the first server", first.Done())
	require.NoError(t, first.Err())
	require.NoDirExists(t, first.socketDir)

	// A role and a database that are added later are created on the next start.
	cfg.Roles = append(cfg.Roles, "reader")
	second := start(t, cfg)
	require.Equal(t, password(t, first.URL("writer")), password(t, second.URL("writer")))
	require.Equal(t, "yes", query(t, second.URL("owner"), "SELECT answer FROM kept"))
	require.Equal(t, "reader", query(t, second.URL("reader"), "SELECT current_user"))
}

func password(t *testing.T, connString string) string {
	t.Helper()
	u, err := url.Parse(connString)
	require.NoError(t, err)
	text, ok := u.User.Password()
	require.True(t, ok)
	return text
}

func TestTwoStartsAtOnce(t *testing.T) {
	t.Parallel()
	dir, binaries := testDir(t)
	const starts = 4
	servers := make([]*Server, starts)
	errs := make([]error, starts)
	var group sync.WaitGroup
	for i := range starts {
		group.Go(func() { servers[i], errs[i] = Start(t.Context(), testConfig(dir, binaries)) })
	}
	group.Wait()
	running := 0
	for i, server := range servers {
		if server != nil {
			running++
			require.Equal(t, "1", query(t, server.URL("writer"), "SELECT '1'"), "the one that runs is left alone")
			defer stop(server)
			continue
		}
		var held *dirlock.HeldError
		require.ErrorAs(t, errs[i], &held)
		require.Equal(t, os.Getpid(), held.PID)
	}
	require.Equal(t, 1, running)
}

func TestTCP(t *testing.T) {
	t.Parallel()
	dir, binaries := testDir(t)
	cfg := testConfig(dir, binaries)
	cfg.TCPPort = AnyPort
	server := start(t, cfg)
	require.Equal(t, "writer", query(t, server.URL("writer"), "SELECT current_user"))
	require.Equal(t, "127.0.0.1/32", query(t, server.URL("writer"), "SELECT inet_server_addr()::text"))

	otherDir, _ := testDir(t)
	other := testConfig(otherDir, binaries)
	other.TCPPort = server.Port()
	_, err := Start(t.Context(), other)
	require.ErrorContains(t, err, "Address already in use")
}

func TestServerEndsByItself(t *testing.T) {
	t.Parallel()
	dir, binaries := testDir(t)
	server, err := Start(t.Context(), testConfig(dir, binaries))
	require.NoError(t, err)
	require.NoError(t, server.Err())
	execute(t, server.URL("owner"), "CREATE TABLE kept AS SELECT 'yes' AS answer")
	require.NoError(t, syscall.Kill(server.PID(), syscall.SIGQUIT))
	wait(t, "the end", server.Done())
	require.ErrorContains(t, server.Err(), "immediate shutdown", "the log's last lines are in the error")
	require.NoError(t, stop(server))

	again := start(t, testConfig(dir, binaries))
	require.Equal(t, "yes", query(t, again.URL("owner"), "SELECT answer FROM kept"))
}

func TestStopAtOnce(t *testing.T) {
	t.Parallel()
	dir, binaries := testDir(t)
	server, err := Start(t.Context(), testConfig(dir, binaries))
	require.NoError(t, err)
	execute(t, server.URL("owner"), "CREATE TABLE kept AS SELECT 'yes' AS answer")
	// A stopped process cannot shut down as requested.
	require.NoError(t, syscall.Kill(server.PID(), syscall.SIGSTOP))
	time.AfterFunc(100*time.Millisecond, func() { syscall.Kill(server.PID(), syscall.SIGCONT) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, server.Stop(ctx), context.Canceled)
	select {
	case <-server.Done():
	default:
		t.Fatal("Stop returned before the process was gone")
	}
	require.NoError(t, server.Err())
	again := start(t, testConfig(dir, binaries))
	require.Equal(t, "yes", query(t, again.URL("owner"), "SELECT answer FROM kept"))
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		edit func(cfg *Config)
		want string
	}{
		{"no directory", func(c *Config) { c.Dir = "" }, "required"},
		{"no binaries", func(c *Config) { c.Binaries = Binaries{} }, "required"},
		{"role name", func(c *Config) { c.Roles = []string{"a b"} }, `role name "a b"`},
		{"role is the superuser", func(c *Config) { c.Roles = []string{Superuser} }, "and not postgres"},
		{"owner is no role", func(c *Config) { c.Owner = "x" }, `owner "x" is not one of the roles`},
		{"database name", func(c *Config) { c.Database = "a/b" }, `database name "a/b"`},
		{"port", func(c *Config) { c.TCPPort = 65536 }, "within 1..65535"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			cfg := testConfig(dir, Binaries{Dir: "/nowhere"})
			test.edit(&cfg)
			_, err := Start(t.Context(), cfg)
			require.ErrorContains(t, err, test.want)
			require.NoDirExists(t, dir, "nothing was begun")
		})
	}
}

func TestStartFailsClearly(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		edit func(t *testing.T, cfg *Config)
		want string
	}{
		{"unknown setting", func(_ *testing.T, c *Config) { c.Settings = map[string]string{"no_such": "1"} }, `"no_such"`},
		{"password lost", func(t *testing.T, c *Config) {
			require.NoError(t, os.Remove(filepath.Join(c.Dir, "secrets", Superuser)))
		}, "restore the file"},
		{"files but no cluster", func(t *testing.T, c *Config) {
			require.NoError(t, os.Remove(filepath.Join(c.Dir, clusterName, "PG_VERSION")))
		}, "move them away"},
		{"no such binaries", func(t *testing.T, c *Config) { c.Binaries.Dir = t.TempDir() }, "fork/exec"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir, binaries := testDir(t)
			cfg := testConfig(dir, binaries)
			test.edit(t, &cfg)
			_, err := Start(t.Context(), cfg)
			require.ErrorContains(t, err, test.want)
			lock, err := dirlock.Acquire(dir)
			require.NoError(t, err, "a failed start gives the directory back")
			require.NoError(t, lock.Close())
		})
	}
}

func TestOtherMajorVersion(t *testing.T) {
	t.Parallel()
	dir, binaries := testDir(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, clusterName, "PG_VERSION"), []byte("14\n"), 0o600))
	_, err := Start(t.Context(), testConfig(dir, binaries))
	var mismatch *VersionError
	require.ErrorAs(t, err, &mismatch)
	require.Equal(t, 14, mismatch.Cluster)
	require.Equal(t, binaries.Major, mismatch.Binaries)

	_, err = Find(t.Context(), dir)
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, "Postgres 14, which wrote "+filepath.Join(dir, clusterName))
}

func TestStartIsCancelled(t *testing.T) {
	t.Parallel()
	binaries := testBinaries(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	_, err := Start(ctx, testConfig(dir, binaries))
	require.ErrorIs(t, err, context.Canceled)
	server := start(t, testConfig(dir, binaries))
	require.Equal(t, "1", query(t, server.URL("writer"), "SELECT '1'"))
}
