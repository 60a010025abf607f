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

// A follower of the live index continues with the rebuilt one. It receives what only that one has
// folded, and the posts of an account that the live one was hiding. If the two indexes were not
// verified to be equal, the follower must list everything again.
func TestSwitchKeepsFeed(t *testing.T) {
	t.Parallel()
	for _, same := range []bool{true, false} {
		o := storetest.Database(t)
		live, rebuilt := storetest.Leader(t, o), storetest.Rebuilding(t, o)
		r := storetest.Reader(t, o)
		for _, w := range []*write.Writer{live, rebuilt} {
			require.NoError(t, storetest.Add(t, w, "did:plc:a", "art", 1))
			require.NoError(t, storetest.Add(t, w, "did:plc:b", "ärt", 2))
		}
		follow := func(tag string, after *query.FeedPosition) (rkeys []string, next query.FeedPosition, err error) {
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

		// The live index has begun to hide an account. The rebuilt one has finished that, and has
		// folded one more message.
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
		got, next, err := follow("art", &art)
		require.NoError(t, err)
		require.Equal(t, []string{"did:plc:c"}, got)
		require.EqualValues(t, 4, next.Change)
		got, _, err = follow("ärt", &umlaut)
		require.NoError(t, err)
		require.Equal(t, []string{"did:plc:b"}, got)

		// The indexer continues from there, and announces the accounts that the live index had not.
		_, err = live.Acquire(t.Context())
		require.NoError(t, err)
		require.NoError(t, storetest.Add(t, live, "did:plc:d", "art", 4))
		got, next, err = follow("art", &next)
		require.NoError(t, err)
		require.Equal(t, []string{"did:plc:d"}, got)
		require.EqualValues(t, 5, next.Change)
		for live.Pending() && next.Change < 6 {
			require.NoError(t, live.Announce(t.Context()))
			_, next, err = follow("art", nil)
			require.NoError(t, err)
		}
		require.EqualValues(t, 6, next.Change)
	}
}

// A slow reader or an indexer that waits for the lease does not make followers list everything
// again. A backup that keeps its lock does.
func TestSwitchWaitsForFeedReaders(t *testing.T) {
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
			// Each attempt of the switch is a separate statement.
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
			require.ErrorIs(t, <-acquired, write.ErrLeaseHeld, "it waited for the lease of the former index")
			var runs int
			require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM tagstream.change_runs").Scan(&runs))
			require.Equal(t, 2, runs, "one from the migration, one from an indexer")
			if stays {
				require.Equal(t, write.FeedInUse, owner.FeedLoss())
			} else {
				require.Empty(t, owner.FeedLoss())
			}
		})
	}
}
