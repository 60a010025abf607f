package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/simnet"
)

// programs builds the programs once for all tests.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tagstream-bin-")
	if err != nil {
		return "", err
	}
	return dir, process.Build(context.Background(), dir, process.Ingest, process.Indexer, process.API, process.Tagstream)
})

// program is a running process of a test.
type program struct {
	*process.Program
	t *testing.T
}

// begin starts a program with env as its whole environment.
func begin(t *testing.T, name string, args []string, env ...string) *program {
	t.Helper()
	dir, err := programs()
	require.NoError(t, err)
	return running(t, &process.Program{Name: name, Path: filepath.Join(dir, name), Args: args, Env: env})
}

// running starts a program and stops it with the test.
func running(t *testing.T, p *process.Program) *program {
	t.Helper()
	p.Log = filepath.Join(t.TempDir(), "output")
	require.NoError(t, p.Start())
	t.Cleanup(func() {
		err := p.Terminate()
		if t.Failed() {
			t.Logf("%s (%v) printed:\n%s", p.Name, err, p.Output())
		}
	})
	return &program{p, t}
}

// end signals the program and returns its exit code.
func (p *program) end(sig syscall.Signal) int {
	p.t.Helper()
	p.Signal(sig)
	return p.exit()
}

// exit waits for the program to end and returns its exit code.
func (p *program) exit() int {
	p.t.Helper()
	stuck := time.AfterFunc(ingestWait, p.Kill)
	defer stuck.Stop()
	<-p.Done()
	code, _ := p.Ended()
	return code
}

// freeAddr returns a loopback address that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := process.FreeAddr()
	require.NoError(t, err)
	return addr
}

// awaitAnswer returns when url answers with status 200.
func awaitAnswer(t *testing.T, url string) {
	t.Helper()
	poll.Until(t, ingestWait, func() (bool, string) {
		status, body := process.Fetch(url)
		return status == http.StatusOK, fmt.Sprint(status, " ", body)
	})
}

// TestStandalone runs the all-in-one program with the real Jetstream server, kills it twice in the
// middle of traffic, and finally stops it like an operator. Nothing may be lost, duplicated or left
// running.
//
// Invariant: the all-in-one survives kill -9 without loss, leaves no process behind, and never
// waits for the lease of its dead predecessor. If it cannot start, one line says why. See also
// TestStandaloneFailsClearly and TestCheckRoom.
func TestStandalone(t *testing.T) {
	t.Parallel()
	b := newIngestBench(t, 30)
	require.NoError(t, simnet.Traffic{Count: 300, Seed: 7, TagsOnly: true}.Run(b.ctx, b.net))
	host := b.host()
	dir := t.TempDir()
	apiAddr, opsAddr := freeAddr(t), freeAddr(t)
	env := []string{
		"TAGSTREAM_DATA_DIR=" + dir, "TAGSTREAM_JETSTREAM_HOSTS=" + host.URL(), "TAGSTREAM_JETSTREAM_START=archive",
		"TAGSTREAM_API_LISTEN=" + apiAddr, "TAGSTREAM_OPS_LISTEN=" + opsAddr,
		"PGSERVICE=elsewhere", "PGOPTIONS=-c no_such_setting=1", // for another server
	}
	url := "http://" + apiAddr

	for round := range 2 {
		p := begin(t, "tagstream", nil, env...)
		awaitAnswer(t, url+"/v1/status")
		if round == 0 {
			second := begin(t, "tagstream", nil, append(env, "TAGSTREAM_API_LISTEN="+freeAddr(t))...)
			require.Equal(t, 1, second.exit())
			require.Contains(t, second.Output(), fmt.Sprintf("is in use by process %d", p.PID()))
		}
		traffic, done := context.WithCancel(b.ctx)
		finished := make(chan error, 1)
		go func() {
			finished <- simnet.Traffic{Count: 600, Rate: 400, Seed: uint64(20 + round)}.Run(traffic, b.net)
		}()
		awaitTraffic(t, opsAddr)
		requireNoWait(t, p)
		require.Equal(t, -1, p.end(syscall.SIGKILL))
		require.NoError(t, <-finished)
		done()
	}

	p := begin(t, "tagstream", nil, env...)
	awaitAnswer(t, "http://"+opsAddr+"/readyz")
	b.settle(host, url)
	b.check(url)
	requireNoWait(t, p)
	verified := begin(t, "tagstream", []string{"verify", "--alone"}, env...)
	require.Zero(t, verified.exit(), verified.Output())
	require.NotContains(t, p.Output(), "errored")
	require.Zero(t, p.end(syscall.SIGHUP), "a requested stop must succeed")
	require.Contains(t, p.Output(), "curl '"+url+"/v1/posts?tags=art&limit=3'")
	require.Empty(t, processesOf(t, dir), "no process must be left")
}

