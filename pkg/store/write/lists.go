package write

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
)

// lists are the lists of all tags, or of all languages: one row of table for each, with its name,
// id and count, and a list row for each of its posts. Ids are cached by name; new ones of the
// current transaction are kept separately until it is committed.
type lists struct {
	table string
	// rows is the table of list rows, and column its reference to table.
	rows, column string
	// of returns the names of the lists that a visible post is in.
	of           func(*Post) []string
	known, fresh map[string]int64
}

// maxKnown bounds a cache of ids: about 10 MB of short names.
const maxKnown = 100_000

func newTagLists() *lists {
	return &lists{
		table: "tags", rows: "post_tags", column: "tag_id", of: func(p *Post) []string { return p.Tags },
		known: map[string]int64{}, fresh: map[string]int64{},
	}
}

func newLangLists() *lists {
	return &lists{
		table: "langs", rows: "post_langs", column: "lang_id", of: func(p *Post) []string { return event.LangRanges(p.Langs) },
		known: map[string]int64{}, fresh: map[string]int64{},
	}
}

func (l *lists) get(name string) (int64, bool) {
	if id, ok := l.fresh[name]; ok {
		return id, true
	}
	id, ok := l.known[name]
	return id, ok
}

func (l *lists) keepNew() {
	// Names repeat with a heavy-tailed distribution: clearing the cache now and then costs one
	// look-up of the common ones, and needs no bookkeeping per use.
	if len(l.known)+len(l.fresh) > maxKnown {
		clear(l.known)
	}
	maps.Copy(l.known, l.fresh)
	clear(l.fresh)
}

func (l *lists) forgetNew() { clear(l.fresh) }

func (l *lists) forgetAll() {
	clear(l.fresh)
	clear(l.known)
}

// forget removes names whose rows were deleted.
func (l *lists) forget(names []string) {
	for _, n := range names {
		delete(l.known, n)
	}
}

// resolve fills the cache for names, creating those that do not exist.
func (l *lists) resolve(ctx context.Context, tx pgx.Tx, names []string) error {
	var missing []string
	for _, n := range names {
		if _, ok := l.get(n); !ok {
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	missing = slices.Compact(missing)
	if err := l.lookUp(ctx, tx, missing); err != nil {
		return err
	}
	missing = slices.DeleteFunc(missing, func(n string) bool { _, ok := l.get(n); return ok })
	if len(missing) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `INSERT INTO `+l.table+` (name) SELECT unnest($1::text[]) RETURNING name, id`, missing)
	if err != nil {
		return fmt.Errorf("create %d %s: %w", len(missing), l.table, err)
	}
	return l.take(rows, "create")
}

func (l *lists) lookUp(ctx context.Context, tx pgx.Tx, names []string) error {
	rows, err := tx.Query(ctx, `SELECT name, id FROM `+l.table+` WHERE name = ANY($1::text[])`, names)
	if err != nil {
		return fmt.Errorf("look up %d %s: %w", len(names), l.table, err)
	}
	return l.take(rows, "look up")
}

func (l *lists) take(rows pgx.Rows, what string) error {
	var name string
	var id int64
	_, err := pgx.ForEachRow(rows, []any{&name, &id}, func() error {
		l.fresh[name] = id
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, l.table, err)
	}
	return nil
}
