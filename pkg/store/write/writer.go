package write

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/keys"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// A writer that hangs in mid-transaction holds the checkpoint's lock. It is ended so that another
// can take over: between statements by the server, within one by whoever waits for the lock (see
// waiting).
const writerIdleTimeout = 15 * time.Second

// Writer changes the index. It must be used from one goroutine, except for Renew while the lease
// lasts.
type Writer struct {
	pool   *pg.Pool
	schema string
	// holder names this writer in the lease, whose epoch is epoch, 0 if none was acquired.
	holder string
	epoch  int64
	// at and changes are the checkpoint's, as far as this writer knows.
	at      uint64
	changes int64
	// patience is how long a wait for the checkpoint's row lasts before its holder is looked at.
	patience time.Duration

	tagLists, langLists *lists
	// unlisted is the checkpoint's unlisted_from; see List. One transaction lists listPosts posts,
	// or counts listCounts lists.
	unlisted   *event.Key
	listPosts  int
	listCounts int64

	// What may be pending: accounts to sweep, posts that the change feed lacks, posts with tags in
	// an older form, and posts without their traits.
	sweeping, announcing, retagging, filling bool
	// lastSwept is the account that had the last step of a sweep.
	lastSwept int64
	// notesPayloads reports that messages to erase are noted.
	notesPayloads bool
}

// Open connects as a role that may change rows. holder names this run of the program in the lease
// and must be unique to it. It does not wait for the database: the first use does.
func Open(ctx context.Context, o store.Options, holder string) (*Writer, error) {
	t, err := o.Target(pg.Writing,
		pg.Set("idle_in_transaction_session_timeout", pg.Millis(writerIdleTimeout)),
		// The arrays differ in size from batch to batch, and a plan made while the tables were
		// small must not persist.
		pg.Set("plan_cache_mode", "force_custom_plan"))
	if err != nil {
		return nil, err
	}
	pool, err := pg.OpenPool(ctx, t, nil)
	if err != nil {
		return nil, err
	}
	return &Writer{
		pool: pool, schema: cmp.Or(o.Schema, store.Live), holder: holder, patience: writerIdleTimeout / 2,
		tagLists: newTagLists(), langLists: newLangLists(), listPosts: listPosts, listCounts: listCounts,
		// After a switch the first pass reads everything.
		notesPayloads: o.Schema != store.Rebuilding,
	}, nil
}

// Close closes the writer's connections.
func (w *Writer) Close() { w.pool.Close() }

// Apply runs fold in one transaction that holds the checkpoint's row, and then moves the checkpoint
// to what fold returned. Either all of it happens or nothing. fold may be called for messages that
// were applied already (the previous commit took effect although it seemed to fail): it must skip
// everything up to the checkpoint it is given.
//
// The error is ErrLeaseLost, fold's, or the database's; see Rejected.
func (w *Writer) Apply(ctx context.Context, fold func(tx *Tx, from store.Checkpoint) (store.Checkpoint, error)) error {
	var tx *Tx
	var at uint64
	var changes int64
	err := pgx.BeginFunc(ctx, w.pool, func(ptx pgx.Tx) error {
		from, err := readCheckpoint(ctx, ptx, "FOR UPDATE")
		if err != nil {
			return err
		}
		// A database that lost commits (a crash after asynchronous ones, a lagging standby) may
		// still have the epoch, but not the rows that the batch builds on.
		if from.epoch != w.epoch || from.Seq < w.at || from.changes < w.changes {
			return ErrLeaseLost
		}
		if w.Listing() {
			return errListing
		}
		leader, err := w.leaderOf(ctx, ptx)
		if err != nil {
			return err
		}
		tx = &Tx{
			tx: ptx, now: from.now, from: from.Seq, epoch: from.epoch, live: w.schema == store.Live, leader: leader,
			tagLists: w.tagLists, langLists: w.langLists, firstHour: keys.Hour(earlier(from.Source.Time, time.Now())) - hoursKept,
			notesPayloads: w.notesPayloads, unlisted: w.Unlisted(), showOptedOut: from.showOptedOut, denies: from.denies,
		}
		to, err := fold(tx, from.Checkpoint)
		if err != nil {
			return err
		}
		if err := tx.writeFeed(ctx, from.changes, to.Seq); err != nil {
			return err
		}
		moved, err := ptx.Exec(ctx, `
			UPDATE checkpoint SET seq = $1, source_host = $2, source_seq = $3, source_time = $4,
			       sync_did = $5, sync_rev = $6, sync_time = $13, sync_fixed = $14,
			       applied_at = CASE WHEN seq = $1 THEN applied_at ELSE clock_timestamp() END, lease_until = clock_timestamp() + $7,
			       posts = posts + $8, visible_posts = visible_posts + $9, tags = tags + $10, dead_letters = dead_letters + $11,
			       changes = changes + $15
			 WHERE epoch = $12`,
			to.Seq, to.Source.Host, to.Source.Seq, to.Source.NetworkTime(), to.Sync.DID, to.Sync.Rev, LeaseTTL,
			tx.posts, tx.visible, tx.tags, tx.deadLetters, w.epoch, to.Sync.Time, to.Sync.Fixed, tx.feedWritten)
		if err != nil {
			return fmt.Errorf("move the checkpoint to %d: %w", to.Seq, err)
		}
		if moved.RowsAffected() != 1 {
			return ErrLeaseLost // the schema under the name is another one now
		}
		at, changes = to.Seq, from.changes+tx.feedWritten
		return nil
	})
	if err != nil {
		// It may have taken effect.
		w.sweeping, w.announcing = true, true
		// Ids that the transaction created are gone with it.
		w.tagLists.forgetNew()
		w.langLists.forgetNew()
		return err
	}
	w.at, w.changes = at, changes
	w.tagLists.keepNew()
	w.langLists.keepNew()
	w.sweeping = w.sweeping || tx.beganSweep
	w.announcing = w.announcing || tx.announcing
	return nil
}

