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

// An index without readers is filled without its lists, post_tags and post_langs, and
// without counts; they are made from posts at the end, in the order of their keys. That is
// cheaper than a change of each with every batch.

// errListing is returned by Apply for an index whose lists are partly made: List comes first.
var errListing = errors.New("the lists of this index are partly made: run the rebuild again to finish them")

// How much one transaction of List does.
const (
	listPosts = 20_000
	listTerms = 10_000
)

// ListLater has the lists and counts of an index that is still empty be made by List. It changes
// nothing where the index is not empty. The error is ErrLeaseLost or the database's.
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

// Unlisted reports whether List has something to do, and Listing whether it has begun: then
// nothing can be applied until it is done.
func (w *Writer) Unlisted() bool { return w.unlisted != nil }
func (w *Writer) Listing() bool  { return w.unlisted != nil && *w.unlisted != event.Key{} }

// List makes the lists and counts that ListLater left out, in transactions of some seconds under
// the lease. It can be interrupted and continues where it was. No account may be being swept. The
// error is ErrLeaseLost or the database's.
func (w *Writer) List(ctx context.Context) error {
	if !w.Unlisted() {
		return nil
	}
	if err := w.list(ctx); err != nil {
		w.langs.forgetNew()
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
	for _, l := range []struct{ terms, list, column, hourly string }{
		{"tags", "post_tags", "tag_id", fmt.Sprintf(", hourly = c.posts >= %d", store.HourlyTag)},
		{"langs", "post_langs", "lang_id", ""},
	} {
		var last int64
		if err := w.pool.QueryRow(ctx, `SELECT COALESCE(max(id), 0) FROM `+l.terms).Scan(&last); err != nil {
			return err
		}
		for from := int64(0); from < last; from += w.listTerms {
			if err := w.holding(ctx, func(tx pgx.Tx, now time.Time) error {
				if _, err := tx.Exec(ctx, `
					UPDATE `+l.terms+` t SET posts = c.posts`+l.hourly+`
					  FROM (SELECT `+l.column+` AS id, count(*) AS posts FROM `+l.list+` WHERE `+l.column+` > $1 AND `+l.column+` <= $2 GROUP BY 1) AS c
					 WHERE c.id = t.id`, from, from+w.listTerms); err != nil || l.hourly == "" {
					return err
				}
				first := event.FirstKey(time.Unix(max(keys.Hour(now)-hoursKept, 0)*3600, 0))
				_, err := tx.Exec(ctx, `
					INSERT INTO tag_hours (hour, tag_id, posts)
					SELECT ('x' || left(replace(l.key::text, '-', ''), 16))::bit(64)::bigint / 3600000000, t.id, count(*)
					  FROM tags t JOIN post_tags l ON l.tag_id = t.id
					 WHERE t.id > $1 AND t.id <= $2 AND t.hourly AND l.key >= $3
					 GROUP BY 1, 2
					ON CONFLICT (hour, tag_id) DO UPDATE SET posts = excluded.posts`, from, from+w.listTerms, first)
				return err
			}); err != nil {
				return err
			}
		}
	}
	return w.holding(ctx, func(tx pgx.Tx, _ time.Time) error {
		_, err := tx.Exec(ctx, `UPDATE checkpoint SET tags = (SELECT count(*) FROM tags WHERE posts > 0), unlisted_from = NULL`)
		return err
	})
}

// listSome lists the next posts, in a transaction, and reports whether there were any.
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
	w.langs.keepNew()
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
	if err := tx.QueryRow(ctx, `
		SELECT count(*), COALESCE((array_agg(key ORDER BY key DESC))[1], $1)
		  FROM (SELECT key FROM posts WHERE key >= $1 ORDER BY key LIMIT $2) AS p`, from, w.listPosts).Scan(&n, (*[16]byte)(&last)); err != nil || n == 0 {
		return 0, from, err
	}
	const visible = ` FROM posts p JOIN accounts a ON a.id = p.account_id AND a.state = 0`
	const within = ` WHERE p.key >= $1 AND p.key <= $2`
	rows, _ := tx.Query(ctx, `SELECT DISTINCT p.langs`+visible+within, from, last)
	spoken, err := pgx.CollectRows(rows, pgx.RowTo[[]string])
	if err != nil {
		return 0, from, err
	}
	var names, langs []string
	for _, s := range spoken {
		names = append(names, event.LangRanges(s)...)
	}
	if err := w.langs.resolve(ctx, tx, names); err != nil {
		return 0, from, err
	}
	var ids []int64
	for _, s := range spoken {
		for _, name := range event.LangRanges(s) {
			id, _ := w.langs.get(name)
			langs, ids = append(langs, textArray(s)), append(ids, id)
		}
	}
	next = keys.Step(last, +1)
	for _, q := range []struct {
		sql  string
		args []any
	}{
		{`INSERT INTO tags (name) SELECT DISTINCT tag` + visible + `, unnest(p.tags) AS tag` + within + ` AND NOT EXISTS (SELECT FROM tags t WHERE t.name = tag)`, nil},
		{`INSERT INTO post_tags (tag_id, key)
			SELECT DISTINCT t.id, p.key` + visible + `, unnest(p.tags) AS tag JOIN tags t ON t.name = tag` + within + ` ORDER BY 1, 2`, nil},
		{`INSERT INTO post_langs (lang_id, key)
			SELECT DISTINCT l.id, p.key` + visible + ` JOIN unnest($3::text[], $4::bigint[]) AS l(langs, id) ON l.langs::text[] = p.langs` + within + ` ORDER BY 1, 2`, []any{langs, ids}},
		{`UPDATE checkpoint SET unlisted_from = $3, visible_posts = visible_posts + (SELECT count(*)` + visible + within + `)`, []any{next}},
	} {
		if _, err := tx.Exec(ctx, q.sql, append([]any{from, last}, q.args...)...); err != nil {
			return 0, from, err
		}
	}
	return n, next, nil
}
