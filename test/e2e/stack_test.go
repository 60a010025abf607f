package e2e_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fakeDocker is a docker command that answers and records deploy/stack's calls.
const fakeDocker = `#!/usr/bin/env bash
case "$*" in
*" version" | "compose version") [ -z "$NO_COMPOSE" ] ;;
*" config --images"*) echo tagstream/api:latest ;;
*" config"*) printf '    ports:\n      - mode: ingress\n        published: "%s"\n' "$API_PORT" ;;
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
