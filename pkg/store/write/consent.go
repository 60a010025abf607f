package write

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/store"
)

// ShowsOptedOut reports whether accounts that have opted out are shown.
func (t *Tx) ShowsOptedOut() bool { return t.showOptedOut }

// SetShowOptedOut sets whether accounts that have opted out are shown. The caller must update stored
// accounts (OutdatedAccounts).
func (t *Tx) SetShowOptedOut(ctx context.Context, show bool) error {
	if t.showOptedOut == show {
		return nil
	}
	if _, err := t.tx.Exec(ctx, `UPDATE checkpoint SET ignore_consent = $1`, show); err != nil {
		return fmt.Errorf("set whether opted-out accounts are shown: %w", err)
	}
	t.showOptedOut = show
	return nil
}

// Denied returns those of the accounts that are in the operator's deny list.
func (t *Tx) Denied(ctx context.Context, dids []string) (map[string]bool, error) {
	if !t.denies {
		return nil, nil
	}
	rows, _ := t.tx.Query(ctx, `SELECT did FROM denied_accounts WHERE did = ANY($1::text[])`, dids)
	denied := map[string]bool{}
	var did string
	if _, err := pgx.ForEachRow(rows, []any{&did}, func() error { denied[did] = true; return nil }); err != nil {
		return nil, fmt.Errorf("look up %d accounts in the deny list: %w", len(dids), err)
	}
	return denied, nil
}

// Deny sets the deny list, and reports whether it changed. The caller must update stored accounts
// (OutdatedAccounts). If the tags change, the change feed starts again, so that all followers list
// everything again: no post changes.
func (t *Tx) Deny(ctx context.Context, dids, tags []string) (changed bool, err error) {
	accounts, err := t.denyList(ctx, "denied_accounts", "did", dids)
	if err != nil {
		return false, err
	}
	others, err := t.denyList(ctx, "denied_tags", "name", tags)
	if err != nil {
		return false, err
	}
	if others {
		if _, err := t.tx.Exec(ctx, `DELETE FROM change_runs`); err != nil {
			return false, fmt.Errorf("end the change feed: %w", err)
		}
		if _, err := beginRun(ctx, t.tx, t.epoch); err != nil {
			return false, fmt.Errorf("begin the change feed again: %w", err)
		}
	}
	t.denies = len(dids) > 0
	return accounts || others, nil
}

func (t *Tx) denyList(ctx context.Context, table, column string, names []string) (changed bool, err error) {
	names = append([]string{}, names...) // never null
	gone, err := t.tx.Exec(ctx, `DELETE FROM `+table+` WHERE `+column+` <> ALL($1::text[])`, names)
	if err != nil {
		return false, fmt.Errorf("shorten the deny list: %w", err)
	}
	come, err := t.tx.Exec(ctx, `INSERT INTO `+table+` SELECT unnest($1::text[]) ON CONFLICT DO NOTHING`, names)
	if err != nil {
		return false, fmt.Errorf("extend the deny list: %w", err)
	}
	return gone.RowsAffected()+come.RowsAffected() > 0, nil
}

// OutdatedAccounts returns up to limit accounts whose visibility does not match the settings for
// opt-outs and denial, which changed.
func (t *Tx) OutdatedAccounts(ctx context.Context, limit int) (map[string]*Account, error) {
	rows, _ := t.tx.Query(ctx, `
		SELECT did FROM (
			SELECT a.did FROM denied_accounts d JOIN accounts a USING (did) WHERE COALESCE(a.told, a.state) = $1 AND a.state = $1
			UNION ALL
			SELECT a.did FROM accounts a
			 WHERE a.opted_out AND COALESCE(a.told, a.state) = $1 AND a.state = $1 AND NOT $2
			   AND NOT EXISTS (SELECT FROM denied_accounts d WHERE d.did = a.did)
			UNION ALL
			SELECT a.did FROM accounts a
			 WHERE a.state <> a.told AND a.told = $1 AND ($2 OR NOT a.opted_out)
			   AND NOT EXISTS (SELECT FROM denied_accounts d WHERE d.did = a.did)) AS outdated
		 LIMIT $3`,
		store.Active, t.showOptedOut, limit)
	dids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for accounts to hide or show: %w", err)
	}
	return t.Accounts(ctx, dids)
}

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
