package pgserver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	osexec "os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/dirlock"
)

// family is a second process that runs a server.
type family struct {
	cmd    *osexec.Cmd
	server int // the server's process id
	url    string
}

// startFamily runs the test binary as that process.
func startFamily(t *testing.T, cmd *osexec.Cmd, dir string) family {
	t.Helper()
	cmd.Env = append(os.Environ(), childEnv+"="+dir, "TMPDIR=/tmp")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	t.Cleanup(func() { stdin.Close() })
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() }) // harmless when done before
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	pid, url, _ := strings.Cut(strings.TrimSpace(line), " ")
	f := family{cmd: cmd, url: url}
	f.server, err = strconv.Atoi(pid)
	require.NoError(t, err, line)
	return f
}

func TestKilledParent(t *testing.T) {
	t.Parallel()
	dir, binaries := testDir(t)
	f := startFamily(t, osexec.Command(os.Args[0]), dir)
	execute(t, f.url, "CREATE TEMP TABLE x ()")
	require.NoError(t, f.cmd.Process.Kill())
	f.cmd.Wait()

	begin := time.Now()
	server := start(t, testConfig(dir, binaries))
	t.Logf("ready again %v after the kill", time.Since(begin))
	requireGone(t, f.server)
	require.Equal(t, "1", query(t, server.URL("writer"), "SELECT '1'"))
}

// orphan runs a server on the cluster without a parent that would end it.
func orphan(t *testing.T, dir string, binaries Binaries, marked bool) int {
	t.Helper()
	clusterDir := filepath.Join(dir, clusterName)
	acct, err := chooseAccount(clusterDir)
	require.NoError(t, err)
	require.NoError(t, acct.grant(clusterDir))
	require.NoError(t, os.Chmod(clusterDir, 0o700))
	cmd := acct.command(context.Background(), filepath.Join(binaries.Dir, "postgres"))
	name, file, err := acct.pass(cmd, clusterDir)
	require.NoError(t, err)
	defer file.Close()
	cmd.Args = append(cmd.Args, "-D", name, "-c", "listen_addresses=", "-c", "unix_socket_directories=.", "-c", "fsync=off")
	if marked {
		cmd.Args = append(cmd.Args, "-c", dirSetting+"="+clusterDir)
	}
	require.NoError(t, cmd.Start())
	// Reaped outside the test, as the system reaps an orphan.
	ended := make(chan struct{})
	go func() { defer close(ended); cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill(); wait(t, "the orphan's end", ended) })
	untilReady(t, clusterDir)
	return cmd.Process.Pid
}

func untilReady(t *testing.T, clusterDir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	require.NoError(t, poll(ctx, func() (bool, error) {
		text, _ := os.ReadFile(filepath.Join(clusterDir, "postmaster.pid"))
		return strings.Contains(string(text), "ready"), nil
	}))
}

func requireGone(t *testing.T, pid int) {
	t.Helper()
	require.True(t, gone(pid), "process %d is still there", pid)
}

// gone reports that there is no such process, or only a zombie.
func gone(pid int) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if runtime.GOOS != "linux" {
		text, _ = osexec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	}
	return len(text) == 0
}

func TestOrphanedServer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		marked  bool
		prepare func(t *testing.T, pid int)
	}{
		{"running", true, func(*testing.T, int) {}},
		{"started by hand", false, func(*testing.T, int) {}},
		{"stopped in place", true, func(t *testing.T, pid int) { require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP)) }},
		{"killed", true, func(t *testing.T, pid int) { require.NoError(t, syscall.Kill(pid, syscall.SIGKILL)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir, binaries := testDir(t)
			pid := orphan(t, dir, binaries, test.marked)
			test.prepare(t, pid)
			server := start(t, testConfig(dir, binaries))
			requireGone(t, pid)
			require.Equal(t, "1", query(t, server.URL("writer"), "SELECT '1'"))
		})
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	dir, binaries := testDir(t)
	logger := slog.New(slog.DiscardHandler)
	f := startFamily(t, osexec.Command(os.Args[0]), dir)
	var held *dirlock.HeldError
	require.ErrorAs(t, Remove(t.Context(), dir, logger), &held)
	require.Equal(t, f.cmd.Process.Pid, held.PID)
	require.Equal(t, "1", query(t, f.url, "SELECT '1'"), "it is left alone")
	record, err := os.ReadFile(filepath.Join(dir, "socket.path"))
	require.NoError(t, err)
	require.NoError(t, f.cmd.Process.Kill())
	f.cmd.Wait()
	pid := orphanAfter(t, f, dir, binaries)

	require.NoError(t, Remove(t.Context(), dir, logger))
	requireGone(t, pid)
	require.NoDirExists(t, dir)
	require.NoDirExists(t, strings.TrimSpace(string(record)))
	require.NoError(t, Remove(t.Context(), dir, logger), "a second time")
}

// orphanAfter runs an orphan once the family's own server has ended.
func orphanAfter(t *testing.T, f family, dir string, binaries Binaries) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	require.NoError(t, poll(ctx, func() (bool, error) { return gone(f.server), nil }))
	return orphan(t, dir, binaries, true)
}

