package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNotCaughtUp is returned by Switch while the rebuilt schema is behind the
// live one: apply more, then try again.
var ErrNotCaughtUp = errors.New("the rebuilt index is behind the live one")

const (
	// switchLockTimeout bounds how long a switch waits for the live indexer, and
	// switchTimeout how long it makes the live indexer wait.
	switchLockTimeout = 5 * time.Second
	switchTimeout     = 30 * time.Second
	// retireLockTimeout bounds how long removing the former schema waits for
	// readers that began before the switch.
	retireLockTimeout = 30 * time.Second
)

// Owner runs what needs the owner's role: it creates, switches and removes
// whole schemas.
type Owner struct {
	options Options
}

// NewOwner returns an Owner that connects with o for each thing it does.
func NewOwner(o Options) *Owner { return &Owner{options: o} }

func (o *Owner) do(ctx context.Context, p purpose, fn func(conn *pgx.Conn) error) error {
	t, err := o.options.target(p)
	if err != nil {
		return err
	}
	conn, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return fn(conn)
}

// CheckpointOf returns the checkpoint of a schema, ok false where the schema
// does not exist.
func (o *Owner) CheckpointOf(ctx context.Context, schema string) (cp Checkpoint, ok bool, err error) {
	err = o.do(ctx, reading, func(conn *pgx.Conn) error {
		return beginFunc(ctx, conn, pgx.TxOptions{}, baseSettings(schema), func(tx pgx.Tx) (err error) {
			cp, _, _, err = readCheckpoint(ctx, tx, "")
			return err
		})
	})
	if errors.Is(err, ErrNotMigrated) {
		return Checkpoint{}, false, nil
	}
	return cp, err == nil, err
}

// Leased reports whether some program has the lease of a schema: its indexer, or the
// rebuild that fills it. It is false where the schema does not exist.
func (o *Owner) Leased(ctx context.Context, schema string) (leased bool, err error) {
	err = o.do(ctx, reading, func(conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, "SELECT holder <> '' AND lease_until > clock_timestamp() FROM "+qualified(schema, "checkpoint")).Scan(&leased)
		if err = notMigrated(err); err != nil && !errors.Is(err, ErrNotMigrated) {
			return fmt.Errorf("look for the lease of schema %s: %w", schema, err)
		}
		return nil
	})
	return leased, err
}

// Drop removes a schema and everything in it, if it exists. Live is refused.
func (o *Owner) Drop(ctx context.Context, schema string) error {
	if schema == Live {
		return errors.New("drop schema: refusing to drop the live one")
	}
	return o.do(ctx, owning, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "SET lock_timeout = "+millis(retireLockTimeout)); err != nil {
			return fmt.Errorf("drop schema %s: %w", schema, err)
		}
		if _, err := conn.Exec(ctx, "DROP SCHEMA IF EXISTS "+pgx.Identifier{schema}.Sanitize()+" CASCADE"); err != nil {
			return fmt.Errorf("drop schema %s: %w", schema, err)
		}
		return nil
	})
}

// Vacuum vacuums and analyzes the tables of a schema, so that its first
// readers find good plans and index-only scans.
func (o *Owner) Vacuum(ctx context.Context, schema string) error {
	return o.do(ctx, owning, func(conn *pgx.Conn) error {
		for _, table := range []string{"post_tags", "post_langs", "posts", "tags", "langs", "tag_hours", "accounts", "removed_posts"} {
			if _, err := conn.Exec(ctx, "VACUUM (ANALYZE) "+pgx.Identifier{schema, table}.Sanitize()); err != nil {
				return fmt.Errorf("vacuum %s.%s: %w", schema, table, err)
			}
		}
		return nil
	})
}

// Switch makes the rebuilt schema the live one and the live one the retired
// one, in one transaction. It holds the live checkpoint's row meanwhile and
// calls catchUp to apply what the rebuilt index still lacks of it.
//
// The live indexer waits for that row, on its way into a transaction, and then
// finds that its lease is over: both schemas get a higher epoch than either
// had. So does one that comes later. Readers see the one schema before the
// commit and the other after it; what they began goes on in the former.
//
// The error is ErrNotCaughtUp, catchUp's, or the database's; then nothing was
// changed, save that a commit whose answer was lost may have taken effect:
// Rebuilding is gone after a switch.
func (o *Owner) Switch(ctx context.Context, catchUp func(ctx context.Context, liveSeq uint64) error) error {
	return o.change(ctx, catchUp, "INSERT INTO "+Rebuilding+".heartbeat SELECT * FROM "+Live+".heartbeat")
}

// SwitchStream is Switch for a live index of another stream, to whose checkpoint
// nothing can be brought. The last erasure was that of the other stream too.
func (o *Owner) SwitchStream(ctx context.Context) error {
	return o.change(ctx, nil, "INSERT INTO "+Rebuilding+".heartbeat (database_bytes) SELECT database_bytes FROM "+Live+".heartbeat")
}

func (o *Owner) change(ctx context.Context, catchUp func(ctx context.Context, liveSeq uint64) error, heartbeat string) error {
	ctx, cancel := context.WithTimeout(ctx, switchTimeout)
	defer cancel()
	return o.do(ctx, owning, func(conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = "+millis(switchLockTimeout)); err != nil {
				return fmt.Errorf("switch schemas: %w", err)
			}
			var liveSeq, liveEpoch, seq, epoch int64
			if err := tx.QueryRow(ctx, "SELECT seq, epoch FROM "+Live+".checkpoint FOR UPDATE").Scan(&liveSeq, &liveEpoch); err != nil {
				return fmt.Errorf("switch schemas: hold the live checkpoint: %w", err)
			}
			if catchUp != nil {
				if err := catchUp(ctx, uint64(liveSeq)); err != nil {
					return err
				}
			}
			if err := tx.QueryRow(ctx, "SELECT seq, epoch FROM "+Rebuilding+".checkpoint FOR UPDATE").Scan(&seq, &epoch); err != nil {
				return fmt.Errorf("switch schemas: hold the rebuilt checkpoint: %w", err)
			}
			if seq < liveSeq && catchUp != nil {
				return fmt.Errorf("%w: %d messages to go", ErrNotCaughtUp, liveSeq-seq)
			}
			for _, stmt := range []string{
				fmt.Sprintf("UPDATE %s.checkpoint SET epoch = %d, holder = '', lease_until = 'epoch'", Rebuilding, max(liveEpoch, epoch)+1),
				fmt.Sprintf("UPDATE %s.checkpoint SET epoch = %d, holder = '', lease_until = 'epoch'", Live, max(liveEpoch, epoch)+1),
				// Until the indexer's next heartbeat, the status is that of before.
				"DELETE FROM " + Rebuilding + ".heartbeat",
				heartbeat,
				"UPDATE " + Rebuilding + ".heartbeat SET erase_looked = 0", // payloads is not filled
				"ALTER SCHEMA " + Live + " RENAME TO " + Retired,
				"ALTER SCHEMA " + Rebuilding + " RENAME TO " + Live,
			} {
				if _, err := tx.Exec(ctx, stmt); err != nil {
					return fmt.Errorf("switch schemas: %w", err)
				}
			}
			return nil
		})
	})
}
