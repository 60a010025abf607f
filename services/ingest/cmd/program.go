// Package cmd is the command line of ingest, used by its own program and by the all-in-one program.
package cmd

import (
	"context"
	"fmt"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/ingest"
)

// Program returns the ingest program.
func Program() service.Program {
	return service.Program{
		Name:  service.Ingest,
		About: "Reads Bluesky's Jetstream and publishes root posts with tags to the stream.",
		Verbs: &struct {
			Run Run `cmd:"" default:"withargs" serves:"" help:"read and publish, until stopped; the default"`
			Verbs
			service.Common
		}{},
	}
}

// Verbs are the commands of ingest.
type Verbs struct {
	Backfill  Backfill  `cmd:"" help:"publish what qualified in a past window, through the running ingest"`
	Reconcile Reconcile `cmd:"" help:"after a gap: remove posts that a host's archive shows as deleted"`
	Log       Log       `cmd:"" help:"print the log of connections and failures, oldest first"`
}

// Run reads and publishes until it is stopped.
type Run struct {
	service.Jetstream
	service.Window
	service.Retention
	service.Copies
	Profiles service.Profiles `embed:""`
	NATS     service.NATS     `embed:""`
	service.Observability
}

const componentNATS = "nats"

// Run runs ingest.
func (r *Run) Run(ctx context.Context, p *service.Process) error {
	cfg, err := ingest.ConfigFrom(r.Jetstream, r.Window, r.Retention)
	if err != nil {
		return err
	}
	if n := r.Replicas; n != 1 && n != 3 && n != 5 {
		return service.Bad("STREAM_REPLICAS", fmt.Errorf("%d is not 1, 3 or 5", n))
	}
	cfg.Stream.Replicas = r.Replicas
	cfg.ProfilesURL = r.Profiles.URL
	return r.Serve(ctx, p, []string{componentNATS, ingest.ComponentStream, ingest.ComponentFirehose}, func(ctx context.Context, d service.Deps) error {
		nc, err := r.NATS.Connect(p, d.Logger, func(err error) { d.Health.Set(componentNATS, err) })
		if err != nil {
			return err
		}
		defer nc.Close()
		s, err := ingest.New(cfg, ingest.Deps{NATS: nc, Domain: r.NATS.Domain, Logger: d.Logger, Registry: d.Registry, Ready: d.Health.Set, Tracer: d.Tracer})
		if err != nil {
			return err
		}
		s.Handle(d.Ops)
		return s.Run(ctx)
	})
}
