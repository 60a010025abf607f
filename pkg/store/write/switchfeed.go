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

// switchFeed moves the live index's change feed to the rebuilt one, and appends the changes that
// only the rebuilt index has: those that it folded beyond the live one, and posts of accounts that
// the live one is still sweeping or announcing. If that is impossible, it returns the reason:
// followers must then list everything again.
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
	case lockUnavailable(err): // for example, a backup reads it
		return FeedInUse, nil
	}
	return "", err
}

var errKeptApart = errors.New("the change feed stays")

// FeedLoss is the reason why a switch did not keep the change feed.
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
	// behind the switch, and must not time out. It exceeds Postgres's deadlock_timeout, after which
	// a vacuum yields.
	feedLockTimeout = 2 * time.Second
	// A slow reader has finished by the next attempt.
	feedLockTries = 6
	feedLockPause = 200 * time.Millisecond
)

// lockFeed locks the feed exclusively. There is no deadlock: readers lock the tables in the same
// order, and writers lock the checkpoint first.
func lockFeed(ctx context.Context, sub pgx.Tx) error {
	for try := 1; ; try++ {
		err := pgx.BeginFunc(ctx, sub, func(tx pgx.Tx) error { // a failure releases its locks
			_, err := tx.Exec(ctx, inSchemas("LOCK TABLE LIVE.change_runs, LIVE.change_tags, LIVE.changes IN ACCESS EXCLUSIVE MODE"))
			return err
		})
		if !lockUnavailable(err) || try == feedLockTries {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(feedLockPause):
		}
	}
}

// lockUnavailable reports whether a lock was not available, because of a deadlock (40P01) or not.
func lockUnavailable(err error) bool { return pg.LockTimedOut(err) || pg.IsCode(err, "40P01") }

func moveFeed(ctx context.Context, sub pgx.Tx) (loss FeedLoss, err error) {
	if _, err := sub.Exec(ctx, "SET LOCAL lock_timeout = "+pg.Millis(feedLockTimeout)); err != nil {
		return "", err
	}
	// An unfinished rewrite of tags is not repeated, so its remaining changes are in no feed.
	var lastChange, added, sweepingPosts int64
	var retagging bool
	if err := sub.QueryRow(ctx, inSchemas(`
		SELECT l.changes, r.changes, l.retag_below IS NOT NULL,
		       (SELECT count(*) FROM (SELECT FROM LIVE.sweeps w JOIN LIVE.posts p USING (account_id) LIMIT $1) AS p)
		  FROM LIVE.checkpoint l CROSS JOIN REBUILT.checkpoint r`), maxSwitchedChanges).Scan(&lastChange, &added, &retagging, &sweepingPosts); err != nil {
		return "", err
	}
	switch {
	case retagging:
		return FeedRetagging, nil
	case added+sweepingPosts >= maxSwitchedChanges:
		return FeedTooLong, nil
	}
	if _, err := sub.Exec(ctx, inSchemas(`
		INSERT INTO LIVE.changes (pos, did, rkey, was, at, tags)
		SELECT pos + $1, did, rkey, was, at, tags FROM REBUILT.changes`), lastChange); err != nil {
		return "", err
	}
	if _, err := sub.Exec(ctx, inSchemas(`INSERT INTO LIVE.change_tags (tag, pos) SELECT tag, pos + $1 FROM REBUILT.change_tags`), lastChange); err != nil {
		return "", err
	}
	tag, err := sub.Exec(ctx, inSchemas(`
		WITH written AS (
			INSERT INTO LIVE.changes (pos, did, rkey, was, at, tags)
			SELECT $1 + row_number() OVER (), a.did, p.rkey, true, clock_timestamp(), ARRAY(
			       SELECT DISTINCT ('x' || encode(substr(sha256(convert_to(tag, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint FROM unnest(p.tags) AS tag)
			  FROM LIVE.sweeps w JOIN LIVE.accounts a ON a.id = w.account_id JOIN LIVE.posts p ON p.account_id = a.id
			 WHERE EXISTS (SELECT FROM LIVE.tags t JOIN LIVE.post_tags pt ON pt.tag_id = t.id AND pt.key = p.key WHERE t.name = p.tags[1])
			RETURNING pos, tags)
		INSERT INTO LIVE.change_tags (tag, pos) SELECT unnest(tags), pos FROM written`), lastChange+added)
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
		// RowsAffected counts tags, of which a change can have several: take the last number from
		// the table.
		fmt.Sprintf(`UPDATE REBUILT.checkpoint SET changes_pruned = l.changes_pruned,
		        changes = CASE WHEN %d > 0 THEN (SELECT max(pos) FROM LIVE.changes) ELSE %d END
		   FROM LIVE.checkpoint l`, tag.RowsAffected(), lastChange+added),
		`DROP TABLE REBUILT.changes, REBUILT.change_tags, REBUILT.change_runs`,
		`ALTER TABLE LIVE.changes SET SCHEMA REBUILT`,
		`ALTER TABLE LIVE.change_tags SET SCHEMA REBUILT`,
		`ALTER TABLE LIVE.change_runs SET SCHEMA REBUILT`,
	} {
		if _, err := sub.Exec(ctx, inSchemas(sql)); err != nil {
			return "", err
		}
	}
	_, err = sub.Exec(ctx, "SET LOCAL lock_timeout = "+pg.Millis(pg.HoldLockTimeout))
	return "", err
}

// inSchemas inserts the names of the two schemas of a switch into a statement.
func inSchemas(sql string) string {
	return strings.NewReplacer("LIVE.", store.Live+".", "REBUILT.", store.Rebuilding+".", "SCHEMA REBUILT", "SCHEMA "+store.Rebuilding).Replace(sql)
}
