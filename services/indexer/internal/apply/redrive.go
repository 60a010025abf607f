package apply

import (
	"context"
	"fmt"
	"slices"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
)

// End is a step for other messages of the stream after the steps before it: like any other event it
// ends a #sync, and does nothing else.
func End(seq uint64) Step {
	return Step{seq, &event.Event{Kind: event.KindPosition, Sync: event.SyncOver}}
}

// History is the stream's history of one account.
type History struct {
	DID string
	// Steps are its events in the order of the stream up to Through, with an End where others'
	// events lie in between.
	Steps   []Step
	Through uint64
	// Whole reports that Steps reach back to the beginning of the stream, which was never trimmed.
	Whole bool
}

// Redrive folds an account's history again, in one transaction that leaves the checkpoint at
// h.Through. Sweeps must be finished before.
//
// A whole history is folded from nothing, and the account's rows become the result: the same as in
// a rebuilt index. So it does not matter what was applied between the dead letter and now, nor how
// often it is redriven. A partial history is folded over the existing rows: newer revisions and
// account events that were applied before win, and its removals are repeated after what they
// remove.
//
// The error is the writer's (write.ErrLeaseLost), the database's, or says that the checkpoint is
// elsewhere; see write.Rejected. Nothing was changed then.
func (a *Applier) Redrive(ctx context.Context, h History) error {
	ctx, cancel := context.WithTimeout(ctx, singleTimeout)
	defer cancel()
	err := a.Writer.Apply(ctx, func(tx *write.Tx, from store.Checkpoint) (store.Checkpoint, error) {
		if from.Seq != h.Through {
			return from, fmt.Errorf("the checkpoint is at %d, the history goes to %d", from.Seq, h.Through)
		}
		to := from
		f, err := h.load(ctx, tx)
		if err != nil {
			return to, err
		}
		for _, s := range h.Steps {
			f.apply(s.Seq, s.Event)
		}
		// Replacements that are still arriving. Those of another account are not in this history,
		// and the account's own #sync, if it has one, is newer.
		if f.sync.DID != "" || h.Whole && from.Sync.DID == h.DID {
			to.Sync = f.sync
		}
		return to, tx.Write(ctx, f.difference(h.DID))
	})
	if err != nil {
		return fmt.Errorf("fold the history of %s again: %w", h.DID, err)
	}
	return nil
}

// load returns the fold from which the steps start.
func (h History) load(ctx context.Context, tx *write.Tx) (*fold, error) {
	f := newFold(event.SyncRun{})
	f.redriven = true
	if err := f.consent(ctx, tx, h.DID); err != nil {
		return nil, err
	}
	rows, err := tx.Accounts(ctx, []string{h.DID})
	if err != nil {
		return nil, err
	}
	row := rows[h.DID]
	a := f.addAccount(h.DID, row)
	if row == nil {
		return f, nil
	}
	if row.Sweep != nil {
		return nil, fmt.Errorf("a sweep of %s is in progress: end it first", h.DID)
	}
	if err := tx.Load(ctx, rows, nil, []*write.Account{row}, f.addPost, f.addRemoved); err != nil {
		return nil, err
	}
	if h.Whole {
		f.forget(a)
		f.recalls = true
	}
	return f, nil
}

// forget resets an account to the state before its first event. Its id stays, and so do the loaded
// rows, for comparison.
func (f *fold) forget(a *account) {
	for _, e := range a.rkeys {
		f.drop(e)
		e.removed = nil
	}
	a.row = write.Account{ID: a.row.ID, DID: a.row.DID}
	a.changed, a.known = true, false
}

// difference returns the changes that a fold of one account from nothing makes, without rows that
// stay the same.
func (f *fold) difference(did string) write.Changes {
	a := f.accounts[did]
	if a.before != nil {
		// Posts that were erased from the stream must still keep older events out by their
		// revisions.
		a.row.ErasedRev = max(a.row.ErasedRev, a.before.ErasedRev)
		a.row.SyncRev = max(a.row.SyncRev, a.before.SyncRev)
		a.row.Author = a.row.Author.Newer(a.before.Author)
		f.setState(a)
	}
	if f.recalls && f.sync.DID == "" && !a.syncing {
		// The same holds for posts of this history: without the replacements of an old #sync, the
		// last of which was erased, its floor is lower than it was.
		for _, e := range a.rkeys {
			if e.post != nil && e.post.Rev < a.row.SyncRev {
				f.drop(e)
			}
		}
	}
	for _, e := range a.rkeys {
		if samePost(e.post, e.postBefore) {
			e.post = e.postBefore
		}
		if r, b := e.removed, e.removedBefore; r != nil && b != nil && r.Rev == b.Rev && r.At.Equal(b.At) {
			e.removed = b
		}
	}
	c := f.changes()
	var posts []write.PostChange
	for _, p := range c.Posts {
		if p.Old == nil || p.New == nil || p.Old == p.New || p.Old.Key != p.New.Key || p.Old.Rev != p.New.Rev {
			posts = append(posts, p)
			continue
		}
		// Another version under the same revision, which the store would take for the same: remove
		// one and insert the other.
		posts = append(posts, write.PostChange{Account: p.Account, Old: p.Old, OldVisible: p.OldVisible}, write.PostChange{Account: p.Account, New: p.New, NewVisible: p.NewVisible})
	}
	c.Posts = posts
	return c
}

func samePost(a, b *write.Post) bool {
	return a != nil && b != nil && a.Key == b.Key && a.Rev == b.Rev && a.RemovedRev == b.RemovedRev && a.CID == b.CID && a.IndexedAt.Equal(b.IndexedAt) &&
		slices.Equal(a.Tags, b.Tags) && slices.Equal(a.Langs, b.Langs)
}
