package rebuild

import (
	"context"
	"math"
	"time"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/stream"
)

// foldNearLive folds until few messages are missing up to the live index's checkpoint, which it
// returns, or the stream has no more up to there.
func (r *Rebuild) foldNearLive(ctx context.Context) (uint64, error) {
	for {
		live, _, err := r.owner.CheckpointOf(ctx, store.Live)
		if err != nil {
			return 0, err
		}
		r.Progress.At(r.replay.At(), live.Seq)
		more := r.replay.At() < live.Seq
		for batches := 0; more && r.replay.At()+atEnd < live.Seq && batches < 10; batches++ {
			if more, err = r.foldBatch(ctx, live.Seq); err != nil {
				return 0, err
			}
			r.Progress.At(r.replay.At(), live.Seq)
		}
		if !more || r.replay.At()+atEnd >= live.Seq {
			return live.Seq, nil
		}
	}
}

// foldToLive folds up to the live index's checkpoint if a failed comparison, which was accepted, did
// not: up to there the live index is consulted.
func (r *Rebuild) foldToLive(ctx context.Context) error {
	live, _, err := r.owner.CheckpointOf(ctx, store.Live)
	for more := true; err == nil && more && r.replay.At() < live.Seq; {
		more, err = r.foldBatch(ctx, live.Seq)
	}
	return err
}

// foldUntil folds the stream, and does pending work, until done, which gets the number of missing
// messages.
func (r *Rebuild) foldUntil(ctx context.Context, done func(ctx context.Context, missing uint64) (bool, error)) error {
	for {
		st, err := stream.GetState(ctx, r.JS)
		if err != nil {
			return err
		}
		at := r.replay.At()
		r.Progress.At(at, st.Last)
		if ok, err := done(ctx, st.Last-min(st.Last, at)); err != nil || ok {
			return err
		}
		if _, err := r.foldBatch(ctx, math.MaxInt64); err != nil {
			return err
		}
	}
}

// foldBatch does a step of the pending work, if there is any, and folds the next batch up to message
// limit.
func (r *Rebuild) foldBatch(ctx context.Context, limit uint64) (more bool, err error) {
	if err := r.replay.DoPending(ctx); err != nil {
		return false, err
	}
	return r.replay.FoldBatch(ctx, limit)
}

// caughtUp reports whether so little is missing that the live indexer can be stopped.
func (r *Rebuild) caughtUp(_ context.Context, missing uint64) (bool, error) {
	return missing <= atEnd && !r.writer.Pending(), nil
}

// asRecent is caughtUp where the new index must also be as recent in upstream time as the live one
// of another stream was.
func (r *Rebuild) asRecent(ctx context.Context, missing uint64) (bool, error) {
	if caughtUp, err := r.caughtUp(ctx, missing); !caughtUp || r.AcceptDifferences {
		return caughtUp, err
	}
	cp, err := r.writer.Checkpoint(ctx)
	if err != nil || !cp.Source.Time.Before(r.plan.live.Source.Time) {
		return err == nil, err
	}
	if !r.waiting {
		r.waiting = true
		r.Progress.Say("waiting until ingest has brought the stream to " + r.plan.live.Source.Time.Format(time.RFC3339) + " of upstream time, like the live index")
	}
	return false, nil
}
