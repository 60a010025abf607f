package write

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
)

// A rebuild consults the live index: for its settings, for the keys of posts, and for what messages
// said that the stream has lost since. See also CarryOver.

// LiveShowsOptedOut reports whether the live index shows accounts that have opted out.
func (w *Writer) LiveShowsOptedOut(ctx context.Context) (show bool, err error) {
	if err := w.pool.QueryRow(ctx, `SELECT ignore_consent FROM `+store.Live+`.checkpoint`).Scan(&show); err != nil {
		return false, fmt.Errorf("read whether the live index shows opted-out accounts: %w", err)
	}
	return show, nil
}

// LiveDenied returns the deny list of the live index.
func (w *Writer) LiveDenied(ctx context.Context) (dids, tags []string, err error) {
	if err := w.pool.QueryRow(ctx, `
		SELECT ARRAY(SELECT did FROM `+store.Live+`.denied_accounts ORDER BY did), ARRAY(SELECT name FROM `+store.Live+`.denied_tags ORDER BY name)`).Scan(&dids, &tags); err != nil {
		return nil, nil, fmt.Errorf("read the live index's deny list: %w", err)
	}
	return dids, tags, nil
}

// LiveKeys returns the keys that posts have in the live index.
func (w *Writer) LiveKeys(ctx context.Context, ids []PostID) (map[PostID]event.Key, error) {
	dids, rkeys := make([]string, len(ids)), make([]string, len(ids))
	for i, id := range ids {
		dids[i], rkeys[i] = id.DID, id.Rkey
	}
	out := make(map[PostID]event.Key, len(ids))
	rows, err := w.pool.Query(ctx, `
		SELECT i.did, i.rkey, p.key FROM unnest($1::text[], $2::text[]) AS i(did, rkey)
		  JOIN `+store.Live+`.accounts a ON a.did = i.did JOIN `+store.Live+`.posts p ON p.account_id = a.id AND p.rkey = i.rkey`, dids, rkeys)
	var id PostID
	var key event.Key
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&id.DID, &id.Rkey, &key}, func() error {
			out[id] = key
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("look up the keys of %d posts in the live index: %w", len(ids), err)
	}
	return out, nil
}

// Removal is a deletion in the stream.
type Removal struct {
	Version
	At  time.Time
	Seq uint64
}

