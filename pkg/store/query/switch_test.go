package query_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func nothingMissing(context.Context, uint64) error { return nil }

// A reader's snapshot stays on the schema on which it began.
func TestSnapshotAroundSwitch(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	re := o
	re.Schema = store.Rebuilding
	require.NoError(t, store.Migrate(t.Context(), re, storetest.Quiet))
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
	require.NoError(t, write.NewOwner(o).Switch(t.Context(), true, nothingMissing))
	require.Equal(t, "old", names(tx))
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, "new", names(conn))
}

// A reader waits for a table while a rebuild is switched in: then the table is the new schema's,
// and the reader's snapshot is too old for it. The reader must answer although all its connections
// are from before the switch.
//
// Invariant: no answer mixes two schemas. See also TestTagHistoryAroundSwitch and
// TestRebuildWhileServing.
func TestReadersAroundSwitch(t *testing.T) {
	t.Parallel()
	const conns = 8
	for name, c := range map[string]struct {
		table string
		ask   func(ctx context.Context, r *query.Reader) (string, error)
	}{
		"page": {"posts", func(ctx context.Context, r *query.Reader) (string, error) {
			page, err := r.Posts(ctx, query.PostQuery{Tags: []string{"art"}, From: keyset.Start(), Limit: 10})
			var got []string
			for _, p := range page.Rows {
				got = append(got, p.DID)
			}
			return fmt.Sprint(got), err
		}},
		"post": {"posts", func(ctx context.Context, r *query.Reader) (string, error) {
			p, err := r.Post(ctx, "did:plc:b", "art")
			return p.DID, err
		}},
		"status": {"sweeps", func(ctx context.Context, r *query.Reader) (string, error) {
			s, err := r.Status(ctx)
			return fmt.Sprint(s.Posts), err
		}},
	} {
		test := func(t *testing.T, pooled bool) {
			t.Parallel()
			o := storetest.Database(t)
			live, rebuilt := storetest.Leader(t, o), storetest.Rebuilding(t, o)
			for seq, did := range []string{"did:plc:a", "did:plc:b", "did:plc:c"} {
				require.NoError(t, storetest.Add(t, live, did, "art", uint64(seq+1)))
			}
			reading := o
			if pooled {
				reading.URL = pgtest.Bouncer(t, pgtest.Bouncers(t)[0], pgtest.TransactionPooling, o.URL)[0]
			}
			reading.MaxConns = conns
			r := storetest.Reader(t, reading)
			want, err := c.ask(t.Context(), r)
			require.NoError(t, err)

			type answer struct {
				got string
				err error
			}
			pool := pgtest.Pool(t, o.URL)
			// during calls event while n queries wait for the table.
			during := func(n int, event func()) {
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
				event()
				_, err = conn.Exec(t.Context(), "COMMIT")
				require.NoError(t, err)
				for range n {
					require.Equal(t, answer{want, nil}, <-answers)
				}
			}
			during(conns, func() {}) // opens all connections
			during(1, func() {
				// The ids differ from those in the live index.
				for seq, did := range []string{"did:plc:c", "did:plc:b", "did:plc:a"} {
					require.NoError(t, storetest.Add(t, rebuilt, did, "art", uint64(3-seq)))
				}
				require.NoError(t, rebuilt.Apply(t.Context(), func(_ *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
					cp.Seq = 3
					return cp, nil
				}))
				require.NoError(t, write.NewOwner(o).Switch(t.Context(), true, nothingMissing))
			})
			got, err := c.ask(t.Context(), r)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
		t.Run(name, func(t *testing.T) { test(t, false) })
		t.Run(name+" through a pooler", func(t *testing.T) { test(t, true) })
	}
}
