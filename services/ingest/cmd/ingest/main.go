// Command ingest reads Bluesky's Jetstream and publishes root posts with tags
// to the stream. See --help.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/tracing"
	"github.com/tagstream/tagstream/services/ingest"
)

func main() { service.Main(program()) }

// defaultLimit is how many entries the log command prints.
const defaultLimit = 100

func program() service.Program {
	limit := defaultLimit
	var window backfillFlags
	var archive reconcileFlags
	return service.Program{
		Name:  service.Ingest,
		About: "reads Bluesky's Jetstream and publishes root posts with tags to the stream",
		Commands: []service.Command{
			{Name: "run", Summary: "read and publish, until stopped", Serves: true, Run: run},
			{
				Name: "backfill", Summary: "publish what qualified in a past window, beside the running ingest",
				Flags: window.add,
				Run:   func(ctx context.Context, v *service.Values) error { return runBackfill(ctx, v, window, os.Stdout) },
			},
			{
				Name: "reconcile", Summary: "after a gap: remove what a host's archive shows to be deleted",
				Flags: archive.add,
				Run:   func(ctx context.Context, v *service.Values) error { return runReconcile(ctx, v, archive, os.Stdout) },
			},
			{
				Name: "log", Summary: "print the log of connections and failures, oldest first",
				Flags: func(fs *flag.FlagSet) { fs.IntVar(&limit, "limit", limit, "print the newest `N` entries") },
				Run:   func(ctx context.Context, v *service.Values) error { return printLog(ctx, v, limit, os.Stdout) },
			},
		},
	}
}

func run(ctx context.Context, v *service.Values) error {
	logger := service.Logger(v, os.Stderr)
	cfg := ingest.ConfigFrom(v)
	cfg.Stream.Replicas = v.Int("STREAM_REPLICAS", 1, 5)
	if n := cfg.Stream.Replicas; n == 2 || n == 4 {
		v.Fail("STREAM_REPLICAS", fmt.Errorf("%d is not 1, 3 or 5", n))
	}
	traces := tracing.ConfigFrom(v, service.Ingest)
	if err := v.Err(); err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	const componentNATS = "nats"
	health := obs.NewHealth(logger, componentNATS, ingest.ComponentStream, ingest.ComponentFirehose)
	nc, err := service.ConnectNATS(v, logger, func(err error) { health.Set(componentNATS, err) })
	if err != nil {
		return err
	}
	defer nc.Close()
	registry := obs.NewRegistry(health, service.Version())
	traced, err := tracing.Start(ctx, traces, logger, registry)
	if err != nil {
		return err
	}
	defer traced.Stop()
	svc, err := ingest.New(cfg, ingest.Deps{NATS: nc, Domain: v.String("NATS_DOMAIN"), Logger: logger, Registry: registry, Ready: health.Set, Tracer: traced.Tracer("ingest")})
	if err != nil {
		return err
	}
	return service.RunWithOps(ctx, v, service.Ops{Health: health, Registry: registry}, svc.Run)
}
