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

// VerifyConfig is the configuration of a verification.
type VerifyConfig struct {
	// Database is where the index lives, with a role that may read it, or change it if an index
	// that is behind must be brought forward.
	Database store.Options
	// Schema is the schema to verify; "" is the live index. Other is the schema to compare with; ""
	// is a rebuilt or retired one, if there is one. Alone checks only Schema.
	Schema, Other string
	Alone         bool
	// Connect connects to NATS, if that is needed.
	Connect func(ctx context.Context) (*nats.Conn, error)
	// ID is unique to this run of the program.
	ID string
	// Domain is the JetStream domain of the streams; "" is the server's own.
	Domain string
}

// Verify checks an index alone and, if there is another one, compares the two. It returns a
// sentence about what it did, and the findings.
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
		return fmt.Sprintf("%s was checked alone", cfg.Schema), f, err
	}
	f, err = v.Compare(ctx, cfg.Schema, cfg.Other)
	return fmt.Sprintf("%s was compared with %s", cfg.Schema, cfg.Other), f, err
}
