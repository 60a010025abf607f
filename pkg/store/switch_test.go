package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

func nothingMissing(context.Context, uint64) error { return nil }

// add writes one post with one tag through w.
func add(t *testing.T, w *store.Writer, did, tag string, seq uint64) error {
	return w.Apply(context.WithoutCancel(t.Context()), func(tx *store.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		rows, err := tx.Accounts(t.Context(), []string{did})
		if err != nil {
			return cp, err
		}
		var c store.Changes
		account := rows[did]
		if account == nil {
			account = &store.Account{DID: did, Seq: seq}
			c.Accounts = []*store.Account{account}
		}
		at := epoch.Add(time.Duration(seq) * time.Second)
		c.Posts = []store.PostChange{{NewVisible: true, New: &store.Post{
			Key: event.NewKey(at, did+tag), Account: account, Rkey: tag, Rev: "3abcdefghijkl", CID: "bafy",
			Tags: []string{tag}, IndexedAt: at, Seq: seq, Record: []byte(`{}`),
		}}}
		cp.Seq = seq
		return cp, tx.Write(t.Context(), c)
	})
}

// A batch of the live indexer that waits for the checkpoint's row while a
// switch commits finds its lease over, and changes nothing in the new index:
// it would write under the ids that tags had in the former one.
//
// Invariant: a live batch that waits through a switch changes nothing in the new index: a switch
// raises the epoch in both schemas.
func TestApplyDuringSwitch(t *testing.T) {
	t.Parallel()
	o := newDatabase(t)
	re := o
	re.Schema = store.Rebuilding
	require.NoError(t, store.Migrate(t.Context(), re, quiet))
	live, rebuilt := openWriter(t, o, "live"), openWriter(t, re, "rebuild")
	for _, w := range []*store.Writer{live, rebuilt} {
		_, err := w.Acquire(t.Context())
		require.NoError(t, err)
	}
	// The same two posts, but the tags get each other's ids.
	require.NoError(t, add(t, live, "did:plc:a", "art", 1))
	require.NoError(t, add(t, live, "did:plc:b", "photo", 2))
	require.NoError(t, add(t, rebuilt, "did:plc:b", "photo", 1))
	require.NoError(t, add(t, rebuilt, "did:plc:a", "art", 2))

	// The switch holds the live row and waits for the rebuilt one, which this
	// connection has; then a live batch waits for the switch.
	conn, err := pgx.Connect(t.Context(), o.URL)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	_, err = conn.Exec(t.Context(), "BEGIN; SELECT FROM tagstream_rebuild.checkpoint FOR UPDATE")
	require.NoError(t, err)
	pool := pgtest.Pool(t, o.URL)
	awaitWaiters := func(n int) {
		poll.Until(t, time.Minute, func() (bool, string) {
			var got int
			require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
				WHERE wait_event_type = 'Lock' AND datname = current_database()`).Scan(&got))
			return got >= n, fmt.Sprint(got, " wait")
		})
	}
	switched, applied := make(chan error, 1), make(chan error, 1)
	go func() { switched <- store.NewOwner(o).Switch(context.WithoutCancel(t.Context()), nothingMissing) }()
	awaitWaiters(1)
	go func() { applied <- add(t, live, "did:plc:c", "art", 3) }()
	awaitWaiters(2)
	_, err = conn.Exec(t.Context(), "COMMIT")
	require.NoError(t, err)
	require.NoError(t, <-switched)
	require.ErrorIs(t, <-applied, store.ErrLeaseLost)

	// Once it has the lease again, it goes on in the new index.
	cp, err := live.Acquire(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(2), cp.Seq)
	require.NoError(t, add(t, live, "did:plc:c", "art", 3))
	r := openReader(t, o)
	for tag, want := range map[string][]string{"art": {"did:plc:c", "did:plc:a"}, "photo": {"did:plc:b"}} {
		page, err := r.Posts(t.Context(), store.PostQuery{Tags: []string{tag}, From: keyset.Start(), Limit: 10})
		require.NoError(t, err)
		var got []string
		for _, p := range page.Rows {
			got = append(got, p.DID)
		}
		require.Equal(t, want, got, tag)
	}
}

func TestSwitchRefusesAnIndexThatIsBehind(t *testing.T) {
	t.Parallel()
	o := newDatabase(t)
	re := o
	re.Schema = store.Rebuilding
	require.NoError(t, store.Migrate(t.Context(), re, quiet))
	live := openWriter(t, o, "live")
	_, err := live.Acquire(t.Context())
	require.NoError(t, err)
	require.NoError(t, add(t, live, "did:plc:a", "art", 1))
	require.ErrorIs(t, store.NewOwner(o).Switch(t.Context(), nothingMissing), store.ErrNotCaughtUp)
	require.NoError(t, live.Renew(t.Context()), "the live indexer goes on")
}

// Readers' snapshots stay on the schema that they began on.
func TestSnapshotAroundSwitch(t *testing.T) {
	t.Parallel()
	o := newDatabase(t)
	re := o
	re.Schema = store.Rebuilding
	require.NoError(t, store.Migrate(t.Context(), re, quiet))
	_, err := pgtest.Pool(t, o.URL).Exec(t.Context(), "INSERT INTO tagstream.tags (name) VALUES ('old'); INSERT INTO tagstream_rebuild.tags (name) VALUES ('new')")
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), o.URL)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	_, err = conn.Exec(t.Context(), "SET search_path = tagstream")
	require.NoError(t, err)
	tx, err := conn.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	require.NoError(t, err)
	names := func(q interface {
		QueryRow(context.Context, string, ...any) pgx.Row
	}) (name string) {
		require.NoError(t, q.QueryRow(t.Context(), "SELECT name FROM tags").Scan(&name))
		return name
	}
	require.Equal(t, "old", names(tx))
	require.NoError(t, store.NewOwner(o).Switch(t.Context(), nothingMissing))
	require.Equal(t, "old", names(tx))
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, "new", names(conn))
}

// What a reader asks is of one schema, also where a rebuild is switched in while it
// waits for one of the tables: then that is the new one's, which the reader's snapshot
// is too old for. And it has an answer though all of its connections are of before.
//
// Invariant: no answer mixes two schemas. See also TestTagHistoryAroundSwitch and
// TestRebuildWhileServing.
func TestReadersAroundSwitch(t *testing.T) {
	t.Parallel()
	const conns = 8
	for name, c := range map[string]struct {
		table string
		ask   func(ctx context.Context, r *store.Reader) (string, error)
	}{
		"page": {"posts", func(ctx context.Context, r *store.Reader) (string, error) {
			page, err := r.Posts(ctx, store.PostQuery{Tags: []string{"art"}, From: keyset.Start(), Limit: 10})
			var got []string
			for _, p := range page.Rows {
				got = append(got, p.DID)
			}
			return fmt.Sprint(got), err
		}},
		"post": {"posts", func(ctx context.Context, r *store.Reader) (string, error) {
			p, err := r.Post(ctx, "did:plc:b", "art")
			return p.DID, err
		}},
		"status": {"sweeps", func(ctx context.Context, r *store.Reader) (string, error) {
			s, err := r.Status(ctx)
			return fmt.Sprint(s.Posts), err
		}},
	} {
		around := func(t *testing.T, pooled bool) {
			t.Parallel()
			o := newDatabase(t)
			live, rebuilt := openLeader(t, o), rebuilding(t, o)
			for seq, did := range []string{"did:plc:a", "did:plc:b", "did:plc:c"} {
				require.NoError(t, add(t, live, did, "art", uint64(seq+1)))
			}
			reading := o
			if pooled {
				reading.URL = pgtest.Bouncer(t, pgtest.Bouncers(t)[0], pgtest.TransactionPooling, o.URL)[0]
			}
			reading.MaxConns = conns
			r := openReader(t, reading)
			want, err := c.ask(t.Context(), r)
			require.NoError(t, err)

			type answer struct {
				got string
				err error
			}
			pool := pgtest.Pool(t, o.URL)
			// around has n of them wait for the table while something happens.
			around := func(n int, happens func()) {
				answers := make(chan answer, n)
				conn, err := pgx.Connect(t.Context(), o.URL)
				require.NoError(t, err)
				defer conn.Close(context.WithoutCancel(t.Context()))
				_, err = conn.Exec(t.Context(), "BEGIN; LOCK TABLE tagstream."+c.table+" IN ACCESS EXCLUSIVE MODE")
				require.NoError(t, err)
				for range n {
					go func() {
						got, err := c.ask(context.WithoutCancel(t.Context()), r)
						answers <- answer{got, err}
					}()
				}
				poll.Until(t, time.Minute, func() (bool, string) {
					var wait int
					require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
						WHERE wait_event_type = 'Lock' AND datname = current_database()`).Scan(&wait))
					return wait == n, fmt.Sprint(wait, " wait")
				})
				happens()
				_, err = conn.Exec(t.Context(), "COMMIT")
				require.NoError(t, err)
				for range n {
					require.Equal(t, answer{want, nil}, <-answers)
				}
			}
			around(conns, func() {}) // all connections are there
			around(1, func() {
				// Other ids than in the live index.
				for seq, did := range []string{"did:plc:c", "did:plc:b", "did:plc:a"} {
					require.NoError(t, add(t, rebuilt, did, "art", uint64(3-seq)))
				}
				require.NoError(t, rebuilt.Apply(t.Context(), func(_ *store.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
					cp.Seq = 3
					return cp, nil
				}))
				require.NoError(t, store.NewOwner(o).Switch(t.Context(), nothingMissing))
			})
			got, err := c.ask(t.Context(), r)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
		t.Run(name, func(t *testing.T) { around(t, false) })
		t.Run(name+" through a pooler", func(t *testing.T) { around(t, true) })
	}
}
