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

// fakeDocker is a docker that answers deploy/stack's requests, and records them.
const fakeDocker = `#!/usr/bin/env bash
case "$*" in
*" version" | "compose version") [ -z "$NO_COMPOSE" ] ;;
*" config --images"*) echo tagstream/api:latest ;;
*" config"*) printf '    ports:\n      - mode: ingress\n        published: "%s"\n' "$API_PORT" ;;
*" ps --all --quiet") echo -n "$RUNNING" ;;
*" up "*) echo "up" >>"$TOLD"; echo "Bind for 127.0.0.1:8080 failed: port is already allocated" >&2; exit 1 ;;
*" run "*) all=$*; echo "run ${all#* run }" >>"$TOLD" ;;
*" down "*) echo "down" >>"$TOLD" ;;
esac
`

// TestStackSaysWhatIsMissing: make up says in one sentence what prevents a start, and leaves
// nothing half started.
func TestStackSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "docker"), []byte(fakeDocker), 0o755))
	stack := func(t *testing.T, path string, args []string, env ...string) (said, told string, code int) {
		t.Helper()
		log := filepath.Join(t.TempDir(), "told")
		cmd := exec.Command("../../deploy/stack", args...)
		cmd.Env = append([]string{"PATH=" + path, "HOME=" + t.TempDir(), "TOLD=" + log}, env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			require.ErrorAs(t, err, new(*exec.ExitError))
		}
		data, _ := os.ReadFile(log) // none where it has no log
		return string(out), string(data), cmd.ProcessState.ExitCode()
	}
	with := bin + ":" + os.Getenv("PATH")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() }) // behind the parallel tests
	_, taken, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	_, free, err := net.SplitHostPort(freeAddr(t))
	require.NoError(t, err)

	for _, c := range []struct {
		name string
		path string
		args []string
		env  []string
		says string
		told string
	}{
		{name: "no compose plugin", path: with, args: []string{"up"}, env: []string{"NO_COMPOSE=1"}, says: "docker is here without its compose plugin"},
		{name: "a port is taken", path: with, args: []string{"up"}, env: []string{"API_PORT=" + taken}, says: "something listens on port " + taken},
		{name: "it cannot start", path: with, args: []string{"up"}, env: []string{"API_PORT=" + free}, says: "not everything could be started", told: "run --rm --no-deps secrets\nup\ndown\n"},
		{name: "it cannot start beside what runs", path: with, args: []string{"up"}, env: []string{"API_PORT=" + taken, "RUNNING=abc"}, says: "what ran before was left", told: "run --rm --no-deps secrets\nup\n"},
		{name: "a command that is none", path: with, args: []string{"run", "postgres"}, says: "run PROGRAM VERB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			said, told, code := stack(t, c.path, c.args, c.env...)
			require.NotZero(t, code)
			require.Contains(t, said, c.says)
			require.Equal(t, c.told, told, said)
			last := said[strings.LastIndex(strings.TrimSpace(said), "\n")+1:]
			require.True(t, strings.HasPrefix(last, "stack: "), "the last line is ours: %s", said)
		})
	}
	for args, told := range map[string]string{
		"ingest log --limit 3":       "run --rm --no-deps ingest log --limit 3\n",
		"indexer dlq redrive --all":  "run --rm --no-deps indexer dlq redrive --all\n",
		"indexer rebuild --restart":  "run --rm --no-deps rebuild rebuild --restart\n",
		"indexer migrate":            "run --rm --no-deps migrate migrate\n",
		"ingest backfill --from -2h": "run --rm --no-deps ingest backfill --from -2h\n",
	} {
		t.Run("run "+args, func(t *testing.T) {
			t.Parallel()
			said, got, code := stack(t, with, append([]string{"run"}, strings.Fields(args)...))
			require.Zero(t, code, said)
			require.Equal(t, told, got)
		})
	}
}
