package write

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/store/internal/keys"
)

// hoursPruned is the age, in hours before the checkpoint's time, at which rows of tag_hours are
// deleted. It is a day more than the age up to which posts are counted: if an upstream clock goes
// back, a deleted row would otherwise be created again with too low a count.
const hoursPruned = hoursKept + 24

// MarkerPass is how far a pass over all removal markers has come. The zero value is its beginning.
type MarkerPass struct {
	account int64
	rkey    string
}

// PruneMarkers examines the next limit removal markers and deletes those of removals that are older
// than age by upstream time, counted back from the checkpoint's time. It works in one transaction,
// under the lease. done reports that there are no more.
//
// A checkpoint's time ahead of the database's clock counts as that clock: an upstream host with a
// wrong clock must not make everything old.
//
// With erased set, a marker stays until a pass of erasing that began after the removal is complete
// (see SetErasure): it proves that the post's payload may be erased.
//
// The error is ErrLeaseLost or the database's.
func (w *Writer) PruneMarkers(ctx context.Context, age time.Duration, erased bool, from MarkerPass, limit int) (next MarkerPass, deleted int64, done bool, err error) {
	seen := 0
	err = w.holding(ctx, func(tx pgx.Tx, now time.Time) error {
		return tx.QueryRow(ctx, `
			WITH seen AS MATERIALIZED (
				SELECT account_id, rkey, removed_at, seq FROM removed_posts
				 WHERE (account_id, rkey) > ($1, $2) ORDER BY account_id, rkey LIMIT $3),
			gone AS (
				DELETE FROM removed_posts r USING seen s
				 WHERE r.account_id = s.account_id AND r.rkey = s.rkey AND s.removed_at < $4
				   AND (NOT $5 OR s.seq <= (SELECT erased_through FROM heartbeat)) RETURNING 1)
			SELECT (SELECT count(*) FROM seen), (SELECT count(*) FROM gone), l.account_id, l.rkey
			  FROM (SELECT account_id, rkey FROM seen UNION ALL SELECT $1, $2 ORDER BY 1 DESC, 2 DESC LIMIT 1) AS l`,
			from.account, from.rkey, limit, now.Add(-age), erased).Scan(&seen, &deleted, &next.account, &next.rkey)
	})
	if err != nil {
		return from, 0, false, fmt.Errorf("prune removal markers: %w", err)
	}
	return next, deleted, seen < limit, nil
}

// PruneHours deletes up to limit rows of tag_hours that no history shows and no batch changes any
// more, in one transaction, under the lease. done reports that there are no more. The error is
// ErrLeaseLost or the database's.
func (w *Writer) PruneHours(ctx context.Context, limit int) (deleted int64, done bool, err error) {
	err = w.holding(ctx, func(tx pgx.Tx, now time.Time) error {
		tag, err := tx.Exec(ctx, `
			WITH old AS MATERIALIZED (SELECT hour, tag_id FROM tag_hours WHERE hour < $1 ORDER BY hour, tag_id LIMIT $2)
			DELETE FROM tag_hours h USING old WHERE h.hour = old.hour AND h.tag_id = old.tag_id`, keys.Hour(now)-hoursPruned, limit)
		deleted = tag.RowsAffected()
		return err
	})
	if err != nil {
		return 0, false, fmt.Errorf("prune hourly counts: %w", err)
	}
	return deleted, deleted < int64(limit), nil
}

// PruneTags examines the next limit rows of tags after an id and deletes those without visible
// posts, in one transaction, under the lease, because their names are user content. A tag that
// returns gets a new row. done reports that there are no more. The error is ErrLeaseLost or the
// database's.
func (w *Writer) PruneTags(ctx context.Context, from int64, limit int) (next, deleted int64, done bool, err error) {
	// Counts that a sweep will apply refer to the tag's id.
	return w.pruneLists(ctx, w.tagLists, `
		AND NOT EXISTS (SELECT FROM sweeps w JOIN sweep_counts c USING (account_id) WHERE c.tag_id = t.id)`, from, limit)
}

// PruneLangs is PruneTags for languages.
func (w *Writer) PruneLangs(ctx context.Context, from int64, limit int) (next, deleted int64, done bool, err error) {
	return w.pruneLists(ctx, w.langLists, "", from, limit)
}

func (w *Writer) pruneLists(ctx context.Context, l *lists, and string, from int64, limit int) (next, deleted int64, done bool, err error) {
	var seen int
	var names []string
	err = w.holding(ctx, func(tx pgx.Tx, _ time.Time) error {
		return tx.QueryRow(ctx, `
			WITH seen AS MATERIALIZED (SELECT id, posts FROM `+l.table+` WHERE id > $1 ORDER BY id LIMIT $2),
			gone AS (
				DELETE FROM `+l.table+` t USING seen s
				 WHERE t.id = s.id AND s.posts = 0 AND NOT EXISTS (SELECT FROM `+l.rows+` l WHERE l.`+l.column+` = t.id)`+and+`
				RETURNING t.name)
			SELECT (SELECT count(*) FROM seen), (SELECT coalesce(max(id), $1) FROM seen), ARRAY(SELECT name FROM gone)`,
			from, limit).Scan(&seen, &next, &names)
	})
	if err != nil {
		l.forgetAll() // the transaction may have been committed
		return from, 0, false, fmt.Errorf("prune %s: %w", l.table, err)
	}
	l.forget(names)
	return next, int64(len(names)), seen < limit, nil
}
