package write

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/store"
)

// IgnoresConsent reports whether accounts that have opted out are shown all the same.
func (t *Tx) IgnoresConsent() bool { return t.ignoreConsent }

// IgnoreConsent says from now on whether they are. Accounts that are there are the caller's to
// decide again (Undecided).
func (t *Tx) IgnoreConsent(ctx context.Context, ignore bool) error {
	if t.ignoreConsent == ignore {
		return nil
	}
	if _, err := t.tx.Exec(ctx, `UPDATE checkpoint SET ignore_consent = $1`, ignore); err != nil {
		return fmt.Errorf("set whether consent is ignored: %w", err)
	}
	t.ignoreConsent = ignore
	return nil
}

// Undecided returns up to limit accounts that have opted out and are shown, or hidden, as the
// setting was before.
func (t *Tx) Undecided(ctx context.Context, limit int) (map[string]*Account, error) {
	rows, _ := t.tx.Query(ctx, `
		SELECT did FROM accounts WHERE opted_out AND COALESCE(told, state) = $1 AND (state = $1) <> $2 LIMIT $3`,
		store.Active, t.ignoreConsent, limit)
	dids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for accounts that have opted out: %w", err)
	}
	return t.Accounts(ctx, dids)
}

// LiveIgnoresConsent reports whether the live index shows accounts that have opted out.
func (w *Writer) LiveIgnoresConsent(ctx context.Context) (ignore bool, err error) {
	if err := w.pool.QueryRow(ctx, `SELECT ignore_consent FROM `+store.Live+`.checkpoint`).Scan(&ignore); err != nil {
		return false, fmt.Errorf("read whether the live index ignores consent: %w", err)
	}
	return ignore, nil
}

// RecallAuthors gives an index that is rebuilt the profiles and handles that the live one took
// from accounts that it knew then: of an account whose posts were erased from the stream, this one
// did not know at that place. What a deleted account had said was erased itself.
func (w *Writer) RecallAuthors(ctx context.Context) error {
	_, err := w.pool.Exec(ctx, `
		UPDATE accounts b SET display_name = a.display_name, avatar = a.avatar, profile_rev = a.profile_rev, opted_out = a.opted_out
		  FROM `+store.Live+`.accounts a
		 WHERE a.did = b.did AND a.profile_rev > b.profile_rev
		   AND (a.opted_out = b.opted_out OR COALESCE(a.told, a.state) = $1 AND COALESCE(b.told, b.state) = $1)`, store.Deleted)
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
