package apply

import (
	"maps"
	"slices"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
)

// account is an account in the fold: its row as loaded and as it is now.
type account struct {
	row     write.Account // as it is now
	before  *write.Account
	changed bool
	// known reports that an event has left a trace of the account in the index. A row that a
	// rebuild copied for lost messages has no Seq until one does.
	known bool
	// big reports that the account has too many posts to load them all: events that change them all
	// start a sweep.
	big bool
	// maxRev is the highest revision of a big account that must be erased.
	maxRev string
	// startsSweep reports that a sweep must begin.
	startsSweep bool
	// syncing reports that the end of a #sync must be applied.
	syncing bool
	// rkeys are the loaded posts and markers, all or some.
	rkeys map[string]*entry
}

// entry is what is known of one record key: a post, a marker, or neither.
type entry struct {
	post, postBefore       *write.Post
	removed, removedBefore *write.Removed
}

// fold is the state over which events are folded. Everything that the batch's events can touch must
// be loaded first.
type fold struct {
	accounts map[string]*account
	// taken maps keys to posts, for the loaded posts.
	taken map[event.Key]write.PostID
	// liveKeys are the results of Applier.LiveKeys.
	liveKeys map[write.PostID]event.Key
	// sync is an old #sync, which has no explicit end.
	sync event.SyncRun
	// recalls reports that the events were folded into the loaded rows before, and the stream may
	// have lost some of them since: payloads of removed posts. What kept older events out before
	// must do so again.
	recalls bool
	// redriven reports that events may arrive that were skipped before.
	redriven bool
	// showOptedOut shows accounts that have opted out.
	showOptedOut bool
	// denied are accounts that the operator does not show.
	denied map[string]bool
}

func newFold(sync event.SyncRun) *fold {
	return &fold{accounts: map[string]*account{}, taken: map[event.Key]write.PostID{}, sync: sync}
}

func (f *fold) addAccount(did string, row *write.Account) *account {
	a := &account{row: write.Account{DID: did}, before: row, rkeys: map[string]*entry{}}
	if row != nil {
		a.row, a.known = *row, row.Seq > 0
	} else {
		a.row.State = f.stateOf(&a.row)
	}
	f.accounts[did] = a
	return a
}

func (a *account) entry(rkey string) *entry {
	e := a.rkeys[rkey]
	if e == nil {
		e = &entry{}
		a.rkeys[rkey] = e
	}
	return e
}

func (f *fold) addPost(p *write.Post) {
	e := f.accounts[p.Account.DID].entry(p.Rkey)
	e.postBefore = p
	if isGone(p) {
		return // its row waits for a sweep
	}
	e.post = p
	f.taken[p.Key] = write.PostID{DID: p.Account.DID, Rkey: p.Rkey}
}

func (f *fold) addRemoved(r *write.Removed) {
	e := f.accounts[r.Account.DID].entry(r.Rkey)
	e.removedBefore = r
	if r.Account.Sweep != nil && r.Rev <= r.Account.ErasedRev {
		return
	}
	e.removed = r
}

// isGone reports whether a row exists only because the sweep of its account has not reached it.
func isGone(p *write.Post) bool {
	s := p.Account.Sweep
	return s != nil && p.Rev < s.GoneBelow
}

// apply folds one event in. seq is its sequence number in the stream.
func (f *fold) apply(seq uint64, ev *event.Event) {
	if ev.Kind == event.KindRemove || ev.Kind == event.KindDelete {
		// Before the #sync's end: posts that it would remove must leave the marker of this newer
		// removal.
		f.remove(seq, ev)
	}
	if f.sync.Open() && !f.sync.Continues(ev) {
		a := f.accounts[f.sync.DID]
		f.endSync(a, max(f.sync.Rev, a.row.SyncRev))
	}
	f.sync = f.sync.After(ev)
	switch ev.Kind {
	case event.KindRemove, event.KindDelete:
	case event.KindCreate, event.KindUpdate:
		f.put(seq, ev)
	case event.KindAccount:
		f.accountStatus(seq, ev)
	case event.KindSync:
		f.resync(seq, ev)
	case event.KindAuthor:
		f.author(seq, ev)
	case event.KindPosition:
	}
}