// requireNoWait fails if a program waited for the lease of the previous run, although its lock
// shows that it has ended.
func requireNoWait(t *testing.T, p *program) {
	t.Helper()
	for _, waits := range []string{"standing by", "held by"} {
		require.NotContains(t, p.Output(), waits)
	}
}

// awaitTraffic returns when the indexer has folded some live events.
func awaitTraffic(t *testing.T, opsAddr string) {
	t.Helper()
	poll.Until(t, ingestWait, func() (bool, string) {
		_, metrics := process.Fetch("http://" + opsAddr + "/metrics")
		for line := range strings.Lines(metrics) {
			if n, ok := strings.CutPrefix(line, `tagstream_indexer_events_total{kind="update"} `); ok {
				return strings.TrimSpace(n) != "0", line
			}
		}
		return false, "no such metric"
	})
}

// processesOf returns the command lines of the Postgres processes that use a data directory.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err == nil && bytes.Contains(data, []byte(dir)) {
			found = append(found, string(bytes.ReplaceAll(data, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// A bad configuration gives one clear line that names the variable, and exit code 2. Nothing is
// started.
func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		program, variable, value, names string
	}{
		{"tagstream", "TAGSTREAM_JETSTREAM_START", "yesterday", "TAGSTREAM_JETSTREAM_START"},
		{"tagstream", "TAGSTREAM_API_LISTN", "127.0.0.1:1", "TAGSTREAM_API_LISTN"},
		{"tagstream", "TAGSTREAM_STREAM_MAX_BYTES", "much", "TAGSTREAM_STREAM_MAX_BYTES"},
		{"tagstream", "TAGSTREAM_CURSOR_KEYS_FILE", "/nowhere/keys", "TAGSTREAM_CURSOR_KEYS_FILE"},
		{"tagstream", "TAGSTREAM_LOG_FORMAT", "xml", "TAGSTREAM_LOG_FORMAT"},
		{"ingest", "TAGSTREAM_JETSTREAM_HOSTS", "https://a,,https://b", "TAGSTREAM_JETSTREAM_HOSTS"},
		{"ingest", "TAGSTREAM_JETSTREAM_STOP_AFTER", "-5m", "TAGSTREAM_JETSTREAM_STOP_AFTER"},
		{"ingest", "TAGSTREAM_OPS_LISTEN", "nowhere", "TAGSTREAM_OPS_LISTEN"},
		{"ingest", "TAGSTREAM_NATS_URL", "http://x", "TAGSTREAM_NATS_URL"},
		{"indexer", "TAGSTREAM_NATS_URL", "nats://127.0.0.1:4222", "TAGSTREAM_DATABASE_URL"},
		{"indexer", "TAGSTREAM_DATABASE_URL", "postgres://[", "TAGSTREAM_DATABASE_URL"},
		{"api", "TAGSTREAM_DATABASE_URL", "postgres://127.0.0.1/x", "TAGSTREAM_CURSOR_KEYS_FILE"},
		{"api", "TAGSTREAM_API_LISTEN", "80", "TAGSTREAM_"},
	} {
		t.Run(tt.program+" "+tt.variable+"="+tt.value, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			env := []string{tt.variable + "=" + tt.value}
			if tt.program == "tagstream" {
				env = append(env, "TAGSTREAM_DATA_DIR="+dir)
			}
			p := begin(t, tt.program, nil, env...)
			require.Equal(t, 2, p.exit(), p.Output())
			out := p.Output()
			require.Equal(t, 1, strings.Count(out, "\n"), "want one line: %s", out)
			require.Contains(t, out, tt.names)
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, entries, "nothing must be started")
		})
	}
}

