package write

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// The table payloads says where the stream has something to erase, so that a pass need not read all
// of it. Every message up to Erasure.Looked with a payload is either the current version of a post,
// which posts.seq names, or has a row, or is erased. A row is due once its post was removed. A row
// without a record key belongs to an author, and is due once the author has another profile or
// handle, or none.

// notePayloads notes the messages with versions of posts that a transaction replaces, and marks
// those of removed posts as due.
func (t *Tx) notePayloads(ctx context.Context, changes []PostChange) error {
	if !t.notesPayloads {
		return nil
	}
	var seqs, accounts []int64
	var rkeys []string
	var due []bool
	for _, p := range changes {
		if p.moved() || p.edited() {
			seqs, accounts = append(seqs, int64(p.Old.Seq)), append(accounts, p.Old.Account.ID)
			rkeys, due = append(rkeys, p.Old.Rkey), append(due, p.moved())
		}
	}
	if len(seqs) == 0 {
		return nil
	}
	if _, err := t.tx.Exec(ctx, `
		INSERT INTO payloads (seq, account_id, rkey, due)
		SELECT DISTINCT ON (seq) * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bool[]) AS i(seq, account_id, rkey, due) ORDER BY seq, due DESC
		ON CONFLICT (seq) DO UPDATE SET due = payloads.due OR excluded.due`, seqs, accounts, rkeys, due); err != nil {
		return fmt.Errorf("note %d payloads: %w", len(seqs), err)
	}
	if _, err := t.tx.Exec(ctx, `
		UPDATE payloads p SET due = true FROM unnest($1::bigint[], $2::text[], $3::bool[]) AS i(account_id, rkey, due)
		 WHERE i.due AND NOT p.due AND p.account_id = i.account_id AND p.rkey = i.rkey`, accounts, rkeys, due); err != nil {
		return fmt.Errorf("note the payloads of %d posts: %w", len(seqs), err)
	}
	return nil
}

// noteAuthors marks the messages of authors that a transaction changes as due.
func (t *Tx) noteAuthors(ctx context.Context, accounts []*Account) error {
	if !t.notesPayloads {
		return nil
	}
	var changed []int64
	for _, a := range accounts {
		if a.ID != 0 && a.Author != a.loaded {
			changed = append(changed, a.ID)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	if _, err := t.tx.Exec(ctx, `
		UPDATE payloads SET due = true WHERE NOT due AND rkey = '' AND account_id = ANY($1::bigint[])`, changed); err != nil {
		return fmt.Errorf("note the payloads of %d authors: %w", len(changed), err)
	}
	return nil
}

// NotePayloads notes messages with other versions of existing posts than the current one, and those
// of known authors. Call it before Gone: a post that is removed in between is then gone, and
// NotePayloads waits for one that is being removed.
func (w *Writer) NotePayloads(ctx context.Context, versions []Version, seqs []uint64) error {
	dids, rkeys, numbers := make([]string, len(versions)), make([]string, len(versions)), make([]int64, len(versions))
	for i, v := range versions {
		dids[i], rkeys[i], numbers[i] = v.DID, v.Rkey, int64(seqs[i])
	}
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		// An open transaction that removes a post does not see rows that are inserted now, and Gone
		// does not see it before it ends.
		if _, err := tx.Exec(ctx, `SELECT FROM checkpoint FOR SHARE`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			INSERT INTO payloads (seq, account_id, rkey, due)
			SELECT i.seq, a.id, i.rkey, false FROM unnest($1::bigint[], $2::text[], $3::text[]) AS i(seq, did, rkey)
			  JOIN accounts a ON a.did = i.did LEFT JOIN posts p ON p.account_id = a.id AND p.rkey = i.rkey
			 WHERE p.seq <> i.seq OR i.rkey = '' ORDER BY i.seq
			ON CONFLICT DO NOTHING`, numbers, dids, rkeys)
		return err
	})
	if err != nil {
		return fmt.Errorf("note the payloads of %d messages: %w", len(versions), pg.NotMigrated(err))
	}
	return nil
}

// DuePayloads returns up to limit numbers of messages to erase, after one number and up to another.
func (w *Writer) DuePayloads(ctx context.Context, after, upTo uint64, limit int) ([]uint64, error) {
	rows, err := w.pool.Query(ctx, `SELECT seq FROM payloads WHERE due AND seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3`, after, upTo, limit)
	if err != nil {
		return nil, fmt.Errorf("look for payloads to erase: %w", pg.NotMigrated(err))
	}
	seqs, err := pgx.CollectRows(rows, pgx.RowTo[uint64])
	if err != nil {
		return nil, fmt.Errorf("look for payloads to erase: %w", pg.NotMigrated(err))
	}
	return seqs, nil
}

// ForgetPayloads removes the rows of erased messages, and makes messages whose posts still exist no
// longer due.
func (w *Writer) ForgetPayloads(ctx context.Context, erased, there []uint64) error {
	_, err := w.pool.Exec(ctx, `DELETE FROM payloads WHERE seq = ANY($1::bigint[])`, erased)
	if err == nil {
		_, err = w.pool.Exec(ctx, `UPDATE payloads SET due = false WHERE seq = ANY($1::bigint[])`, there)
	}
	if err != nil {
		return fmt.Errorf("forget %d payloads: %w", len(erased)+len(there), err)
	}
	return nil
}

// KeepNoPayloads is for an index whose stream is not erased. If erasing is enabled later, the first
// pass reads the whole stream.
func (w *Writer) KeepNoPayloads(ctx context.Context) error {
	w.notesPayloads = false
	err := w.holding(ctx, func(tx pgx.Tx, _ time.Time) error {
		_, err := tx.Exec(ctx, `UPDATE heartbeat SET erase_looked = 0`)
		if err == nil {
			_, err = tx.Exec(ctx, `DELETE FROM payloads`)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("forget what there is to erase: %w", err)
	}
	return nil
}
