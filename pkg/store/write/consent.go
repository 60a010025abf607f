package write

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/store"
)

// ShowsOptedOut reports whether accounts that have opted out are shown.
func (t *Tx) ShowsOptedOut() bool { return t.showOptedOut }

// SetShowOptedOut sets whether accounts that have opted out are shown. The caller must update
// stored accounts (OutdatedAccounts).
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
	accountsChanged, err := t.setDenyList(ctx, "denied_accounts", "did", dids)
	if err != nil {
		return false, err
	}
	tagsChanged, err := t.setDenyList(ctx, "denied_tags", "name", tags)
	if err != nil {
		return false, err
	}
	if tagsChanged {
		if _, err := t.tx.Exec(ctx, `DELETE FROM change_runs`); err != nil {
			return false, fmt.Errorf("end the change feed: %w", err)
		}
		if _, err := beginRun(ctx, t.tx, t.epoch); err != nil {
			return false, fmt.Errorf("begin the change feed again: %w", err)
		}
	}
	t.denies = len(dids) > 0
	return accountsChanged || tagsChanged, nil
}

func (t *Tx) setDenyList(ctx context.Context, table, column string, names []string) (changed bool, err error) {
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
