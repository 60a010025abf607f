package write

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/keys"
)

// upgradePosts is how many posts one step of an upgrade processes: some tens of milliseconds.
const upgradePosts = 1000

// upgrade does one step of converting what an older program wrote to the current form, in one
// transaction under the lease: step processes some posts from a key on, newest first, and returns
// how many and the last one. column is the checkpoint's column with the progress. New posts have
// the current form already.
func (w *Writer) upgrade(ctx context.Context, column string, step func(*Tx, context.Context, [16]byte) (int, event.Key, error)) (begun, done bool, err error) {
	err = w.Apply(ctx, func(tx *Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		var below *[16]byte
		if err := tx.tx.QueryRow(ctx, `SELECT `+column+` FROM checkpoint`).Scan(&below); err != nil {
			return cp, fmt.Errorf("look up %s: %w", column, err)
		}
		if below == nil {
			begun, done = true, true
			return cp, nil
		}
		n, last, err := step(tx, ctx, *below)
		if err != nil {
			return cp, err
		}
		begun, done = *below == keys.Last, n < upgradePosts
		if _, err := tx.tx.Exec(ctx, `UPDATE checkpoint SET `+column+` = CASE WHEN $1 THEN NULL ELSE $2::uuid END`, done, last); err != nil {
			return cp, fmt.Errorf("record %s: %w", column, err)
		}
		return cp, nil
	})
	return begun, done, err
}

// Retagging reports whether there may be posts whose tags an older program wrote.
func (w *Writer) Retagging() bool { return w.retagging }

// Retag converts the tags of some posts to their current form. A post that loses all tags leaves
// the index, like one that loses them in an edit. All rows are consistent at any time, so readers
// and live events need not wait for the end.
//
// begun reports that it is the first step, done that there is nothing left; both are true if there
// was nothing to do. The error is ErrLeaseLost or the database's.
func (w *Writer) Retag(ctx context.Context) (begun, done bool, err error) {
	begun, done, err = w.upgrade(ctx, "retag_below", (*Tx).retag)
	w.retagging = err != nil || !done
	return begun, done, err
}

func (t *Tx) retag(ctx context.Context, below [16]byte) (n int, last event.Key, err error) {
	rows, _ := t.tx.Query(ctx, `
		SELECT p.key, a.did, p.rkey, p.tags FROM posts p JOIN accounts a ON a.id = p.account_id
		 WHERE p.key < $1 ORDER BY p.key DESC LIMIT $2`, below, upgradePosts)
	var ids []PostID
	var id PostID
	var tags []string
	if _, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&last), &id.DID, &id.Rkey, &tags}, func() error {
		n++
		if now, _ := event.Tags(tags); !slices.Equal(now, tags) {
			ids = append(ids, id)
		}
		return nil
	}); err != nil {
		return 0, last, fmt.Errorf("look for tags to rewrite: %w", err)
	}
	return n, last, t.rewriteTags(ctx, ids)
}

// rewriteTags converts the tags of the posts to their current form.
func (t *Tx) rewriteTags(ctx context.Context, ids []PostID) error {
	if len(ids) == 0 {
		return nil
	}
	var dids []string
	for _, id := range ids {
		dids = append(dids, id.DID)
	}
	accounts, err := t.Accounts(ctx, dids)
	if err != nil {
		return err
	}
	// Markers are pruned by this time, since a post's own time may be imported.
	var now time.Time
	if err := t.tx.QueryRow(ctx, `SELECT source_time FROM checkpoint`).Scan(&now); err != nil {
		return fmt.Errorf("read how far the index is: %w", err)
	}
	var c Changes
	var posts []*Post
	if err := t.Load(ctx, accounts, ids, nil, func(old *Post) {
		a := old.Account
		if a.Sweep != nil && old.Rev < a.Sweep.GoneBelow {
			return // the sweep deletes it, under its present tags
		}
		p := *old
		if p.Tags, _ = event.Tags(old.Tags); len(p.Tags) > 0 {
			posts = append(posts, &p)
			c.Posts = append(c.Posts, PostChange{Old: old, New: &p, OldVisible: old.Listed, NewVisible: old.Listed})
			return
		}
		c.Posts = append(c.Posts, PostChange{Account: a, Old: old, OldVisible: old.Listed})
		c.Removed = append(c.Removed, RemovedChange{Account: a, Rkey: p.Rkey, New: &Removed{Account: a, Rkey: p.Rkey, Rev: p.Rev, At: now, Seq: p.Seq}})
	}, func(*Removed) {}); err != nil {
		return err
	}
	keys, tags := make([]event.Key, len(posts)), make([]string, len(posts))
	for i, p := range posts {
		keys[i], tags[i] = p.Key, textArray(p.Tags)
	}
	if _, err := t.tx.Exec(ctx, `
		UPDATE posts p SET tags = i.tags::text[]
		  FROM unnest($1::uuid[], $2::text[]) AS i(key, tags) WHERE p.key = i.key`, keys, tags); err != nil {
		return fmt.Errorf("rewrite the tags of %d posts: %w", len(posts), err)
	}
	return t.Write(ctx, c)
}

// Filling reports whether there may be posts whose traits an older program did not write.
func (w *Writer) Filling() bool { return w.filling }

// FillTraits computes the traits of some posts. begun, done and the error are those of Retag.
func (w *Writer) FillTraits(ctx context.Context) (begun, done bool, err error) {
	begun, done, err = w.upgrade(ctx, "traits_below", (*Tx).fillTraits)
	w.filling = err != nil || !done
	return begun, done, err
}

func (t *Tx) fillTraits(ctx context.Context, below [16]byte) (n int, last event.Key, err error) {
	rows, _ := t.tx.Query(ctx, `SELECT key, traits, record FROM posts WHERE key < $1 ORDER BY key DESC LIMIT $2`, below, upgradePosts)
	var has event.Traits
	var record []byte
	var filled []event.Key
	var traits []int16
	if _, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&last), &has, &record}, func() error {
		n++
		if now := event.TraitsOf(record); now != has {
			filled, traits = append(filled, last), append(traits, int16(now))
		}
		return nil
	}); err != nil {
		return 0, last, fmt.Errorf("look for posts without traits: %w", err)
	}
	if len(filled) > 0 {
		if _, err := t.tx.Exec(ctx, `
			UPDATE posts p SET traits = i.traits FROM unnest($1::uuid[], $2::smallint[]) AS i(key, traits) WHERE p.key = i.key`, filled, traits); err != nil {
			return 0, last, fmt.Errorf("fill in the traits of %d posts: %w", len(filled), err)
		}
	}
	return n, last, nil
}
