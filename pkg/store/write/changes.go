package write

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tagstream/tagstream/pkg/event"
)

// PostChange is the change of one post. Old is the row as loaded, nil if there was none; New is the
// new row, nil to delete it. If New has Old's key and rev, only its visibility may differ, and its
// tags, which Write then leaves to its caller to write to the post's row.
type PostChange struct {
	// Account is the post's account in its new state; nil means that of New or Old.
	Account                *Account
	Old, New               *Post
	OldVisible, NewVisible bool
}

// RemovedChange sets (New) or, if New is nil, deletes a removal marker.
type RemovedChange struct {
	Account *Account
	Rkey    string
	New     *Removed
}

// Changes are the rows that a batch changes, each listed once.
type Changes struct {
	// Accounts are new or changed rows. Write gives new ones their ID.
	Accounts []*Account
	// Sweeps are accounts whose sweep must begin, or begin again because it changed.
	Sweeps  []*Account
	Posts   []PostChange
	Removed []RemovedChange
}

// maxKeyBumps bounds how often a post moves to the next key because its key is taken. Making so
// many posts collide takes some 2^57 hashes.
const maxKeyBumps = 8

// errCrowded is a data error of a post whose key and its successors are taken.
var errCrowded = errors.New("its key and the next ones are taken")

// Write makes the changes. A post whose key is taken by another post gets the next free one (see
// event.Key.Next): New.Key is then changed.
func (t *Tx) Write(ctx context.Context, c Changes) error {
	if err := t.writeAccounts(ctx, c.Accounts); err != nil {
		return err
	}
	if err := t.beginSweeps(ctx, c.Sweeps); err != nil {
		return err
	}
	if err := t.notePayloads(ctx, c.Posts); err != nil {
		return err
	}
	// Delete rows before inserting others: a post that left and returned in one batch has the same
	// (account, rkey).
	if err := t.deletePosts(ctx, c.Posts); err != nil {
		return err
	}
	if err := t.insertPosts(ctx, c.Posts); err != nil {
		return err
	}
	if err := t.updatePosts(ctx, c.Posts); err != nil {
		return err
	}
	if err := t.writeRemoved(ctx, c.Removed); err != nil {
		return err
	}
	for _, p := range c.Posts {
		t.posts += count(p.New != nil) - count(p.Old != nil)
	}
	if t.unlisted {
		return nil // no reader has seen any of it
	}
	if err := t.writeLists(ctx, c.Posts); err != nil {
		return err
	}
	t.noteChanges(c.Posts)
	now, later := splitBySweep(c.Posts)
	for _, p := range now {
		t.visible += p.visibleDelta()
	}
	for id, part := range later {
		by := int64(0)
		for _, p := range part {
			by += p.visibleDelta()
		}
		if err := t.countVisibleLater(ctx, id, by); err != nil {
			return err
		}
	}
	return nil
}

