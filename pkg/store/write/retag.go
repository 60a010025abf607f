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

// retagPosts is how many posts one step of bringing tags into their present form
// looks at: some tens of milliseconds where many change.
const retagPosts = 1000

// Retagging reports whether there may be posts whose tags an older program wrote.
func (w *Writer) Retagging() bool { return w.retagging }

// Retag brings the tags of some posts into their present form, in one transaction
// under the lease, the newest first; checkpoint.retag_below says how far that has come.
// A post that has no tags then leaves the index, as one does that loses them in an edit.
// What comes in meanwhile is in that form already, and every row agrees with those beside
// it at any time, so that readers and live events need not wait for the end.
//
// begun says that it is the first step, done that there is nothing left: both where there
// was nothing to do. The error is ErrLeaseLost or the database's.
func (w *Writer) Retag(ctx context.Context) (begun, done bool, err error) {
	err = w.Apply(ctx, func(tx *Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		begun, done, err = tx.retag(ctx)
		return cp, err
	})
	w.retagging = err != nil || !done
	return begun, done, err
}

func (t *Tx) retag(ctx context.Context) (begun, done bool, err error) {
	var below *[16]byte
	if err := t.tx.QueryRow(ctx, `SELECT retag_below FROM checkpoint`).Scan(&below); err != nil {
		return false, false, fmt.Errorf("look up how far tags were rewritten: %w", err)
	}
	if below == nil {
		return true, true, nil
	}
	begun = *below == keys.Last
	rows, _ := t.tx.Query(ctx, `
		SELECT p.key, a.did, p.rkey, p.tags FROM posts p JOIN accounts a ON a.id = p.account_id
		 WHERE p.key < $1 ORDER BY p.key DESC LIMIT $2`, *below, retagPosts)
	var ids []PostID
	var id PostID
	var last event.Key
	var tags []string
	n := 0
	if _, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&last), &id.DID, &id.Rkey, &tags}, func() error {
		n++
		if now, _ := event.Tags(tags); !slices.Equal(now, tags) {
			ids = append(ids, id)
		}
		return nil
	}); err != nil {
		return false, false, fmt.Errorf("look for tags to rewrite: %w", err)
	}
	if err := t.rewriteTags(ctx, ids); err != nil {
		return false, false, err
	}
	done = n < retagPosts
	if _, err := t.tx.Exec(ctx, `UPDATE checkpoint SET retag_below = CASE WHEN $1 THEN NULL ELSE $2::uuid END`, done, last); err != nil {
		return false, false, fmt.Errorf("record how far tags were rewritten: %w", err)
	}
	return begun, done, nil
}

// rewriteTags brings the tags of the posts into their present form.
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
	// What a marker is pruned by: a post's own time may be an imported one.
	var now time.Time
	if err := t.tx.QueryRow(ctx, `SELECT source_time FROM checkpoint`).Scan(&now); err != nil {
		return fmt.Errorf("read how far the index is: %w", err)
	}
	var c Changes
	var posts []*Post
	if err := t.Posts(ctx, accounts, ids, nil, func(old *Post) {
		a := old.Account
		if a.Sweep != nil && old.Rev < a.Sweep.GoneBelow {
			return // the sweep deletes it, under the tags that it has
		}
		p := *old
		if p.Tags, _ = event.Tags(old.Tags); len(p.Tags) > 0 {
			posts = append(posts, &p)
			c.Posts = append(c.Posts, PostChange{Old: old, New: &p, OldVisible: old.Listed, NewVisible: old.Listed})
			return
		}
		c.Posts = append(c.Posts, PostChange{Account: a, Old: old, OldVisible: old.Listed})
		c.Removed = append(c.Removed, RemovedChange{Account: a, Rkey: p.Rkey, New: &Removed{Account: a, Rkey: p.Rkey, Rev: p.Rev, At: now, Seq: p.Seq}})
	}); err != nil {
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
