package write

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/keys"
)

// The change feed says which posts followers of a tag must read again, in commit order. There is
// one writer, so its numbers have no gaps that are filled later. The feed does not say how a post
// changed: readers of the feed get the post's current state.

// feedEntry is a post that followers must read again.
type feedEntry struct {
	did, rkey string
	// wasVisible reports that readers may have seen the post before.
	wasVisible bool
	tags       []int64
}

// noteChanges notes posts that were visible before their change, or are now.
func (t *Tx) noteChanges(changes []PostChange) {
	for _, p := range changes {
		e := feedEntry{did: p.account().DID}
		if p.OldVisible && seen(p.Old) {
			e.wasVisible, e.rkey, e.tags = true, p.Old.Rkey, appendHashes(e.tags, p.Old.Tags)
		}
		// Posts that appear at the end of a sweep are announced then.
		if p.NewVisible && p.account().InSight() {
			e.rkey, e.tags = p.New.Rkey, appendHashes(e.tags, p.New.Tags)
		}
		if len(e.tags) > 0 {
			slices.Sort(e.tags)
			e.tags = slices.Compact(e.tags)
			t.feedEntries = append(t.feedEntries, e)
		}
	}
}

// seen reports whether readers may have seen a listed post: posts of an account that a sweep hides
// could only be seen before.
func seen(p *Post) bool {
	s := p.Account.Sweep
	return s == nil || !s.Hidden || p.Seq <= s.SeenThrough
}

func appendHashes(to []int64, tags []string) []int64 {
	for _, tag := range tags {
		to = append(to, keys.TagHash(tag))
	}
	return to
}

// feeds reports whether the feed includes what is folded up to a message. In an index that is being
// rebuilt it includes only what the live one may lack when they are switched: its feed continues
// after the live one's.
func (t *Tx) feeds(seq uint64) bool { return t.live || t.leader != nil && seq > *t.leader }

// leaderOf reads the live index's checkpoint, if another index is being rebuilt.
func (w *Writer) leaderOf(ctx context.Context, tx pgx.Tx) (*uint64, error) {
	if w.schema != store.Rebuilding {
		return nil, nil
	}
	var seq uint64
	if err := tx.QueryRow(ctx, `SELECT seq FROM `+store.Live+`.checkpoint`).Scan(&seq); err != nil {
		return nil, fmt.Errorf("look up the live index's checkpoint: %w", err)
	}
	return &seq, nil
}

// writeFeed writes the noted posts, starting after number last.
func (t *Tx) writeFeed(ctx context.Context, last int64, seq uint64) error {
	if !t.feeds(seq) || len(t.feedEntries) == 0 {
		return nil
	}
	type tagRow struct{ tag, pos int64 }
	n := len(t.feedEntries)
	var tagRows []tagRow
	for i, e := range t.feedEntries {
		for _, tag := range e.tags {
			tagRows = append(tagRows, tagRow{tag, last + int64(i) + 1})
		}
	}
	// In index order: neighbours share pages.
	slices.SortFunc(tagRows, func(a, b tagRow) int { return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.pos, b.pos)) })
	if err := copyIn(ctx, t.tx, `COPY changes (pos, did, rkey, was, at, tags) FROM STDIN (FORMAT binary)`, n, func(b []byte, i int) []byte {
		e := t.feedEntries[i]
		b = appendBytes(appendBytes(appendInt(rowOf(b, 6), last+int64(i)+1), e.did), e.rkey)
		return appendInts(appendTime(appendBool(b, e.wasVisible), t.now), e.tags)
	}); err != nil {
		return fmt.Errorf("write %d changes: %w", n, err)
	}
	if err := copyIn(ctx, t.tx, `COPY change_tags (tag, pos) FROM STDIN (FORMAT binary)`, len(tagRows), func(b []byte, i int) []byte {
		return appendInt(appendInt(rowOf(b, 2), tagRows[i].tag), tagRows[i].pos)
	}); err != nil {
		return fmt.Errorf("write the tags of %d changes: %w", n, err)
	}
	t.feedWritten = int64(n)
	return nil
}

