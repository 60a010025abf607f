package e2e_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/test/process"
)

// clone copies the repository's files to a folder with a space in its path.
func clone(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "a clone")
	require.NoError(t, os.Mkdir(dir, 0o755))
	copied := exec.Command("bash", "-c", `git ls-files -z --cached --others --exclude-standard |
		while IFS= read -r -d "" name; do [ ! -f "$name" ] || cp --parents -- "$name" "$1"; done`, "bash", dir)
	copied.Dir = root
	out, err := copied.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dir
}

// makeIn runs make in a folder, in its own process group, as a terminal does.
func makeIn(t *testing.T, dir, target string, env ...string) *program {
	t.Helper()
	path, err := exec.LookPath("make")
	require.NoError(t, err)
	p := running(t, &process.Program{Name: "make " + target, Path: path, Args: []string{target}, Dir: dir, Env: append(os.Environ(), env...)})
	t.Cleanup(func() {
		if _, ended := p.Ended(); !ended {
			_ = syscall.Kill(-p.PID(), syscall.SIGTERM)
		}
	})
	return p
}

// TestDemo runs make build and make demo in a folder whose path has a space. A demo checks before
// it deletes: if anything prevents a start, it changes nothing. It never removes what it did not
// create.
//
// Invariant: make demo removes only what it marked as its own, and only when it can start; no path
// breaks on a space; it stops every program it runs cleanly, with one signal each.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := clone(t)
	beside, err := os.ReadDir(filepath.Dir(dir))
	require.NoError(t, err)
	built := makeIn(t, dir, "build")
	<-built.Done() // minutes on a busy machine
	require.Zero(t, built.exit(), built.Output())

	port := func(addr string) string { return addr[strings.LastIndex(addr, ":")+1:] }
	api := freeAddr(t)
	env := func(more ...string) []string {
		return append([]string{"DEMO_RATE=20", "DEMO_PORT=" + port(freeAddr(t)), "TAGSTREAM_API_LISTEN=" + api, "TAGSTREAM_OPS_LISTEN=" + freeAddr(t)}, more...)
	}
	refused := func(says string, env []string) {
		t.Helper()
		p := makeIn(t, dir, "demo", env...)
		require.NotZero(t, p.exit())
		require.Contains(t, p.Output(), says)
		require.NotContains(t, p.Output(), "starts afresh")
	}
	demo := makeIn(t, dir, "demo", env()...)
	poll.Until(t, 3*ingestWait, func() (bool, string) { // includes the first build of Jetstream
		require.NotContains(t, demo.Output(), "Error")
		return strings.Contains(demo.Output(), "Tagstream answers"), demo.Output()
	})
	require.Contains(t, demo.Output(), "Jetstream ready at")
	// Others fail: in the same folder, with the same API address, and with the same
	// Jetstream port.
	refused("a demo is running in "+dir+"/data/demo", env())
	refused("something listens on "+api+" already", env("DEMO_DIR="+filepath.Join(t.TempDir(), "other")))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	refused("choose another with DEMO_PORT", env("DEMO_DIR="+t.TempDir(), "DEMO_PORT="+port(l.Addr().String())))
	poll.Until(t, ingestWait, func() (bool, string) {
		_, body := process.Fetch("http://" + api + "/v1/posts?tags=art&limit=1")
		return strings.Contains(body, `"uri"`), body
	})
	require.NoError(t, syscall.Kill(-demo.PID(), syscall.SIGHUP)) // the terminal is closed
	<-demo.Done()
	require.Empty(t, processesOf(t, dir), "no process must be left")
	require.Contains(t, demo.Output(), "msg=stopped service=api", "the pipeline must be stopped, not killed")
	require.NotContains(t, demo.Output(), "Hangup")

	foreign := t.TempDir()
	for _, name := range []string{"tagstream", "upstream"} {
		require.NoError(t, os.MkdirAll(filepath.Join(foreign, name), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(foreign, name, "lock"), []byte("mine"), 0o600))
	}
	refused(foreign+"/tagstream was not made by the demo", env("DEMO_DIR="+foreign))
	require.NoError(t, os.RemoveAll(filepath.Join(foreign, "tagstream")))
	p := makeIn(t, dir, "demo", env("DEMO_DIR="+foreign)...)
	require.NotZero(t, p.exit())
	mine, err := os.ReadFile(filepath.Join(foreign, "upstream", "lock"))
	require.NoError(t, err, p.Output())
	require.Equal(t, "mine", string(mine))
	after, err := os.ReadDir(filepath.Dir(dir))
	require.NoError(t, err)
	require.Equal(t, len(beside), len(after), "nothing outside the clone must change")
}