// Recall copies to an index that is being rebuilt from a stream with gaps what the live index
// remembers about erased posts, just before messages that remove posts or erase accounts (erased)
// are folded: markers, if the removed post no longer exists, and accounts' floors. Without them a
// later message with an older event would restore a post. It works in one transaction, under the
// lease; repeating it changes nothing.
//
// A removal of which the live index knows nothing, neither by a marker nor by a recreated post,
// leaves no marker here either: the post never was in the index.
//
// The error is ErrLeaseLost or the database's.
func (w *Writer) Recall(ctx context.Context, removals []Removal, erased []string) error {
	n := len(removals)
	dids, rkeys, revs := make([]string, n), make([]string, n), make([]string, n)
	times, seqs := make([]time.Time, n), make([]int64, n)
	for i, r := range removals {
		dids[i], rkeys[i], revs[i], times[i], seqs[i] = r.DID, r.Rkey, r.Rev, r.At, int64(r.Seq)
	}
	err := w.holding(ctx, func(tx pgx.Tx, _ time.Time) error {
		if len(erased) > 0 {
			if _, err := tx.Exec(ctx, `
				INSERT INTO accounts AS a (did, erased_rev, seq)
				SELECT did, erased_rev, 0 FROM `+store.Live+`.accounts WHERE did = ANY($1::text[]) AND erased_rev > ''
				ON CONFLICT (did) DO UPDATE SET erased_rev = excluded.erased_rev WHERE a.erased_rev < excluded.erased_rev`, erased); err != nil {
				return err
			}
		}
		if n == 0 {
			return nil
		}
		rows, _ := tx.Query(ctx, `
			SELECT DISTINCT ON (i.did, i.rkey) i.n
			  FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS i(did, rkey, rev, n)
			  JOIN `+store.Live+`.accounts a ON a.did = i.did
			 WHERE (EXISTS (SELECT FROM `+store.Live+`.removed_posts r WHERE r.account_id = a.id AND r.rkey = i.rkey AND r.rev >= i.rev)
			        OR EXISTS (SELECT FROM `+store.Live+`.posts p WHERE p.account_id = a.id AND p.rkey = i.rkey AND p.removed_rev >= i.rev))
			   AND NOT EXISTS (SELECT FROM accounts o JOIN posts p ON p.account_id = o.id AND p.rkey = i.rkey
			                    WHERE o.did = i.did)
			 ORDER BY i.did, i.rkey, i.rev COLLATE "C" DESC`, dids, rkeys, revs)
		lost, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil || len(lost) == 0 {
			return err
		}
		at := make([]int32, len(lost))
		for i, n := range lost {
			at[i] = int32(n)
		}
		if _, err := tx.Exec(ctx, `
			INSERT INTO accounts (did, seq) SELECT DISTINCT ($1::text[])[n], 0 FROM unnest($2::int[]) AS n
			ON CONFLICT DO NOTHING`, dids, at); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO removed_posts (account_id, rkey, rev, removed_at, seq)
			SELECT a.id, i.rkey, i.rev, i.at, i.seq
			  FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[]) WITH ORDINALITY AS i(did, rkey, rev, at, seq, n)
			  JOIN accounts a ON a.did = i.did
			 WHERE i.n = ANY($6::int[]) AND a.erased_rev < i.rev AND a.sync_rev <= i.rev
			ON CONFLICT (account_id, rkey) DO NOTHING`, dids, rkeys, revs, times, seqs, at)
		return err
	})
	if err != nil {
		return fmt.Errorf("recall %d removals: %w", n, err)
	}
	return nil
}

// RecallFloors copies to an index that was rebuilt from a stream with gaps, and is at the live
// one's checkpoint or later, the floors that accounts have there after a #sync, if they are higher:
// the replacements that caused them may have been erased. Posts below a floor are then swept away.
// It returns the number of raised floors. It works in one transaction, under the lease; repeating
// it changes nothing. The live index must not be written during the call.
//
// The error is ErrLeaseLost or the database's.
func (w *Writer) RecallFloors(ctx context.Context) (raised int, err error) {
	err = w.Apply(ctx, func(tx *Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		raised = 0
		rows, err := tx.tx.Query(ctx, `
			WITH raised AS (
				UPDATE accounts a SET sync_rev = l.sync_rev FROM `+store.Live+`.accounts l
				 WHERE l.did = a.did AND l.sync_rev > '' AND a.sync_rev < l.sync_rev
				RETURNING a.id, a.did, a.sync_rev)
			SELECT did, sync_rev, EXISTS (SELECT FROM posts p WHERE p.account_id = r.id AND p.rev < r.sync_rev) FROM raised r`)
		if err != nil {
			return cp, err
		}
		floors := map[string]string{}
		var did, floor string
		var below bool
		if _, err := pgx.ForEachRow(rows, []any{&did, &floor, &below}, func() error {
			raised++
			// The end of an open #sync will remove posts below it.
			if below && did != cp.Sync.DID {
				floors[did] = floor
			}
			return nil
		}); err != nil || len(floors) == 0 {
			return cp, err
		}
		accounts, err := tx.Accounts(ctx, slices.Collect(maps.Keys(floors)))
		if err != nil {
			return cp, err
		}
		var sweeps []*Account
		for did, a := range accounts {
			a.Sweep = a.Sweep.With(floors[did], false)
			sweeps = append(sweeps, a)
		}
		return cp, tx.beginSweeps(ctx, sweeps)
	})
	if err != nil {
		return 0, fmt.Errorf("recall the floors of #syncs: %w", err)
	}
	return raised, nil
}

// RecallAuthors copies to an index that is being rebuilt the profiles and handles that the live one
// took from accounts that it knew then: the rebuilt index does not know an account at that point if
// its posts were erased from the stream. The profile of a deleted account was itself erased,
// including an opt-out: the caller must update such accounts (OutdatedAccounts).
func (w *Writer) RecallAuthors(ctx context.Context) error {
	_, err := w.pool.Exec(ctx, `
		UPDATE accounts b SET display_name = a.display_name, avatar = a.avatar, profile_rev = a.profile_rev, opted_out = a.opted_out
		  FROM `+store.Live+`.accounts a
		 WHERE a.did = b.did AND a.profile_rev > b.profile_rev
		   AND (a.opted_out = b.opted_out OR a.opted_out
		        OR COALESCE(a.told, a.state) = $1 AND COALESCE(b.told, b.state) = $1)`, store.Deleted)
	if err == nil {
		_, err = w.pool.Exec(ctx, `
			UPDATE accounts b SET handle = a.handle, handle_time = a.handle_time
			  FROM `+store.Live+`.accounts a WHERE a.did = b.did AND a.handle_time > b.handle_time`)
	}
	if err != nil {
		return fmt.Errorf("copy profiles and handles from the live index: %w", err)
	}
	return nil
}
