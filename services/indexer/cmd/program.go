// Package cmd is the command line of the indexer, used by its own program and by the all-in-one
// program.
package cmd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/service/dbsettings"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/services/indexer"
)

// Program returns the indexer program.
func Program() service.Program {
	return service.Program{
		Name:  service.Indexer,
		About: "Folds the stream of posts into the index in Postgres, once and in order.",
		Verbs: &struct {
			Run Run `cmd:"" default:"withargs" serves:"" help:"index until stopped; the default"`
			Verbs
			service.Common
		}{},
	}
}

// Verbs are the commands of the indexer.
type Verbs struct {
	Migrate Migrate     `cmd:"" help:"create the schema or bring it up to date (owner's role)"`
	Rebuild Rebuild     `cmd:"" help:"rebuild the index from the stream beside the live one, then switch (owner's role)"`
	Verify  Verify      `cmd:"" help:"check that the index is consistent, and equal to a rebuilt one if it exists"`
	Status  Status      `cmd:"" help:"print how far the index and the stream are, and who writes them"`
	DLQ     DeadLetters `cmd:"" name:"dlq" help:"list, show, redrive or drop the messages that could not be applied"`
}

// Run indexes until it is stopped.
type Run struct {
	Database service.Database `embed:""`
	NATS     service.NATS     `embed:""`
	Markers  service.Markers  `embed:""`
	Changes  service.Changes  `embed:""`
	Consent  service.Consent  `embed:""`
	Erasure  service.Erasure  `embed:""`
	service.Observability
}

const componentNATS = "nats"

// Run runs the indexer.
func (r *Run) Run(ctx context.Context, p *service.Process) error {
	options, err := dbsettings.Options(p, r.Database, dbsettings.Indexer)
	if err != nil {
		return err
	}
	if r.Markers.Age < indexer.MinMarkerAge {
		return service.Bad("INDEXER_MARKER_AGE", fmt.Errorf("%s is less than %s", r.Markers.Age, indexer.MinMarkerAge))
	}
	if err := indexer.CheckChanges(r.Changes); err != nil {
		return err
	}
	if err := indexer.CheckErasure(r.Erasure); err != nil {
		return err
	}
	cfg := indexer.Config{
		Database: options, MarkerAge: r.Markers.Age, ChangesAge: r.Changes.Age,
		ShowOptedOut: r.Consent.ShowOptedOut(), DenyFile: r.Consent.DenyFile, EraseWithin: r.Erasure.Within,
	}
	return r.Serve(ctx, p, []string{componentNATS, indexer.HealthDatabase, indexer.HealthStream}, func(ctx context.Context, d service.Deps) error {
		nc, err := r.NATS.Connect(p, d.Logger, func(err error) { d.Health.Set(componentNATS, err) })
		if err != nil {
			return err
		}
		defer nc.Close()
		x, err := indexer.New(cfg, indexer.Deps{
			NATS: nc, Domain: r.NATS.Domain, Logger: d.Logger, Registry: d.Registry, Health: d.Health, ID: nuid.Next(), Tracer: d.Tracer,
		})
		if err != nil {
			return err
		}
		return x.Run(ctx)
	})
}

// Migrate creates the schema or brings it up to date.
type Migrate struct {
	Database service.Database `embed:""`
	service.Log
}

// Run migrates.
func (m *Migrate) Run(ctx context.Context, p *service.Process) error {
	options, err := dbsettings.Options(p, m.Database, dbsettings.Owner)
	if err != nil {
		return err
	}
	return store.Migrate(ctx, options, m.Logger(p.Stderr))
}

// servers connects the verbs that need both the stream and the index.
type servers struct {
	Database service.Database `embed:""`
	NATS     service.NATS     `embed:""`
	service.Log
}

// open opens the index with a role, and connects to NATS.
func (s *servers) open(ctx context.Context, p *service.Process, role string) (store.Options, *nats.Conn, *slog.Logger, error) {
	options, err := dbsettings.Options(p, s.Database, role)
	if err != nil {
		return options, nil, nil, err
	}
	nc, err := s.NATS.Dial(ctx, p)
	return options, nc, s.Logger(p.Stderr), err
}

// Rebuild rebuilds the index.
type Rebuild struct {
	Restart           bool `help:"start over instead of continuing an interrupted rebuild"`
	AcceptDifferences bool `help:"switch to the new index even if it differs from the live one"`
	servers           `embed:""`
}

// Run rebuilds.
func (r *Rebuild) Run(ctx context.Context, p *service.Process) error {
	options, nc, logger, err := r.open(ctx, p, dbsettings.Owner)
	if err != nil {
		return err
	}
	defer nc.Close()
	begun := time.Now()
	bar := obs.NewBar(os.Stderr, logger, "rebuilding", "messages")
	n, err := indexer.Rebuild(ctx, indexer.RebuildConfig{
		Database: options, ID: nuid.Next(), Domain: r.NATS.Domain, Restart: r.Restart, AcceptDifferences: r.AcceptDifferences,
	}, nc, logger, bar)
	bar.Close()
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Stdout, "rebuilt the index from %d messages in %s\n", n, time.Since(begun).Round(time.Second))
	return nil
}

// usage returns an error about the arguments of a verb.
func usage(what, format string, args ...any) error {
	return &service.ConfigError{Variable: what, Err: fmt.Errorf(format, args...)}
}
