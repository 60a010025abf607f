// Package replay folds the stream into an index up to a given message, beside another index, the
// reference: either for a rebuild, or for a comparison with the live index. It uses the code that
// indexes live.
package replay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

const (
	batchSize = stream.ReadAhead
	// batchWait is for messages that are known to follow: at the stream's end a batch ends at once.
	batchWait = 200 * time.Millisecond
	idleWait  = 200 * time.Millisecond
)

// Config says what to replay into what.
type Config struct {
	JS jetstream.JetStream
	// Writer has the lease of the index that is written.
	Writer *write.Writer
	Logger *slog.Logger
	// PutDeadLetter stores a message that cannot be applied.
	PutDeadLetter func(ctx context.Context, d stream.DeadLetter) error
	// Database has the reference in the schema Reference.
	Database  store.Options
	Reference string
}

// Replay reads the stream into an index. It must be used from one goroutine.
type Replay struct {
	cfg    Config
	memory memory
	reader *stream.Reader
	at     uint64
	// ahead was read but not applied yet.
	ahead []stream.Message
}

// Open starts to read after message at, the index's checkpoint.
//
// If the stream's beginning was trimmed and the reference is the live index, the reference is asked
// for the keys of edited posts from before that, until StopRecalling. It must have folded every
// message that is replayed until then.
func Open(ctx context.Context, cfg Config, at uint64) (*Replay, error) {
	st, err := stream.GetState(ctx, cfg.JS)
	if err != nil {
		return nil, err
	}
	reader, err := stream.OpenReader(ctx, cfg.JS, at+1)
	if err != nil {
		return nil, err
	}
	a := &apply.Applier{Writer: cfg.Writer, Logger: cfg.Logger, PutDeadLetter: cfg.PutDeadLetter, Batch: batchSize}
	m := memory{js: cfg.JS, writer: cfg.Writer, applier: a}
	if st.First > 1 && cfg.Reference == store.Live {
		m.gaps, a.LiveKeys = true, cfg.Writer.LiveKeys
	}
	return &Replay{cfg: cfg, reader: reader, at: at, memory: m}, nil
}

// StopRecalling ends the look-ups in the reference that Open describes, once the index equals it.
func (r *Replay) StopRecalling() { r.memory.gaps, r.memory.applier.LiveKeys = false, nil }

// Close stops reading.
func (r *Replay) Close() { r.reader.Close() }

// At returns the last folded message.
func (r *Replay) At() uint64 { return r.at }

// FoldBatch folds the next batch, nothing after message limit, and renews the lease. It returns
// false if the stream has nothing more up to there.
func (r *Replay) FoldBatch(ctx context.Context, limit uint64) (more bool, err error) {
	if len(r.ahead) == 0 {
		wait, cancel := context.WithTimeout(ctx, idleWait)
		batch, err := r.reader.Next(wait, batchSize, batchWait)
		cancel()
		switch {
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			return false, err
		}
		r.ahead = batch
	}
	n := min(len(r.ahead), r.memory.applier.Batch)
	for n > 0 && r.ahead[n-1].Seq > limit {
		n--
	}
	if n == 0 {
		if err := r.cfg.Writer.Renew(ctx); err != nil {
			return false, err
		}
		return stream.HasMessage(ctx, r.cfg.JS, r.at+1, limit)
	}
	if err := r.memory.apply(ctx, r.ahead[:n]); err != nil {
		return false, err
	}
	r.at, r.ahead = r.ahead[n-1].Seq, r.ahead[n:]
	return true, nil
}

// FoldAvailable folds what the stream has up to message seq, which the reference may have passed.
func (r *Replay) FoldAvailable(ctx context.Context, seq uint64) error {
	for more := true; more && r.at < seq; {
		var err error
		if more, err = r.FoldBatch(ctx, seq); err != nil {
			return err
		}
	}
	return nil
}

// FoldTo folds everything up to message seq, the reference's checkpoint, and nothing after it.
func (r *Replay) FoldTo(ctx context.Context, seq uint64) error {
	for r.at < seq {
		more, err := r.FoldBatch(ctx, seq)
		if err == nil && !more {
			err = r.skipErased(ctx, seq)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// FinishPending finishes all pending work, such as sweeps of big accounts.
func (r *Replay) FinishPending(ctx context.Context) error {
	for r.cfg.Writer.Pending() {
		if err := r.DoPending(ctx); err != nil {
			return err
		}
	}
	return nil
}

// List makes postponed lists and counts, if there are any.
func (r *Replay) List(ctx context.Context) error {
	if !r.cfg.Writer.Unlisted() {
		return nil
	}
	if !r.cfg.Writer.Listing() {
		if err := r.FinishPending(ctx); err != nil {
			return err
		}
	}
	return r.cfg.Writer.Keep(ctx, r.cfg.Writer.List)
}

// DoPending does a step of the pending work, if there is any.
func (r *Replay) DoPending(ctx context.Context) error {
	if !r.cfg.Writer.Pending() {
		return nil
	}
	return r.memory.applier.DoPending(ctx)
}

// RecallFloors copies the floors of #syncs from the live index, if the stream lacks the
// replacements that caused them, and removes posts below them. The index must be at the live one's
// checkpoint or later.
func (r *Replay) RecallFloors(ctx context.Context) error {
	if r.cfg.Reference != store.Live {
		return nil
	}
	// Possibly nothing has been folded since Open.
	if gaps, err := r.memory.hasGaps(ctx); err != nil || !gaps {
		return err
	}
	raised, err := r.cfg.Writer.RecallFloors(ctx)
	if err != nil {
		return err
	}
	if raised > 0 {
		r.cfg.Logger.Info("copied #sync floors from the live index, since the stream no longer has their events", "accounts", raised)
	}
	return r.FinishPending(ctx)
}

// skipErased moves the index to the reference's checkpoint, seq, in place of messages that were
// erased.
func (r *Replay) skipErased(ctx context.Context, seq uint64) error {
	// Only what the stream once had can have been erased.
	st, err := stream.GetState(ctx, r.cfg.JS)
	if err != nil {
		return err
	}
	if st.Last < seq {
		return fmt.Errorf("%w: wanted up to %d, the last is %d", stream.ErrBehind, seq, st.Last)
	}
	cp, _, err := write.NewOwner(r.cfg.Database).CheckpointOf(ctx, r.cfg.Reference)
	if err != nil {
		return err
	}
	if err := r.memory.skipTo(ctx, seq, cp.Source); err != nil {
		return fmt.Errorf("skip message %d, which was erased: %w", seq, err)
	}
	r.at = seq
	return nil
}
