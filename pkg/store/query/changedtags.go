package query

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/store/internal/keys"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// ChangedTags are the tags that have changes after a position. One query finds the changed lists
// among all that are watched.
type ChangedTags struct {
	// Now is the end of the feed.
	Now  FeedPosition
	all  bool
	tags map[int64]bool
}

// maxChangedTags bounds the changes that are read; if there are more, every list may have some.
const maxChangedTags = 1000

// Include reports whether a list with these FeedTags may have changes.
func (n ChangedTags) Include(tags []int64) bool {
	if n.all {
		return true
	}
	for _, tag := range tags {
		if n.tags[tag] {
			return true
		}
	}
	return false
}

// FeedTags returns the tags under which the feed has all changes of a query's posts.
func (q PostQuery) FeedTags() []int64 {
	var tags []int64
	for _, tag := range q.watchedTags(nil) {
		tags = append(tags, keys.TagHash(tag))
	}
	return tags
}

// ChangedTags reads the changes after a position. If the position is invalid or from an earlier
// run, every list may have changes.
func (r *Reader) ChangedTags(ctx context.Context, after FeedPosition) (ChangedTags, error) {
	var n ChangedTags
	err := r.query(ctx, `
		SELECT c.changes, r.id, ARRAY(
			SELECT DISTINCT tag FROM (
				SELECT tags FROM changes WHERE r.id = $2 AND pos > $1 AND c.changes <= $1 + $3 ORDER BY pos LIMIT $3) AS l, unnest(l.tags) AS tag)
		  FROM checkpoint c CROSS JOIN LATERAL (SELECT id FROM change_runs ORDER BY n DESC LIMIT 1) AS r`,
		[]any{after.Change, after.Run, int64(maxChangedTags)}, func(rows pgx.Rows) error {
			var tags []int64
			if err := scanOne(rows, &n.Now.Change, &n.Now.Run, &tags); err != nil {
				return err
			}
			n.all = n.Now.Run != after.Run || n.Now.Change > after.Change+maxChangedTags
			n.tags = make(map[int64]bool, len(tags))
			for _, tag := range tags {
				n.tags[tag] = true
			}
			return nil
		})
	if err != nil {
		return n, fmt.Errorf("look at the change feed's end: %w", pg.NotMigrated(err))
	}
	return n, nil
}
