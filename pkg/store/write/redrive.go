package write

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// RecountDeadLetters sets the total of dead letters to the result of count for the given
// checkpoint: the number of letters for messages up to it. The checkpoint does not move during the
// call, so a letter that is stored before the checkpoint passes its message is counted once, here
// or by the indexer. It needs no lease: no fold depends on this number.
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
		// No post notes the message of a dropped letter: a full pass must read it.
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
