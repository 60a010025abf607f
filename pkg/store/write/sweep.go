package write

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/keys"
)

// beginSweeps begins the accounts' sweeps. A pass that is already running continues.
func (t *Tx) beginSweeps(ctx context.Context, accounts []*Account) error {
	for _, a := range accounts {
		seen := uint64(0)
		if a.Sweep.Seen {
			seen = t.from
		}
		if _, err := t.tx.Exec(ctx, `
			INSERT INTO sweeps (account_id, gone_below, hidden, seen_through) VALUES ($1, $2, $3, $5)
			ON CONFLICT (account_id) DO UPDATE SET gone_below = excluded.gone_below, hidden = excluded.hidden, again = sweeps.at IS NOT NULL AND $4,
			       seen_through = CASE WHEN sweeps.hidden THEN sweeps.seen_through ELSE excluded.seen_through END`,
			a.ID, a.Sweep.GoneBelow, a.Sweep.Hidden, a.Sweep.Again, seen); err != nil {
			return fmt.Errorf("begin to sweep %s: %w", a.DID, err)
		}
		t.beganSweep = true
	}
	return nil
}

// countVisibleLater adds to the change of visible posts that the account's sweep will apply.
func (t *Tx) countVisibleLater(ctx context.Context, account, by int64) error {
	if by == 0 {
		return nil
	}
	if _, err := t.tx.Exec(ctx, `UPDATE sweeps SET visible = visible + $2 WHERE account_id = $1`, account, by); err != nil {
		return fmt.Errorf("count the visible posts of a sweep: %w", err)
	}
	return nil
}

// noHour is the hour in sweep_counts of posts that tag_hours does not count.
const noHour = -1

// countTagsLater adds to the changes of tag counts that sweeps will apply, by account.
func (t *Tx) countTagsLater(ctx context.Context, tallies map[int64]tally) error {
	for account, c := range tallies {
		var tags, hours, by []int64
		row := func(tag, hour, n int64) {
			if n != 0 {
				tags, hours, by = append(tags, tag), append(hours, hour), append(by, n)
			}
		}
		for tag, n := range c.posts {
			for hour, h := range c.hours[tag] {
				row(tag, hour, h)
				n -= h
			}
			row(tag, noHour, n)
		}
		if len(tags) == 0 {
			continue
		}
		if _, err := t.tx.Exec(ctx, `
			INSERT INTO sweep_counts (account_id, tag_id, hour, posts)
			SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[])
			ON CONFLICT (account_id, tag_id, hour) DO UPDATE SET posts = sweep_counts.posts + excluded.posts`,
			account, tags, hours, by); err != nil {
			return fmt.Errorf("count the tags of a sweep: %w", err)
		}
	}
	return nil
}

// SweepPiece is what one step of a sweep works on: the next posts of the account's pass, newest
// first. First reports that the pass is at its beginning, Last that no posts follow.
type SweepPiece struct {
	Account     *Account
	Posts       []*Post
	First, Last bool
}

// Sweep calls step with the next piece, of up to limit posts, of an account's sweep, if there is
// one, in one transaction under the lease. Accounts take turns, whatever the outcome: a failing
// step delays only its own account. The error is ErrLeaseLost, step's, or the database's.
func (w *Writer) Sweep(ctx context.Context, limit int, step func(tx *Tx, p SweepPiece) error) error {
	none := false
	err := w.Apply(ctx, func(tx *Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		p, err := tx.nextPiece(ctx, w.lastSwept, limit)
		if err != nil || p.Account == nil {
			none = err == nil
			return cp, err
		}
		w.lastSwept = p.Account.ID
		return cp, step(tx, p)
	})
	if err != nil {
		return fmt.Errorf("sweep an account: %w", err)
	}
	if none {
		w.sweeping = false
	}
	return nil
}

// nextPiece returns the next piece of the account that follows another one in the order of turns.
// Its account is nil if there is no sweep.
func (t *Tx) nextPiece(ctx context.Context, after int64, limit int) (p SweepPiece, err error) {
	var did string
	var at *event.Key
	err = t.tx.QueryRow(ctx, `
		SELECT a.did, w.at FROM sweeps w JOIN accounts a ON a.id = w.account_id
		 ORDER BY w.account_id <= $1, w.account_id LIMIT 1`, after).Scan(&did, &at)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("look for a sweep: %w", err)
	}
	accounts, err := t.Accounts(ctx, []string{did})
	if err != nil {
		return p, err
	}
	a := accounts[did]
	from := keys.Last
	if at != nil {
		from = keys.Step(*at, -1)
	}
	// Ordered by both columns, which only the index of the account's posts provides; the table's
	// own order would read past the posts of others.
	rows, _ := t.tx.Query(ctx, `
		SELECT `+loadedColumns+` FROM posts p WHERE p.account_id >= $1 AND (p.account_id, p.key) <= ($1, $2)
		 ORDER BY p.account_id DESC, p.key DESC LIMIT $3`, a.ID, from, limit)
	defer rows.Close()
	if err := scanPosts(rows, map[int64]*Account{a.ID: a}, func(post *Post) { p.Posts = append(p.Posts, post) }); err != nil {
		return p, fmt.Errorf("load posts to sweep: %w", err)
	}
	p.Account, p.First, p.Last = a, at == nil, len(p.Posts) < limit
	return p, nil
}

