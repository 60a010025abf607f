package write

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/keys"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

const (
	// LeaseTTL is how long the indexer's lease outlives its last renewal.
	LeaseTTL = 5 * time.Second
	// RenewEvery is how often a holder that writes nothing renews it.
	RenewEvery     = LeaseTTL / 3
	releaseTimeout = 3 * time.Second
)

// seized marks the holder of a lease that was seized.
const seized = "seized by "

// Lead runs fn while holding the lease that take (Acquire or Seize) obtains, and gives the lease
// back afterwards. The error is take's or fn's.
func (w *Writer) Lead(ctx context.Context, take func(context.Context) (store.Checkpoint, error), fn func(from store.Checkpoint) error) error {
	from, err := take(ctx)
	if err != nil {
		return err
	}
	// If that fails, the lease expires; after a switch there is nothing to give back.
	defer func() { _ = w.Release(ctx) }()
	return fn(from)
}

// Keep runs fn, which may take long, and renews the lease during that time. If the lease is lost,
// fn's context ends, and the error is ErrLeaseLost. Other failures of a renewal are retried.
func (w *Writer) Keep(ctx context.Context, fn func(ctx context.Context) error) error {
	ctx, end := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(RenewEvery):
			}
			if err := w.Renew(ctx); errors.Is(err, ErrLeaseLost) {
				end(err)
			}
		}
	})
	err := fn(ctx)
	end(nil)
	renewing.Wait()
	if cause := context.Cause(ctx); errors.Is(cause, ErrLeaseLost) {
		return cause
	}
	return err
}

// Acquire takes the lease if it is free or already this writer's, and returns the checkpoint to
// continue from. The error is ErrLeaseHeld, ErrOutdated, ErrNotMigrated, or the database's.
func (w *Writer) Acquire(ctx context.Context) (store.Checkpoint, error) {
	// The holder of the lease may be inside a transaction: then this waits for its row, and sees
	// the result of that transaction. It waits without change_runs, which a switch that holds the
	// row needs.
	err := w.waiting(ctx, func(tx pgx.Tx) error {
		var epoch int64
		if err := tx.QueryRow(ctx, `
			UPDATE checkpoint
			   SET epoch = epoch + 1, holder = $1, lease_until = clock_timestamp() + $2
			 WHERE (holder = $1 OR lease_until < clock_timestamp()) AND writer_version <= $3
			RETURNING epoch`, w.holder, LeaseTTL, store.SchemaVersion).Scan(&epoch); err != nil {
			return err
		}
		begun, err := beginRun(ctx, tx, epoch)
		if err == nil && !begun {
			return pgx.ErrNoRows // the index was switched: the row was the former one's
		}
		return err
	})
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return store.Checkpoint{}, fmt.Errorf("acquire the indexer's lease: %w", pg.NotMigrated(err))
	}
	if err != nil {
		if _, err := readCheckpoint(ctx, w.pool, ""); err != nil {
			return store.Checkpoint{}, err
		}
		return store.Checkpoint{}, ErrLeaseHeld
	}
	cp, err := readCheckpoint(ctx, w.pool, "")
	if err != nil {
		return store.Checkpoint{}, err
	}
	if cp.holder != w.holder {
		return store.Checkpoint{}, ErrLeaseHeld
	}
	w.epoch, w.at, w.changes, w.unlisted = cp.epoch, cp.Seq, cp.changes, (*event.Key)(cp.unlisted)
	w.sweeping, w.retagging, w.filling, w.announcing = true, true, true, true // the previous holder may have left some
	// The schema may have changed: a rebuild may have been switched in.
	w.tagLists.forgetAll()
	w.langLists.forgetAll()
	return cp.Checkpoint, nil
}

