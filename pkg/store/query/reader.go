package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// ErrNotFound is returned by Reader for something that the index does not show because it is
// unknown, hidden or deleted.
var ErrNotFound = errors.New("not found")

// Reader reads the visible part of the index. It cannot change the index: its role may only select,
// and its transactions are read-only. It is safe for concurrent use.
type Reader struct {
	pool *pg.Pool
	// schema is the latest schema that replaced another.
	switching sync.Mutex
	schema    int64
	// tagsDenied says whether tags were denied when a plain page was last read.
	tagsDenied atomic.Bool
}

// Open connects as a role that may only select. It does not wait for the database: the first query
// does.
func Open(ctx context.Context, o store.Options) (*Reader, error) {
	t, err := o.Target(pg.Reading, slices.Concat(readerSettings, pg.PlannerSettings)...)
	if err != nil {
		return nil, err
	}
	t.Config.ConnConfig.StatementCacheCapacity = readerStatements
	pool, err := pg.OpenPool(ctx, t, rememberSchema)
	if err != nil {
		return nil, err
	}
	return &Reader{pool: pool}, nil
}

// readerSettings limit what a reader can do.
var readerSettings = pg.Settings{
	pg.Set("default_transaction_read_only", "on"),
	pg.Set("default_transaction_isolation", "repeatable read"),
	pg.Set("statement_timeout", pg.Millis(readerStatementTimeout)),
	pg.Set("idle_in_transaction_session_timeout", pg.Millis(readerStatementTimeout)),
	pg.Set("plan_cache_mode", "force_generic_plan"),
	pg.Set("max_parallel_workers_per_gather", "0"),
}

// A statement takes milliseconds; one that takes this long indicates a fault.
const readerStatementTimeout = 5 * time.Second

// readerStatements is how many prepared statements a connection keeps: more than the number of
// query forms in use. Each takes about 0.2 MB on the server.
const readerStatements = 256

// Close closes the reader's connections.
func (r *Reader) Close() { r.pool.Close() }

// maxSwitches bounds how often a query is restarted because of a switch. It is restarted more than
// once if it gets a connection from before another query reset the pool.
const maxSwitches = 5

const schemaKey = "tagstream schema"

// beginSnapshot begins a batch that reads one snapshot, in a read-only transaction. Through a
// pooler it also records the schema at the start of the batch.
func beginSnapshot(batch *pgx.Batch, conn *pgx.Conn) {
	batch.Queue("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	if s := pg.PooledSettings(conn); s != nil {
		batch.Queue(s.Select(true))
		batch.Queue(pg.SchemaNow).QueryRow(func(row pgx.Row) error {
			var id int64
			err := row.Scan(&id)
			conn.PgConn().CustomData()[schemaKey] = id
			return err
		})
	}
}

// endSnapshot ends the transaction of beginSnapshot with a batch, and sets now to the schema at the
// end.
func endSnapshot(batch *pgx.Batch, now *int64) {
	batch.Queue(pg.SchemaNow).QueryRow(func(row pgx.Row) error { return row.Scan(now) })
	batch.Queue("COMMIT")
}

// refuse ends a snapshot without a page: the query cannot be answered. now is the schema at the
// end; if it was switched, the new one may have an answer.
func refuse(ctx context.Context, conn *pgx.Conn, because error) (now int64, err error) {
	batch := &pgx.Batch{}
	endSnapshot(batch, &now)
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		return 0, fmt.Errorf("end a snapshot: %w", err)
	}
	return now, because
}

// rememberSchema records a connection's schema before the connection plans any statement.
func rememberSchema(ctx context.Context, conn *pgx.Conn) error {
	var id int64
	if err := conn.QueryRow(ctx, pg.SchemaNow).Scan(&id); err != nil {
		return fmt.Errorf("look up the schema: %w", err)
	}
	conn.PgConn().CustomData()[schemaKey] = id
	return nil
}

// withConn calls fn with a connection. If the schema was switched in the meantime, which may have
// caused fn's error, it closes that connection and all older ones, and calls fn again with a new
// one. fn returns the current schema, or 0 if it does not know it.
func (r *Reader) withConn(ctx context.Context, fn func(conn *pgx.Conn) (now int64, err error)) error {
	err := pg.ErrSwitched
	for i := 0; i < maxSwitches && errors.Is(err, pg.ErrSwitched); i++ {
		err = r.pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
			now, err := fn(c.Conn())
			if now == 0 || c.Conn().PgConn().CustomData()[schemaKey] == now {
				return err
			}
			_ = c.Conn().Close(ctx)
			r.closeOlder(now)
			return pg.ErrSwitched
		})
	}
	return err
}

