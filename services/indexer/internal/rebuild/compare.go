package rebuild

import (
	"context"
	"errors"
	"fmt"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/check"
	"github.com/tagstream/tagstream/pkg/store/write"
)

// ErrDiffers is returned if the new index differs from the live one, which stays live. The new
// one is kept in its own schema.
var ErrDiffers = errors.New("the rebuilt index differs from the live one")

// compare compares the two indexes at the live one's checkpoint.
func (r *Rebuild) compare(ctx context.Context) error {
	r.Progress.Say("comparing the new index with the live one")
	var found check.Findings
	v := check.New(r.Database)
	v.Near = r.replay.FoldAvailable
	err := r.writer.Keep(ctx, func(ctx context.Context) (err error) {
		found, err = v.Compare(ctx, store.Live, store.Rebuilding, r.align)
		return err
	})
	return r.refuseDifferences(ctx, found, err)
}

// align makes the new index what the live one is at message seq.
func (r *Rebuild) align(ctx context.Context, seq uint64) error {
	if err := r.replay.FoldTo(ctx, seq); err != nil {
		return err
	}
	if err := r.replay.FinishPending(ctx); err != nil {
		return err
	}
	err := r.replay.RecallFloors(ctx)
	r.recalled = err == nil
	if err != nil {
		return err
	}
	if err := r.writer.RecallAuthors(ctx); err != nil {
		return err
	}
	// The settings may have changed since the beginning.
	if err := r.copySettings(ctx); err != nil {
		return err
	}
	return r.replay.FinishPending(ctx)
}

// refuseDifferences returns an error if a comparison failed or found a difference, unless that is
// accepted: a live index that cannot be read may be the reason for the rebuild.
func (r *Rebuild) refuseDifferences(ctx context.Context, found check.Findings, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, write.ErrLeaseLost):
		return err
	case err == nil && found.N == 0:
		r.same = true
		r.Progress.Say("there is no difference")
		return nil
	case err != nil:
		err = fmt.Errorf("compare the rebuilt index with the live one: %w", err)
	default:
		err = fmt.Errorf("%w: %s", ErrDiffers, found)
	}
	if r.AcceptDifferences {
		r.Progress.Say("accepted: " + err.Error())
		r.Logger.Warn("differences between the rebuilt index and the live one were accepted", "differences", found.N, "err", err)
		return nil
	}
	return fmt.Errorf("%w. The live index stays in use. If the new index is right, run the rebuild again with --accept-differences: see docs/operations.md", err)
}

// checkConflicts looks for posts and removals in a live index of another stream that the new index
// lacks without a reason.
func (r *Rebuild) checkConflicts(ctx context.Context) error {
	r.Progress.Say("looking for posts and removals that the live index, which is of another stream, has and the new one lacks")
	if err := r.replay.FinishPending(ctx); err != nil {
		return err
	}
	var found check.Findings
	err := r.writer.Keep(ctx, func(ctx context.Context) (err error) {
		found, err = check.New(r.Database).Conflicts(ctx, store.Live, store.Rebuilding)
		return err
	})
	return r.refuseDifferences(ctx, found, err)
}
