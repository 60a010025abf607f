package query_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/check"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// throughPoolers runs a test through every installed PgBouncer, in both modes.
func throughPoolers(t *testing.T, test func(t *testing.T, pooled func(urls ...string) []string)) {
	t.Parallel()
	for _, binary := range pgtest.Bouncers(t) {
		for _, mode := range []string{pgtest.SessionPooling, pgtest.TransactionPooling} {
			t.Run(filepath.Base(binary)+" "+mode, func(t *testing.T) {
				t.Parallel()
				test(t, func(urls ...string) []string { return pgtest.Bouncer(t, binary, mode, urls...) })
			})
		}
	}
}

// bystander is another program's connection through the pooler.
func bystander(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url+"&default_query_exec_mode=exec")
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// Invariant: safety does not depend on anything that a pooler may drop or share. Each transaction
// sets what it needs, nothing is left in the pool, and commands that need a session refuse to run.
// See also TestDeclaredPooler, TestReadersAroundSwitch, TestMigrationLockIsNamed and
// TestProgramsThroughPgBouncer.
func TestThroughPoolers(t *testing.T) {
	throughPoolers(t, func(t *testing.T, pooled func(urls ...string) []string) {
		ctx := t.Context()
		direct := store.Options{URL: pgtest.Database(t).URL}
		o := store.Options{URL: pooled(direct.URL)[0]}

		// A command that needs a dedicated session says so and leaves nothing behind.
		require.ErrorIs(t, store.Migrate(ctx, o, storetest.Quiet), pg.ErrPooled)
		require.ErrorContains(t, store.Migrate(ctx, o, storetest.Quiet), "connect directly to Postgres")
		require.ErrorIs(t, store.EnsureMigrated(ctx, o, storetest.Quiet), store.ErrNotMigrated)
		require.ErrorIs(t, write.NewOwner(o).Drop(ctx, store.Rebuilding), pg.ErrPooled)
		pool := pgtest.Pool(t, direct.URL)
		var left int
		require.NoError(t, pool.QueryRow(ctx, "SELECT (SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'tagstream')) + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))").Scan(&left))
		require.Zero(t, left)
		require.NoError(t, store.Migrate(ctx, direct, storetest.Quiet))
		require.NoError(t, store.EnsureMigrated(ctx, o, storetest.Quiet))

		// Other programs share the pool and set anything.
		other := bystander(t, o.URL)
		for _, sql := range []string{
			"CREATE TABLE public.checkpoint AS SELECT * FROM tagstream.checkpoint", "CREATE TABLE public.tags (id bigint, name text, posts bigint)",
			"SET search_path = public", "SET statement_timeout = 0", "SET default_transaction_read_only = off", "SET standard_conforming_strings = off",
		} {
			_, err := other.Exec(ctx, sql)
			require.NoError(t, err)
		}
		w := storetest.Leader(t, o)
		_, err := storetest.Writer(t, o, "second").Acquire(ctx)
		require.ErrorIs(t, err, write.ErrLeaseHeld)
		want := storetest.SeedPosts(t, w, storetest.Seed{
			Posts: 300, Second: func(i int) int { return i / 2 }, Langs: func(i int) []string { return []string{"ja"} },
			Tags: func(i int) []string { return []string{"art", fmt.Sprintf("日本語 %d", i%3), `a\'b`} },
		})
		require.NoError(t, w.Renew(ctx))
		_, err = w.Heartbeat(ctx, 1, 300, 1000, true)
		require.NoError(t, err)
		gone, err := w.Gone(ctx, []write.Version{{DID: "did:plc:author", Rkey: want[0].Rkey, Rev: want[0].Rev}})
		require.NoError(t, err)
		require.Equal(t, []bool{false}, gone)

		r := storetest.Reader(t, o)
		for _, c := range []struct {
			q    query.PostQuery
			want int
		}{
			{query.PostQuery{Tags: []string{"art"}}, 100},
			{query.PostQuery{All: []string{"日本語 1", "art"}}, 100},
			{query.PostQuery{Tags: []string{`a\'b`}, None: []string{"日本語 0", "日本語 1"}, Langs: []string{"ja"}}, 100},
			{query.PostQuery{Tags: []string{"nothing"}}, 0},
			{query.PostQuery{Tags: []string{"art"}, Authors: []string{"did:plc:author"}, MaxTags: 3, NoMedia: true, SelfLabels: query.ExcludeSelfLabels}, 100},
			{query.PostQuery{Tags: []string{"art"}, NotAuthors: []string{"did:plc:author"}}, 0},
			{query.PostQuery{Tags: []string{"art"}, Media: event.HasImage, SelfLabels: query.OnlySelfLabels}, 0},
		} {
			c.q.Limit, c.q.Direction = 100, keyset.Forward
			page, err := r.Posts(ctx, c.q)
			require.NoError(t, err)
			require.Len(t, page.Rows, c.want)
		}
		tags, err := r.TagsWithPrefix(ctx, "日本")
		require.NoError(t, err)
		require.Len(t, tags, 3)
		_, err = r.TagHistory(ctx, "art")
		require.NoError(t, err)
		_, err = r.Popular(ctx, 24)
		require.NoError(t, err)
		_, err = r.Post(ctx, "did:plc:author", want[0].Rkey)
		require.NoError(t, err)
		changes, err := r.Changes(ctx, query.ChangeQuery{List: query.PostQuery{Tags: []string{"art"}, Media: event.HasImage}, Limit: 10})
		require.NoError(t, err)
		start := changes.Next
		start.Change = 0
		changes, err = r.Changes(ctx, query.ChangeQuery{List: query.PostQuery{Tags: []string{"art"}}, After: &start, Limit: 10})
		require.NoError(t, err)
		require.Len(t, changes.Changes, 10)
		changed, err := r.ChangedTags(ctx, start)
		require.NoError(t, err)
		require.NotEmpty(t, changed)
		status, err := r.Status(ctx)
		require.NoError(t, err)
		require.EqualValues(t, 300, status.Posts)

		// The pooler closes the session in which this fails.
		_, err = r.QueryText(ctx, "DELETE FROM tags RETURNING name")
		require.ErrorContains(t, err, "25006")

		// A reader has the same limits as without a pooler.
		for sql, want := range map[string]string{
			"SELECT current_setting('transaction_read_only')":               "on",
			"SELECT current_setting('transaction_isolation')":               "repeatable read",
			"SELECT current_setting('statement_timeout')":                   "5s",
			"SELECT current_setting('search_path')":                         `"tagstream"`,
			"SELECT current_setting('client_encoding')":                     "UTF8",
			"SELECT current_setting('plan_cache_mode')":                     "force_generic_plan",
			"SELECT current_setting('enable_sort')":                         "off",
			"SELECT current_setting('idle_in_transaction_session_timeout')": "5s",
		} {
			got, err := r.QueryText(ctx, sql)
			require.NoError(t, err)
			require.Equal(t, want, got, sql)
		}

		findings, err := check.New(o).Check(ctx, store.Live)
		require.NoError(t, err)
		require.Zero(t, findings.N, findings)
		cp, ok, err := write.NewOwner(o).CheckpointOf(ctx, store.Live)
		require.NoError(t, err)
		require.True(t, ok)
		require.EqualValues(t, 300, cp.Seq)
		require.NoError(t, w.Release(ctx))

		// Nothing is left in the pool's sessions; each of these connections holds one.
		for range 8 {
			conn := bystander(t, o.URL)
			_, err := conn.Exec(ctx, "BEGIN")
			require.NoError(t, err)
			for name, want := range map[string]string{"default_transaction_read_only": "off", "enable_sort": "on", "idle_in_transaction_session_timeout": "0"} {
				var got string
				require.NoError(t, conn.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&got))
				require.Equal(t, want, got, name)
			}
		}
	})
}
