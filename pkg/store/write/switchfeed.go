package write

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// maxSwitchedChanges bounds the changes that a switch writes while the live indexer waits.
const maxSwitchedChanges = 100_000

// switchFeed moves the live index's change feed to the rebuilt one, and appends what only the
// rebuilt index has: what it folded beyond the live one, and posts of accounts that the live one is
// still sweeping or announcing. If that is impossible, it returns the reason: followers of the
// former index must then list everything again.
func switchFeed(ctx context.Context, tx pgx.Tx) (loss FeedLoss, err error) {
	err = pgx.BeginFunc(ctx, tx, func(sub pgx.Tx) error {
		if loss, err = moveFeed(ctx, sub); err == nil && loss != "" {
			return errKeptApart
		}
		return err
	})
	switch {
	case errors.Is(err, errKeptApart):
		return loss, nil
	case taken(err): // a backup reads it, say
		return FeedInUse, nil
	}
	return "", err
}

var errKeptApart = errors.New("the change feed stays")

// FeedLoss says why a switch did not keep the change feed.
type FeedLoss string

// The reasons.
const (
	FeedDiffers   FeedLoss = "the indexes were not found to be the same"
	FeedTooLong   FeedLoss = "too many changes had to be taken over"
	FeedRetagging FeedLoss = "tags were being rewritten"
	FeedInUse     FeedLoss = "a table of it was in use"
)

const (
	// feedLockTimeout bounds each wait of a switch for readers of the feed: later readers queue
	// behind it, and must not time out. It is more than Postgres's deadlock_timeout, after which a
	// vacuum yields.
	feedLockTimeout = 2 * time.Second
	// A slow reader is finished when the lock is tried again.
	feedLockTries = 6
	feedLockPause = 200 * time.Millisecond
)

// lockFeed locks the feed against everyone else. No one waits for it while holding part of the
// feed: readers lock the tables in this order too, and writers lock the checkpoint first.
func lockFeed(ctx context.Context, sub pgx.Tx) error {
	for try := 1; ; try++ {
		err := pgx.BeginFunc(ctx, sub, func(tx pgx.Tx) error { // what it has locked is free again after a failure
			_, err := tx.Exec(ctx, over("LOCK TABLE LIVE.change_runs, LIVE.change_tags, LIVE.changes IN ACCESS EXCLUSIVE MODE"))
			return err
		})
		if !taken(err) || try == feedLockTries {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(feedLockPause):
		}
	}
}

// taken reports whether a lock was not available.
func taken(err error) bool { return pg.IsCode(err, "55P03", "40P01") }

func moveFeed(ctx context.Context, sub pgx.Tx) (loss FeedLoss, err error) {
	if _, err := sub.Exec(ctx, "SET LOCAL lock_timeout = "+pg.Millis(feedLockTimeout)); err != nil {
		return "", err
	}
	// An unfinished rewrite of tags is not repeated: its remaining changes are in no feed.
	var last, more, swept int64
	var retagging bool
	if err := sub.QueryRow(ctx, over(`
		SELECT l.changes, r.changes, l.retag_below IS NOT NULL,
		       (SELECT count(*) FROM (SELECT FROM LIVE.sweeps w JOIN LIVE.posts p USING (account_id) LIMIT $1) AS p)
		  FROM LIVE.checkpoint l CROSS JOIN REBUILT.checkpoint r`), maxSwitchedChanges).Scan(&last, &more, &retagging, &swept); err != nil {
		return "", err
	}
	switch {
	case retagging:
		return FeedRetagging, nil
	case more+swept >= maxSwitchedChanges:
		return FeedTooLong, nil
	}
	if _, err := sub.Exec(ctx, over(`
		INSERT INTO LIVE.changes (pos, did, rkey, was, at, tags)
		SELECT pos + $1, did, rkey, was, at, tags FROM REBUILT.changes`), last); err != nil {
		return "", err
	}
	if _, err := sub.Exec(ctx, over(`INSERT INTO LIVE.change_tags (tag, pos) SELECT tag, pos + $1 FROM REBUILT.change_tags`), last); err != nil {
		return "", err
	}
	tag, err := sub.Exec(ctx, over(`
		WITH written AS (
			INSERT INTO LIVE.changes (pos, did, rkey, was, at, tags)
			SELECT $1 + row_number() OVER (), a.did, p.rkey, true, clock_timestamp(), ARRAY(
			       SELECT DISTINCT ('x' || encode(substr(sha256(convert_to(tag, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint FROM unnest(p.tags) AS tag)
			  FROM LIVE.sweeps w JOIN LIVE.accounts a ON a.id = w.account_id JOIN LIVE.posts p ON p.account_id = a.id
			 WHERE EXISTS (SELECT FROM LIVE.tags t JOIN LIVE.post_tags pt ON pt.tag_id = t.id AND pt.key = p.key WHERE t.name = p.tags[1])
			RETURNING pos, tags)
		INSERT INTO LIVE.change_tags (tag, pos) SELECT unnest(tags), pos FROM written`), last+more)
	if err != nil {
		return "", err
	}
	if err := lockFeed(ctx, sub); err != nil {
		return "", err
	}
	for _, sql := range []string{
		`INSERT INTO REBUILT.announcements (account_id)
		 SELECT b.id FROM (SELECT account_id FROM LIVE.sweeps UNION SELECT account_id FROM LIVE.announcements) AS s
		   JOIN LIVE.accounts a ON a.id = s.account_id JOIN REBUILT.accounts b ON b.did = a.did
		 ON CONFLICT (account_id) DO UPDATE SET below = NULL`,
		// Changes can have several tags: the number of the last one is in the table.
		fmt.Sprintf(`UPDATE REBUILT.checkpoint SET changes_pruned = l.changes_pruned,
		        changes = CASE WHEN %d > 0 THEN (SELECT max(pos) FROM LIVE.changes) ELSE %d END
		   FROM LIVE.checkpoint l`, tag.RowsAffected(), last+more),
		`DROP TABLE REBUILT.changes, REBUILT.change_tags, REBUILT.change_runs`,
		`ALTER TABLE LIVE.changes SET SCHEMA REBUILT`,
		`ALTER TABLE LIVE.change_tags SET SCHEMA REBUILT`,
		`ALTER TABLE LIVE.change_runs SET SCHEMA REBUILT`,
	} {
		if _, err := sub.Exec(ctx, over(sql)); err != nil {
			return "", err
		}
	}
	_, err = sub.Exec(ctx, "SET LOCAL lock_timeout = "+pg.Millis(pg.HoldLockTimeout))
	return "", err
}

// over inserts the names of the two schemas of a switch into a statement.
func over(sql string) string {
	return strings.NewReplacer("LIVE.", store.Live+".", "REBUILT.", store.Rebuilding+".", "SCHEMA REBUILT", "SCHEMA "+store.Rebuilding).Replace(sql)
}