// announceLater schedules writing all posts of an account to the feed that appeared at the end of
// its sweep: readers saw none of them during the sweep, and changes written then said so.
func (t *Tx) announceLater(ctx context.Context, a *Account) error {
	if !t.feeds(t.from) {
		return nil
	}
	t.announcing = true
	if _, err := t.tx.Exec(ctx, `
		INSERT INTO announcements (account_id) VALUES ($1) ON CONFLICT (account_id) DO UPDATE SET below = NULL`, a.ID); err != nil {
		return fmt.Errorf("announce the posts of %s: %w", a.DID, err)
	}
	return nil
}

// announcePosts is how many posts one step of an announcement writes.
const announcePosts = 500

// Announce writes some posts of one account to the feed that appeared at the end of its sweep, if
// there are any, in one transaction under the lease. The error is ErrLeaseLost or the database's.
func (w *Writer) Announce(ctx context.Context) error {
	if !w.announcing {
		return nil
	}
	none := false
	err := w.Apply(ctx, func(tx *Tx, cp store.Checkpoint) (_ store.Checkpoint, err error) {
		none, err = tx.announce(ctx)
		return cp, err
	})
	if err != nil {
		return fmt.Errorf("announce posts that became visible: %w", err)
	}
	w.announcing = !none
	return nil
}

func (t *Tx) announce(ctx context.Context) (none bool, err error) {
	var account int64
	var did string
	below := keys.Last
	var from *event.Key
	err = t.tx.QueryRow(ctx, `
		SELECT n.account_id, a.did, n.below FROM announcements n JOIN accounts a ON a.id = n.account_id ORDER BY n.account_id LIMIT 1`).
		Scan(&account, &did, &from)
	if errors.Is(err, pgx.ErrNoRows) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if from != nil {
		below = *from
	}
	rows, err := t.tx.Query(ctx, `
		SELECT key, rkey, tags FROM posts p WHERE p.account_id >= $1 AND (p.account_id, p.key) < ($1, $2)
		 ORDER BY p.account_id DESC, p.key DESC LIMIT $3`, account, below, announcePosts)
	if err != nil {
		return false, err
	}
	var key event.Key
	var rkey string
	var tags []string
	n := 0
	if _, err := pgx.ForEachRow(rows, []any{&key, &rkey, &tags}, func() error {
		n++
		t.feedEntries = append(t.feedEntries, feedEntry{did: did, rkey: rkey, tags: appendHashes(nil, tags)})
		return nil
	}); err != nil {
		return false, err
	}
	if n < announcePosts {
		_, err = t.tx.Exec(ctx, `DELETE FROM announcements WHERE account_id = $1`, account)
		return false, err
	}
	_, err = t.tx.Exec(ctx, `UPDATE announcements SET below = $2 WHERE account_id = $1`, account, key)
	return false, err
}

// PruneChanges deletes up to limit changes that are older than age by the database's clock, in one
// transaction, under the lease: a follower that was away for longer must start over. done reports
// that there are no more. The error is ErrLeaseLost or the database's.
func (w *Writer) PruneChanges(ctx context.Context, age time.Duration, limit int) (deleted int64, done bool, err error) {
	err = w.holding(ctx, func(tx pgx.Tx, _ time.Time) error {
		// From the beginning, without a gap: the number of the last one says what is left.
		return tx.QueryRow(ctx, `
			WITH first AS MATERIALIZED (
				SELECT pos, at, tags FROM changes WHERE pos > (SELECT changes_pruned FROM checkpoint) ORDER BY pos LIMIT $2),
			old AS MATERIALIZED (
				SELECT pos, tags FROM first
				 WHERE pos < coalesce((SELECT min(pos) FROM first WHERE at >= clock_timestamp() - $1::interval), $3)),
			tags AS (
				DELETE FROM change_tags t USING (SELECT pos, unnest(tags) AS tag FROM old) AS o WHERE t.tag = o.tag AND t.pos = o.pos),
			gone AS (
				DELETE FROM changes c USING old o WHERE c.pos = o.pos),
			pruned AS (
				UPDATE checkpoint SET changes_pruned = greatest(changes_pruned, (SELECT max(pos) FROM old)) RETURNING changes_pruned),
			runs AS (
				DELETE FROM change_runs r USING pruned p
				 WHERE EXISTS (SELECT FROM change_runs later WHERE later.n > r.n AND later.begun < p.changes_pruned))
			SELECT count(*), count(*) < $2 FROM old`, age, limit, int64(1)<<62).Scan(&deleted, &done)
	})
	if err != nil {
		return 0, false, fmt.Errorf("prune changes: %w", err)
	}
	return deleted, done, nil
}
