package store_test

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// TestDeclaredPooler is about a pooler that passes on the server's own process numbers.
func TestDeclaredPooler(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	for _, mode := range []string{"exec", "simple_protocol", "cache_describe"} {
		declared := o
		u, err := url.Parse(o.URL)
		require.NoError(t, err)
		q := u.Query()
		q.Set("default_query_exec_mode", mode)
		u.RawQuery = q.Encode()
		declared.URL = u.String()
		require.ErrorIs(t, store.Migrate(t.Context(), declared, storetest.Quiet), pg.ErrPooled)
		_, err = storetest.Reader(t, declared).Status(t.Context())
		require.NoError(t, err)
		w := storetest.Leader(t, declared)
		require.NoError(t, w.Release(t.Context()))
	}
}

// TestMigrationLockIsNamed leaves the migration lock to a pooler, like a program that ended.
func TestMigrationLockIsNamed(t *testing.T) {
	t.Parallel()
	o := store.Options{URL: pgtest.Database(t).URL}
	through := pgtest.Bouncer(t, pgtest.Bouncers(t)[0], pgtest.TransactionPooling, o.URL)[0]
	conn, err := pgx.Connect(t.Context(), through+"&default_query_exec_mode=exec&application_name=left")
	require.NoError(t, err)
	var pid int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT pg_backend_pid() FROM pg_advisory_lock($1::bigint)", store.MigrationLock).Scan(&pid))
	require.NoError(t, conn.Close(t.Context()))

	err = store.Migrate(t.Context(), o, storetest.Quiet)
	require.ErrorContains(t, err, fmt.Sprintf("the migration lock is held by process %d of role postgres, program left", pid))
	_, err = pgtest.Pool(t, o.URL).Exec(t.Context(), "SELECT pg_terminate_backend($1)", pid)
	require.NoError(t, err)
	require.NoError(t, store.Migrate(t.Context(), o, storetest.Quiet))
}
