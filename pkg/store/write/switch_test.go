package write_test

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

func nothingMissing(context.Context, uint64) error { return nil }

// A batch of the live indexer that waits for the checkpoint's row while a switch commits loses its
// lease and changes nothing in the new index, where the tags have other ids.
//
// Invariant: a live batch that waits through a switch changes nothing in the new index: a switch
// raises the epoch in both schemas.
func TestApplyDuringSwitch(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	live, rebuilt := storetest.Leader(t, o), storetest.Rebuilding(t, o)
	// The same two posts, but the tags' ids are swapped.
	require.NoError(t, storetest.Add(t, live, "did:plc:a", "art", 1))
	require.NoError(t, storetest.Add(t, live, "did:plc:b", "photo", 2))
	require.NoError(t, storetest.Add(t, rebuilt, "did:plc:b", "photo", 1))
	require.NoError(t, storetest.Add(t, rebuilt, "did:plc:a", "art", 2))

	// The switch holds the live row and waits for the rebuilt one, which this connection holds.
	// Then a live batch waits for the switch.
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
	go func() { switched <- write.NewOwner(o).Switch(context.WithoutCancel(t.Context()), true, nothingMissing) }()
	awaitWaiters(1)
	go func() { applied <- storetest.Add(t, live, "did:plc:c", "art", 3) }()
	awaitWaiters(2)
	_, err = conn.Exec(t.Context(), "COMMIT")
	require.NoError(t, err)
	require.NoError(t, <-switched)
	require.ErrorIs(t, <-applied, write.ErrLeaseLost)

	// After it acquires the lease again, it continues in the new index.
	cp, err := live.Acquire(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(2), cp.Seq)
	require.NoError(t, storetest.Add(t, live, "did:plc:c", "art", 3))
	r := storetest.Reader(t, o)
	for tag, want := range map[string][]string{"art": {"did:plc:c", "did:plc:a"}, "photo": {"did:plc:b"}} {
		page, err := r.Posts(t.Context(), query.PostQuery{Tags: []string{tag}, From: keyset.Start(), Limit: 10})
		require.NoError(t, err)
		var got []string
		for _, p := range page.Rows {
			got = append(got, p.DID)
		}
		require.Equal(t, want, got, tag)
	}
}

func TestSwitchRefusesLaggingIndex(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	re := o
	re.Schema = store.Rebuilding
	require.NoError(t, store.Migrate(t.Context(), re, storetest.Quiet))
	live := storetest.Leader(t, o)
	require.NoError(t, storetest.Add(t, live, "did:plc:a", "art", 1))
	require.ErrorIs(t, write.NewOwner(o).Switch(t.Context(), true, nothingMissing), write.ErrNotCaughtUp)
	require.NoError(t, live.Renew(t.Context()), "the live indexer must keep its lease")
}
