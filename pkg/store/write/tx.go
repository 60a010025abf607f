package write

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
)

// Account is a row of accounts.
type Account struct {
	// ID is 0 until the account is written.
	ID  int64
	DID string
	// Reported is the state that the network last reported. State is what readers go by: Reported
	// or, if the author has opted out or is denied, Hidden.
	State, Reported store.State
	// Status orders the account's last status among others.
	Status    event.StatusOrder
	Author    Author
	loaded    Author // as Accounts loaded it
	ErasedRev string
	SyncRev   string
	Seq       uint64
	// Sweep is nil unless the account is being swept.
	Sweep *Sweep
}

// Author is an account's profile as of ProfileRev, and its handle as of HandleTime.
type Author struct {
	DisplayName, Avatar string
	OptedOut            bool
	ProfileRev          string
	Handle              string
	HandleTime          time.Time
}

// Newer merges two authors, taking the newer value of each part.
func (a Author) Newer(b Author) Author {
	if b.ProfileRev > a.ProfileRev {
		a.DisplayName, a.Avatar, a.OptedOut, a.ProfileRev = b.DisplayName, b.Avatar, b.OptedOut, b.ProfileRev
	}
	if b.HandleTime.After(a.HandleTime) {
		a.Handle, a.HandleTime = b.Handle, b.HandleTime
	}
	return a
}

// Erased returns the author of a deleted account: without names, and as of just after the last
// profile and handle, so that these do not apply again and count as gone (Gone). An opt-out
// remains. Repeating it changes nothing.
func (a Author) Erased() Author {
	named := a.Handle != ""
	a.DisplayName, a.Avatar, a.Handle = "", "", ""
	// The profile that opts out must stay in the stream, for a rebuild.
	if a.ProfileRev != "" && !a.OptedOut && !strings.HasSuffix(a.ProfileRev, " ") {
		a.ProfileRev += " " // no revision is a prefix of another
		named = true        // the same message may state that there is no handle
	}
	if named && !a.HandleTime.IsZero() {
		a.HandleTime = a.HandleTime.Add(time.Microsecond)
	}
	return a
}

// Sweep is a change of an account with so many posts that they are changed in pieces, each in a
// separate transaction, until they match the account's row: listed or not, and deleted if their
// revision is below GoneBelow.
//
// A pass covers all posts. Whether it lists or unlists them is fixed when it begins. If the account
// changes its state during a pass, another pass follows, so that even an account that changes all
// the time finishes its passes.
type Sweep struct {
	GoneBelow string
	// Hidden reports that readers see none of the account's posts during the sweep. In a sweep that
	// begins to hide, Seen reports that they did before; they saw versions of up to message
	// SeenThrough.
	Hidden, Seen bool
	SeenThrough  uint64
	// Begun reports that the pass has begun, and Listing that it lists posts.
	Begun, Listing bool
	// Again reports that posts must be deleted which the pass may have passed.
	Again bool
}

// With returns a sweep that also removes posts below goneBelow, if that is not "", and hides all
// posts if hidden is set. Unfinished changes of s, which may be nil, remain.
func (s *Sweep) With(goneBelow string, hidden bool) *Sweep {
	var w Sweep
	if s != nil {
		w = *s
	}
	w.GoneBelow, w.Hidden, w.Again = max(w.GoneBelow, goneBelow), w.Hidden || hidden, w.Again || goneBelow != ""
	return &w
}

// Lists reports whether the account's posts must have rows in post_tags now: according to its state
// or, during a pass, to that pass.
func (a *Account) Lists() bool {
	if a.Sweep != nil && a.Sweep.Begun {
		return a.Sweep.Listing
	}
	return a.State == store.Active
}

// InSight reports whether readers see the account's posts.
func (a *Account) InSight() bool {
	return a.State == store.Active && (a.Sweep == nil || !a.Sweep.Hidden)
}

