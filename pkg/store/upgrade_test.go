package store_test

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// recorded are the statements of the API whose newest known schema version is the key, as it sent
// them: those of version 1 are from commit 24a67b5. A release that is followed by a migration is
// added here, with its statements copied, not called: released programs do not change.
var recorded = map[int][]oldStatement{
	1: {
		{"status", `
		SELECT c.seq, c.source_host, c.source_seq, c.source_time, c.applied_at, c.posts, c.visible_posts, c.tags, c.dead_letters,
		       h.at, h.stream_first, h.stream_last, h.stream_bytes, h.database_bytes, clock_timestamp()
		  FROM checkpoint c CROSS JOIN heartbeat h`, nil, 1},
		{"post", `
		SELECT p.key, a.did, p.rkey, p.cid, p.tags, p.langs, p.indexed_at, p.record
		  FROM accounts a JOIN posts p ON p.account_id = a.id AND p.rkey = $2
		 WHERE a.did = $1 AND a.state = 0`, []any{"did:plc:author", "rkey000007"}, 1},
		{"first page", `SELECT p.key, a.did, p.rkey, p.cid, p.tags, p.langs, p.indexed_at, p.record FROM (SELECT DISTINCT ON (key) key FROM (` +
			`(SELECT key FROM post_tags WHERE tag_id = (SELECT id FROM tags WHERE name = $2) ORDER BY key DESC LIMIT $1) UNION ALL ` +
			`(SELECT key FROM post_tags WHERE tag_id = (SELECT id FROM tags WHERE name = $3) ORDER BY key DESC LIMIT $1)` +
			`) AS branches ORDER BY key DESC LIMIT $1) AS page JOIN posts p USING (key) JOIN accounts a ON a.id = p.account_id ORDER BY page.key DESC`,
			[]any{51, "art", "photo"}, 51},
		{"page before", `SELECT p.key, a.did, p.rkey, p.cid, p.tags, p.langs, p.indexed_at, p.record FROM (SELECT DISTINCT ON (key) key FROM (` +
			`(SELECT key FROM post_tags WHERE tag_id = (SELECT id FROM tags WHERE name = $2) AND key > $3 ORDER BY key ASC LIMIT $1)` +
			`) AS branches ORDER BY key ASC LIMIT $1) AS page JOIN posts p USING (key) JOIN accounts a ON a.id = p.account_id ORDER BY page.key ASC`,
			[]any{21, "art", [16]byte{}}, 21},
	},
}

// oldStatement is a statement of an old API, and how many rows it returns from this test's index.
type oldStatement struct {
	name, sql string
	args      []any
	rows      int
}

// inTheWay are the locks that each migration meets, so that it must wait: an old API's long read if
// the migration changes tables, an indexer's transaction if it changes rows.
var inTheWay = map[int]string{
	2:  "SELECT FROM tagstream.posts, tagstream.tags, tagstream.checkpoint, tagstream.heartbeat LIMIT 1",
	3:  "SELECT FROM tagstream.checkpoint FOR UPDATE",
	4:  "SELECT FROM tagstream.posts LIMIT 1",
	5:  "SELECT FROM tagstream.sweeps, tagstream.heartbeat LIMIT 1",
	7:  "SELECT FROM tagstream.checkpoint LIMIT 1",
	8:  "SELECT FROM tagstream.checkpoint LIMIT 1",
	10: "SELECT FROM tagstream.checkpoint, tagstream.sweeps LIMIT 1",
	11: "SELECT FROM tagstream.checkpoint, tagstream.accounts LIMIT 1",
	12: "SELECT FROM tagstream.checkpoint, tagstream.posts LIMIT 1",
	13: "SELECT FROM tagstream.checkpoint, tagstream.accounts LIMIT 1",
	14: "SELECT FROM tagstream.checkpoint LIMIT 1",
	15: "SELECT FROM tagstream.checkpoint LIMIT 1",
}

// TestOldAPIServesWhileMigrating: the API of each older version answers every request while each
// later migration waits, runs, and is done.
//
// Invariant: the API of the previous version answers every request while a migration waits, runs,
// and is done; a migration that gives up a lock is retried. See also
// TestMigrationsTakeLocksInOrder.
func TestOldAPIServesWhileMigrating(t *testing.T) {
	t.Parallel()
	for version, statements := range recorded {
		for _, migration := range migrations(t) {
			if migration <= version {
				continue
			}
			t.Run(fmt.Sprintf("api of %d, migration %d", version, migration), func(t *testing.T) {
				t.Parallel()
				require.Contains(t, inTheWay, migration, "say what this migration waits for")
				serveWhileMigrating(t, statements, migration, inTheWay[migration])
			})
		}
	}
}

