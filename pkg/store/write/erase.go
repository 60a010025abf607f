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

// Version names what one message states: a version of a post or, with an empty Rkey, an author's
// profile as of Rev ("" for none) and handle as of At (zero for none).
type Version struct {
	DID, Rkey, Rev string
	At             time.Time
}

// Gone reports for each version whether the index proves that it was removed: its post does not
// exist and was removed at that revision or later, by itself or with its account's repository, or
// its account was erased. A version of an existing post, hidden or not, is not gone, however old,
// unless it precedes a removal of the post; nor is one of which nothing is known.
//
// An author's profile and handle are gone if the index does not have them: it has later ones, the
// account was deleted, or was unknown when they arrived.
//
// What is gone never returns: a recreated post has a higher revision. Such a post remembers its
// removal, but not that a #sync removed it: then its earlier versions count as its own. Everything
// is read in one statement, so from one schema.
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
	// Through is the stream's last message that the pass read; everything removed up to there is
	// erased. It is 0 if there was no pass.
	Through uint64
	// Begun is when it began, zero if unknown.
	Begun time.Time
	// Looked is the message up to which this index has noted every message: of those, the table
	// payloads has the ones to erase.
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

// SetErasure records a complete pass of erasing. Markers of removals up to there are no longer
// needed for erasing. e is the result of Erasure when the pass began, with the pass's changes: an
// index that was switched in since has noted nothing.
func (w *Writer) SetErasure(ctx context.Context, e Erasure) error {
	if _, err := w.pool.Exec(ctx, `
		UPDATE heartbeat SET erased_through = $1, erased_at = $2, erase_looked = CASE WHEN (`+pg.SchemaNow+`) = $4 THEN $3::bigint ELSE 0 END`, e.Through, e.Begun, e.Looked, e.schema); err != nil {
		return fmt.Errorf("record the erasure: %w", err)
	}
	return nil
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
