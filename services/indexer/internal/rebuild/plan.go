package rebuild

import (
	"context"
	"errors"
	"fmt"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/dlq"
)

// headStart: of a stream that is being trimmed, the first 1/headStart is not replayed. That part is
// trimmed next, while the live index's state is copied and the replay catches up.
const headStart = 4

// plan is the relation of the stream, the live index and the remains of an interrupted run.
type plan struct {
	// live is the live index's checkpoint when the rebuild began.
	live store.Checkpoint
	// foreign reports that the live index belongs to another stream: the current one was restored
	// from an older copy, or recreated.
	foreign bool
	// first is the first message to replay. carry reports that the earlier state must come from the
	// live index: the stream does not begin at 1.
	first uint64
	carry bool
}

// makePlan makes the plan, and drops the remains of an interrupted run if they are useless.
func (r *Rebuild) makePlan(ctx context.Context) error {
	// The live index must have everything that the newest migration brought, too.
	migrated, err := store.IsMigrated(ctx, r.Database)
	if err != nil {
		return err
	}
	if !migrated {
		return store.ErrNotMigrated
	}
	live, _, err := r.owner.CheckpointOf(ctx, store.Live)
	if err != nil {
		return err
	}
	left, exists, err := r.owner.CheckpointOf(ctx, store.Rebuilding)
	if err != nil {
		return err
	}
	// Read after the checkpoints, which grow: so an index of this stream is never ahead of the
	// state.
	st, err := stream.GetState(ctx, r.JS)
	if err != nil {
		return err
	}
	r.plan.live = live
	if r.plan.foreign, err = r.isForeign(ctx, live, st); err != nil {
		return err
	}
	if st.First > 1 && live.Seq > 0 {
		switch {
		case r.plan.foreign:
			return fmt.Errorf("%w: the stream starts at %d, and the live index is of another one. Restore the database from a backup "+
				"that is older than the stream's, or remove the index and index what is left: see docs/operations.md", ErrTrimmed, st.First)
		case live.Seq+1 < st.First:
			return fmt.Errorf("%w: the stream starts at %d and the live index ends at %d, so what was between is in neither. "+
				"Restore the stream, or remove the index and index what is left: see docs/operations.md", ErrTrimmed, st.First, live.Seq)
		}
		r.plan.carry = true
	}
	r.plan.first = st.First
	if r.plan.carry && (st.MaxBytes > 0 || st.MaxAge > 0) {
		r.plan.first += (live.Seq + 1 - st.First) / headStart
	}
	if !exists {
		return nil
	}
	// If the stream was replaced, remains that do not say which stream they belong to are not used.
	useless := left.Seq+1 < st.First || r.plan.foreign && left.Source.Seq == 0
	if !useless {
		if useless, err = r.isForeign(ctx, left, st); err != nil {
			return err
		}
	}
	if !useless {
		return nil
	}
	r.Progress.Say(fmt.Sprintf("the interrupted rebuild, at message %d, is of another stream or of a part that was trimmed: starting over", left.Seq))
	return r.dropRemains(ctx)
}

// dropRemains drops the remains of an interrupted run, but not those of a running one.
func (r *Rebuild) dropRemains(ctx context.Context) error {
	running, err := r.owner.Leased(ctx, store.Rebuilding)
	if err != nil {
		return err
	}
	if running {
		return errRunning
	}
	return r.owner.Drop(ctx, store.Rebuilding)
}

// isForeign reports whether an index at cp belongs to another stream.
func (r *Rebuild) isForeign(ctx context.Context, cp store.Checkpoint, st stream.State) (bool, error) {
	err := stream.CheckIndex(ctx, r.JS, st, cp.Seq, cp.Source)
	if errors.Is(err, stream.ErrBehind) || errors.Is(err, stream.ErrReplaced) {
		return true, nil
	}
	return false, err
}

// carryOver starts the new index with the live one's state of the time before the replay.
func (r *Rebuild) carryOver(ctx context.Context) error {
	r.Progress.Say(fmt.Sprintf("the stream was trimmed: copying what the live index has from before message %d", r.plan.first))
	total := 0
	if err := r.writer.Keep(ctx, func(ctx context.Context) error {
		return r.writer.CarryOver(ctx, r.plan.first, func(n int) { total += n })
	}); err != nil {
		return err
	}
	if err := dlq.Recount(ctx, r.JS, r.writer); err != nil {
		return err
	}
	r.Progress.Say(fmt.Sprintf("copied %d posts", total))
	return nil
}