// TestBusyStraggler kills a server's first process while another is computing and does not notice.
func TestBusyStraggler(t *testing.T) {
	t.Parallel()
	dir, binaries := testDir(t)
	first, err := Start(t.Context(), testConfig(dir, binaries))
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), first.URL("writer"))
	require.NoError(t, err)
	busy := int(conn.PgConn().PID())
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT count(*) FROM generate_series(1, 1e9::bigint) a")
		failed <- err
	}()
	url := first.URL("writer")
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	require.NoError(t, poll(ctx, func() (bool, error) {
		return query(t, url, fmt.Sprintf("SELECT count(*)::text FROM pg_stat_activity WHERE pid = %d AND state = 'active'", busy)) == "1", nil
	}))
	require.NoError(t, syscall.Kill(first.PID(), syscall.SIGKILL))
	wait(t, "the first process", first.Done())
	require.NoError(t, stop(first))

	server := start(t, testConfig(dir, binaries))
	require.Error(t, <-failed)
	requireGone(t, busy)
	require.Equal(t, "1", query(t, server.URL("writer"), "SELECT '1'"))
}

func TestStaleProcessFile(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		pid  func(t *testing.T, acct account) int
	}{
		{"no such process", func(*testing.T, account) int { return 1<<31 - 2 }},
		{"this process", func(*testing.T, account) int { return os.Getpid() }},
		{"a process of the same user", func(t *testing.T, acct account) int {
			cmd := acct.command(context.Background(), "/bin/sleep", "3600")
			require.NoError(t, cmd.Start())
			ended := make(chan struct{})
			go func() { defer close(ended); cmd.Wait() }()
			t.Cleanup(func() {
				select {
				case <-ended:
					t.Error("the foreign process was ended")
				default:
				}
				cmd.Process.Kill()
				wait(t, "the foreign process", ended)
			})
			return cmd.Process.Pid
		}},
		{"empty", func(*testing.T, account) int { return 0 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir, binaries := testDir(t)
			acct, err := chooseAccount(filepath.Join(dir, clusterName))
			require.NoError(t, err)
			text := ""
			if pid := test.pid(t, acct); pid != 0 {
				text = fmt.Sprintf("%d\n/somewhere\n1700000000\n5432\n/tmp\n\n  1234567         9\nready   \n", pid)
			}
			path := filepath.Join(dir, clusterName, "postmaster.pid")
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			server := start(t, testConfig(dir, binaries))
			require.Equal(t, "1", query(t, server.URL("writer"), "SELECT '1'"))
		})
	}
}

// TestAnotherServerIsLeftAlone points the process id file at a real server of another directory, as
// after copying a data directory.
func TestAnotherServerIsLeftAlone(t *testing.T) {
	t.Parallel()
	otherDir, binaries := testDir(t)
	other := start(t, testConfig(otherDir, binaries))
	dir, _ := testDir(t)
	text, err := os.ReadFile(filepath.Join(otherDir, clusterName, "postmaster.pid"))
	require.NoError(t, err)
	// The memory segment named in the file is the other server's. A copy that keeps the line could
	// not start, so this simulates a server that is long gone.
	lines := strings.SplitAfter(string(text), "\n")
	lines[6] = "\n"
	path := filepath.Join(dir, clusterName, "postmaster.pid")
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600))
	start(t, testConfig(dir, binaries))
	require.Equal(t, "1", query(t, other.URL("writer"), "SELECT '1'"))
}

// TestAsPlainUser runs everything as a user that is not root. It is not parallel for the same
// reason as TestBest.
func TestAsPlainUser(t *testing.T) { //nolint:paralleltest // see above
	if os.Getuid() != 0 {
		t.Log("every other test runs as a plain user already")
		return
	}
	testBinaries(t)
	nobody, err := user.Lookup("nobody")
	require.NoError(t, err)
	uid, err := strconv.Atoi(nobody.Uid)
	require.NoError(t, err)
	dir, err := os.MkdirTemp("/tmp", "pgserver-user-") //nolint:usetesting // t.TempDir is closed to other users
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "program")
	copyFile(t, os.Args[0], program)
	require.NoError(t, os.Chown(dir, uid, uid))
	cmd := osexec.Command(program)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	f := startFamily(t, cmd, filepath.Join(dir, "data"))
	require.Equal(t, "writer", query(t, f.url, "SELECT current_user"))
	owner, err := ownerOf(filepath.Join(dir, "data", clusterName))
	require.NoError(t, err)
	require.Equal(t, uid, owner.uid)
	require.NoError(t, f.cmd.Process.Kill())
	f.cmd.Wait()

	// Root continues with the same data as its owner.
	found, err := Find(t.Context(), filepath.Join(dir, "data"))
	require.NoError(t, err)
	server := start(t, testConfig(filepath.Join(dir, "data"), found))
	requireGone(t, f.server)
	require.Equal(t, "writer", query(t, server.URL("writer"), "SELECT current_user"))
	owner, err = ownerOf(server.clusterDir)
	require.NoError(t, err)
	require.Equal(t, uid, owner.uid)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	source, err := os.Open(from)
	require.NoError(t, err)
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	require.NoError(t, err)
	_, err = io.Copy(target, source)
	require.NoError(t, err)
	require.NoError(t, target.Close())
}
