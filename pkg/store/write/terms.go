package write

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
)

// maxTerms bounds a cache of ids: about 10 MB of short names.
const maxTerms = 100_000

// terms caches the ids of terms under which posts are listed: the rows of tags, or of langs. New
// ids of the current transaction are kept separately until it is committed.
type terms struct {
	table        string
	known, fresh map[string]int64
}

func newTerms(table string) *terms {
	return &terms{table: table, known: map[string]int64{}, fresh: map[string]int64{}}
}

func (c *terms) get(name string) (int64, bool) {
	if id, ok := c.fresh[name]; ok {
		return id, true
	}
	id, ok := c.known[name]
	return id, ok
}

func (c *terms) keepNew() {
	// Names repeat with a heavy-tailed distribution: clearing the cache now and then costs one
	// look-up of the common ones, and needs no bookkeeping per use.
	if len(c.known)+len(c.fresh) > maxTerms {
		clear(c.known)
	}
	maps.Copy(c.known, c.fresh)
	clear(c.fresh)
}

func (c *terms) forgetNew() { clear(c.fresh) }

func (c *terms) forgetAll() {
	clear(c.fresh)
	clear(c.known)
}

// forget removes names whose rows were deleted.
func (c *terms) forget(names []string) {
	for _, n := range names {
		delete(c.known, n)
	}
}

// resolve fills the cache for names, creating those that do not exist.
func (c *terms) resolve(ctx context.Context, tx pgx.Tx, names []string) error {
	var missing []string
	for _, n := range names {
		if _, ok := c.get(n); !ok {
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	missing = slices.Compact(missing)
	if err := c.lookUp(ctx, tx, missing); err != nil {
		return err
	}
	missing = slices.DeleteFunc(missing, func(n string) bool { _, ok := c.get(n); return ok })
	if len(missing) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `INSERT INTO `+c.table+` (name) SELECT unnest($1::text[]) RETURNING name, id`, missing)
	if err != nil {
		return fmt.Errorf("create %d %s: %w", len(missing), c.table, err)
	}
	return c.take(rows, "create")
}

func (c *terms) lookUp(ctx context.Context, tx pgx.Tx, names []string) error {
	rows, err := tx.Query(ctx, `SELECT name, id FROM `+c.table+` WHERE name = ANY($1::text[])`, names)
	if err != nil {
		return fmt.Errorf("look up %d %s: %w", len(names), c.table, err)
	}
	return c.take(rows, "look up")
}

func (c *terms) take(rows pgx.Rows, what string) error {
	var name string
	var id int64
	_, err := pgx.ForEachRow(rows, []any{&name, &id}, func() error {
		c.fresh[name] = id
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, c.table, err)
	}
	return nil
}
