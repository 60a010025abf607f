package write

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// seized marks the holder of a lease that was seized.
const seized = "seized by "

// Seize takes the lease at once from a holder that waited for it: for an
// operator's command beside a running indexer, which stands by from then on. A
// transaction under way is waited for. The error is ErrLeaseHeld while another
// command has seized it, ErrOutdated, ErrNotMigrated, or the database's.
func (w *Writer) Seize(ctx context.Context) (store.Checkpoint, error) {
	if !strings.HasPrefix(w.holder, seized) {
		w.holder = seized + w.holder
	}
	if _, err := w.pool.Exec(ctx, `
		UPDATE checkpoint
		   SET epoch = epoch + 1, holder = $1, lease_until = clock_timestamp() + $2
		 WHERE writer_version <= $3 AND (holder = $1 OR NOT starts_with(holder, $4) OR lease_until < clock_timestamp())`,
		w.holder, LeaseTTL, store.SchemaVersion, seized); err != nil {
		return store.Checkpoint{}, fmt.Errorf("seize the indexer's lease: %w", pg.NotMigrated(err))
	}
	// It is this holder's now, or Acquire says why not.
	return w.Acquire(ctx)
}

// Checkpoint returns how far the fold has come, whoever has the lease.
func (w *Writer) Checkpoint(ctx context.Context) (store.Checkpoint, error) {
	cp, err := readCheckpoint(ctx, w.pool, "")
	return cp.Checkpoint, err
}

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
