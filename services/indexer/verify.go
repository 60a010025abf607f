package indexer

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/check"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/verify"
)

// VerifyConfig says what to verify.
type VerifyConfig struct {
	// Database is where the index lives, with a role that may read it, or, where
	// an index that is behind has to be brought forward, change it.
	Database store.Options
	// Schema is what to verify; "" is the live index. Other is what to compare
	// it with; "" is what a rebuild has made or a switch has retired, where there
	// is one. Alone checks Schema by itself only.
	Schema, Other string
	Alone         bool
	// Connect connects to NATS, where that is needed.
	Connect func(ctx context.Context) (*nats.Conn, error)
	// ID is unique to this run of the program.
	ID string
	// Domain is the JetStream domain that the streams are in; "" is the server's own.
	Domain string
}

// Verify checks an index by itself and, where there is another one, compares
// the two. It returns a sentence on what it did, and what it found.
func Verify(ctx context.Context, cfg VerifyConfig, logger *slog.Logger, p obs.Progress) (did string, f check.Findings, err error) {
	if cfg.Schema == "" {
		cfg.Schema = store.Live
	}
	var nc *nats.Conn
	defer func() {
		if nc != nil {
			nc.Close()
		}
	}()
	v := verify.Verify{
		Database: cfg.Database, ID: cfg.ID, Logger: logger.With("service", "verify"), Progress: p,
		Stream: func(ctx context.Context) (jetstream.JetStream, error) {
			conn, err := cfg.Connect(ctx)
			if err != nil {
				return nil, err
			}
			nc = conn
			return stream.JetStream(nc, cfg.Domain)
		},
	}
	if cfg.Other == "" && !cfg.Alone {
		if cfg.Other, err = v.Other(ctx); err != nil {
			return "", f, err
		}
	}
	if cfg.Alone || cfg.Other == "" {
		f, err = v.Check(ctx, cfg.Schema)
		return fmt.Sprintf("%s was checked by itself", cfg.Schema), f, err
	}
	f, err = v.Compare(ctx, cfg.Schema, cfg.Other)
	return fmt.Sprintf("%s was compared with %s", cfg.Schema, cfg.Other), f, err
}