// stale reports whether the event is older than what is known about its post.
func (a *account) stale(e *entry, rev string) bool {
	switch {
	case rev <= a.row.ErasedRev, rev < a.row.SyncRev:
		return true
	case e.post != nil && rev <= e.post.Rev:
		return true
	case e.removed != nil && rev <= e.removed.Rev:
		return true
	}
	return false
}

func (f *fold) put(seq uint64, ev *event.Event) {
	a := f.accounts[ev.DID]
	e := a.entry(ev.Rkey)
	if a.stale(e, ev.Rev) {
		return
	}
	if len(ev.Tags) == 0 {
		// None of the tags that an older ingest stored is a tag today. A marker is left even if
		// there was no post: it shows that the payload may be erased.
		f.drop(e)
		e.removed = &write.Removed{Account: &a.row, Rkey: ev.Rkey, Rev: ev.Rev, At: ev.Source.NetworkTime().UTC(), Seq: seq}
		a.touch(seq)
		return
	}
	post := &write.Post{
		Account: &a.row, Rkey: ev.Rkey, Rev: ev.Rev, CID: ev.CID, Tags: ev.Tags, Langs: ev.Langs,
		IndexedAt: ev.Source.Time.UTC(), Seq: seq, Record: ev.Record,
	}
	switch {
	case e.post != nil: // an edit keeps the place
		post.Key, post.RemovedRev = e.post.Key, e.post.RemovedRev
	case e.removed != nil:
		post.Key, post.RemovedRev = f.key(ev), e.removed.Rev
	default:
		post.Key = f.key(ev)
	}
	e.post, e.removed = post, nil
	a.touch(seq)
}

// key returns the key of a post that enters the index: its own, or the next one that is free among
// the loaded posts. The store resolves conflicts with other posts.
func (f *fold) key(ev *event.Event) event.Key {
	id := write.PostID{DID: ev.DID, Rkey: ev.Rkey}
	key, known := f.liveKeys[id]
	if !known {
		key = event.NewKey(event.SortAt(ev.CreatedAt, ev.Source.Time), ev.URI())
	}
	for {
		other, taken := f.taken[key]
		if !taken || other == id {
			break
		}
		key = key.Next()
	}
	f.taken[key] = id
	return key
}

func (f *fold) remove(seq uint64, ev *event.Event) {
	a := f.accounts[ev.DID]
	e := a.entry(ev.Rkey)
	// Deletions of unknown posts leave nothing behind.
	if a.stale(e, ev.Rev) || e.post == nil && e.removed == nil && !f.recalled(e, ev.Rev) {
		return
	}
	f.drop(e)
	e.removed = &write.Removed{Account: &a.row, Rkey: ev.Rkey, Rev: ev.Rev, At: ev.Source.NetworkTime().UTC(), Seq: seq}
	a.touch(seq)
}

// recalled reports whether a removal at rev left a marker before, which a recreated post may have
// replaced.
func (f *fold) recalled(e *entry, rev string) bool {
	return f.recalls && (e.removedBefore != nil && e.removedBefore.Rev >= rev || e.postBefore != nil && e.postBefore.RemovedRev >= rev)
}

// drop takes an entry's post out of the index.
func (f *fold) drop(e *entry) {
	if e.post != nil {
		delete(f.taken, e.post.Key)
		e.post = nil
	}
}

