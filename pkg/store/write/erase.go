package write

import (
	"context"
	"fmt"
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