// Pending reports whether there may be work that is done in steps between batches: Sweep, Announce,
// Retag or FillTraits.
func (w *Writer) Pending() bool { return w.sweeping || w.retagging || w.filling || w.announcing }

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// Heartbeat records the state of the stream for the API's status, and returns the database's size.
// measure refreshes that size, for which the server examines every file.
func (w *Writer) Heartbeat(ctx context.Context, streamFirst, streamLast, streamBytes uint64, measure bool) (databaseBytes int64, err error) {
	err = w.pool.QueryRow(ctx, `
		UPDATE heartbeat SET at = clock_timestamp(), stream_first = $1, stream_last = $2, stream_bytes = $3,
		       database_bytes = CASE WHEN $4 THEN pg_database_size(current_database()) ELSE database_bytes END
		RETURNING database_bytes`,
		streamFirst, streamLast, streamBytes, measure).Scan(&databaseBytes)
	if err != nil {
		return 0, fmt.Errorf("write the heartbeat: %w", pg.NotMigrated(err))
	}
	return databaseBytes, nil
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// checkpoint is the row as read.
type checkpoint struct {
	store.Checkpoint
	epoch, changes int64
	holder         string
	now            time.Time // by the database
	showOptedOut   bool
	denies         bool
	unlisted       *[16]byte
}

func readCheckpoint(ctx context.Context, q querier, lock string) (cp checkpoint, err error) {
	var version int
	err = q.QueryRow(ctx, `
		SELECT seq, source_host, source_seq, source_time, sync_did, sync_rev, sync_time, sync_fixed,
		       epoch, holder, changes, ignore_consent, unlisted_from, writer_version, EXISTS (SELECT FROM denied_accounts), clock_timestamp()
		  FROM checkpoint `+lock).
		Scan(&cp.Seq, &cp.Source.Host, &cp.Source.Seq, &cp.Source.Time, &cp.Sync.DID, &cp.Sync.Rev, &cp.Sync.Time, &cp.Sync.Fixed,
			&cp.epoch, &cp.holder, &cp.changes, &cp.showOptedOut, &cp.unlisted, &version, &cp.denies, &cp.now)
	if err != nil {
		return cp, fmt.Errorf("read the checkpoint: %w", pg.NotMigrated(err))
	}
	if version > store.SchemaVersion {
		return cp, fmt.Errorf("%w: it must know version %d of the schema, and knows %d", ErrOutdated, version, store.SchemaVersion)
	}
	cp.Source.Time, cp.Sync.Time = cp.Source.Time.UTC(), cp.Sync.Time.UTC()
	return cp, nil
}
