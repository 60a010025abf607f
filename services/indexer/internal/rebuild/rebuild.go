// Package rebuild makes the index anew from the stream: it replays it into a
// schema of its own through the code that indexes live, and then makes that
// schema the live one in a single transaction. The live index is read and
// written meanwhile as always.
//
// It can be interrupted at any point and started again: the new schema has a
// checkpoint like the live one, and goes on from there. A crash in the switch
// leaves it done or not done.
package rebuild

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

// ErrTrimmed is returned where the stream no longer has its beginning: an index
// rebuilt from it would silently lack what the live one has.
var ErrTrimmed = errors.New("the stream no longer has its beginning, so a rebuilt index would lack posts that the live one has")

const (
	batchSize = 2000
	// nearEnd is how many messages may be missing when the new schema is
	// vacuumed and switched in; what comes meanwhile is applied after.
	nearEnd        = 10_000
	batchWait      = 20 * time.Millisecond
	idleWait       = 200 * time.Millisecond
	releaseTimeout = 3 * time.Second
	// grace is how long requests that began on the former schema may last.
	grace = 6 * time.Second
)

// Progress is told how far a rebuild is.
type Progress interface {
	// At says that done of total messages are applied; total may grow.
	At(done, total uint64)
	// Say announces a step.
	Say(step string)
}

// Rebuild is one run of a rebuild.
type Rebuild struct {
	JS       jetstream.JetStream
	Database store.Options // with the owner's role
	ID       string        // unique to the run
	// Restart drops what an interrupted run left, instead of going on from it.
	Restart  bool
	Logger   *slog.Logger
	Progress Progress
}

// Run rebuilds and switches. It returns the number of messages replayed.
func (r *Rebuild) Run(ctx context.Context) (uint64, error) {
	owner := store.NewOwner(r.Database)
	// What a switch that was killed before its clean-up left.
	if err := owner.Drop(ctx, store.Retired); err != nil {
		return 0, err
	}
	if r.Restart {
		if err := owner.Drop(ctx, store.Rebuilding); err != nil {
			return 0, err
		}
	}
	st, err := stream.GetState(ctx, r.JS)
	if err != nil {
		return 0, err
	}
	live, exists, err := owner.CheckpointOf(ctx, store.Live)
	if err != nil {
		return 0, err
	}
	if !exists {
		return 0, fmt.Errorf("rebuild: %w", store.ErrNotMigrated)
	}
	if st.First > 1 && live.Seq > 0 {
		return 0, fmt.Errorf("rebuild: %w: the stream starts at %d", ErrTrimmed, st.First)
	}
	o := r.Database
	o.Schema = store.Rebuilding
	if err := store.Migrate(ctx, o, r.Logger); err != nil {
		return 0, err
	}
	w, err := store.OpenWriter(ctx, o, r.ID)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	cp, err := w.Acquire(ctx)
	if errors.Is(err, store.ErrLeaseHeld) {
		return 0, errors.New("rebuild: another rebuild is running")
	}
	if err != nil {
		return 0, err
	}
	defer func() {
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		// After a switch there is nothing to give back, and else it ends by itself.
		_ = w.Release(release)
	}()
	from := cp.Seq
	if from > 0 {
		r.Progress.Say(fmt.Sprintf("going on from message %d of an interrupted rebuild", from))
	}
	seq, err := r.replay(ctx, owner, w, cp.Seq)
	if err != nil {
		return seq - from, err
	}
	r.Progress.Say("switched; removing the former index")
	select {
	case <-ctx.Done():
		return seq - from, nil // the next rebuild removes it
	case <-time.After(grace):
	}
	if err := owner.Drop(ctx, store.Retired); err != nil {
		return seq - from, fmt.Errorf("the new index is live, but removing the former one failed: %w", err)
	}
	return seq - from, nil
}

func (r *Rebuild) replay(ctx context.Context, owner *store.Owner, w *store.Writer, seq uint64) (uint64, error) {
	reader, err := stream.OpenReader(ctx, r.JS, seq+1)
	if err != nil {
		return seq, err
	}
	defer reader.Close()
	a := &apply.Applier{
		Writer: w, Logger: r.Logger,
		// Also those that are there since they were applied live: one may have been
		// redriven, and so be gone, by a program that could apply it.
		PutDeadLetter: func(ctx context.Context, d stream.DeadLetter) error { return stream.PutDeadLetter(ctx, r.JS, d) },
	}
	m := memory{js: r.JS, writer: w, applier: a}
	vacuumed := false
	for {
		st, err := stream.GetState(ctx, r.JS)
		if err != nil {
			return seq, err
		}
		r.Progress.At(seq, st.Last)
		if seq+nearEnd >= st.Last {
			if !vacuumed {
				r.Progress.Say("vacuuming the new index")
				if err := owner.Vacuum(ctx, store.Rebuilding); err != nil {
					return seq, err
				}
				vacuumed = true
				continue
			}
			if seq+batchSize >= st.Last && !w.Sweeping() {
				err := owner.Switch(ctx, func(ctx context.Context, live uint64) error {
					for seq < live {
						// Nothing would come of waiting for what was erased.
						more, err := stream.HasMessage(ctx, r.JS, seq+1, live)
						if err != nil {
							return err
						}
						if !more {
							seq = live
							return m.pass(ctx, owner, live)
						}
						batch, err := reader.Next(ctx, batchSize, batchWait)
						if err != nil {
							return err
						}
						if err := m.apply(ctx, batch); err != nil {
							return err
						}
						seq = batch[len(batch)-1].Seq
					}
					return nil
				})
				if err == nil {
					return seq, nil
				}
				// The commit's answer may have been lost: the schema's name tells.
				if _, exists, lookErr := owner.CheckpointOf(ctx, store.Rebuilding); lookErr == nil && !exists {
					return seq, nil
				}
				return seq, err
			}
		}
		if w.Sweeping() {
			if err := a.Sweep(ctx); err != nil {
				return seq, err
			}
		}
		wait, cancel := context.WithTimeout(ctx, idleWait)
		batch, err := reader.Next(wait, batchSize, batchWait)
		cancel()
		switch {
		case ctx.Err() != nil:
			return seq, fmt.Errorf("rebuild interrupted at message %d; run it again to go on: %w", seq, context.Cause(ctx))
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			return seq, err
		case len(batch) == 0:
			if err := w.Renew(ctx); err != nil {
				return seq, err
			}
			continue
		}
		if err := m.apply(ctx, batch); err != nil {
			return seq, err
		}
		seq = batch[len(batch)-1].Seq
	}
}
