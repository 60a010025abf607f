package write

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// Version names what one message says: a version of a post or, with an empty Rkey, an author's
// profile as of Rev, "" for none, and handle as of At, zero for none.
type Version struct {
	DID, Rkey, Rev string
	At             time.Time
}

// Gone returns for each of the versions whether the index shows that it is of
// something that was removed: its post is not there and was removed at that
// revision or later, by itself or with its account's repository, or its account
// was erased. A version of a post that is there, hidden or not, is not gone,
// however old, unless it is of a life before its removal; nor is one of which
// nothing is known.
//
// An author's profile and handle are gone where the index does not have them: it has later ones,
// the account was deleted, or it knew nothing of the account when they came.
//
// What is gone never comes back: a post that comes again has a higher revision. It
// remembers its removal, but not that a #sync took it away: then its former life counts
// as its own. All of it is read in one statement, so of one schema.
func (w *Writer) Gone(ctx context.Context, versions []Version) ([]bool, error) {
	n := len(versions)
	gone := make([]bool, n)
	if n == 0 {
		return gone, nil
	}
	dids, rkeys, revs, times := make([]string, n), make([]string, n), make([]string, n), make([]*time.Time, n)
	for i, v := range versions {
		dids[i], rkeys[i], revs[i] = v.DID, v.Rkey, v.Rev
		if !v.At.IsZero() {
			times[i] = &v.At
		}
	}
	rows, err := w.pool.Query(ctx, `
		SELECT i.n FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) WITH ORDINALITY AS i(did, rkey, rev, at, n)
		  LEFT JOIN accounts a ON a.did = i.did
		 WHERE CASE WHEN i.rkey = ''
		  THEN (COALESCE(a.told, a.state) <> $5 AND (i.rev > '' AND a.profile_rev = i.rev OR a.handle_time = i.at)) IS NOT TRUE
		  ELSE a.erased_rev >= i.rev
		    OR EXISTS (SELECT FROM posts p WHERE p.account_id = a.id AND p.rkey = i.rkey AND p.removed_rev >= i.rev)
		    OR (a.sync_rev > i.rev
		        OR EXISTS (SELECT FROM removed_posts r WHERE r.account_id = a.id AND r.rkey = i.rkey AND r.rev >= i.rev))
		   AND NOT EXISTS (SELECT FROM posts p WHERE p.account_id = a.id AND p.rkey = i.rkey) END`, dids, rkeys, revs, times, store.Deleted)
	if err != nil {
		return nil, fmt.Errorf("look for what is gone of %d messages: %w", n, pg.NotMigrated(err))
	}
	var i int
	if _, err := pgx.ForEachRow(rows, []any{&i}, func() error {
		gone[i-1] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look for what is gone of %d messages: %w", n, pg.NotMigrated(err))
	}
	return gone, nil
}

// Erasure is the last complete pass of erasing.
type Erasure struct {
	// Through is the stream's last message that it looked at; everything that
	// was removed up to there is erased. 0 where there was no pass.
	Through uint64
	// Begun is when it began, zero where nothing is known of any.
	Begun time.Time
	// Looked is up to where every message was looked at, by this index: of those, payloads
	// says which are to be erased.
	Looked uint64
	schema int64
}

// Erasure returns the last complete pass of erasing.
func (w *Writer) Erasure(ctx context.Context) (e Erasure, err error) {
	var begun time.Time
	err = w.pool.QueryRow(ctx, `SELECT erased_through, erased_at, erase_looked, (`+pg.SchemaNow+`) FROM heartbeat`).Scan(&e.Through, &begun, &e.Looked, &e.schema)
	if err != nil {
		return e, fmt.Errorf("read the last erasure: %w", pg.NotMigrated(err))
	}
	if begun.Unix() > 0 {
		e.Begun = begun.UTC()
	}
	return e, nil
}

// SetErasure records a complete pass of erasing. Markers of what was removed up
// to there are no longer needed for erasing. e is what Erasure returned when it began, but
// for what the pass changes: in an index that was switched in since, nothing was looked at.
func (w *Writer) SetErasure(ctx context.Context, e Erasure) error {
	if _, err := w.pool.Exec(ctx, `
		UPDATE heartbeat SET erased_through = $1, erased_at = $2, erase_looked = CASE WHEN (`+pg.SchemaNow+`) = $4 THEN $3::bigint ELSE 0 END`, e.Through, e.Begun, e.Looked, e.schema); err != nil {
		return fmt.Errorf("record the erasure: %w", err)
	}
	return nil
}

// Removal is a deletion as the stream says it.
type Removal struct {
	Version
	At  time.Time
	Seq uint64
}

// Recall gives an index that is being rebuilt from a stream with gaps what the
// live index remembers of posts that were erased from the stream, right before
// messages are folded in that remove posts or erase accounts (erased): markers,
// where the post that is removed is no longer there, and accounts' floors.
// Without them an older event that comes behind would bring a post back. It does
// so in one transaction, under the lease; again, it changes nothing.
//
// A removal that the live index knows nothing of, by a marker or the post that came
// again in its place, leaves none here either: its post never was in the index.
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

// RecallFloors gives an index that was rebuilt from a stream with gaps, and has come
// to the live one's checkpoint or farther, the floors that accounts have there after a
// #sync, where they are higher: the replacements that they came of may have been erased.
// What is below a floor is swept away then. It returns how many floors that were. It does
// so in one transaction, under the lease; again, it changes nothing. While it is called
// no one may write the live index.
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
			// The end of a #sync is to come, and takes away what is below.
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