// Post is a row of posts.
type Post struct {
	Key     event.Key
	Account *Account
	Rkey    string
	Rev     string
	// RemovedRev is the revision of the removal marker that a recreated post replaced, "" if there
	// was none.
	RemovedRev string
	CID        string
	Tags       []string
	Langs      []string
	IndexedAt  time.Time
	Seq        uint64
	// Record is not loaded, since it is only ever replaced.
	Record []byte
	// Listed reports that a loaded post has rows in post_tags: according to its account's state or,
	// during a sweep, to the previous state.
	Listed bool
}

// PostID identifies a post independently of its key.
type PostID struct {
	DID, Rkey string
}

// Removed is a row of removed_posts.
type Removed struct {
	Account *Account
	Rkey    string
	Rev     string
	At      time.Time
	Seq     uint64
}

// Tx reads and changes rows inside one Apply.
type Tx struct {
	tx  pgx.Tx
	now time.Time // the database's time at its beginning
	// from is the checkpoint's previous Seq, and epoch its epoch.
	from  uint64
	epoch int64
	// live reports that this is the live index; for an index that is being rebuilt next to it,
	// leader is the live one's Seq.
	live   bool
	leader *uint64

	tagLists, langLists *lists
	// unlisted reports that List makes the lists and counts.
	unlisted bool
	// firstHour is the first hour that tag_hours counts.
	firstHour int64
	// notesPayloads reports that messages to erase are noted.
	notesPayloads bool
	// showOptedOut reports that accounts that have opted out are shown, denies that accounts are
	// denied.
	showOptedOut, denies bool

	// What the transaction changes: beganSweep reports that a sweep begins, announcing that posts
	// of a whole account are announced later. feedEntries are posts to write to the change feed,
	// and feedWritten is how many were written.
	beganSweep, announcing bool
	feedEntries            []feedEntry
	feedWritten            int64
	// Changes of the totals.
	posts, visible, tags, deadLetters int64
}

// CountDeadLetters adds n to the total of dead letters.
func (t *Tx) CountDeadLetters(n int) { t.deadLetters += int64(n) }

// Accounts returns the rows of those of dids that have one, by DID.
func (t *Tx) Accounts(ctx context.Context, dids []string) (map[string]*Account, error) {
	rows, _ := t.tx.Query(ctx, `
		SELECT a.id, a.did, a.state, COALESCE(a.told, a.state), a.state_time, a.state_source_seq, a.state_host, a.state_host_seq,
		       a.display_name, a.avatar, a.opted_out, a.profile_rev, a.handle, a.handle_time, a.erased_rev, a.sync_rev, a.seq,
		       w.gone_below, w.hidden, w.at IS NOT NULL, w.listing, w.again, w.seen_through
		  FROM accounts a LEFT JOIN sweeps w ON w.account_id = a.id WHERE a.did = ANY($1::text[])`, dids)
	out := make(map[string]*Account, len(dids))
	var a Account
	var goneBelow *string
	var hidden, listing, again *bool
	var begun bool
	var seen *uint64
	_, err := pgx.ForEachRow(rows, []any{&a.ID, &a.DID, &a.State, &a.Reported, &a.Status.Time, &a.Status.Seq, &a.Status.Host, &a.Status.HostSeq,
		&a.Author.DisplayName, &a.Author.Avatar, &a.Author.OptedOut, &a.Author.ProfileRev, &a.Author.Handle, &a.Author.HandleTime,
		&a.ErasedRev, &a.SyncRev, &a.Seq,
		&goneBelow, &hidden, &begun, &listing, &again, &seen}, func() error {
		row := a
		row.Status.Time, row.Author.HandleTime = row.Status.Time.UTC(), row.Author.HandleTime.UTC()
		row.loaded = row.Author
		if goneBelow != nil {
			row.Sweep = &Sweep{GoneBelow: *goneBelow, Hidden: *hidden, Begun: begun, Listing: *listing, Again: *again, SeenThrough: *seen}
		}
		out[a.DID] = &row
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load %d accounts: %w", len(dids), err)
	}
	return out, nil
}

// Load calls post with the rows, without their records, of the named posts and of every post of the
// accounts in whole, and removed with their removal markers. Both may be called twice for the same
// row. accounts must hold the row of every account involved; ids of others are skipped.
func (t *Tx) Load(ctx context.Context, accounts map[string]*Account, ids []PostID, whole []*Account, post func(*Post), removed func(*Removed)) error {
	byID, accountIDs, rkeys := splitIDs(accounts, ids)
	wholeIDs := make([]int64, len(whole))
	for i, a := range whole {
		byID[a.ID], wholeIDs[i] = a, a.ID
	}
	// One round trip: the server prepares the next result while the client reads the previous one.
	b := &pgx.Batch{}
	posts := func(rows pgx.Rows) error { return scanPosts(rows, byID, post) }
	markers := func(rows pgx.Rows) error { return scanRemoved(rows, byID, removed) }
	if len(accountIDs) > 0 {
		const named = ` FROM unnest($1::bigint[], $2::text[]) AS i(account_id, rkey) JOIN `
		b.Queue(`SELECT `+loadedColumns+named+`posts p USING (account_id, rkey)`, accountIDs, rkeys).Query(posts)
		b.Queue(`SELECT `+markerColumns+named+`removed_posts r USING (account_id, rkey)`, accountIDs, rkeys).Query(markers)
	}
	if len(whole) > 0 {
		b.Queue(`SELECT `+loadedColumns+` FROM posts p WHERE p.account_id = ANY($1::bigint[])`, wholeIDs).Query(posts)
		b.Queue(`SELECT `+markerColumns+` FROM removed_posts r WHERE r.account_id = ANY($1::bigint[])`, wholeIDs).Query(markers)
	}
	if b.Len() == 0 {
		return nil
	}
	if err := t.tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("load posts and removal markers: %w", err)
	}
	return nil
}

