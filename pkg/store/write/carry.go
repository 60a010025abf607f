package write

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
)

// carryPosts is how many posts are copied in one transaction.
const carryPosts = 2000

// CarryOver starts an index that is being rebuilt from a stream whose beginning was trimmed with
// the live index's state of that time: every account, and the posts and removal markers that no
// message from before on has changed. The checkpoint is then just before that message. carried is
// called with the number of copied posts.
//
// The live index may be written at the same time: what changes during the copy is not copied, and
// arrives with the message that changed it. Accounts are copied first, in their final state: posts
// below their floors disappear in the end.
//
// If CarryOver ends early, the index must be dropped and started again. The error is ErrLeaseLost
// or the database's.
func (w *Writer) CarryOver(ctx context.Context, before uint64, carried func(n int)) error {
	if err := w.holding(ctx, func(tx pgx.Tx, _ time.Time) error {
		// The message of an unfinished #sync is still to be replayed.
		_, err := tx.Exec(ctx, `
			INSERT INTO accounts (did, state, told, state_time, state_source_seq, state_host, state_host_seq,
			       display_name, avatar, opted_out, profile_rev, handle, handle_time, erased_rev, sync_rev, seq)
			SELECT a.did, a.state, a.told, a.state_time, a.state_source_seq, a.state_host, a.state_host_seq,
			       a.display_name, a.avatar, a.opted_out, a.profile_rev, a.handle, a.handle_time, a.erased_rev,
			       CASE WHEN a.did = c.sync_did AND a.seq >= $1 THEN '' ELSE a.sync_rev END, a.seq
			  FROM `+store.Live+`.accounts a CROSS JOIN `+store.Live+`.checkpoint c`, before)
		return err
	}); err != nil {
		return fmt.Errorf("carry over the accounts: %w", err)
	}
	for after := (event.Key{}); ; {
		n, last, err := w.carryPosts(ctx, before, after)
		if err != nil {
			return fmt.Errorf("carry over posts: %w", err)
		}
		if n == 0 {
			break
		}
		after = last
		carried(n)
	}
	if err := w.holding(ctx, func(tx pgx.Tx, _ time.Time) error {
		_, err := tx.Exec(ctx, `
			INSERT INTO removed_posts (account_id, rkey, rev, removed_at, seq)
			SELECT b.id, r.rkey, r.rev, r.removed_at, r.seq
			  FROM `+store.Live+`.removed_posts r JOIN `+store.Live+`.accounts a ON a.id = r.account_id JOIN accounts b ON b.did = a.did
			 WHERE r.seq < $1 AND r.rev > b.erased_rev
			   AND NOT EXISTS (SELECT FROM posts p WHERE p.account_id = b.id AND p.rkey = r.rkey)`, before)
		return err
	}); err != nil {
		return fmt.Errorf("carry over removal markers: %w", err)
	}
	return w.Apply(ctx, func(_ *Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		cp.Seq = before - 1
		return cp, nil
	})
}

// carryPosts copies the next posts after a key. Posts below their account's floors exist because a
// sweep or a #sync is not finished with them.
func (w *Writer) carryPosts(ctx context.Context, before uint64, after event.Key) (n int, last event.Key, err error) {
	err = w.Apply(ctx, func(tx *Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		n = 0
		rows, _ := tx.tx.Query(ctx, `
			SELECT p.key, a.did, p.rkey, p.rev, p.removed_rev, p.cid, p.tags, p.langs, p.indexed_at, p.seq, p.record
			  FROM `+store.Live+`.posts p JOIN `+store.Live+`.accounts a ON a.id = p.account_id JOIN accounts b ON b.did = a.did
			 WHERE p.key > $1 AND p.seq < $2 AND p.rev > b.erased_rev AND p.rev >= b.sync_rev
			 ORDER BY p.key LIMIT $3`, after, before, carryPosts)
		var posts []*Post
		var dids []string
		var p Post
		var did, record string
		if _, err := pgx.ForEachRow(rows, []any{&p.Key, &did, &p.Rkey, &p.Rev, &p.RemovedRev, &p.CID, &p.Tags, &p.Langs, &p.IndexedAt, &p.Seq, &record}, func() error {
			n, last = n+1, p.Key
			post := p
			post.Record = []byte(record)
			p.Tags, p.Langs = nil, nil // the next row must not overwrite them
			// The live index may have them in an older form.
			if post.Tags, _ = event.Tags(post.Tags); len(post.Tags) > 0 {
				posts, dids = append(posts, &post), append(dids, did)
			}
			return nil
		}); err != nil || len(posts) == 0 {
			return cp, err
		}
		accounts, err := tx.Accounts(ctx, dids)
		if err != nil {
			return cp, err
		}
		var c Changes
		for i, post := range posts {
			post.Account = accounts[dids[i]]
			c.Posts = append(c.Posts, PostChange{New: post, NewVisible: post.Account.State == store.Active})
		}
		return cp, tx.Write(ctx, c)
	})
	return n, last, err
}
