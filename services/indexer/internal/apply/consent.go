package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
)

// consentBatch is how many accounts are processed in one transaction.
const consentBatch = 500

// Deny is the operator's deny list: accounts that are hidden, known or not, and tags that are not
// served.
type Deny struct {
	Accounts, Tags []string
}

// Consent sets whether accounts that have opted out are shown anyway, and the operator's deny list.
// It applies both to stored accounts, whose posts change in sweeps. A stopped run continues where
// it was.
func (a *Applier) Consent(ctx context.Context, showOptedOut bool, deny Deny) error {
	for n := consentBatch; n == consentBatch; {
		err := a.Writer.Apply(ctx, func(tx *write.Tx, from store.Checkpoint) (store.Checkpoint, error) {
			if err := tx.SetShowOptedOut(ctx, showOptedOut); err != nil {
				return from, err
			}
			changed, err := tx.Deny(ctx, deny.Accounts, deny.Tags)
			if err != nil {
				return from, err
			}
			if changed {
				a.Logger.Info("the deny list has changed", "accounts", len(deny.Accounts), "tags", len(deny.Tags))
			}
			rows, err := tx.OutdatedAccounts(ctx, consentBatch)
			if err != nil {
				return from, err
			}
			n = len(rows)
			f := newFold(event.SyncRun{})
			if err := f.consent(ctx, tx, slices.Collect(maps.Keys(rows))...); err != nil {
				return from, err
			}
			for did, row := range rows {
				acc := f.addAccount(did, row)
				acc.big, acc.changed = true, true // none of its posts is loaded
				f.setState(acc)
			}
			return from, tx.Write(ctx, f.changes())
		})
		if err != nil {
			return fmt.Errorf("apply opt-outs and the deny list to stored accounts: %w", err)
		}
		if n > 0 {
			a.Logger.Info("applied opt-outs and the deny list to stored accounts", "accounts", n)
		}
	}
	return nil
}

// consent loads the consent setting and the denial of these accounts into the fold. Call it before
// loading them.
func (f *fold) consent(ctx context.Context, tx *write.Tx, dids ...string) (err error) {
	f.showOptedOut = tx.ShowsOptedOut()
	f.denied, err = tx.Denied(ctx, dids)
	return err
}