// closeOlder closes the connections that are older than schema now, once per schema.
func (r *Reader) closeOlder(now int64) {
	r.switching.Lock()
	defer r.switching.Unlock()
	if r.schema != now {
		r.pool.Reset()
		r.schema = now
	}
}

// query runs one statement on one schema and calls read with its rows. It may repeat both, even if
// read failed.
func (r *Reader) query(ctx context.Context, sql string, args []any, read func(pgx.Rows) error) error {
	return r.withConn(ctx, func(conn *pgx.Conn) (now int64, err error) {
		batch := &pgx.Batch{}
		pooled := pg.PooledSettings(conn) != nil
		if pooled {
			beginSnapshot(batch, conn)
		}
		batch.Queue(sql, args...).Query(func(rows pgx.Rows) error {
			err = read(rows)
			return nil // the rest of the batch says whether to read again
		})
		batch.Queue(pg.SchemaNow).QueryRow(func(row pgx.Row) error { return row.Scan(&now) })
		if pooled {
			batch.Queue("COMMIT")
		}
		if err := conn.SendBatch(ctx, batch).Close(); err != nil {
			return 0, err
		}
		return now, err
	})
}

// snapshot runs fn on one snapshot of the index.
func (r *Reader) snapshot(ctx context.Context, fn func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, r.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, fn)
}

// PostRow is a visible post.
type PostRow struct {
	Key       event.Key
	DID       string
	Rkey      string
	CID       string
	Tags      []string
	Langs     []string
	IndexedAt time.Time
	// Handle, DisplayName and Avatar (a CID) are the author's, "" if unknown.
	Handle, DisplayName, Avatar string
	// Record is the record's JSON as received.
	Record []byte
}

// rowColumns are the columns of a PostRow after its key.
const rowColumns = `did, rkey, cid, tags, langs, indexed_at, handle, display_name, avatar, record`

// nameColumns are as postColumns, with all but the key, the post's name and its time left empty.
const nameColumns = `p.key, a.did, p.rkey, '' AS cid, '{}'::text[] AS tags, '{}'::text[] AS langs, p.indexed_at, '' AS handle, '' AS display_name, '' AS avatar, '' AS record`

// postColumns selects the columns of a PostRow from a post p and its account a.
func postColumns(tags string) string {
	return `p.key, a.did, p.rkey, p.cid, ` + tags + ` AS tags, p.langs, p.indexed_at, a.handle, a.display_name, a.avatar, p.record`
}

func (p *PostRow) targets() []any {
	return []any{(*[16]byte)(&p.Key), &p.DID, &p.Rkey, &p.CID, &p.Tags, &p.Langs, &p.IndexedAt, &p.Handle, &p.DisplayName, &p.Avatar, &p.Record}
}

// hiddenBySweep is true of a post p that a sweep w hides.
const hiddenBySweep = `(w.hidden OR p.rev < w.gone_below)`

// PostName identifies a post.
type PostName struct{ DID, Rkey string }

// maxQuotedRecord is the size in bytes of the largest record that Quoted reads, many times larger
// than what Bluesky's own app writes.
const maxQuotedRecord = 32 << 10