func count(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// visibleDelta is the change in the number of visible posts.
func (p PostChange) visibleDelta() int64 { return count(p.NewVisible) - count(p.OldVisible) }

func (p PostChange) account() *Account {
	switch {
	case p.Account != nil:
		return p.Account
	case p.New != nil:
		return p.New.Account
	}
	return p.Old.Account
}

// splitBySweep separates, by account, what is counted now from what is counted at the end of a
// sweep: changes of posts that readers do not see until then. A post that replaces one that counts
// as gone is visible at once.
func splitBySweep(changes []PostChange) (now []PostChange, later map[int64][]PostChange) {
	later = map[int64][]PostChange{}
	for _, c := range changes {
		a := c.account()
		switch {
		case a.Sweep == nil:
			now = append(now, c)
		case a.Sweep.Hidden:
			later[a.ID] = append(later[a.ID], c)
		case c.Old != nil && c.Old.Rev < a.Sweep.GoneBelow:
			later[a.ID] = append(later[a.ID], PostChange{Account: a, Old: c.Old, OldVisible: c.OldVisible})
			if c.New != nil {
				now = append(now, PostChange{Account: a, New: c.New, NewVisible: c.NewVisible})
			}
		default:
			now = append(now, c)
		}
	}
	return now, later
}

func (t *Tx) writeAccounts(ctx context.Context, accounts []*Account) error {
	if len(accounts) == 0 {
		return nil
	}
	slices.SortFunc(accounts, func(a, b *Account) int { return cmp.Compare(a.DID, b.DID) })
	n := len(accounts)
	var (
		dids, hosts, names, avatars, profileRevs, handles, erased, syncs = texts(n), texts(n), texts(n), texts(n), texts(n), texts(n), texts(n), texts(n)
		states, told                                                     = make([]int16, n), make([]int16, n)
		times, handleTimes                                               = make([]time.Time, n), make([]time.Time, n)
		numbers, hostNumbers, seqs                                       = make([]int64, n), make([]int64, n), make([]int64, n)
		optedOut                                                         = make([]bool, n)
	)
	if err := t.noteAuthors(ctx, accounts); err != nil {
		return err
	}
	byDID := make(map[string]*Account, n)
	for i, a := range accounts {
		dids[i], states[i], told[i] = a.DID, int16(a.State), int16(a.Reported)
		times[i], numbers[i], hosts[i], hostNumbers[i] = a.Status.Time, int64(a.Status.Seq), a.Status.Host, int64(a.Status.HostSeq)
		names[i], avatars[i], optedOut[i], profileRevs[i] = a.Author.DisplayName, a.Author.Avatar, a.Author.OptedOut, a.Author.ProfileRev
		handles[i], handleTimes[i] = a.Author.Handle, a.Author.HandleTime
		erased[i], syncs[i], seqs[i] = a.ErasedRev, a.SyncRev, int64(a.Seq)
		byDID[a.DID] = a
	}
	rows, err := t.tx.Query(ctx, `
		INSERT INTO accounts (did, state, told, state_time, state_source_seq, state_host, state_host_seq,
		       display_name, avatar, opted_out, profile_rev, handle, handle_time, erased_rev, sync_rev, seq)
		SELECT * FROM unnest($1::text[], $2::smallint[], $3::smallint[], $4::timestamptz[], $5::bigint[], $6::text[], $7::bigint[],
		       $8::text[], $9::text[], $10::boolean[], $11::text[], $12::text[], $13::timestamptz[], $14::text[], $15::text[], $16::bigint[])
		ON CONFLICT (did) DO UPDATE SET state = excluded.state, told = excluded.told, state_time = excluded.state_time,
		    state_source_seq = excluded.state_source_seq, state_host = excluded.state_host, state_host_seq = excluded.state_host_seq,
		    display_name = excluded.display_name, avatar = excluded.avatar, opted_out = excluded.opted_out,
		    profile_rev = excluded.profile_rev, handle = excluded.handle, handle_time = excluded.handle_time,
		    erased_rev = excluded.erased_rev, sync_rev = excluded.sync_rev, seq = excluded.seq
		RETURNING id, did`, dids, states, told, times, numbers, hosts, hostNumbers,
		names, avatars, optedOut, profileRevs, handles, handleTimes, erased, syncs, seqs)
	if err != nil {
		return fmt.Errorf("write %d accounts: %w", n, err)
	}
	var id int64
	var did string
	if _, err := pgx.ForEachRow(rows, []any{&id, &did}, func() error {
		byDID[did].ID = id
		return nil
	}); err != nil {
		return fmt.Errorf("write %d accounts: %w", n, err)
	}
	return nil
}

func texts(n int) []string { return make([]string, n) }

// moved reports whether the post's row at its old key must be deleted.
func (p PostChange) moved() bool {
	return p.Old != nil && (p.New == nil || p.New.Key != p.Old.Key)
}

// enters reports whether the post needs a row at a new key.
func (p PostChange) enters() bool {
	return p.New != nil && (p.Old == nil || p.New.Key != p.Old.Key)
}

// edited reports whether the row at the post's key gets a new version.
func (p PostChange) edited() bool {
	return p.Old != nil && p.New != nil && p.New.Key == p.Old.Key && p.New.Rev != p.Old.Rev
}

func (t *Tx) deletePosts(ctx context.Context, posts []PostChange) error {
	var keys []event.Key
	for _, p := range posts {
		if p.moved() {
			keys = append(keys, p.Old.Key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	if _, err := t.tx.Exec(ctx, `DELETE FROM posts WHERE key = ANY($1::uuid[])`, keys); err != nil {
		return fmt.Errorf("delete %d posts: %w", len(keys), err)
	}
	return nil
}

func (t *Tx) insertPosts(ctx context.Context, changes []PostChange) error {
	var posts []*Post
	for _, p := range changes {
		if p.enters() {
			posts = append(posts, p.New)
		}
	}
	for range maxKeyBumps {
		taken, err := t.copyPosts(ctx, posts)
		if err != nil || taken == nil {
			return err
		}
		for _, p := range posts {
			if taken[p.Key] {
				p.Key = p.Key.Next()
			}
			taken[p.Key] = true
		}
	}
	if len(posts) == 1 {
		return fmt.Errorf("insert %s: %w", event.URI(posts[0].Account.DID, posts[0].Rkey), errCrowded)
	}
	return fmt.Errorf("insert %d posts: %w", len(posts), errCrowded)
}

// copyPosts inserts posts or, where a key is taken, none. taken is nil if they were inserted, and
// otherwise has those of their keys that rows have: none if only posts of this batch collide.
func (t *Tx) copyPosts(ctx context.Context, posts []*Post) (taken map[event.Key]bool, err error) {
	// In key order, so that neighbours share pages of the index.
	slices.SortFunc(posts, func(a, b *Post) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	// The savepoint costs no extra round trip, and is rarely rolled back to.
	err = copyIn(ctx, t.tx, `
		SAVEPOINT inserting;
		COPY posts (key, account_id, rkey, rev, cid, tags, langs, indexed_at, seq, record, removed_rev, traits) FROM STDIN (FORMAT binary);
		RELEASE inserting`, len(posts), func(b []byte, i int) []byte {
		p := posts[i]
		b = appendBytes(rowOf(b, 12), p.Key[:])
		b = appendBytes(appendBytes(appendBytes(appendInt(b, p.Account.ID), p.Rkey), p.Rev), p.CID)
		b = appendTime(appendTexts(appendTexts(b, p.Tags), p.Langs), p.IndexedAt)
		b = appendBytes(appendBytes(appendInt(b, int64(p.Seq)), p.Record), p.RemovedRev)
		return binary.BigEndian.AppendUint16(appendLen(b, 2), uint16(event.TraitsOf(p.Record)))
	})
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.ConstraintName == "posts_pkey" {
		return t.takenKeys(ctx, posts)
	}
	if err != nil {
		return nil, fmt.Errorf("insert %d posts: %w", len(posts), err)
	}
	return nil, nil
}

// takenKeys returns which keys of posts that were not inserted have rows.
func (t *Tx) takenKeys(ctx context.Context, posts []*Post) (taken map[event.Key]bool, err error) {
	if _, err := t.tx.Exec(ctx, `ROLLBACK TO inserting`); err != nil {
		return nil, fmt.Errorf("insert %d posts: %w", len(posts), err)
	}
	keys := make([]event.Key, len(posts))
	for i, p := range posts {
		keys[i] = p.Key
	}
	rows, _ := t.tx.Query(ctx, `SELECT key FROM posts WHERE key = ANY($1::uuid[])`, keys)
	taken = map[event.Key]bool{}
	var key event.Key
	if _, err := pgx.ForEachRow(rows, []any{&key}, func() error { taken[key] = true; return nil }); err != nil {
		return nil, fmt.Errorf("look up the keys of %d posts: %w", len(posts), err)
	}
	return taken, nil
}

func (t *Tx) updatePosts(ctx context.Context, changes []PostChange) error {
	var posts []*Post
	for _, p := range changes {
		if p.edited() {
			posts = append(posts, p.New)
		}
	}
	if len(posts) == 0 {
		return nil
	}
	if _, err := t.tx.Exec(ctx, `
		UPDATE posts p
		   SET rev = i.rev, cid = i.cid, indexed_at = i.indexed_at, seq = i.seq, record = i.record, removed_rev = i.removed_rev, traits = i.traits,
		       tags = i.tags::text[], langs = i.langs::text[]
		  FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
		              $8::timestamptz[], $9::bigint[], $10::text[], $11::text[], $12::smallint[])
		    AS i(key, account_id, rkey, rev, cid, tags, langs, indexed_at, seq, record, removed_rev, traits)
		 WHERE p.key = i.key`, columns(posts)...); err != nil {
		return fmt.Errorf("update %d posts: %w", len(posts), err)
	}
	return nil
}

func (t *Tx) writeRemoved(ctx context.Context, changes []RemovedChange) error {
	var setAccounts, setSeqs, dropAccounts []int64
	var setRkeys, setRevs, dropRkeys []string
	var setTimes []time.Time
	for _, c := range changes {
		if c.New == nil {
			dropAccounts, dropRkeys = append(dropAccounts, c.Account.ID), append(dropRkeys, c.Rkey)
			continue
		}
		setAccounts, setRkeys, setRevs = append(setAccounts, c.Account.ID), append(setRkeys, c.Rkey), append(setRevs, c.New.Rev)
		setTimes, setSeqs = append(setTimes, c.New.At), append(setSeqs, int64(c.New.Seq))
	}
	if len(dropAccounts) > 0 {
		if _, err := t.tx.Exec(ctx, `
			DELETE FROM removed_posts r USING unnest($1::bigint[], $2::text[]) AS i(account_id, rkey)
			 WHERE r.account_id = i.account_id AND r.rkey = i.rkey`, dropAccounts, dropRkeys); err != nil {
			return fmt.Errorf("delete %d removal markers: %w", len(dropAccounts), err)
		}
	}
	if len(setAccounts) > 0 {
		if _, err := t.tx.Exec(ctx, `
			INSERT INTO removed_posts (account_id, rkey, rev, removed_at, seq)
			SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[])
			ON CONFLICT (account_id, rkey) DO UPDATE SET rev = excluded.rev, removed_at = excluded.removed_at, seq = excluded.seq`,
			setAccounts, setRkeys, setRevs, setTimes, setSeqs); err != nil {
			return fmt.Errorf("write %d removal markers: %w", len(setAccounts), err)
		}
	}
	return nil
}
