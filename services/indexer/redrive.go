package indexer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/dlq"
)

// RedriveConfig says which dead letters to redrive and where to.
type RedriveConfig struct {
	// Database is where the index lives, with a role that may change rows.
	Database store.Options
	// ID is unique to this run of the program.
	ID string
	// Domain is the JetStream domain of the streams; "" is the server's own.
	Domain string
	// Seqs are the numbers of the dead letters; none means all.
	Seqs []uint64
	// Reason, if not "", selects only letters with this reason.
	Reason string
	// OnResult is called with each outcome; err says why a letter stays. It may be nil.
	OnResult func(seq uint64, err error)
}

// Redrive applies dead letters at their place in the stream, beside a running indexer, which stands
// by during the write (see package dlq), and removes those that it applied. It returns how many
// were applied, and how many stay. It can be run again after any error.
func Redrive(ctx context.Context, cfg RedriveConfig, nc *nats.Conn, logger *slog.Logger, p obs.Progress) (applied, stayed int, err error) {
	js, err := stream.JetStream(nc, cfg.Domain)
	if err != nil {
		return 0, 0, fmt.Errorf("use JetStream: %w", err)
	}
	w, err := write.Open(ctx, cfg.Database, cfg.ID)
	if err != nil {
		return 0, 0, err
	}
	defer w.Close()
	r := dlq.Redrive{
		JS: js, Writer: w, Logger: logger.With("service", "redrive"), Progress: p,
		OnResult: func(res dlq.Result) {
			if res.Err == nil {
				applied++
			} else {
				stayed++
			}
			if cfg.OnResult != nil {
				cfg.OnResult(res.Seq, res.Err)
			}
		},
	}
	err = r.Run(ctx, dlq.Selection{Seqs: cfg.Seqs, Reason: cfg.Reason})
	switch {
	case errors.Is(err, write.ErrLeaseHeld):
		err = fmt.Errorf("another redrive is running: %w", err)
	case errors.Is(err, write.ErrLeaseLost):
		err = fmt.Errorf("the index was switched or another indexer took over; run it again: %w", err)
	}
	return applied, stayed, err
}

// DropDeadLetters removes dead letters that will never be applied, and returns how many there were.
// The messages stay in the stream: a program that can apply them does so in a rebuild.
func DropDeadLetters(ctx context.Context, database store.Options, js jetstream.JetStream, seqs []uint64) (int, error) {
	w, err := write.Open(ctx, database, "")
	if err != nil {
		return 0, err
	}
	defer w.Close()
	n := 0
	for _, seq := range seqs {
		if _, err := stream.GetDeadLetter(ctx, js, seq); err != nil {
			return n, err
		}
		if err := stream.DeleteDeadLetter(ctx, js, seq); err != nil {
			return n, err
		}
		n++
	}
	return n, dlq.Recount(ctx, js, w)
}