// Quoted returns, in no order, those of the first MaxLimit names whose posts a list can show. It
// leaves out posts whose tags are all denied, and those with records that are too big for an
// excerpt.
func (r *Reader) Quoted(ctx context.Context, names []PostName) (found []PostRow, err error) {
	var dids, rkeys []string
	for _, n := range names[:min(len(names), MaxLimit)] {
		dids, rkeys = append(dids, n.DID), append(rkeys, n.Rkey)
	}
	err = r.query(ctx, quotedQuery, []any{dids, rkeys, maxQuotedRecord}, func(rows pgx.Rows) error {
		found = nil
		var p PostRow
		_, err := pgx.ForEachRow(rows, p.targets(), func() error {
			found, p = append(found, p), PostRow{}
			return nil
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %d quoted posts: %w", len(names), pg.NotMigrated(err))
	}
	return found, nil
}

// quotedQuery looks the posts up one by one, whatever the planner estimates: see lookUp.
var quotedQuery = `
	SELECT post.* FROM unnest($1::text[], $2::text[]) AS given(did, rkey)
	 CROSS JOIN LATERAL (
		SELECT ` + postColumns(shownTags) + `
		  FROM (SELECT id, did, handle, display_name, avatar FROM accounts WHERE accounts.did = given.did AND state = 0 OFFSET 0) AS a
		  JOIN posts p ON p.account_id = a.id AND p.rkey = given.rkey
		 WHERE octet_length(p.record) <= $3 AND EXISTS (SELECT FROM unnest(p.tags) AS t(name) WHERE ` + served + `)
		   AND NOT EXISTS (SELECT FROM sweeps w WHERE w.account_id = a.id AND ` + hiddenBySweep + `)
		OFFSET 0) AS post`

// Post returns one post. The error is ErrNotFound or the database's.
func (r *Reader) Post(ctx context.Context, did, rkey string) (PostRow, error) {
	var p PostRow
	err := r.query(ctx, `
		SELECT `+postColumns(shownTags)+`
		  FROM accounts a JOIN posts p ON p.account_id = a.id AND p.rkey = $2
		 WHERE a.did = $1 AND a.state = 0
		   AND NOT EXISTS (SELECT FROM sweeps w WHERE w.account_id = a.id AND `+hiddenBySweep+`)`, []any{did, rkey}, func(rows pgx.Rows) error {
		return scanOne(rows, p.targets()...)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return p, ErrNotFound
	}
	if err != nil {
		return p, fmt.Errorf("read post %s: %w", event.URI(did, rkey), pg.NotMigrated(err))
	}
	p.IndexedAt = p.IndexedAt.UTC()
	return p, nil
}

// scanOne reads the single row. The error is pgx.ErrNoRows if there is none.
func scanOne(rows pgx.Rows, targets ...any) error {
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := rows.Scan(targets...); err != nil {
		return err
	}
	rows.Close()
	return rows.Err()
}

// Status is the recorded state of the index.
type Status struct {
	Checkpoint store.Checkpoint
	// Posts counts all stored posts, VisiblePosts those of visible authors, Tags the tags of
	// visible posts that are not denied.
	Posts, VisiblePosts, Tags, DeadLetters int64
	// Sweeps is how many accounts are being swept.
	Sweeps int64
	// SeenAt is the time of the indexer's last heartbeat, which recorded the next fields.
	SeenAt                               time.Time
	StreamFirst, StreamLast, StreamBytes uint64
	DatabaseBytes                        int64
	// Holder is the indexer with the lease, "" if the lease is free.
	Holder string
	// Now is the database's clock.
	Now time.Time
}

// Status returns the state of the index.
func (r *Reader) Status(ctx context.Context) (Status, error) {
	var s Status
	err := r.query(ctx, `
		SELECT c.seq, c.source_host, c.source_seq, c.source_time, c.posts, c.visible_posts, `+usedTags+`, c.dead_letters,
		       h.at, h.stream_first, h.stream_last, h.stream_bytes, h.database_bytes, clock_timestamp(), (SELECT count(*) FROM sweeps),
		       CASE WHEN c.lease_until > clock_timestamp() THEN c.holder ELSE '' END
		  FROM checkpoint c CROSS JOIN heartbeat h`, nil, func(rows pgx.Rows) error {
		return scanOne(rows, &s.Checkpoint.Seq, &s.Checkpoint.Source.Host, &s.Checkpoint.Source.Seq, &s.Checkpoint.Source.Time,
			&s.Posts, &s.VisiblePosts, &s.Tags, &s.DeadLetters,
			&s.SeenAt, &s.StreamFirst, &s.StreamLast, &s.StreamBytes, &s.DatabaseBytes, &s.Now, &s.Sweeps, &s.Holder)
	})
	if err != nil {
		return s, fmt.Errorf("read the status: %w", pg.NotMigrated(err))
	}
	for _, t := range []*time.Time{&s.Checkpoint.Source.Time, &s.SeenAt, &s.Now} {
		*t = t.UTC()
	}
	return s, nil
}