// PassSweep records that the current pass over the account's posts has reached a key.
func (t *Tx) PassSweep(ctx context.Context, a *Account, key event.Key) error {
	if _, err := t.tx.Exec(ctx, `UPDATE sweeps SET at = $2, listing = $3 WHERE account_id = $1`, a.ID, key, a.Lists()); err != nil {
		return fmt.Errorf("sweep %s up to %s: %w", a.DID, key, err)
	}
	return nil
}

// EraseRemoved deletes up to limit of the account's removal markers that its ErasedRev covers, and
// returns how many.
func (t *Tx) EraseRemoved(ctx context.Context, a *Account, limit int) (int, error) {
	tag, err := t.tx.Exec(ctx, `
		DELETE FROM removed_posts WHERE account_id = $1 AND rkey IN (
			SELECT rkey FROM removed_posts WHERE account_id = $1 AND rev <= $2 LIMIT $3)`, a.ID, a.ErasedRev, limit)
	if err != nil {
		return 0, fmt.Errorf("erase removal markers of %s: %w", a.DID, err)
	}
	return int(tag.RowsAffected()), nil
}

// EndSweep ends the account's sweep: its changes become visible, and are counted. If more than
// limit counts change, it changes only that many, and the next step calls it again. If something
// changed after the pass, it begins another pass instead.
func (t *Tx) EndSweep(ctx context.Context, a *Account, limit int) error {
	if a.Sweep.Again || a.Lists() != (a.State == store.Active) {
		if _, err := t.tx.Exec(ctx, `UPDATE sweeps SET at = NULL, again = false WHERE account_id = $1`, a.ID); err != nil {
			return fmt.Errorf("sweep %s once more: %w", a.DID, err)
		}
		return nil
	}
	rows, _ := t.tx.Query(ctx, `
		DELETE FROM sweep_counts s
		 USING (SELECT account_id, tag_id, hour FROM sweep_counts WHERE account_id = $1 ORDER BY tag_id, hour LIMIT $2) AS first
		 WHERE s.account_id = first.account_id AND s.tag_id = first.tag_id AND s.hour = first.hour
		RETURNING s.tag_id, s.hour, s.posts`, a.ID, limit)
	c := newTally()
	var tag, hour, n int64
	counted := 0
	if _, err := pgx.ForEachRow(rows, []any{&tag, &hour, &n}, func() error {
		counted++
		c.posts[tag] += n
		if hour >= t.firstHour {
			c.hours.add(tag, hour, n)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("end the sweep of %s: %w", a.DID, err)
	}
	if counted == limit {
		return t.countTags(ctx, c)
	}
	var visible int64
	if err := t.tx.QueryRow(ctx, `DELETE FROM sweeps WHERE account_id = $1 RETURNING visible`, a.ID).Scan(&visible); err != nil {
		return fmt.Errorf("end the sweep of %s: %w", a.DID, err)
	}
	t.visible += visible
	if a.Sweep.Hidden && a.State == store.Active {
		if err := t.announceLater(ctx, a); err != nil {
			return err
		}
	}
	a.Sweep = nil
	return t.countTags(ctx, c)
}

// Big returns which of the accounts are being swept, or have at least limit posts or removal
// markers. It adds as many others, in the order of their ids, as needed for the rest to have at
// most total rows together.
func (t *Tx) Big(ctx context.Context, accounts []*Account, limit, total int) (map[*Account]bool, error) {
	big := map[*Account]bool{}
	var ids []int64
	for _, a := range accounts {
		if a.Sweep != nil {
			big[a] = true
		}
		ids = append(ids, a.ID)
	}
	rows, _ := t.tx.Query(ctx, `
		SELECT n, (SELECT count(*) FROM (SELECT FROM posts WHERE account_id = id LIMIT $2) AS p),
		       (SELECT count(*) FROM (SELECT FROM removed_posts WHERE account_id = id LIMIT $2) AS r)
		  FROM unnest($1::bigint[]) WITH ORDINALITY AS a(id, n) ORDER BY id`, ids, limit)
	var n, posts, removed, sum int
	_, err := pgx.ForEachRow(rows, []any{&n, &posts, &removed}, func() error {
		switch a, size := accounts[n-1], posts+removed; {
		case a.Sweep != nil:
		case max(posts, removed) >= limit, size > 0 && sum+size > total:
			big[a] = true
		default:
			sum += size
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("size %d accounts: %w", len(accounts), err)
	}
	return big, nil
}

// HighestRev returns the highest revision of the account's posts and removal markers. It reads all
// of them.
func (t *Tx) HighestRev(ctx context.Context, a *Account) (string, error) {
	var rev string
	err := t.tx.QueryRow(ctx, `
		SELECT coalesce(greatest((SELECT max(rev) FROM posts WHERE account_id = $1), (SELECT max(rev) FROM removed_posts WHERE account_id = $1)), '')`, a.ID).Scan(&rev)
	if err != nil {
		return "", fmt.Errorf("find the highest revision of %s: %w", a.DID, err)
	}
	return rev, nil
}
