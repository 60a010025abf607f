// Command indexer folds the stream into the index.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/services/indexer"
)

func main() {
	var restart bool
	service.Main(service.Program{
		Name:  service.Indexer,
		About: "folds the stream of posts into the index in Postgres, once and in order.",
		Commands: []service.Command{
			{Name: "run", Summary: "index until stopped", Run: run},
			{Name: "migrate", Summary: "create the schema or bring it up to date (owner's role)", Run: migrate},
			{Name: "rebuild", Summary: "make the index anew from the stream beside the live one, then switch (owner's role)",
				Flags: func(fs *flag.FlagSet) {
					fs.BoolVar(&restart, "restart", false, "start over instead of going on from an interrupted rebuild")
				},
				Run: func(ctx context.Context, v *service.Values) error { return rebuild(ctx, v, restart) }},
		},
	})
}

func settings(v *service.Values) (*slog.Logger, store.Options, error) {
	logger := service.Logger(v, os.Stderr)
	v.Required("DATABASE_URL", "where the index is, such as postgres://tagstream_indexer@db.example/tagstream")
	database := store.OptionsFrom(v, service.Indexer)
	return logger, database, v.Err()
}

func run(ctx context.Context, v *service.Values) error {
	logger, database, err := settings(v)
	if err != nil {
		return err
	}
	health := obs.NewHealth(logger, "nats", indexer.HealthDatabase, indexer.HealthStream)
	nc, err := service.ConnectNATS(v, logger, func(err error) { health.Set("nats", err) })
	if err != nil {
		return err
	}
	defer nc.Close()
	registry := obs.NewRegistry()
	x, err := indexer.New(indexer.Config{Database: database}, indexer.Deps{
		NATS: nc, Logger: logger, Registry: registry, Health: health, ID: nuid.Next(),
	})
	if err != nil {
		return err
	}
	return service.RunWithOps(ctx, v, service.Ops{Health: health, Registry: registry}, x.Run)
}

func migrate(ctx context.Context, v *service.Values) error {
	logger, database, err := settings(v)
	if err != nil {
		return err
	}
	return store.Migrate(ctx, database, logger)
}

const connectTimeout = 10 * time.Second

func rebuild(ctx context.Context, v *service.Values, restart bool) error {
	logger, database, err := settings(v)
	if err != nil {
		return err
	}
	nc, err := service.ConnectNATS(v, logger, nil)
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := waitConnected(ctx, nc); err != nil {
		return err
	}
	begun := time.Now()
	bar := obs.NewBar(os.Stderr, logger, "rebuilding", "messages")
	n, err := indexer.Rebuild(ctx, indexer.RebuildConfig{Database: database, Restart: restart, ID: nuid.Next()}, nc, logger, bar)
	bar.Close()
	if err != nil {
		return err
	}
	fmt.Printf("rebuilt the index from %d messages in %s\n", n, time.Since(begun).Round(time.Second))
	return nil
}

func waitConnected(ctx context.Context, nc *nats.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("reach NATS at %s: %w", nc.Opts.Url, err)
	}
	return nil
}
