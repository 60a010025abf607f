package apply

import (
	"context"
	"fmt"

	"github.com/tagstream/tagstream/pkg/store/write"
)

const (
	// sweepRows is how many posts one step of a sweep changes: some tens of milliseconds, so that
	// live events hardly wait.
	sweepRows = 500
	// sweepCounts is how many tag counts change at once at the end of a sweep. An account with more
	// different tags needs several steps.
	sweepCounts = 5000
)

// DoPending does one step of each kind of pending work (write.Writer.Pending). The error is the
// writer's (write.ErrLeaseLost) or the database's.
func (a *Applier) DoPending(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	if err := a.Writer.Sweep(ctx, sweepRows, func(tx *write.Tx, p write.SweepPiece) error { return sweepPiece(ctx, tx, p) }); err != nil {
		return err
	}
	if err := a.Writer.Announce(ctx); err != nil {
		return err
	}
	return a.upgrade(ctx)
}

// sweepPiece does one step of the pending changes of a big account: its next posts become listed or
// unlisted, or are deleted. While a sweep lasts, readers do not see the posts that change; the last
// step shows and counts them.
//
// A batch that changes posts of the account during a sweep finds them swept or not, and leaves them
// as the current pass would.
func sweepPiece(ctx context.Context, tx *write.Tx, piece write.SweepPiece) error {
	acc := piece.Account
	if piece.First && acc.ErasedRev != "" {
		if n, err := tx.EraseRemoved(ctx, acc, sweepRows); err != nil || n > 0 {
			return err
		}
	}
	var c write.Changes
	for _, p := range piece.Posts {
		switch {
		case isGone(p):
			c.Posts = append(c.Posts, write.PostChange{Account: acc, Old: p, OldVisible: p.Listed})
		case p.Listed != acc.Lists():
			c.Posts = append(c.Posts, write.PostChange{Account: acc, Old: p, New: p, OldVisible: p.Listed, NewVisible: !p.Listed})
		}
	}
	if err := tx.Write(ctx, c); err != nil {
		return err
	}
	if piece.Last {
		return tx.EndSweep(ctx, acc, sweepCounts)
	}
	return tx.PassSweep(ctx, acc, piece.Posts[len(piece.Posts)-1].Key)
}

// upgrade does one step of converting what an older program wrote to the current form.
func (a *Applier) upgrade(ctx context.Context) error {
	if a.Writer.Retagging() {
		begun, done, err := a.Writer.Retag(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("rewrite stored tags in their current normal form: %w", err)
		case begun && !done:
			a.Logger.Info("rewriting stored tags in their current normal form; queries continue")
		case done && !begun:
			a.Logger.Info("stored tags have their current normal form")
		}
	}
	if a.Writer.Filling() {
		begun, done, err := a.Writer.FillTraits(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("fill in the traits of stored posts: %w", err)
		case begun && !done:
			a.Logger.Info("computing the traits of stored posts; filters by media and self-labels are refused until it is done, other queries continue")
		case done && !begun:
			a.Logger.Info("filters by media and self-labels are ready")
		}
	}
	return nil
}
