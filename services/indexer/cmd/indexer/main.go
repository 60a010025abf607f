// Command indexer folds the stream into the index. See --help.
package main

import (
	"context"
	"errors"
	"flag"
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
	"github.com/tagstream/tagstream/pkg/tracing"
	"github.com/tagstream/tagstream/services/indexer"
)

func main() {
	args, operands := splitArgs(os.Args[1:])
	os.Args = append(os.Args[:1], args...)
	service.Main(program(operands, os.Stdout))
}

// program is the command line. operands are what splitArgs took from it, and
// out is where the commands print what they were asked for.
func program(operands []string, out *os.File) service.Program {
	var cfg indexer.RebuildConfig
	return service.Program{
		Name:  service.Indexer,
		About: "folds the stream of posts into the index in Postgres, once and in order.",
		Commands: append([]service.Command{
			{Name: "run", Summary: "index until stopped", Serves: true, Run: run},
			{Name: "migrate", Summary: "create the schema or bring it up to date (owner's role)", Run: migrate},
			{Name: "rebuild", Summary: "rebuild the index from the stream beside the live one, then switch (owner's role)",
				Flags: func(fs *flag.FlagSet) {
					fs.BoolVar(&cfg.Restart, "restart", false, "start over instead of continuing an interrupted rebuild")
					fs.BoolVar(&cfg.AcceptDifferences, "accept-differences", false, "switch to the new index even if it differs from the live one")
				},
				Run: func(ctx context.Context, v *service.Values) error { return rebuild(ctx, v, cfg) }},
			verifyCommand(out),
		}, deadLetterCommands(operands, out)...),
	}
}

// The roles that commands need.
const (
	writer = "tagstream_indexer"
	owner  = "tagstream_owner"
)

func settings(v *service.Values, role string) (*slog.Logger, store.Options, error) {
	logger := service.Logger(v, os.Stderr)
	v.Required("DATABASE_URL", "where the index is, such as postgres://"+role+"@db.example/tagstream")
	database := dbsettings.Options(v, service.Indexer)
	return logger, database, v.Err()
}

func run(ctx context.Context, v *service.Values) error {
	logger, database, err := settings(v, writer)
	if err != nil {
		return err
	}
	cfg := indexer.Config{Database: database, MarkerAge: v.Duration("INDEXER_MARKER_AGE"), EraseWithin: indexer.EraseWithinFrom(v)}
	if cfg.MarkerAge != 0 && cfg.MarkerAge < indexer.MinMarkerAge {
		v.Fail("INDEXER_MARKER_AGE", fmt.Errorf("%s is less than %s", cfg.MarkerAge, indexer.MinMarkerAge))
	}
	traces := tracing.ConfigFrom(v, service.Indexer)
	if err := v.Err(); err != nil {
		return err
	}
	health := obs.NewHealth(logger, "nats", indexer.HealthDatabase, indexer.HealthStream)
	nc, err := service.ConnectNATS(v, logger, func(err error) { health.Set("nats", err) })
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
	x, err := indexer.New(cfg, indexer.Deps{
		NATS: nc, Domain: v.String("NATS_DOMAIN"), Logger: logger, Registry: registry, Health: health, ID: nuid.Next(), Tracer: traced.Tracer("indexer"),
	})
	if err != nil {
		return err
	}
	return service.RunWithOps(ctx, v, service.Ops{Health: health, Registry: registry}, x.Run)
}

func migrate(ctx context.Context, v *service.Values) error {
	logger, database, err := settings(v, owner)
	if err != nil {
		return err
	}
	return store.Migrate(ctx, database, logger)
}

const connectTimeout = 10 * time.Second

func rebuild(ctx context.Context, v *service.Values, cfg indexer.RebuildConfig) error {
	logger, database, err := settings(v, owner)
	if err != nil {
		return err
	}
	nc, err := connect(ctx, v, logger)
	if err != nil {
		return err
	}
	defer nc.Close()
	begun := time.Now()
	bar := obs.NewBar(os.Stderr, logger, "rebuilding", "messages")
	cfg.Database, cfg.ID, cfg.Domain = database, nuid.Next(), v.String("NATS_DOMAIN")
	n, err := indexer.Rebuild(ctx, cfg, nc, logger, bar)
	bar.Close()
	if err != nil {
		return err
	}
	fmt.Printf("rebuilt the index from %d messages in %s\n", n, time.Since(begun).Round(time.Second))
	return nil
}

// connect connects to NATS for a command that ends: it does not wait for ever.
func connect(ctx context.Context, v *service.Values, logger *slog.Logger) (*nats.Conn, error) {
	nc, err := service.ConnectNATS(v, logger, nil)
	if err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := nc.FlushWithContext(wait); err != nil {
		nc.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("no NATS server answers within %s; is TAGSTREAM_NATS_URL right? %w", connectTimeout, err)
	}
	return nc, nil
}

// usage is an error of how a command was called.
func usage(what, format string, args ...any) error {
	return &service.ConfigError{Variable: what, Err: fmt.Errorf(format, args...)}
}

// isTerminal reports whether out is a terminal, for a person to read.
func isTerminal(out *os.File) bool {
	st, err := out.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

var errNotAll = errors.New("not all dead letters could be applied")
