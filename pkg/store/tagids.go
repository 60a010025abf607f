package store

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
)

// maxTagIDs bounds the cache of tag ids: about 10 MB of short names.
const maxTagIDs = 100_000

// tagIDs remembers the ids of tags. Ids that the transaction under way learned
// are kept apart until it is committed.
type tagIDs struct {
	known, fresh map[string]int64
}

func newTagIDs() *tagIDs {
	return &tagIDs{known: map[string]int64{}, fresh: map[string]int64{}}
}

func (c *tagIDs) get(name string) (int64, bool) {
	if id, ok := c.fresh[name]; ok {
		return id, true
	}
	id, ok := c.known[name]
	return id, ok
}

func (c *tagIDs) keepNew() {
	// Tags repeat by a heavy-tailed law: starting over now and then costs one
	// look-up of the common ones, and needs no bookkeeping per use.
	if len(c.known)+len(c.fresh) > maxTagIDs {
		clear(c.known)
	}
	maps.Copy(c.known, c.fresh)
	clear(c.fresh)
}

func (c *tagIDs) forgetNew() { clear(c.fresh) }

func (c *tagIDs) forgetAll() {
	clear(c.fresh)
	clear(c.known)
}

// resolve fills the cache for names, creating the tags that do not exist.
func (c *tagIDs) resolve(ctx context.Context, tx pgx.Tx, names []string) error {
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
	rows, err := tx.Query(ctx, `INSERT INTO tags (name) SELECT unnest($1::text[]) RETURNING name, id`, missing)
	if err != nil {
		return fmt.Errorf("create %d tags: %w", len(missing), err)
	}
	return c.take(rows, "create tags")
}

func (c *tagIDs) lookUp(ctx context.Context, tx pgx.Tx, names []string) error {
	rows, err := tx.Query(ctx, `SELECT name, id FROM tags WHERE name = ANY($1::text[])`, names)
	if err != nil {
		return fmt.Errorf("look up %d tags: %w", len(names), err)
	}
	return c.take(rows, "look up tags")
}

func (c *tagIDs) take(rows pgx.Rows, what string) error {
	var name string
	var id int64
	_, err := pgx.ForEachRow(rows, []any{&name, &id}, func() error {
		c.fresh[name] = id
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
