package write_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// TestSwitchKeepsTheFeed: a follower of the live index follows the rebuilt one, and hears of
// what only that one has folded in, and of the posts of an account that the live one was hiding.
// Where the two were not found to be the same, the follower begins anew.
func TestSwitchKeepsTheFeed(t *testing.T) {
	t.Parallel()
	for _, same := range []bool{true, false} {
		o := storetest.Database(t)
		live, rebuilt := storetest.Leader(t, o), storetest.Rebuilding(t, o)
		r := storetest.Reader(t, o)
		for _, w := range []*write.Writer{live, rebuilt} {
			require.NoError(t, storetest.Add(t, w, "did:plc:a", "art", 1))
			require.NoError(t, storetest.Add(t, w, "did:plc:b", "ärt", 2))
		}
		follow := func(tag string, after *query.Place) (rkeys []string, next query.Place, err error) {
			page, err := r.Changes(t.Context(), query.ChangeQuery{List: query.PostQuery{Tags: []string{tag}}, After: after, Limit: 10})
			for _, c := range page.Changes {
				rkeys = append(rkeys, c.DID)
			}
			return rkeys, page.Next, err
		}
		_, art, err := follow("art", nil)
		require.NoError(t, err)
		_, umlaut, err := follow("ärt", nil)
		require.NoError(t, err)
		require.EqualValues(t, 2, art.Change)

		// The live index hides an account, which has come to nothing yet; the rebuilt one is
		// done with it, and has folded in one message more.
		_, err = pgtest.Pool(t, o.URL).Exec(t.Context(), `
			INSERT INTO tagstream.sweeps (account_id, hidden, seen_through) SELECT id, true, 2 FROM tagstream.accounts WHERE did = 'did:plc:b';
			UPDATE tagstream_rebuild.accounts SET state = 1 WHERE did = 'did:plc:b';
			DELETE FROM tagstream_rebuild.post_tags USING tagstream_rebuild.tags WHERE id = tag_id AND name = 'ärt'`)
		require.NoError(t, err)
		require.NoError(t, storetest.Add(t, rebuilt, "did:plc:c", "art", 3))
		owner := write.NewOwner(o)
		require.NoError(t, owner.Switch(t.Context(), same, nothingMissing))
		if !same {
			require.Equal(t, write.FeedDiffers, owner.FeedLoss())
			_, _, err = follow("art", &art)
			require.ErrorIs(t, err, query.ErrExpired)
			continue
		}
		require.Empty(t, owner.FeedLoss())
		told, next, err := follow("art", &art)
		require.NoError(t, err)
		require.Equal(t, []string{"did:plc:c"}, told)
		require.EqualValues(t, 4, next.Change)
		told, _, err = follow("ärt", &umlaut)
		require.NoError(t, err)
		require.Equal(t, []string{"did:plc:b"}, told)

		// The indexer goes on behind it, and announces the accounts that the live one had not.
		_, err = live.Acquire(t.Context())
		require.NoError(t, err)
		require.NoError(t, storetest.Add(t, live, "did:plc:d", "art", 4))
		told, next, err = follow("art", &next)
		require.NoError(t, err)
		require.Equal(t, []string{"did:plc:d"}, told)
		require.EqualValues(t, 5, next.Change)
		for live.Sweeping() && next.Change < 6 {
			require.NoError(t, live.Announce(t.Context()))
			_, next, err = follow("art", nil)
			require.NoError(t, err)
		}
		require.EqualValues(t, 6, next.Change)
	}
}

// TestSwitchWaitsForReadersOfTheFeed: a reader who is slow costs followers nothing, nor does an
// indexer that waits for the lease; a backup does.
func TestSwitchWaitsForReadersOfTheFeed(t *testing.T) {
	t.Parallel()
	for name, stays := range map[string]bool{"slow": false, "stays": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := storetest.Database(t)
			live, rebuilt := storetest.Leader(t, o), storetest.Rebuilding(t, o)
			for _, w := range []*write.Writer{live, rebuilt} {
				require.NoError(t, storetest.Add(t, w, "did:plc:a", "art", 1))
			}
			pool := pgtest.Pool(t, o.URL)
			reader, err := pool.Begin(t.Context())
			require.NoError(t, err)
			defer reader.Rollback(context.WithoutCancel(t.Context()))
			_, err = reader.Exec(t.Context(), "SELECT FROM tagstream.change_tags")
			require.NoError(t, err)
			owner := write.NewOwner(o)
			switched, acquired := make(chan error, 1), make(chan error, 1)
			go func() { switched <- owner.Switch(context.WithoutCancel(t.Context()), true, nothingMissing) }()
			// Each wait of the switch is another statement.
			waits := map[time.Time]bool{}
			awaitTry := func(n int) {
				poll.Until(t, time.Minute, func() (bool, string) {
					rows, err := pool.Query(t.Context(), `SELECT query_start FROM pg_stat_activity
						WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE 'LOCK TABLE%'`)
					require.NoError(t, err)
					var at time.Time
					_, err = pgx.ForEachRow(rows, []any{&at}, func() error {
						waits[at] = true
						return nil
					})
					require.NoError(t, err)
					return len(waits) >= n || len(switched) > 0, fmt.Sprint(len(waits), " waits")
				})
				require.Empty(t, switched)
			}
			awaitTry(1)
			go func() {
				_, err := live.Acquire(context.WithoutCancel(t.Context()))
				acquired <- err
			}()
			awaitTry(2)
			if !stays {
				require.NoError(t, reader.Rollback(t.Context()))
			}
			require.NoError(t, <-switched)
			require.ErrorIs(t, <-acquired, write.ErrLeaseHeld, "by nobody: it asked for the former index's")
			var runs int
			require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM tagstream.change_runs").Scan(&runs))
			require.Equal(t, 2, runs, "that of the migration, and an indexer's")
			if stays {
				require.Equal(t, write.FeedInUse, owner.FeedLoss())
			} else {
				require.Empty(t, owner.FeedLoss())
			}
		})
	}
}
