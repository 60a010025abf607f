package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/keys"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// comparePosts compares the next piece of both indexes' posts, in key order, and checks that they
// are listed correctly. With only one index it does only the latter.
func (r *verification) comparePosts(ctx context.Context) (done bool, err error) {
	upTo, done := keys.Last, true
	var pieces [2][]inspected
	for i, x := range r.both() {
		if pieces[i], err = x.readPosts(ctx, r.nextPost); err != nil {
			return false, err
		}
		if n := len(pieces[i]); n == verifyPosts {
			done = false
			if last := pieces[i][n-1].key; bytes.Compare(last[:], upTo[:]) < 0 {
				upTo = last
			}
		}
	}
	// Compare up to where both were read.
	for i, x := range r.both() {
		n := len(pieces[i])
		for n > 0 && bytes.Compare(pieces[i][n-1].key[:], upTo[:]) > 0 {
			n--
		}
		pieces[i] = pieces[i][:n]
		r.step(n)
		if err := x.checkPosts(ctx, pieces[i]); err != nil {
			return false, err
		}
	}
	r.nextPost = keys.Step(upTo, +1)
	if r.y == nil {
		return done, nil
	}
	for a, b := pieces[0], pieces[1]; len(a)+len(b) > 0; {
		switch {
		case len(b) == 0 || len(a) > 0 && bytes.Compare(a[0].key[:], b[0].key[:]) < 0:
			err, a = r.x.only(ctx, r.y, &a[0]), a[1:]
		case len(a) == 0 || bytes.Compare(b[0].key[:], a[0].key[:]) < 0:
			err, b = r.y.only(ctx, r.x, &b[0]), b[1:]
		default:
			err = samePosts(r.x, r.y, &a[0], &b[0])
			a, b = a[1:], b[1:]
		}
		if err != nil {
			return false, err
		}
	}
	return done, nil
}

// both returns the existing indexes.
func (r *verification) both() []*inspection {
	if r.y == nil {
		return []*inspection{r.x}
	}
	return []*inspection{r.x, r.y}
}

// only reports a post that is missing at that key in the other index.
func (x *inspection) only(ctx context.Context, other *inspection, p *inspected) error {
	if x.findings.N > 0 {
		return x.findings.add("") // only the first finding is described
	}
	var key event.Key
	err := x.tx.QueryRow(ctx, `SELECT p.key FROM `+other.table("accounts")+` a JOIN `+other.table("posts")+` p ON p.account_id = a.id
		WHERE a.did = $1 AND p.rkey = $2`, p.did, p.rkey).Scan((*[16]byte)(&key))
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return x.findings.add("post %s is in %s and not in %s", p.uri(), x.schema, other.schema)
	case err != nil:
		return fmt.Errorf("look up post %s in %s: %w", p.uri(), other.schema, err)
	}
	return x.findings.add("post %s is sorted at %s (key %x) in %s and at %s (key %x) in %s", p.uri(),
		stamp(p.key.SortAt()), p.key, x.schema, stamp(key.SortAt()), key, other.schema)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// samePosts reports the first difference between two posts with the same key.
func samePosts(x, y *inspection, p, q *inspected) error {
	for _, c := range []struct {
		what   string
		a, b   any
		differ bool
	}{
		{"at-uri", p.uri(), q.uri(), p.did != q.did || p.rkey != q.rkey},
		{"revision", p.rev, q.rev, p.rev != q.rev},
		{"CID", p.cid, q.cid, p.cid != q.cid},
		{"tags", p.tags, q.tags, !slices.Equal(p.tags, q.tags)},
		{"languages", p.langs, q.langs, !slices.Equal(p.langs, q.langs)},
		{"time of indexing", stamp(p.indexedAt), stamp(q.indexedAt), !p.indexedAt.Equal(q.indexedAt)},
		{"digest of the record", p.record, q.record, p.record != q.record},
		{"visibility", p.visible(), q.visible(), p.visible() != q.visible()},
	} {
		if c.differ {
			return x.findings.add("post %s differs in its %s: %v in %s, %v in %s", p.uri(), c.what, c.a, x.schema, c.b, y.schema)
		}
	}
	return nil
}

// compareSyncs compares which account's #sync is open in each index.
func (r *verification) compareSyncs(context.Context) (done bool, err error) {
	x, y := r.x, r.y
	switch {
	case x.sync.DID != y.sync.DID || x.sync.Rev != y.sync.Rev:
		err = r.findings.add("%s waits for the replacement of the repository of %q, %s for that of %q", x.schema, x.sync.DID, y.schema, y.sync.DID)
	case x.sync.Fixed != y.sync.Fixed:
		err = r.findings.add("%s and %s disagree whether the first replacement of the repository of %q came", x.schema, y.schema, x.sync.DID)
	}
	return true, err
}

