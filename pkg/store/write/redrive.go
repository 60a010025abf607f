package write

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// RecountDeadLetters sets the total of dead letters to what count returns for
// the checkpoint that it is given: how many letters wait of messages up to
// there. The checkpoint stands still meanwhile, so a letter that is put before
// its message is passed is counted once, here or by the indexer. It needs no
// lease: nothing is folded by this number.
func (w *Writer) RecountDeadLetters(ctx context.Context, count func(ctx context.Context, checkpoint uint64) (int64, error)) error {
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		cp, err := readCheckpoint(ctx, tx, "FOR UPDATE")
		if err != nil {
			return err
		}
		n, err := count(ctx, cp.Seq)
		if err != nil {
			return err
		}
		// The message of a letter that was dropped is noted by no post: a full pass has to look at it.
		if _, err := tx.Exec(ctx, `UPDATE heartbeat SET erase_looked = 0 WHERE $1 < (SELECT dead_letters FROM checkpoint)`, n); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE checkpoint SET dead_letters = $1`, n)
		return err
	})
	if err != nil {
		return fmt.Errorf("count the dead letters: %w", err)
	}
	return nil
}
