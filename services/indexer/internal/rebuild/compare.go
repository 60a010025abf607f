package rebuild

import (
	"context"
	"errors"
	"fmt"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/check"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/services/indexer/internal/replay"
)

// ErrDiffers is returned if the new index differs from the live one, which stays live. The new
// one is kept in its own schema.
var ErrDiffers = errors.New("the rebuilt index differs from the live one")

// compare compares the two indexes at the live one's checkpoint.
func (r *Rebuild) compare(ctx context.Context, p *replay.Replay, w *write.Writer) error {
	r.Progress.Say("comparing the new index with the live one")
	var found check.Findings
	v := check.New(r.Database)
	v.Near = p.Near
	err := w.Keep(ctx, func(ctx context.Context) (err error) {
		found, err = v.Compare(ctx, store.Live, store.Rebuilding, func(ctx context.Context, seq uint64) error {
			if err := p.To(ctx, seq); err != nil {
				return err
			}
			if err := p.Settle(ctx); err != nil {
				return err
			}
			err := p.RecallFloors(ctx)
			r.recalled = err == nil
			if err == nil {
				err = w.RecallAuthors(ctx)
			}
			if err == nil { // the settings may have changed since the beginning
				err = r.consent(ctx, w)
			}
			if err == nil {
				err = p.Settle(ctx)
			}
			return err
		})
		return err
	})
	return r.judge(ctx, found, err)
}

// judge reports the findings, and returns whether they keep the new index from going live. A live
// index that cannot be read may be the reason for the rebuild.
func (r *Rebuild) judge(ctx context.Context, found check.Findings, err error) error {
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

// reached reports whether the new index is as recent in upstream time as the live one of another
// stream was.
func (r *Rebuild) reached(ctx context.Context, w *write.Writer) (bool, error) {
	if r.AcceptDifferences {
		return true, nil
	}
	cp, err := w.Checkpoint(ctx)
	return !cp.Source.Time.Before(r.plan.live.Source.Time), err
}

// checkConflicts looks for posts and removals in a live index of another stream that the new index
// lacks without a reason.
func (r *Rebuild) checkConflicts(ctx context.Context, p *replay.Replay, w *write.Writer) error {
	r.Progress.Say("looking for posts and removals that the live index, which is of another stream, has and the new one lacks")
	if err := p.Settle(ctx); err != nil {
		return err
	}
	var found check.Findings
	err := w.Keep(ctx, func(ctx context.Context) (err error) {
		found, err = check.New(r.Database).Conflicts(ctx, store.Live, store.Rebuilding)
		return err
	})
	return r.judge(ctx, found, err)
}
