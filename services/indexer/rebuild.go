package indexer

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/rebuild"
)

// Why Rebuild did not replace the live index.
var (
	ErrDiffers = rebuild.ErrDiffers
	ErrTrimmed = rebuild.ErrTrimmed
)

// RebuildConfig is the configuration of a rebuild.
type RebuildConfig struct {
	// Database is where the index lives, with the owner's role.
	Database store.Options
	// Restart drops the remains of an interrupted rebuild.
	Restart bool
	// AcceptDifferences switches to the new index even if it differs from the live one, or lacks
	// posts or removals of a live one of another stream.
	AcceptDifferences bool
	// ID is unique to this run of the program.
	ID string
	// Domain is the JetStream domain of the streams; "" is the server's own.
	Domain string
}

// Rebuild makes a new index from the stream beside the live one and switches to it. It returns how
// many messages it replayed.
func Rebuild(ctx context.Context, cfg RebuildConfig, nc *nats.Conn, logger *slog.Logger, p obs.Progress) (uint64, error) {
	js, err := stream.JetStream(nc, cfg.Domain)
	if err != nil {
		return 0, fmt.Errorf("use JetStream: %w", err)
	}
	r := rebuild.Rebuild{
		JS: js, Database: cfg.Database, ID: cfg.ID, Restart: cfg.Restart, AcceptDifferences: cfg.AcceptDifferences,
		Logger: logger.With("service", "rebuild"), Progress: p,
	}
	return r.Run(ctx)
}
