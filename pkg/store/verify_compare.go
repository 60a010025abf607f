package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
)

// compare goes through two indexes side by side, in the order of their keys,
// and checks each on the way.
func compare(ctx context.Context, x, y *inspection) error {
	if err := comparePosts(ctx, x, y); err != nil {
		return err
	}
	if err := compareAccounts(ctx, x, y); err != nil {
		return err
	}
	if x.sync.DID != y.sync.DID || x.sync.Rev != y.sync.Rev {
		if err := x.findings.add("%s waits for what replaces the repository of %q, %s for that of %q", x.schema, x.sync.DID, y.schema, y.sync.DID); err != nil {
			return err
		}
	}
	if err := x.checkCounts(ctx); err != nil {
		return err
	}
	return y.checkCounts(ctx)
}

func comparePosts(ctx context.Context, x, y *inspection) error {
	p, err := x.post(ctx)
	if err != nil {
		return err
	}
	q, err := y.post(ctx)
	if err != nil {
		return err
	}
	for p != nil || q != nil {
		var order int
		switch {
		case p == nil:
			order = +1
		case q == nil:
			order = -1
		default:
			order = bytes.Compare(p.key[:], q.key[:])
		}
		switch {
		case order < 0:
			err = x.only(ctx, y, p)
		case order > 0:
			err = y.only(ctx, x, q)
		default:
			err = samePosts(x, y, p, q)
		}
		if err != nil {
			return err
		}
		if order <= 0 {
			if p, err = x.post(ctx); err != nil {
				return err
			}
		}
		if order >= 0 {
			if q, err = y.post(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// only reports a post that is not at the same place in the other index.
func (x *inspection) only(ctx context.Context, other *inspection, p *inspected) error {
	if x.findings.N > 0 {
		return x.findings.add("") // only the first one is told
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

// samePosts reports the first thing in which two posts at one place differ.
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

// compareAccounts compares the states of accounts. One without a row is as one
// that is active: of some there is nothing to remember any more.
func compareAccounts(ctx context.Context, x, y *inspection) error {
	names := map[State]string{Active: "active", Hidden: "hidden", Deleted: "deleted"}
	var a, b []accountState
	var err error
	for {
		if a, err = x.accounts(ctx, a); err != nil {
			return err
		}
		if b, err = y.accounts(ctx, b); err != nil {
			return err
		}
		if len(a) == 0 && len(b) == 0 {
			return nil
		}
		var did string
		var s, t State // active
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].did < b[0].did:
			did, s, a = a[0].did, a[0].state, a[1:]
		case len(a) == 0 || b[0].did < a[0].did:
			did, t, b = b[0].did, b[0].state, b[1:]
		default:
			did, s, t, a, b = a[0].did, a[0].state, b[0].state, a[1:], b[1:]
		}
		if s != t {
			if err := x.findings.add("account %s is %s in %s and %s in %s", did, names[s], x.schema, names[t], y.schema); err != nil {
				return err
			}
		}
	}
}

type accountState struct {
	did   string
	state State
}

// accounts returns what is ahead, or the next piece of accounts where that is
// nothing.
func (x *inspection) accounts(ctx context.Context, ahead []accountState) ([]accountState, error) {
	if len(ahead) > 0 || x.accountsEnded {
		return ahead, nil
	}
	rows, err := x.tx.Query(ctx, `SELECT did, state FROM `+x.table("accounts")+` WHERE did > $1 ORDER BY did LIMIT $2`, x.lastDID, verifyAccounts)
	if err != nil {
		return nil, fmt.Errorf("read the accounts of %s: %w", x.schema, err)
	}
	ahead, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (accountState, error) {
		var a accountState
		err := row.Scan(&a.did, &a.state)
		return a, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the accounts of %s: %w", x.schema, err)
	}
	if n := len(ahead); n > 0 {
		x.lastDID = ahead[n-1].did
	}
	x.accountsEnded = len(ahead) < verifyAccounts
	return ahead, nil
}

// Conflicts finds what index b shows otherwise than index a, though it knows of nothing
// that is newer: posts that it lacks and nothing removed, former versions of posts, and
// posts that a saw removed. What b was made from lacks what a was told then. It is for
// indexes of different streams, which cannot be brought to the same message.
func (v *Verifier) Conflicts(ctx context.Context, a, b string) (Findings, error) {
	var f Findings
	err := v.snapshot(ctx, func(tx pgx.Tx) error {
		for _, c := range []struct{ in, out, when, say string }{
			{a, b, "q.key IS NULL AND " + unremoved(b), "post %s is in %s and not in %s, where nothing removed it"},
			{a, b, "q.rev < p.rev", "post %s is in %s in a later version than in %s"},
			{b, a, "q.key IS NULL AND NOT (" + unremoved(a) + ")", "post %s is in %s, though %s saw it removed"},
		} {
			rows, err := tx.Query(ctx, `
				SELECT x.did, p.rkey
				  FROM `+qualified(c.in, "posts")+` p JOIN `+qualified(c.in, "accounts")+` x ON x.id = p.account_id
				  LEFT JOIN `+qualified(c.out, "accounts")+` y ON y.did = x.did
				  LEFT JOIN `+qualified(c.out, "posts")+` q ON q.account_id = y.id AND q.rkey = p.rkey
				 WHERE `+c.when+` LIMIT $1`, MaxFindings)
			if err != nil {
				return fmt.Errorf("look for what %s shows otherwise than %s: %w", b, a, err)
			}
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
	})
	return f, err
}

// unremoved says in SQL that an index has nothing that keeps out post p, of its account
// y.
func unremoved(schema string) string {
	return `(y.id IS NULL OR y.erased_rev < p.rev AND y.sync_rev <= p.rev)
		AND NOT EXISTS (SELECT FROM ` + qualified(schema, "removed_posts") + ` r WHERE r.account_id = y.id AND r.rkey = p.rkey AND r.rev >= p.rev)`
}