// fakeDocker is a docker command that answers and records deploy/stack's calls.
const fakeDocker = `#!/usr/bin/env bash
case "$*" in
*" version" | "compose version") [ -z "$NO_COMPOSE" ] ;;
*" config --images"*) echo tagstream/api:latest ;;
*"--profile cluster "*" config --services") printf 'nats\nnats-2\n' ;;
*" config --services") echo nats ;;
"ps --all --filter "*) printf "$THERE" ;;
*" config"*) printf 'name: tagstream\n    ports:\n      - mode: ingress\n        published: "%s"\n' "$API_PORT" ;;
*" ps --all --quiet") echo -n "$RUNNING" ;;
*" up "*) echo "up" >>"$CALLS"; echo "Bind for 127.0.0.1:8080 failed: port is already allocated" >&2; exit 1 ;;
*" run "*) all=$*; echo "run ${all#* run }" >>"$CALLS" ;;
*" down "*) echo "down" >>"$CALLS" ;;
esac
`

// make up says in one sentence what prevents a start, and leaves nothing half started.
func TestStackReportsProblems(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "docker"), []byte(fakeDocker), 0o755))
	stack := func(t *testing.T, path string, args []string, env ...string) (output, calls string, code int) {
		t.Helper()
		log := filepath.Join(t.TempDir(), "calls")
		cmd := exec.Command("../../deploy/stack", args...)
		cmd.Env = append([]string{"PATH=" + path, "HOME=" + t.TempDir(), "CALLS=" + log}, env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			require.ErrorAs(t, err, new(*exec.ExitError))
		}
		data, _ := os.ReadFile(log) // missing if docker was not called
		return string(out), string(data), cmd.ProcessState.ExitCode()
	}
	with := bin + ":" + os.Getenv("PATH")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() }) // after the parallel tests
	_, taken, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	_, free, err := net.SplitHostPort(freeAddr(t))
	require.NoError(t, err)

	for _, c := range []struct {
		name  string
		path  string
		args  []string
		env   []string
		says  string
		calls string
	}{
		{name: "no compose plugin", path: with, args: []string{"up"}, env: []string{"NO_COMPOSE=1"}, says: "docker is here without its compose plugin"},
		{name: "a port is taken", path: with, args: []string{"up"}, env: []string{"API_PORT=" + taken}, says: "something listens on port " + taken},
		{name: "it cannot start", path: with, args: []string{"up"}, env: []string{"API_PORT=" + free}, says: "not everything could be started", calls: "run --rm --no-deps secrets\nup\ndown\n"},
		{name: "it cannot start next to running containers", path: with, args: []string{"up"}, env: []string{"API_PORT=" + taken, "RUNNING=abc"}, says: "what ran before was left", calls: "run --rm --no-deps secrets\nup\n"},
		{name: "without a profile that is there", path: with, args: []string{"up"}, env: []string{`THERE=nats\nnats-2\n`}, says: `PROFILES="" lacks what is there: nats-2`},
		{name: "rolled without it", path: with, args: []string{"roll", "nats"}, env: []string{`THERE=nats\nnats-2\n`}, says: `PROFILES="" lacks what is there: nats-2`},
		{name: "unknown command", path: with, args: []string{"run", "postgres"}, says: "run PROGRAM VERB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			output, calls, code := stack(t, c.path, c.args, c.env...)
			require.NotZero(t, code)
			require.Contains(t, output, c.says)
			require.Equal(t, c.calls, calls, output)
			last := output[strings.LastIndex(strings.TrimSpace(output), "\n")+1:]
			require.True(t, strings.HasPrefix(last, "stack: "), "the last line must be from stack: %s", output)
		})
	}
	for args, want := range map[string]string{
		"ingest log --limit 3":       "run --rm --no-deps ingest log --limit 3\n",
		"indexer dlq redrive --all":  "run --rm --no-deps indexer dlq redrive --all\n",
		"indexer rebuild --restart":  "run --rm --no-deps rebuild rebuild --restart\n",
		"indexer migrate":            "run --rm --no-deps migrate migrate\n",
		"ingest backfill --from -2h": "run --rm --no-deps ingest backfill --from -2h\n",
	} {
		t.Run("run "+args, func(t *testing.T) {
			t.Parallel()
			output, got, code := stack(t, with, append([]string{"run"}, strings.Fields(args)...))
			require.Zero(t, code, output)
			require.Equal(t, want, got)
		})
	}
}