// migrations returns the numbers of all migrations, in order.
func migrations(t *testing.T) (numbers []int) {
	t.Helper()
	files, err := fs.Glob(store.Migrations, "migrations/*.up.sql")
	require.NoError(t, err)
	for _, file := range files {
		n, err := strconv.Atoi(strings.TrimLeft(path.Base(file)[:4], "0"))
		require.NoError(t, err)
		numbers = append(numbers, n)
	}
	require.Equal(t, store.SchemaVersion, numbers[len(numbers)-1])
	return numbers
}

// downTo undoes everything in the live schema that is newer than a version.
func downTo(t *testing.T, owner *pgxpool.Pool, version int) {
	t.Helper()
	for _, n := range slices.Backward(migrations(t)) {
		if n <= version {
			_, err := owner.Exec(t.Context(), "UPDATE tagstream.schema_migrations SET version = $1", n)
			require.NoError(t, err)
			return
		}
		files, err := fs.Glob(store.Migrations, fmt.Sprintf("migrations/%04d_*.down.sql", n))
		require.NoError(t, err)
		require.Len(t, files, 1)
		sql, err := fs.ReadFile(store.Migrations, files[0])
		require.NoError(t, err)
		_, err = owner.Exec(t.Context(), "SET search_path = tagstream; "+string(sql))
		require.NoError(t, err)
	}
}

// serveWhileMigrating runs a migration and those after it.
func serveWhileMigrating(t *testing.T, statements []oldStatement, migration int, blocker string) {
	db := pgtest.Database(t)
	o := store.Options{URL: db.URL}
	reader := db.Role(t, "reader")
	require.NoError(t, store.CreateRoles(t.Context(), o, db.Role(t, "writer").Name, reader.Name))
	require.NoError(t, store.Migrate(t.Context(), o, storetest.Quiet))
	storetest.SeedPosts(t, storetest.Leader(t, o), storetest.Seed{Posts: 200, Second: func(i int) int { return i },
		Tags: func(i int) []string { return []string{[]string{"art", "photo"}[i%2]} }})
	owner := pgtest.Pool(t, o.URL)
	downTo(t, owner, migration-1)

	// The old API, with its connections and prepared statements throughout.
	api := oldAPI(t, reader.URL)
	var rounds atomic.Int64
	serving, stop := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	failures := make(chan error, 2)
	for range cap(failures) {
		workers.Go(func() {
			for serving.Err() == nil {
				if err := askAll(context.WithoutCancel(serving), api, statements); err != nil {
					failures <- err
					return
				}
				rounds.Add(1)
			}
		})
	}
	defer workers.Wait()
	defer stop()
	another := func(what string) {
		t.Helper()
		// Two workers: after three more rounds, at least one round has begun and ended in between.
		from := rounds.Load()
		poll.Until(t, patience, func() (bool, string) {
			select {
			case err := <-failures:
				t.Fatalf("the old API fails %s: %v", what, err)
			default:
			}
			return rounds.Load() >= from+3, fmt.Sprintf("%d rounds %s", rounds.Load()-from, what)
		})
	}
	another("before the migration")

	block, err := pgx.Connect(t.Context(), o.URL)
	require.NoError(t, err)
	defer block.Close(context.WithoutCancel(t.Context()))
	tx, err := block.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), blocker)
	require.NoError(t, err)
	migrated := make(chan error, 1)
	go func() { migrated <- store.Migrate(context.WithoutCancel(t.Context()), o, storetest.Quiet) }()
	poll.Until(t, patience, func() (bool, string) {
		var waiting int
		require.NoError(t, owner.QueryRow(t.Context(), `
			SELECT count(*) FROM pg_stat_activity a
			 WHERE datname = current_database() AND $1 = ANY(pg_blocking_pids(a.pid))`, block.PgConn().PID()).Scan(&waiting))
		return waiting > 0, "the migration does not wait"
	})
	another("while the migration waits")
	require.Empty(t, migrated, "it waits")
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, <-migrated)
	another("after the migration")

	// The current API, too.
	_, err = storetest.Reader(t, store.Options{URL: reader.URL}).Status(t.Context())
	require.NoError(t, err)
}

