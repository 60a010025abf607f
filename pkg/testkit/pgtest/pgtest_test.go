package pgtest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// reachLimit bounds one wait for a server to come, go or answer.
const reachLimit = time.Minute

// childEnv makes the test binary one that opens the shared server, prints its
// URL and then waits to be killed, or panics.
const childEnv = "PGTEST_TEST_CHILD"

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestDatabaseIsFresh(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"first", "second", "third"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			pool := pgtest.Database(t).Pool(t)
			t.Logf("a database in %v", time.Since(start))
			_, err := pool.Exec(t.Context(), "CREATE TABLE posts (id int)")
			require.NoError(t, err, "each test must have its own database")
		})
	}
}

func TestDatabaseIsDropped(t *testing.T) {
	t.Parallel()
	var dropped *pgtest.DB
	var role pgtest.Role
	t.Run("user", func(t *testing.T) {
		dropped = pgtest.Database(t)
		role = dropped.Role(t, "owner")
		_, err := dropped.Pool(t).Exec(t.Context(), "CREATE SCHEMA x AUTHORIZATION "+role.Name)
		require.NoError(t, err)
		conn, err := pgx.Connect(t.Context(), dropped.URL)
		require.NoError(t, err)
		_ = conn // left open: the drop is forced
	})
	pool := pgtest.Database(t).Pool(t)
	var left int
	err := pool.QueryRow(t.Context(),
		"SELECT (SELECT count(*) FROM pg_database WHERE datname = $1) + (SELECT count(*) FROM pg_roles WHERE rolname = $2)",
		dropped.Name, role.Name).Scan(&left)
	require.NoError(t, err)
	require.Zero(t, left)
}

func TestRole(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	admin := db.Pool(t)
	reader := db.Role(t, "reader")
	_, err := admin.Exec(t.Context(), "CREATE TABLE posts (id int); GRANT SELECT ON posts TO "+reader.Name)
	require.NoError(t, err)
	pool := pgtest.Pool(t, reader.URL)
	var n int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM posts").Scan(&n))
	_, err = pool.Exec(t.Context(), "INSERT INTO posts VALUES (1)")
	require.ErrorContains(t, err, "permission denied")

	other := db.Role(t, "reader", "CREATEROLE")
	require.NotEqual(t, reader.Name, other.Name)
}

func TestSharedRole(t *testing.T) {
	t.Parallel()
	const name = "pgtest_shared"
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			role := pgtest.Database(t).SharedRole(t, name)
			var user string
			require.NoError(t, pgtest.Pool(t, role.URL).QueryRow(t.Context(), "SELECT current_user").Scan(&user))
			require.Equal(t, name, user)
		})
	}
}

func TestServerFaults(t *testing.T) {
	t.Parallel()
	start := time.Now()
	server := pgtest.Server(t, pgtest.Setting("fsync", "on"), pgtest.Setting("synchronous_commit", "on"))
	t.Logf("a private server in %v", time.Since(start))
	pool := server.Pool(t)
	_, err := pool.Exec(t.Context(), "CREATE TABLE kept (fault text)")
	require.NoError(t, err)
	query := func(limit time.Duration) (rows int, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		err = pool.QueryRow(ctx, "SELECT count(*) FROM kept").Scan(&rows)
		return rows, err
	}
	for i, fault := range []struct {
		name string
		down func()
		up   func()
	}{
		{"stop", func() { server.Stop(t); server.Stop(t) }, func() { server.Start(t) }},
		{"kill", func() { server.Kill(t) }, func() { server.Start(t) }},
		{"pause", func() { server.Pause(t); server.Pause(t) }, func() { server.Resume(t); server.Resume(t) }},
		{"kill while paused", func() { server.Pause(t); server.Kill(t) }, func() { server.Start(t) }},
		{"stop while paused", func() { server.Pause(t); server.Stop(t) }, func() { server.Restart(t) }},
	} {
		_, err := pool.Exec(t.Context(), "INSERT INTO kept VALUES ($1)", fault.name)
		require.NoError(t, err, fault.name)
		start := time.Now()
		fault.down()
		const short = 300 * time.Millisecond
		_, err = query(short)
		require.Error(t, err, fault.name)
		fault.up()
		poll.Until(t, reachLimit, func() (bool, string) {
			rows, err := query(reachLimit)
			return rows == i+1, fmt.Sprintf("%d rows after %s: %v", rows, fault.name, err)
		})
		t.Logf("%s, and back, in %v", fault.name, time.Since(start))
	}
}

// TestChild is not an independent test: TestServerDiesWithTheTests runs it in a separate process.
func TestChild(t *testing.T) {
	how := os.Getenv(childEnv)
	if how == "" {
		return
	}
	fmt.Printf("url=%s\n", pgtest.Database(t).URL)
	if how == "panic" {
		panic("as asked")
	}
	io.Copy(io.Discard, os.Stdin) // until killed
}

func TestServerDiesWithTheTests(t *testing.T) {
	t.Parallel()
	if os.Getenv("TEST_DATABASE_URL") != "" {
		t.Skip("SKIPPED: the server of TEST_DATABASE_URL is not ours to end")
	}
	for _, how := range []string{"panic", "kill"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
			cmd.Env = append(os.Environ(), childEnv+"="+how)
			stdin, err := cmd.StdinPipe()
			require.NoError(t, err)
			defer stdin.Close()
			stdout, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			var url string
			lines := bufio.NewScanner(stdout)
			for url == "" && lines.Scan() {
				if text, ok := strings.CutPrefix(lines.Text(), "url="); ok {
					url = text
				}
			}
			require.NotEmpty(t, url)
			if how == "kill" {
				require.NoError(t, cmd.Process.Kill())
			}
			io.Copy(io.Discard, stdout)
			require.Error(t, cmd.Wait())
			poll.Until(t, reachLimit, func() (bool, string) {
				conn, err := pgx.Connect(t.Context(), url)
				if err != nil {
					return true, ""
				}
				conn.Close(t.Context())
				return false, "the server still takes connections"
			})
		})
	}
}
