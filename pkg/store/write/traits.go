package write

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/keys"
)

// fillPosts is how many posts one step of filling in traits looks at: some tens of milliseconds.
const fillPosts = 1000

// Filling reports whether there may be posts whose traits an older program did not write.
func (w *Writer) Filling() bool { return w.filling }

// FillTraits works out the traits of some posts, in one transaction under the lease, the newest
// first; checkpoint.traits_below says how far that has come. What arrives in between has its traits
// already. begun, done and the error are as of Retag.
func (w *Writer) FillTraits(ctx context.Context) (begun, done bool, err error) {
	err = w.Apply(ctx, func(tx *Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		begun, done, err = tx.fillTraits(ctx)
		return cp, err
	})
	w.filling = err != nil || !done
	return begun, done, err
}

func (t *Tx) fillTraits(ctx context.Context) (begun, done bool, err error) {
	var below *[16]byte
	if err := t.tx.QueryRow(ctx, `SELECT traits_below FROM checkpoint`).Scan(&below); err != nil {
		return false, false, fmt.Errorf("look up how far traits were filled in: %w", err)
	}
	if below == nil {
		return true, true, nil
	}
	begun = *below == keys.Last
	rows, _ := t.tx.Query(ctx, `SELECT key, traits, record FROM posts WHERE key < $1 ORDER BY key DESC LIMIT $2`, *below, fillPosts)
	var last event.Key
	var has event.Traits
	var record []byte
	var filled []event.Key
	var traits []int16
	n := 0
	if _, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&last), &has, &record}, func() error {
		n++
		if now := event.TraitsOf(record); now != has {
			filled, traits = append(filled, last), append(traits, int16(now))
		}
		return nil
	}); err != nil {
		return false, false, fmt.Errorf("look for posts without traits: %w", err)
	}
	if len(filled) > 0 {
		if _, err := t.tx.Exec(ctx, `
			UPDATE posts p SET traits = i.traits FROM unnest($1::uuid[], $2::smallint[]) AS i(key, traits) WHERE p.key = i.key`, filled, traits); err != nil {
			return false, false, fmt.Errorf("fill in the traits of %d posts: %w", len(filled), err)
		}
	}
	done = n < fillPosts
	if _, err := t.tx.Exec(ctx, `UPDATE checkpoint SET traits_below = CASE WHEN $1 THEN NULL ELSE $2::uuid END`, done, last); err != nil {
		return false, false, fmt.Errorf("record how far traits were filled in: %w", err)
	}
	return begun, done, nil
}
