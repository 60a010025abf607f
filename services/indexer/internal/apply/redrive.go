package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
)

// Step is one event of an account's history, and its number in the stream.
type Step struct {
	Seq   uint64
	Event *event.Event
}

// End is the step that stands for whatever else came in the stream behind the
// steps before it: it ends a #sync, as any other event does, and nothing more.
func End(seq uint64) Step {
	return Step{seq, &event.Event{Kind: event.KindPosition, Sync: event.SyncOver}}
}

// History is what the stream says of one account.
type History struct {
	DID string
	// Steps are its events in the order of the stream up to Through, with an
	// End where others' events came between.
	Steps   []Step
	Through uint64
	// Whole says that Steps go back to the beginning of the stream, which was
	// never trimmed.
	Whole bool
}

// Redrive folds an account's history again, in one transaction that leaves the
// checkpoint where it is: at h.Through. Sweeps have to be ended before.
//
// A whole history is folded from nothing, and the account's rows become what
// it gives: the same as in an index that is rebuilt. So it does not matter what
// came between a message that could not be applied and now, nor how often it is
// done. A history that is not whole is folded over the rows that there are:
// newer revisions and account events that were applied before win, and removals
// in it are done again behind what they remove.
//
// The error is the writer's (write.ErrLeaseLost), the database's, or says that
// the checkpoint is elsewhere; see write.Rejected. Nothing was changed then.
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
		// Replacements that are still coming in. Those of another account are
		// not in this history, and its own #sync, if it has one, is the newer.
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

// load returns the fold that the steps begin with.
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
	a.whole = true
	if row == nil {
		return f, nil
	}
	if row.Sweep != nil {
		return nil, fmt.Errorf("a sweep of %s is in progress: end it first", h.DID)
	}
	whole := []*write.Account{row}
	if err := tx.Load(ctx, rows, nil, whole, f.addPost, f.addRemoved); err != nil {
		return nil, err
	}
	if h.Whole {
		f.forget(a)
		f.recalls = true
	}
	return f, nil
}

// forget makes an account what it was before its first event. Its id stays,
// and so do the rows as loaded, to compare with.
func (f *fold) forget(a *account) {
	for _, e := range a.rkeys {
		f.drop(e)
		e.removed = nil
	}
	a.row = write.Account{ID: a.row.ID, DID: a.row.DID}
	a.changed, a.known = true, false
}

// difference returns what a fold of one account from nothing changes, without
// what came out as it was.
func (f *fold) difference(did string) write.Changes {
	a := f.accounts[did]
	if a.before != nil {
		// What the stream does not say any more keeps older events out all the
		// same: the revisions of posts that were erased from it.
		a.row.ErasedRev = max(a.row.ErasedRev, a.before.ErasedRev)
		a.row.SyncRev = max(a.row.SyncRev, a.before.SyncRev)
		a.row.Author = a.row.Author.Newer(a.before.Author)
		f.settle(a)
	}
	if f.recalls && f.sync.DID == "" && !a.syncing {
		// And it does so for what this history brought in: without the replacements
		// of an old #sync, the last of which was erased, its floor is lower than it was.
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
		// Another version under the same revision, which the store would take
		// for the same: out with the one and in with the other.
		posts = append(posts, write.PostChange{Account: p.Account, Old: p.Old, OldVisible: p.OldVisible}, write.PostChange{Account: p.Account, New: p.New, NewVisible: p.NewVisible})
	}
	c.Posts = posts
	return c
}

func samePost(a, b *write.Post) bool {
	return a != nil && b != nil && a.Key == b.Key && a.Rev == b.Rev && a.RemovedRev == b.RemovedRev && a.CID == b.CID && a.IndexedAt.Equal(b.IndexedAt) &&
		slices.Equal(a.Tags, b.Tags) && slices.Equal(a.Langs, b.Langs)
}

// ReasonOf returns the reason for which a message that meets err is a dead
// letter; ok is false where err is of another kind and may pass.
func ReasonOf(err error) (reason Reason, ok bool) {
	switch {
	case errors.Is(err, event.ErrUnknownVersion):
		return ReasonVersion, true
	case errors.Is(err, event.ErrInvalid):
		return ReasonInvalid, true
	case write.Rejected(err):
		return ReasonRejected, true
	}
	return "", false
}