// compareAccounts compares the states of the next piece of accounts. An account without a row
// counts as active: the index keeps no row without information.
func (r *verification) compareAccounts(ctx context.Context) (done bool, err error) {
	names := map[store.State]string{store.Active: "active", store.Hidden: "hidden", store.Deleted: "deleted"}
	upTo, done := "", true
	var pieces [2][]accountState
	for i, x := range r.both() {
		if pieces[i], err = x.accounts(ctx, r.lastDID); err != nil {
			return false, err
		}
		if n := len(pieces[i]); n == verifyAccounts {
			if last := pieces[i][n-1].did; done || last < upTo {
				upTo = last
			}
			done = false
		}
	}
	for a, b := pieces[0], pieces[1]; len(a)+len(b) > 0; {
		var did string
		var s, t accountState // zero values: active
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].did < b[0].did:
			did, s, a = a[0].did, a[0], a[1:]
		case len(a) == 0 || b[0].did < a[0].did:
			did, t, b = b[0].did, b[0], b[1:]
		default:
			did, s, t, a, b = a[0].did, a[0], b[0], a[1:], b[1:]
		}
		if !done && did > upTo {
			break // only one of the two was read this far
		}
		var err error
		switch {
		case s.state != t.state:
			err = r.findings.add("account %s is %s in %s and %s in %s", did, names[s.state], r.x.schema, names[t.state], r.y.schema)
		case s.host != "" && t.host != "" && (s.host != t.host || s.number != t.number):
			// The host is unknown for statuses from before it was stored.
			err = r.findings.add("account %s has the status of event %d of %s in %s, and of event %d of %s in %s",
				did, s.number, s.host, r.x.schema, t.number, t.host, r.y.schema)
		case s.profileRev == t.profileRev && s.profile != t.profile:
			err = r.findings.add("account %s has different profiles in %s and in %s at the same revision", did, r.x.schema, r.y.schema)
		case s.handleTime.Equal(t.handleTime) && s.handle != t.handle:
			err = r.findings.add("account %s has different handles in %s and in %s at the same time", did, r.x.schema, r.y.schema)
		}
		if err != nil {
			return false, err
		}
	}
	r.lastDID = upTo
	return done, nil
}

type profile struct {
	name, avatar string
	optedOut     bool
}

// accountState is zero for an account that an index does not know, which is visible.
type accountState struct {
	did   string
	state store.State
	// host delivered the state as its event number, "" if unknown.
	host   string
	number int64
	// profile and handle are compared only if their revision and time are known: an index that did
	// not know the account when they arrived has none.
	profile    profile
	profileRev string
	handle     string
	handleTime time.Time
}

// accounts returns the next piece of accounts.
func (x *inspection) accounts(ctx context.Context, after string) ([]accountState, error) {
	rows, _ := x.tx.Query(ctx, `SELECT did, state, state_host, state_host_seq,
			display_name, avatar, opted_out, profile_rev, handle, handle_time FROM `+x.table("accounts")+` WHERE did > $1 ORDER BY did LIMIT $2`, after, verifyAccounts)
	accounts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (accountState, error) {
		var a accountState
		err := row.Scan(&a.did, &a.state, &a.host, &a.number,
			&a.profile.name, &a.profile.avatar, &a.profile.optedOut, &a.profileRev, &a.handle, &a.handleTime)
		return a, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the accounts of %s: %w", x.schema, err)
	}
	return accounts, nil
}

// Conflicts finds differences between what index b shows and index a, unless b knows something
// newer: posts that b lacks without a removal, former versions of posts, and posts that were
// removed in a. It is for indexes of different streams, which cannot be brought to the same
// message: b's stream may lack what a received.
func (v *Verifier) Conflicts(ctx context.Context, a, b string) (Findings, error) {
	var f Findings
	err := v.connected(ctx, func(conn *pgx.Conn) error {
		return snapshot(ctx, conn, func(tx pgx.Tx) error { return f.conflicts(ctx, tx, a, b) })
	})
	return f, err
}

func (f *Findings) conflicts(ctx context.Context, tx pgx.Tx, a, b string) error {
	for _, c := range []struct{ in, out, when, say string }{
		{a, b, "q.key IS NULL AND " + unremoved(b), "post %s is in %s and not in %s, where nothing removed it"},
		{a, b, "q.rev < p.rev", "post %s is in %s in a later version than in %s"},
		{b, a, "q.key IS NULL AND NOT (" + unremoved(a) + ")", "post %s is in %s, though %s saw it removed"},
	} {
		rows, _ := tx.Query(ctx, `
				SELECT x.did, p.rkey
				  FROM `+pg.Qualified(c.in, "posts")+` p JOIN `+pg.Qualified(c.in, "accounts")+` x ON x.id = p.account_id
				  LEFT JOIN `+pg.Qualified(c.out, "accounts")+` y ON y.did = x.did
				  LEFT JOIN `+pg.Qualified(c.out, "posts")+` q ON q.account_id = y.id AND q.rkey = p.rkey
				 WHERE `+c.when+` LIMIT $1`, MaxFindings)
		var did, rkey string
		if _, err := pgx.ForEachRow(rows, []any{&did, &rkey}, func() error {
			return f.add(c.say, event.URI(did, rkey), c.in, c.out)
		}); err != nil {
			if errors.Is(err, errEnough) {
				return nil
			}
			return fmt.Errorf("look for what %s shows otherwise than %s: %w", b, a, err)
		}
	}
	return nil
}

// unremoved returns the SQL condition that nothing in an index keeps out post p of account y.
func unremoved(schema string) string {
	return `(y.id IS NULL OR y.erased_rev < p.rev AND y.sync_rev <= p.rev)
		AND NOT EXISTS (SELECT FROM ` + pg.Qualified(schema, "removed_posts") + ` r WHERE r.account_id = y.id AND r.rkey = p.rkey AND r.rev >= p.rev)`
}
