package main

import (
	"bufio"
	"bytes"
	"context"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestConfigurationErrorsExitWithTwo(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		args []string
		code int
		says string
	}{
		{"help", []string{"--help"}, 0, "--rate"},
		{"unknown flag", []string{"--rat=1"}, exitConfig, "not defined"},
		{"argument", []string{"now"}, exitConfig, "unexpected argument"},
		{"rate", []string{"--rate=-1"}, exitConfig, "--rate is -1"},
		{"accounts", []string{"--accounts=0"}, exitConfig, "--accounts is 0"},
		{"backlog", []string{"--backlog=-1"}, exitConfig, "--backlog is -1"},
		{"address", []string{"--addr=nowhere"}, exitConfig, "--addr"},
		{"folder of somebody else", []string{"--data-dir=."}, exitFailure, "not made by this command"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			require.Equal(t, c.code, run(c.args, &stdout, &stderr))
			require.Contains(t, strings.ReplaceAll(stderr.String(), "  -", "  --"), c.says)
			require.Empty(t, stdout.String())
		})
	}
}

func TestUpstreamServesAndStopsCleanly(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := t.TempDir()
	binary := filepath.Join(dir, "upstream")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	for range 2 { // the second start empties the first one's folder
		cmd := exec.CommandContext(ctx, binary, "--addr=127.0.0.1:0", "--data-dir="+filepath.Join(dir, "data"), "--backlog=50", "--accounts=5", "--rate=200")
		stdout, err := cmd.StdoutPipe()
		require.NoError(t, err)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		require.NoError(t, cmd.Start())
		line, err := bufio.NewReader(stdout).ReadString('\n')
		require.NoError(t, err, "%s", &stderr)
		url := regexp.MustCompile(`http://[0-9.:]+`).FindString(line)
		require.NotEmpty(t, url, line)
		resp, err := http.Get(url + "/xrpc/network.bsky.jetstream.listSegments")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, cmd.Wait(), "%s", &stderr)
		_, err = http.Get(url)
		require.Error(t, err, "the server must have stopped")
	}
}
