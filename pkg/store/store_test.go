package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestNotMigrated(t *testing.T) {
	t.Parallel()
	o := store.Options{URL: pgtest.Database(t).URL}
	_, err := storetest.Writer(t, o, "a").Acquire(t.Context())
	require.ErrorIs(t, err, store.ErrNotMigrated)
	_, err = storetest.Reader(t, o).Status(t.Context())
	require.ErrorIs(t, err, store.ErrNotMigrated)
}

func TestMigrateTwiceAndAtOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	o := store.Options{URL: db.URL}
	require.NoError(t, store.CreateRoles(t.Context(), o, db.Role(t, "writer").Name, db.Role(t, "reader").Name))
	errs := make(chan error, 12)
	for range cap(errs) {
		go func() { errs <- store.Migrate(context.WithoutCancel(t.Context()), o, storetest.Quiet) }()
	}
	for range cap(errs) {
		require.NoError(t, <-errs)
	}
}

// A migration that was killed half-way leaves its number marked dirty. Its work was either all done
// or not done at all.
//
// Invariant: the next run finishes a migration that was killed, and an older program does not touch
// the migration of a newer one. See also TestMigrationsAreTransactions and
// TestOlderProgramLeavesANewerRunAlone.
func TestMigrateAfterAKill(t *testing.T) {
	t.Parallel()
	for _, killed := range migrations(t) {
		for _, done := range []bool{true, false} {
			t.Run(fmt.Sprintf("migration %d, done %t", killed, done), func(t *testing.T) {
				t.Parallel()
				o := storetest.Database(t)
				pool := pgtest.Pool(t, o.URL)
				if done {
					downTo(t, pool, killed)
				} else {
					downTo(t, pool, killed-1)
				}
				_, err := pool.Exec(t.Context(), "UPDATE tagstream.schema_migrations SET dirty = true, version = $1", killed)
				require.NoError(t, err)
				require.NoError(t, store.EnsureMigrated(t.Context(), o, storetest.Quiet))
				_, err = storetest.Reader(t, o).Status(t.Context())
				require.NoError(t, err)
				_, err = storetest.Leader(t, o).Acquire(t.Context())
				require.NoError(t, err)
			})
		}
	}
}

// TestMigrateEndsWithItsContext: a migration that waits, or works for hours, stops when its context
// ends.
func TestMigrateEndsWithItsContext(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	pool := pgtest.Pool(t, o.URL)
	downTo(t, pool, 2)
	free := holdCheckpoint(t, pool)
	stopping := errors.New("told to stop")
	ctx, stop := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- store.Migrate(ctx, o, storetest.Quiet) }()
	poll.Until(t, patience, func() (waits bool, _ string) {
		require.NoError(t, pool.QueryRow(t.Context(), `
			SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database() AND l.locktype = 'transactionid')`).Scan(&waits))
		return waits, "the migration does not wait yet"
	})
	stop(stopping)
	require.ErrorIs(t, <-done, stopping)
	free()
	require.NoError(t, store.Migrate(t.Context(), o, storetest.Quiet))
}

func TestReaderCannotWrite(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	reader, writer := db.Role(t, "reader"), db.Role(t, "writer")
	o := store.Options{URL: db.URL}
	require.NoError(t, store.CreateRoles(t.Context(), o, writer.Name, reader.Name))
	require.NoError(t, store.Migrate(t.Context(), o, storetest.Quiet))

	for _, tt := range []struct {
		name, url, sql string
		allowed        bool
	}{
		{"reader selects", reader.URL, "SELECT FROM tagstream.posts", true},
		{"reader inserts", reader.URL, "INSERT INTO tagstream.tags (name) VALUES ('x')", false},
		{"reader deletes", reader.URL, "DELETE FROM tagstream.posts", false},
		{"reader moves the checkpoint", reader.URL, "UPDATE tagstream.checkpoint SET seq = 1", false},
		{"reader creates", reader.URL, "CREATE TABLE tagstream.x ()", false},
		{"writer inserts", writer.URL, "INSERT INTO tagstream.tags (name) VALUES ('x')", true},
		{"writer drops", writer.URL, "DROP TABLE tagstream.tags", false},
		{"writer creates", writer.URL, "CREATE TABLE tagstream.x ()", false},
		{"writer claims a version", writer.URL, "UPDATE tagstream.schema_migrations SET version = 9", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := pgtest.Pool(t, tt.url).Exec(t.Context(), tt.sql)
			if tt.allowed {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "42501") // insufficient privilege
		})
	}

	// The writer's role is enough to index; errors say which right is missing.
	w := storetest.Writer(t, store.Options{URL: writer.URL}, "w")
	_, err := w.Acquire(t.Context())
	require.NoError(t, err)
	require.NoError(t, store.EnsureMigrated(t.Context(), store.Options{URL: writer.URL}, storetest.Quiet))
	require.NoError(t, write.NewOwner(o).Drop(t.Context(), store.Rebuilding))
}

// An older program leaves a newer one's unfinished migration alone.
func TestOlderProgramLeavesANewerRunAlone(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	pool := pgtest.Pool(t, o.URL)
	_, err := pool.Exec(t.Context(), "UPDATE tagstream.schema_migrations SET version = 999, dirty = true")
	require.NoError(t, err)
	for range 2 {
		require.ErrorContains(t, store.EnsureMigrated(t.Context(), o, storetest.Quiet), "newer program's migration 999 is unfinished")
	}
	_, err = pool.Exec(t.Context(), "UPDATE tagstream.schema_migrations SET dirty = false")
	require.NoError(t, err)
	require.NoError(t, store.EnsureMigrated(t.Context(), o, storetest.Quiet))
}
