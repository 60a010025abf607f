package observability_test

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/api"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/services/ingest"
)

// nowhere is a missing database: programs show their initial metrics without one.
const nowhere = "postgres://nobody@127.0.0.1:1/none"

// programs returns the registries of the three programs, filled as by their mains, before anything
// happens.
func programs(t *testing.T) map[string]*prometheus.Registry {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	nats := natstest.Server(t)
	registry := func(components ...string) (*prometheus.Registry, *obs.Health) {
		health := obs.NewHealth(logger, components...)
		return obs.NewRegistry(health, "test"), health
	}
	out := map[string]*prometheus.Registry{}

	r, health := registry("nats", ingest.ComponentStream, ingest.ComponentFirehose)
	out["ingest"] = r
	_, err := ingest.New(ingest.Config{Hosts: []string{"host.example"}}, ingest.Deps{NATS: nats.Conn(t), Logger: logger, Registry: r, Ready: health.Set})
	require.NoError(t, err)

	r, health = registry("nats", indexer.HealthDatabase, indexer.HealthStream)
	out["indexer"] = r
	_, err = indexer.New(indexer.Config{Database: store.Options{URL: nowhere}},
		indexer.Deps{NATS: nats.Conn(t), Logger: logger, Registry: r, Health: health, ID: "test"})
	require.NoError(t, err)

	r, health = registry(api.HealthDatabase, api.HealthListener)
	out["api"] = r
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	key, err := keyset.NewKey("k", make([]byte, keyset.MinSecret))
	require.NoError(t, err)
	a, err := api.New(api.Config{Database: store.Options{URL: nowhere}, CursorKeys: []keyset.Key{key}},
		api.Deps{Logger: logger, Registry: r, Health: health, Listener: listener})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	poll.Until(t, patience, func() (bool, string) {
		return health.NotReady()[api.HealthListener] == "", "the api does not listen"
	})
	stop()
	require.NoError(t, <-done)
	return out
}

// families returns a registry's metrics, without those of the Go runtime.
func families(t *testing.T, r *prometheus.Registry) []*dto.MetricFamily {
	t.Helper()
	all, err := r.Gather()
	require.NoError(t, err)
	return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool { return !strings.HasPrefix(f.GetName(), "tagstream_") })
}

func TestNamesFollowConventions(t *testing.T) {
	t.Parallel()
	for name, r := range programs(t) {
		problems, err := testutil.GatherAndLint(r)
		require.NoError(t, err)
		require.Empty(t, problems, name)
		for _, f := range families(t, r) {
			if n := f.GetName(); n != "tagstream_build_info" && n != "tagstream_component_ready" {
				require.True(t, strings.HasPrefix(n, "tagstream_"+name+"_"), "%s of %s", n, name)
			}
			require.True(t, strings.HasSuffix(f.GetHelp(), "."), "help of %s must be a sentence", f.GetName())
		}
	}
}
