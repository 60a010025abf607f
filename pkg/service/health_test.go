package service_test

import (
	"errors"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/obs"
)

func TestHealthCommand(t *testing.T) {
	t.Parallel()
	health := obs.NewHealth(slog.New(slog.DiscardHandler), "nats")
	ops := httptest.NewServer(obs.OpsHandler(health, obs.NewRegistry(health, "v1"), nil))
	t.Cleanup(ops.Close)
	_, port, err := net.SplitHostPort(ops.Listener.Addr().String())
	require.NoError(t, err)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())

	ask := func(address string) (int, string) {
		code, out, errs := run(t, "health", "TAGSTREAM_OPS_LISTEN="+address)
		require.Empty(t, out)
		return code, errs
	}
	code, says := ask(ops.Listener.Addr().String())
	require.Equal(t, 1, code)
	require.Contains(t, says, `not ready: {"notReady":{"nats":"starting"},"ready":false}`)
	require.Equal(t, 1, strings.Count(says, "\n"), "want one line")

	health.Set("nats", nil)
	for _, address := range []string{ops.Listener.Addr().String(), ":" + port, "0.0.0.0:" + port} {
		code, says = ask(address)
		require.Zero(t, code, "%s: %s", address, says)
		require.Empty(t, says)
	}

	health.Set("nats", errors.New("away"))
	code, says = ask(":" + port)
	require.Equal(t, 1, code)
	require.Contains(t, says, "away")

	code, says = ask(closed.Addr().String())
	require.Equal(t, 1, code)
	require.Contains(t, says, "connection refused")

	code, _ = ask("nonsense")
	require.Equal(t, 2, code)
}