// waiting runs fn, which waits for the checkpoint's row, in a transaction. It terminates a frozen
// holder of the row.
func (w *Writer) waiting(ctx context.Context, fn func(tx pgx.Tx) error) error {
	var before []string
	for {
		err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SELECT set_config('lock_timeout', $1, true)`, pg.Millis(w.patience)); err != nil {
				return err
			}
			return fn(tx)
		})
		if !pg.LockTimedOut(err) {
			return err
		}
		if before, err = w.endFrozen(ctx, before); err != nil {
			return fmt.Errorf("look at the holder of the checkpoint's row: %w", err)
		}
	}
}

// endFrozen terminates connections that hold a lock on the checkpoint and have made no progress
// since the previous call. It returns the progress of all that the server waits for within a
// statement, including the bytes of a COPY. No server timeout ends that wait, nor does
// pg_cancel_backend.
func (w *Writer) endFrozen(ctx context.Context, before []string) (progress []string, err error) {
	rows, err := w.pool.Query(ctx, `
		SELECT progress, progress = ANY($1::text[]) AND pg_terminate_backend(pid)
		  FROM (SELECT a.pid, concat_ws(' ', a.pid, a.query_start, c.bytes_processed) AS progress
		          FROM pg_stat_activity a LEFT JOIN pg_stat_progress_copy c ON c.pid = a.pid
		         WHERE a.state = 'active' AND a.wait_event IN ('ClientRead', 'ClientWrite')
		           AND a.datname = current_database() AND a.usename = current_user
		           AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.relation = 'checkpoint'::regclass)) AS holders`, before)
	if err != nil {
		return nil, err
	}
	var at string
	var ended *bool
	_, err = pgx.ForEachRow(rows, []any{&at, &ended}, func() error {
		progress = append(progress, at)
		return nil
	})
	return progress, err
}

// beginRun records that a new run numbers changes from here on. It reports whether the index still
// has the epoch: it may have been switched.
func beginRun(ctx context.Context, tx pgx.Tx, epoch int64) (bool, error) {
	tag, err := tx.Exec(ctx, `
		INSERT INTO change_runs (id, begun)
		SELECT floor(extract(epoch FROM clock_timestamp()))::bigint << $1 | $2, changes FROM checkpoint WHERE epoch = $3`,
		keys.RunBits, rand.Int64N(1<<keys.RunBits), epoch)
	return tag.RowsAffected() > 0, err
}

// Renew keeps the lease while there is nothing to apply. The error is
// ErrLeaseLost or the database's.
func (w *Writer) Renew(ctx context.Context) error {
	tag, err := w.pool.Exec(ctx, `
		UPDATE checkpoint SET lease_until = clock_timestamp() + $2 WHERE epoch = $1`, w.epoch, LeaseTTL)
	if err != nil {
		return fmt.Errorf("renew the indexer's lease: %w", pg.NotMigrated(err))
	}
	if tag.RowsAffected() == 0 {
		return ErrLeaseLost
	}
	return nil
}

// Seize takes the lease immediately, even from a holder that waited for it: for an operator's
// command while an indexer runs, which then becomes a standby. It waits for an open transaction.
// The error is ErrLeaseHeld while another command has seized the lease, ErrOutdated,
// ErrNotMigrated, or the database's.
func (w *Writer) Seize(ctx context.Context) (store.Checkpoint, error) {
	if !strings.HasPrefix(w.holder, seized) {
		w.holder = seized + w.holder
	}
	if err := w.waiting(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			UPDATE checkpoint
			   SET epoch = epoch + 1, holder = $1, lease_until = clock_timestamp() + $2
			 WHERE writer_version <= $3 AND (holder = $1 OR NOT starts_with(holder, $4) OR lease_until < clock_timestamp())`,
			w.holder, LeaseTTL, store.SchemaVersion, seized)
		return err
	}); err != nil {
		return store.Checkpoint{}, fmt.Errorf("seize the indexer's lease: %w", pg.NotMigrated(err))
	}
	// Acquire takes it now, or returns why it cannot.
	return w.Acquire(ctx)
}

// Release gives the lease back, so that the next holder need not wait for it to expire. It works
// even if the context is canceled.
func (w *Writer) Release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	_, err := w.pool.Exec(ctx, `
		UPDATE checkpoint SET holder = '', lease_until = 'epoch' WHERE epoch = $1`, w.epoch)
	if err != nil {
		return fmt.Errorf("release the indexer's lease: %w", err)
	}
	return nil
}

// Checkpoint returns the progress of the fold, whoever holds the lease.
func (w *Writer) Checkpoint(ctx context.Context) (store.Checkpoint, error) {
	cp, err := readCheckpoint(ctx, w.pool, "")
	return cp.Checkpoint, err
}

// holding runs fn in a transaction that holds the checkpoint's row under the lease, with the
// index's current upstream time.
func (w *Writer) holding(ctx context.Context, fn func(tx pgx.Tx, now time.Time) error) error {
	return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		var epoch int64
		var now time.Time
		err := tx.QueryRow(ctx, `SELECT epoch, LEAST(source_time, clock_timestamp()) FROM checkpoint FOR UPDATE`).Scan(&epoch, &now)
		if err != nil {
			return fmt.Errorf("read the checkpoint: %w", pg.NotMigrated(err))
		}
		if epoch != w.epoch {
			return ErrLeaseLost
		}
		if err := fn(tx, now); err != nil {
			return err
		}
		// The lease could not be renewed while fn ran, and may have expired.
		_, err = tx.Exec(ctx, `UPDATE checkpoint SET lease_until = clock_timestamp() + $1`, LeaseTTL)
		return err
	})
}
