package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// The modes in which a Bouncer assigns server sessions.
const (
	SessionPooling     = "session"
	TransactionPooling = "transaction"
)

// Bouncers returns the available PgBouncers: the machine's, and those in TEST_PGBOUNCER (paths
// separated by colons). Without any the test is skipped; with CI=true it fails.
func Bouncers(t testing.TB) []string {
	t.Helper()
	var found []string
	for _, path := range append(filepath.SplitList(os.Getenv("TEST_PGBOUNCER")), "pgbouncer", "/usr/sbin/pgbouncer") {
		path, err := exec.LookPath(path)
		if err == nil && !slices.Contains(found, path) {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("pgtest: no PgBouncer for this test: install the package pgbouncer")
		}
		t.Skip("pgtest: SKIPPED, no PgBouncer for this test: install the package pgbouncer")
	}
	return found
}

// Bouncer runs a PgBouncer in front of the server of some URLs of this package, until the test
// ends, and returns these URLs through it. It assigns a role's few server sessions, and ignores the
// start-up parameters that operators usually let it ignore.
func Bouncer(t testing.TB, binary, mode string, urls ...string) []string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgbouncer-") //nolint:usetesting // that of the test can be entered by its user alone
	if err != nil {
		t.Fatalf("pgtest: make a directory for PgBouncer: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var users strings.Builder
	through := make([]string, len(urls))
	port := freePort(t)
	var host, serverPort string
	for i, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatalf("pgtest: read a URL for PgBouncer: %v", err)
		}
		q := u.Query()
		if host, serverPort = u.Hostname(), u.Port(); host == "" {
			host, serverPort = q.Get("host"), q.Get("port")
		}
		password, _ := u.User.Password()
		fmt.Fprintf(&users, "%q %q\n", u.User.Username(), password)
		u.Host, u.RawQuery = fmt.Sprintf("127.0.0.1:%d", port), "sslmode=disable"
		through[i] = u.String()
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // another user reads it
			t.Fatalf("pgtest: configure PgBouncer: %v", err)
		}
		return path
	}
	config := write("pgbouncer.ini", fmt.Sprintf(`[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = %s
default_pool_size = 20
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits,options,search_path,default_transaction_read_only,statement_timeout
`, host, serverPort, port, write("users.txt", users.String()), mode))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatalf("pgtest: run PgBouncer: %v", err)
	}
	cmd := exec.Command(binary, "-q", config)
	cmd.Stdout, cmd.Stderr = log, log
	user := ownerOf(t, host)
	if user != nil {
		if err := os.Chown(dir, int(user.Uid), int(user.Gid)); err != nil {
			t.Fatalf("pgtest: give PgBouncer its directory: %v", err)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: user}
	if err := cmd.Start(); err != nil {
		t.Fatalf("pgtest: run PgBouncer: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		log.Close()
	})
	poll.Until(t, processLimit, func() (bool, string) {
		conn, err := pgx.Connect(t.Context(), through[0]+"&default_query_exec_mode=exec")
		if err != nil {
			text, _ := os.ReadFile(log.Name())
			return false, fmt.Sprintf("%v\n%s", err, text)
		}
		return conn.Close(context.Background()) == nil, "close"
	})
	return through
}

// ownerOf returns the user to run PgBouncer as, which refuses to be root: the owner of the server's
// socket, if there is one.
func ownerOf(t testing.TB, host string) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	const nobody = 65534
	info, err := os.Stat(host)
	if errors.Is(err, os.ErrNotExist) {
		return &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	if err != nil {
		t.Fatalf("pgtest: find the server's socket: %v", err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return &syscall.Credential{Uid: st.Uid, Gid: st.Gid}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("pgtest: find a free port: %v", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