func (f *fold) accountStatus(seq uint64, ev *event.Event) {
	a := f.accounts[ev.DID]
	// A copied row is ahead of the stream: it has this status already. Folded over a later status
	// it might win, since orders of three hosts can be circular. The same holds for authors, who
	// may have been skipped.
	if !ev.ChangesStatus() || seq <= a.row.Seq && !f.redriven {
		return
	}
	newer, again := a.row.Status.Advance(ev.StatusOrder())
	if again {
		if ev.Erases() && a.row.Reported == store.Deleted {
			// Another host repeats the deletion, after its own view of the account, at a later
			// revision than everything that was erased.
			f.erase(a)
		}
		a.touch(seq)
	}
	if !newer {
		return
	}
	switch {
	case ev.Active:
		a.row.Reported = store.Active
	case ev.Erases():
		a.row.Reported = store.Deleted
		f.erase(a)
	default:
		a.row.Reported = store.Hidden
	}
	f.setState(a)
	a.touch(seq)
}

// author applies a profile or a handle. It skips accounts that the index does not know, unless they
// opt out: that must hold for their later posts.
func (f *fold) author(seq uint64, ev *event.Event) {
	a := f.accounts[ev.DID]
	now := a.row.Author
	if p := ev.Profile; p != nil {
		now = now.Newer(write.Author{DisplayName: p.DisplayName, Avatar: p.Avatar, OptedOut: p.OptedOut, ProfileRev: ev.Rev})
	}
	if h := ev.Handle; h != nil {
		now = now.Newer(write.Author{Handle: h.Name, HandleTime: h.Time})
	}
	if now == a.row.Author || !a.known && !now.OptedOut || seq <= a.row.Seq && !f.redriven {
		return
	}
	a.row.Author = now
	f.setState(a)
	a.touch(seq)
}

// setState sets an account's state for readers, which starts a sweep if it is big.
func (f *fold) setState(a *account) {
	before := a.row.State
	a.row.State = f.stateOf(&a.row)
	if a.big && (before == store.Active) != (a.row.State == store.Active) {
		a.sweep("", true)
	}
}

// stateOf returns the account's state for readers: the reported one, or hidden if its author has
// opted out or is denied.
func (f *fold) stateOf(row *write.Account) store.State {
	if row.Reported == store.Active && (f.denied[row.DID] || row.Author.OptedOut && !f.showOptedOut) {
		return store.Hidden
	}
	return row.Reported
}

// sweep starts a gradual change of the account's posts to what its row says, with those below
// goneBelow removed. Until it ends, readers see none of these or, if hidden is set, no post at all.
// Unfinished changes of an earlier sweep remain.
func (a *account) sweep(goneBelow string, hidden bool) {
	a.row.Sweep, a.startsSweep = a.row.Sweep.With(goneBelow, hidden), true
	a.row.Sweep.Seen = a.row.Sweep.Hidden && a.before != nil && a.before.InSight()
}

// erase drops an account's posts and markers; the highest revision that it ever showed stays as the
// floor below which nothing returns.
func (f *fold) erase(a *account) {
	if f.recalls && a.before != nil {
		a.row.ErasedRev = max(a.row.ErasedRev, a.before.ErasedRev)
	}
	for _, e := range a.rkeys {
		if e.post != nil {
			a.row.ErasedRev = max(a.row.ErasedRev, e.post.Rev)
		}
		if e.removed != nil {
			a.row.ErasedRev = max(a.row.ErasedRev, e.removed.Rev)
		}
		f.drop(e)
		e.removed = nil
	}
	// If the account returns, its profile has a later revision.
	a.row.Author = a.row.Author.Erased()
	if a.big {
		a.row.ErasedRev = max(a.row.ErasedRev, a.maxRev)
		// Below the next possible revision: no revision is a prefix of another.
		a.sweep(a.row.ErasedRev+" ", true)
	}
}

// resync begins a #sync or ends it. A second beginning starts it again: its replacements may be
// from another moment. The beginning alone keeps nothing out: the end may never arrive, and then
// the account's posts stay valid.
func (f *fold) resync(seq uint64, ev *event.Event) {
	a := f.accounts[ev.DID]
	if a.syncing = ev.Sync == event.SyncOpen; a.syncing {
		return
	}
	a.row.SyncRev = max(a.row.SyncRev, ev.Rev)
	a.touch(seq)
	if ev.Sync == event.SyncOver {
		f.endSync(a, ev.Rev)
		// An author who has opted out stays opted out: an ingest from before author events reports
		// no profile.
		if now := &a.row.Author; now.ProfileRev != "" && now.ProfileRev < ev.Rev && !now.OptedOut {
			now.DisplayName, now.Avatar, now.ProfileRev = "", "", ev.Rev
		}
	}
}