// loadedColumns are the columns of a post that is loaded to be changed. Whether it is listed is
// looked up only for swept accounts; for others it is known.
const loadedColumns = `p.account_id, p.rkey, p.key, p.rev, p.removed_rev, p.cid, p.tags, p.langs, p.indexed_at, p.seq,
	CASE WHEN EXISTS (SELECT FROM sweeps w WHERE w.account_id = p.account_id) THEN
		EXISTS (SELECT FROM tags t JOIN post_tags pt ON pt.tag_id = t.id AND pt.key = p.key WHERE t.name = p.tags[1]) END`

const markerColumns = `r.account_id, r.rkey, r.rev, r.removed_at, r.seq`

func scanPosts(rows pgx.Rows, accounts map[int64]*Account, fn func(*Post)) error {
	for rows.Next() {
		var p Post
		var account int64
		var listed *bool
		if err := rows.Scan(&account, &p.Rkey, &p.Key, &p.Rev, &p.RemovedRev, &p.CID, &p.Tags, &p.Langs, &p.IndexedAt, &p.Seq, &listed); err != nil {
			return err
		}
		p.Account = accounts[account]
		p.IndexedAt = p.IndexedAt.UTC()
		p.Listed = p.Account.State == store.Active
		if listed != nil {
			p.Listed = *listed
		}
		fn(&p)
	}
	return rows.Err()
}

func scanRemoved(rows pgx.Rows, accounts map[int64]*Account, fn func(*Removed)) error {
	for rows.Next() {
		var m Removed
		var account int64
		if err := rows.Scan(&account, &m.Rkey, &m.Rev, &m.At, &m.Seq); err != nil {
			return err
		}
		m.Account = accounts[account]
		m.At = m.At.UTC()
		fn(&m)
	}
	return rows.Err()
}

// splitIDs returns the ids of known accounts as the two arrays of a query.
func splitIDs(accounts map[string]*Account, ids []PostID) (byID map[int64]*Account, accountIDs []int64, rkeys []string) {
	byID = make(map[int64]*Account, len(accounts))
	accountIDs, rkeys = []int64{}, []string{} // nil would be NULL
	for _, id := range ids {
		a, ok := accounts[id.DID]
		if !ok || a.ID == 0 {
			continue
		}
		byID[a.ID] = a
		accountIDs = append(accountIDs, a.ID)
		rkeys = append(rkeys, id.Rkey)
	}
	return byID, accountIDs, rkeys
}
