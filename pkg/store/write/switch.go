package write

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// ErrNotCaughtUp is returned by Switch while the rebuilt schema is behind the live one. Apply more,
// then try again.
var ErrNotCaughtUp = errors.New("the rebuilt index is behind the live one")

// retireLockTimeout bounds how long removing the former schema waits for
// readers that began before the switch.
const retireLockTimeout = 30 * time.Second

// Owner creates, switches and removes whole schemas. It needs the owner's role.
type Owner struct {
	options store.Options
	loss    FeedLoss
}

// FeedLoss returns why the last switch did not keep the change feed, "" if it did.
func (o *Owner) FeedLoss() FeedLoss { return o.loss }

// NewOwner returns an Owner that opens a connection with o for each task.
func NewOwner(o store.Options) *Owner { return &Owner{options: o} }

// CheckpointOf returns the checkpoint of a schema; ok is false if the schema does not exist.
func (o *Owner) CheckpointOf(ctx context.Context, schema string) (cp store.Checkpoint, ok bool, err error) {
	err = pg.Do(ctx, o.options, pg.Reading, func(conn *pgx.Conn) error {
		return pg.BeginFunc(ctx, conn, pgx.TxOptions{}, pg.BaseSettings(schema), func(tx pgx.Tx) error {
			row, err := readCheckpoint(ctx, tx, "")
			cp = row.Checkpoint
			return err
		})
	})
	if errors.Is(err, store.ErrNotMigrated) {
		return store.Checkpoint{}, false, nil
	}
	return cp, err == nil, err
}

// Leased reports whether some program holds the lease of a schema: its indexer, or the rebuild that
// fills it. It is false if the schema does not exist.
func (o *Owner) Leased(ctx context.Context, schema string) (leased bool, err error) {
	err = pg.Do(ctx, o.options, pg.Reading, func(conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, "SELECT holder <> '' AND lease_until > clock_timestamp() FROM "+pg.Qualified(schema, "checkpoint")).Scan(&leased)
		if err = pg.NotMigrated(err); err != nil && !errors.Is(err, store.ErrNotMigrated) {
			return fmt.Errorf("look for the lease of schema %s: %w", schema, err)
		}
		return nil
	})
	return leased, err
}

// Drop removes a schema and everything in it, if it exists. It refuses store.Live.
func (o *Owner) Drop(ctx context.Context, schema string) error {
	if schema == store.Live {
		return errors.New("drop schema: refusing to drop the live one")
	}
	return pg.Do(ctx, o.options, pg.Owning, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "SET lock_timeout = "+pg.Millis(retireLockTimeout)); err != nil {
			return fmt.Errorf("drop schema %s: %w", schema, err)
		}
		if _, err := conn.Exec(ctx, "DROP SCHEMA IF EXISTS "+pgx.Identifier{schema}.Sanitize()+" CASCADE"); err != nil {
			return fmt.Errorf("drop schema %s: %w", schema, err)
		}
		return nil
	})
}

// Vacuum vacuums and analyzes the tables of a schema, two at a time, so that its first readers find
// good plans and index-only scans. It skips the columns of posts that no plan depends on and that
// take the most time: autovacuum analyzes these later.
func (o *Owner) Vacuum(ctx context.Context, schema string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for _, table := range []string{"posts (key, account_id, rkey, rev, indexed_at, seq, traits)", "post_tags", "post_langs", "tags", "langs", "tag_hours", "accounts", "removed_posts", "changes", "change_tags"} {
		g.Go(func() error {
			return pg.Do(ctx, o.options, pg.Owning, func(conn *pgx.Conn) error {
				if _, err := conn.Exec(ctx, "VACUUM (ANALYZE) "+pgx.Identifier{schema}.Sanitize()+"."+table); err != nil {
					return fmt.Errorf("vacuum %s.%s: %w", schema, table, err)
				}
				return nil
			})
		})
	}
	return g.Wait()
}