// endSync removes the posts that a #sync did not repeat: all below the revision of its
// replacements, including those after the #sync's own revision, since the replacements are
// everything that existed then, and the firehose reported nothing in between. They need no markers:
// the account's SyncRev keeps out everything older.
func (f *fold) endSync(a *account, rev string) {
	if rev > a.row.SyncRev {
		a.row.SyncRev, a.changed = rev, true
	}
	for _, e := range a.rkeys {
		if e.post != nil && e.post.Rev < rev {
			f.drop(e)
		}
	}
	if a.big {
		a.sweep(rev, false)
	}
}

func (a *account) touch(seq uint64) {
	a.row.Seq, a.changed, a.known = max(a.row.Seq, seq), true, true
}

// changes returns the difference between what was loaded and the current state.
func (f *fold) changes() write.Changes {
	var c write.Changes
	for _, a := range f.accounts {
		// A change of a post writes the account's row only if it is new: the post needs its id.
		if a.changed && (a.before == nil || a.before.Seq == 0 || a.stateChanged()) {
			c.Accounts = append(c.Accounts, &a.row)
		}
		if a.startsSweep {
			c.Sweeps = append(c.Sweeps, &a.row)
		}
		for rkey, e := range a.rkeys {
			if e.removed != e.removedBefore {
				c.Removed = append(c.Removed, write.RemovedChange{Account: &a.row, Rkey: rkey, New: e.removed})
			}
			before, now := e.postBefore != nil && e.postBefore.Listed, e.post != nil && a.row.Lists()
			if e.post != e.postBefore || before != now {
				c.Posts = append(c.Posts, write.PostChange{Account: &a.row, Old: e.postBefore, New: e.post, OldVisible: before, NewVisible: now})
			}
		}
	}
	return c
}

func (a *account) stateChanged() bool {
	b := *a.before
	b.Seq, b.Sweep = a.row.Seq, a.row.Sweep
	return b != a.row
}

// touched returns the accounts and posts that events can touch, which must be loaded for them.
func touched(events []Step, sync event.SyncRun) (dids []string, posts []write.PostID) {
	accounts, ids := map[string]bool{}, map[write.PostID]bool{}
	if sync.DID != "" {
		accounts[sync.DID] = true
	}
	for _, s := range events {
		if s.Event.DID != "" {
			accounts[s.Event.DID] = true
		}
		if s.Event.IsPost() {
			ids[write.PostID{DID: s.Event.DID, Rkey: s.Event.Rkey}] = true
		}
	}
	return slices.Sorted(maps.Keys(accounts)), slices.Collect(maps.Keys(ids))
}

// changedInFull returns the accounts of which events can change all posts.
func (f *fold) changedInFull(events []Step) map[string]bool {
	dids := map[string]bool{}
	if f.sync.DID != "" {
		dids[f.sync.DID] = true
	}
	for _, s := range events {
		if f.changesAll(s.Event) {
			dids[s.Event.DID] = true
		}
	}
	return dids
}

// changesAll reports whether an event can change all posts of its account.
func (f *fold) changesAll(ev *event.Event) bool {
	switch ev.Kind {
	case event.KindSync:
		return ev.Sync != event.SyncOpen
	case event.KindAccount:
		// "Active" for an active account is by far the most common event and touches no post.
		return ev.ChangesStatus() && (!ev.Active || f.accounts[ev.DID].row.State != store.Active)
	case event.KindAuthor:
		return ev.Profile != nil && ev.Profile.OptedOut != f.accounts[ev.DID].row.Author.OptedOut
	}
	return false
}