// One line says what prevents the program from starting, and a stop during the start is a clean
// stop.
func TestStandaloneFailsClearly(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, dir string) *program {
		return begin(t, "tagstream", nil, "TAGSTREAM_DATA_DIR="+dir, "TAGSTREAM_JETSTREAM_HOSTS=http://127.0.0.1:1",
			"TAGSTREAM_API_LISTEN="+freeAddr(t), "TAGSTREAM_OPS_LISTEN="+freeAddr(t))
	}
	write := func(t *testing.T, path, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	for _, tt := range []struct {
		name, file, text, says string
	}{
		{"keys that are none", "cursor.keys", "garbage\n", "cursor.keys"},
		{"a cluster of a Postgres that is not here", "postgres/cluster/PG_VERSION", "14\n", "install it (Debian and Ubuntu: apt-get install postgresql;"},
		{"a cluster that is none", "postgres/cluster/postgresql.conf", "", "postgres"},
		{"a stream that is none", "nats/jetstream", "a file, not a folder", "NATS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, tt.file), tt.text)
			p := start(t, dir)
			require.Equal(t, 1, p.exit(), p.Output())
			require.NotContains(t, p.Output(), "goroutine")
			require.Contains(t, p.Output(), tt.says)
			require.Empty(t, processesOf(t, dir))
		})
	}
	t.Run("a disk that is too small", func(t *testing.T) {
		t.Parallel()
		dir := smallDisk(t, 105<<20)
		p := start(t, dir)
		require.Equal(t, 1, p.exit(), p.Output())
		out := p.Output()
		require.Equal(t, 1, strings.Count(out, "\n"), "want one line: %s", out)
		require.Regexp(t, `TAGSTREAM_DATA_DIR.*: 268435456 bytes are needed to start, 110\d{6} are available`, out)
	})
	t.Run("a disk that is just big enough", func(t *testing.T) {
		t.Parallel()
		dir := smallDisk(t, 257<<20)
		ops := freeAddr(t)
		begin(t, "tagstream", nil, "TAGSTREAM_DATA_DIR="+dir, "TAGSTREAM_JETSTREAM_HOSTS=http://127.0.0.1:1",
			"TAGSTREAM_API_LISTEN="+freeAddr(t), "TAGSTREAM_OPS_LISTEN="+ops)
		poll.Until(t, ingestWait, func() (bool, string) {
			_, metrics := process.Fetch("http://" + ops + "/metrics")
			return strings.Contains(metrics, "tagstream_ingest_lease_held 1"), "it does not write to its stream"
		})
	})
	t.Run("stopped while it starts", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		p := start(t, dir)
		poll.Until(t, ingestWait, func() (bool, string) {
			_, err := os.Stat(filepath.Join(dir, "postgres"))
			return err == nil, "not begun"
		})
		require.Zero(t, p.end(syscall.SIGTERM), p.Output())
		require.Empty(t, processesOf(t, dir))
	})
}

// smallDisk returns a directory on its own small disk.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d,mode=0755", size), "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: not allowed to mount a small disk (services/standalone's TestCheckRoom needs none): %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("unmount %s: %v: %s", dir, err, out)
		}
	})
	return dir
}

// liveTime is how long the public network is read. #art is posted several times in that period.
const liveTime = 30 * time.Second

// TestLive runs the all-in-one program on the public network and must find a post with #art. `make
// test-live` runs it.
func TestLive(t *testing.T) {
	if os.Getenv("TEST_LIVE") == "" {
		t.Skip("reads the public network: run make test-live")
	}
	api := freeAddr(t)
	p := begin(t, "tagstream", nil, "TAGSTREAM_DATA_DIR="+t.TempDir(), "TAGSTREAM_API_LISTEN="+api,
		"TAGSTREAM_OPS_LISTEN="+freeAddr(t), "TAGSTREAM_JETSTREAM_START=-1m")
	url := "http://" + api
	awaitAnswer(t, url+"/v1/status")
	poll.Until(t, liveTime, func() (bool, string) {
		_, body := process.Fetch(url + "/v1/posts?tags=art&limit=1")
		var page struct {
			Posts []struct {
				URI  string
				Tags []string
			}
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || len(page.Posts) == 0 {
			_, status := process.Fetch(url + "/v1/status")
			return false, "no #art post yet: " + status
		}
		require.Contains(t, page.Posts[0].Tags, "art")
		t.Logf("found %s", page.Posts[0].URI)
		return true, ""
	})
	require.Zero(t, p.end(syscall.SIGTERM))
}
