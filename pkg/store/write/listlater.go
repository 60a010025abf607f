package write

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/keys"
)

// An index without readers is filled without counts and without its lists, post_tags and
// post_langs. They are made from posts at the end, in key order. That is cheaper than updating them
// with every batch.

// errListing is returned by Apply for an index whose lists are partly made: List comes first.
var errListing = errors.New("the lists of this index are partly made: run the rebuild again to finish them")

// One transaction of List lists so many posts, or counts so many lists.
const (
	listPosts  = 10_000
	listCounts = 10_000
)

// ListLater leaves the lists and counts of an empty index to List. It changes nothing if the index
// is not empty. The error is ErrLeaseLost or the database's.
func (w *Writer) ListLater(ctx context.Context) error {
	err := w.holding(ctx, func(tx pgx.Tx, _ time.Time) error {
		tag, err := tx.Exec(ctx, `UPDATE checkpoint SET unlisted_from = $1 WHERE seq = 0 AND posts = 0`, event.Key{})
		if tag.RowsAffected() > 0 {
			w.unlisted = &event.Key{}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("leave the lists for later: %w", err)
	}
	return nil
}

// Unlisted reports whether List has work to do, and Listing whether it has begun: nothing can be
// applied until it is done.
func (w *Writer) Unlisted() bool { return w.unlisted != nil }
func (w *Writer) Listing() bool  { return w.unlisted != nil && *w.unlisted != event.Key{} }

// List makes the lists and counts that ListLater left out, in transactions of some seconds under
// the lease. It can be interrupted and continues where it was. It fails while an account is being
// swept. The error is ErrLeaseLost or the database's.
func (w *Writer) List(ctx context.Context) error {
	if !w.Unlisted() {
		return nil
	}
	if err := w.list(ctx); err != nil {
		w.tagLists.forgetNew()
		w.langLists.forgetNew()
		return fmt.Errorf("make the lists: %w", err)
	}
	w.unlisted = nil
	return nil
}

func (w *Writer) list(ctx context.Context) error {
	for more := true; more; {
		var err error
		if more, err = w.listSome(ctx); err != nil {
			return err
		}
	}
	for _, l := range []*lists{w.tagLists, w.langLists} {
		if err := w.countLists(ctx, l); err != nil {
			return err
		}
	}
	return w.holding(ctx, func(tx pgx.Tx, _ time.Time) error {
		_, err := tx.Exec(ctx, `UPDATE checkpoint SET tags = (SELECT count(*) FROM tags WHERE posts > 0), unlisted_from = NULL`)
		return err
	})
}

// countLists counts the rows of lists, and those of tags also by hour.
func (w *Writer) countLists(ctx context.Context, l *lists) error {
	hourly := ""
	if l == w.tagLists {
		hourly = fmt.Sprintf(", hourly = c.posts >= %d", store.HourlyTag)
	}
	var last int64
	if err := w.pool.QueryRow(ctx, `SELECT COALESCE(max(id), 0) FROM `+l.table).Scan(&last); err != nil {
		return err
	}
	for from := int64(0); from < last; from += w.listCounts {
		if err := w.holding(ctx, func(tx pgx.Tx, now time.Time) error {
			if _, err := tx.Exec(ctx, `
				UPDATE `+l.table+` t SET posts = c.posts`+hourly+`
				  FROM (SELECT `+l.column+` AS id, count(*) AS posts FROM `+l.rows+` WHERE `+l.column+` > $1 AND `+l.column+` <= $2 GROUP BY 1) AS c
				 WHERE c.id = t.id`, from, from+w.listCounts); err != nil || hourly == "" {
				return err
			}
			_, err := tx.Exec(ctx, `
				INSERT INTO tag_hours (hour, tag_id, posts)
				SELECT ('x' || left(replace(l.key::text, '-', ''), 16))::bit(64)::bigint / 3600000000, t.id, count(*)
				  FROM tags t JOIN post_tags l ON l.tag_id = t.id
				 WHERE t.id > $1 AND t.id <= $2 AND t.hourly AND l.key >= $3
				 GROUP BY 1, 2
				ON CONFLICT (hour, tag_id) DO UPDATE SET posts = excluded.posts`, from, from+w.listCounts, keys.FirstOfHour(keys.Hour(now)-hoursKept))
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// listSome lists the next posts in one transaction, and reports whether there were any.
func (w *Writer) listSome(ctx context.Context) (more bool, err error) {
	var n int
	var next event.Key
	err = w.holding(ctx, func(tx pgx.Tx, _ time.Time) (err error) {
		n, next, err = w.listPiece(ctx, tx)
		return err
	})
	if err != nil {
		return false, err
	}
	w.tagLists.keepNew()
	w.langLists.keepNew()
	w.unlisted = &next
	return n > 0, nil
}

// listPiece lists the next posts and returns how many, and the key to continue from.
func (w *Writer) listPiece(ctx context.Context, tx pgx.Tx) (n int, next event.Key, err error) {
	var from, last event.Key
	var sweeping bool
	if err := tx.QueryRow(ctx, `
		SELECT unlisted_from, EXISTS (SELECT FROM sweeps) FROM checkpoint`).Scan((*[16]byte)(&from), &sweeping); err != nil {
		return 0, from, err
	}
	if sweeping {
		return 0, from, errors.New("an account is being swept")
	}
	rows, _ := tx.Query(ctx, `
		SELECT p.key, p.tags, p.langs, a.state IS NOT DISTINCT FROM 0
		  FROM posts p LEFT JOIN accounts a ON a.id = p.account_id WHERE p.key >= $1 ORDER BY p.key LIMIT $2`, from, w.listPosts)
	var listed []PostChange
	var p Post
	var visible bool
	if _, err := pgx.ForEachRow(rows, []any{&p.Key, &p.Tags, &p.Langs, &visible}, func() error {
		n++
		last = p.Key
		if visible {
			listed = append(listed, PostChange{New: &Post{Key: p.Key, Tags: p.Tags, Langs: p.Langs}, NewVisible: true})
		}
		p.Tags, p.Langs = nil, nil // the next row must not overwrite them
		return nil
	}); err != nil || n == 0 {
		return 0, from, err
	}
	t := &Tx{tx: tx}
	for _, l := range []*lists{w.tagLists, w.langLists} {
		if _, _, err := t.writeRows(ctx, l, listed); err != nil {
			return 0, from, err
		}
	}
	next = keys.Step(last, +1)
	_, err = tx.Exec(ctx, `UPDATE checkpoint SET unlisted_from = $1, visible_posts = visible_posts + $2`, next, len(listed))
	return n, next, err
}
