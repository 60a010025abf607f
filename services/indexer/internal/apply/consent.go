package apply

import (
	"context"
	"fmt"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
)

// decided is how many accounts are decided again in one transaction.
const decided = 500

// Consent says whether accounts that have opted out are shown all the same, and decides again of
// those that are there: their posts change in sweeps. A stopped run continues where it was.
func (a *Applier) Consent(ctx context.Context, ignore bool) error {
	for n := decided; n == decided; {
		err := a.Writer.Apply(ctx, func(tx *write.Tx, from store.Checkpoint) (store.Checkpoint, error) {
			if err := tx.IgnoreConsent(ctx, ignore); err != nil {
				return from, err
			}
			rows, err := tx.Undecided(ctx, decided)
			if err != nil {
				return from, err
			}
			n = len(rows)
			f := newFold(event.SyncRun{})
			f.ignoreConsent = ignore
			for did, row := range rows {
				acc := f.addAccount(did, row)
				acc.big, acc.changed = true, true // none of its posts are loaded
				f.settle(acc)
			}
			return from, tx.Write(ctx, f.changes())
		})
		if err != nil {
			return fmt.Errorf("decide again which accounts are shown: %w", err)
		}
		if n > 0 {
			a.Logger.Info("decided again of accounts that have opted out", "accounts", n, "shown", ignore)
		}
	}
	return nil
}