// Switch makes the rebuilt schema the live one and the live one the retired one, in one
// transaction. It holds the live checkpoint's row, and calls catchUp to apply what the
// rebuilt index lacks up to that checkpoint.
//
// Both schemas get a higher epoch than either had. So a live indexer that waits for the row to
// begin a transaction, or that begins one later, loses its lease. Readers see one schema before the
// commit and the other after it; transactions that began before it continue in the former one.
//
// same means that the two indexes were compared and are equal up to some message. Then the change
// feed is kept: followers of the live index continue with the rebuilt one.
//
// The error is ErrNotCaughtUp, catchUp's, or the database's; then nothing was changed, unless the
// answer to a commit was lost: the schema Rebuilding is gone after a successful switch.
func (o *Owner) Switch(ctx context.Context, same bool, catchUp func(ctx context.Context, liveSeq uint64) error) error {
	return o.switchSchemas(ctx, same, catchUp, "INSERT INTO "+store.Rebuilding+".heartbeat SELECT * FROM "+store.Live+".heartbeat")
}

// SwitchStream is Switch for a live index of another stream: the rebuilt index cannot reach that
// checkpoint. The last erasure is not kept: it was one of the other stream.
func (o *Owner) SwitchStream(ctx context.Context) error {
	return o.switchSchemas(ctx, false, nil, "INSERT INTO "+store.Rebuilding+".heartbeat (database_bytes) SELECT database_bytes FROM "+store.Live+".heartbeat")
}

func (o *Owner) switchSchemas(ctx context.Context, same bool, catchUp func(ctx context.Context, liveSeq uint64) error, heartbeat string) error {
	ctx, cancel := context.WithTimeout(ctx, pg.HoldTimeout)
	defer cancel()
	return pg.Do(ctx, o.options, pg.Owning, func(conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = "+pg.Millis(pg.HoldLockTimeout)); err != nil {
				return fmt.Errorf("switch schemas: %w", err)
			}
			var liveSeq, liveEpoch, seq, epoch int64
			if err := tx.QueryRow(ctx, "SELECT seq, epoch FROM "+store.Live+".checkpoint FOR UPDATE").Scan(&liveSeq, &liveEpoch); err != nil {
				return fmt.Errorf("switch schemas: hold the live checkpoint: %w", err)
			}
			if catchUp != nil {
				if err := catchUp(ctx, uint64(liveSeq)); err != nil {
					return err
				}
			}
			if err := tx.QueryRow(ctx, "SELECT seq, epoch FROM "+store.Rebuilding+".checkpoint FOR UPDATE").Scan(&seq, &epoch); err != nil {
				return fmt.Errorf("switch schemas: hold the rebuilt checkpoint: %w", err)
			}
			if seq < liveSeq && catchUp != nil {
				return fmt.Errorf("%w: %d messages to go", ErrNotCaughtUp, liveSeq-seq)
			}
			o.loss = FeedDiffers
			if same {
				var err error
				if o.loss, err = switchFeed(ctx, tx); err != nil {
					return fmt.Errorf("switch schemas: take over the change feed: %w", err)
				}
			}
			for _, stmt := range []string{
				fmt.Sprintf("UPDATE %s.checkpoint SET epoch = %d, holder = '', lease_until = 'epoch'", store.Rebuilding, max(liveEpoch, epoch)+1),
				fmt.Sprintf("UPDATE %s.checkpoint SET epoch = %d, holder = '', lease_until = 'epoch'", store.Live, max(liveEpoch, epoch)+1),
				// Until the indexer's next heartbeat, the status keeps the former values.
				"DELETE FROM " + store.Rebuilding + ".heartbeat",
				heartbeat,
				"UPDATE " + store.Rebuilding + ".heartbeat SET erase_looked = 0", // the table payloads is not filled
				"ALTER SCHEMA " + store.Live + " RENAME TO " + store.Retired,
				"ALTER SCHEMA " + store.Rebuilding + " RENAME TO " + store.Live,
			} {
				if _, err := tx.Exec(ctx, stmt); err != nil {
					return fmt.Errorf("switch schemas: %w", err)
				}
			}
			return nil
		})
	})
}