const patience = 60 * time.Second

// oldAPI connects as the API of version 1 did.
func oldAPI(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(url)
	require.NoError(t, err)
	for name, value := range map[string]string{
		"search_path": "tagstream", "default_transaction_read_only": "on", "default_transaction_isolation": "repeatable read",
		"statement_timeout": "5000", "plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_bitmapscan": "off",
		"enable_hashjoin": "off", "enable_mergejoin": "off", "enable_sort": "off", "jit": "off", "timezone": "UTC",
	} {
		cfg.ConnConfig.RuntimeParams[name] = value
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// askAll runs each statement and checks the number of rows, and that the posts among them are
// complete.
func askAll(ctx context.Context, api *pgxpool.Pool, statements []oldStatement) error {
	for _, s := range statements {
		rows, err := api.Query(ctx, s.sql, s.args...)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		n := 0
		for rows.Next() {
			n++
			if s.name == "status" {
				continue
			}
			var key event.Key
			var did, rkey, cid string
			var tags, langs []string
			var at time.Time
			var record []byte
			if err := rows.Scan((*[16]byte)(&key), &did, &rkey, &cid, &tags, &langs, &at, &record); err != nil {
				rows.Close()
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
		if err := rows.Err(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if n != s.rows {
			return fmt.Errorf("%s: %d rows, not %d", s.name, n, s.rows)
		}
	}
	return nil
}

// TestMigrationsAreTransactions: each migration is one transaction, so that a kill inside leaves
// all of it or nothing; TestMigrateAfterAKill continues after both.
func TestMigrationsAreTransactions(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(store.Migrations, "migrations/*.up.sql")
	require.NoError(t, err)
	for _, file := range files {
		sql, err := fs.ReadFile(store.Migrations, file)
		require.NoError(t, err)
		var begins, commits []int
		var statements []string
		for line := range strings.Lines(string(sql)) {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "--") {
				continue
			}
			statements = append(statements, line)
			switch line {
			case "BEGIN;":
				begins = append(begins, len(statements)-1)
			case "COMMIT;":
				commits = append(commits, len(statements)-1)
			}
		}
		require.Equal(t, []int{0}, begins, file)
		require.Equal(t, []int{len(statements) - 1}, commits, file)
	}
}

// TestMigrationsTakeLocksInOrder: an indexer holds the checkpoint's row before it locks tables. A
// migration that waits for the row must not hold one of those tables.
func TestMigrationsTakeLocksInOrder(t *testing.T) {
	t.Parallel()
	for _, version := range migrations(t)[1:] {
		t.Run(fmt.Sprint("migration ", version), func(t *testing.T) {
			t.Parallel()
			o := storetest.Database(t)
			pool := pgtest.Pool(t, o.URL)
			downTo(t, pool, version-1)
			free := holdCheckpoint(t, pool)
			done := make(chan error, 1)
			go func() { done <- store.Migrate(context.WithoutCancel(t.Context()), o, storetest.Quiet) }()
			var tables []string
			poll.Until(t, patience, func() (waits bool, _ string) {
				require.NoError(t, pool.QueryRow(t.Context(), `
					SELECT count(*) > 0, coalesce(array_agg(h.relation::regclass::text) FILTER (WHERE h.relation IS NOT NULL), '{}')
					  FROM pg_locks w JOIN pg_stat_activity a USING (pid)
					  LEFT JOIN pg_locks h ON h.pid = w.pid AND h.granted AND h.mode = 'AccessExclusiveLock'
					   AND h.relation IN ('tagstream.posts'::regclass, 'tagstream.accounts'::regclass, 'tagstream.tags'::regclass, 'tagstream.post_tags'::regclass)
					 WHERE NOT w.granted AND w.locktype IN ('transactionid', 'relation', 'tuple') AND a.datname = current_database()`).Scan(&waits, &tables))
				return waits, "the migration does not wait yet"
			})
			require.Empty(t, tables)
			free()
			require.NoError(t, <-done)
		})
	}
}

// holdCheckpoint holds the checkpoint's row like an indexer's transaction, until the returned
// function is called.
func holdCheckpoint(t *testing.T, pool *pgxpool.Pool) (free func()) {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	free = func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }
	t.Cleanup(free)
	_, err = tx.Exec(t.Context(), "SELECT FROM tagstream.checkpoint FOR UPDATE")
	require.NoError(t, err)
	return free
}
