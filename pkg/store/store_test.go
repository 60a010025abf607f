package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var quiet = slog.New(slog.DiscardHandler)

// newDatabase returns a migrated database of the test's own.
func newDatabase(t testing.TB) store.Options {
	t.Helper()
	o := store.Options{URL: pgtest.Database(t).URL}
	require.NoError(t, store.Migrate(t.Context(), o, quiet))
	return o
}

func openWriter(t testing.TB, o store.Options, holder string) *store.Writer {
	t.Helper()
	w, err := store.OpenWriter(t.Context(), o, holder)
	require.NoError(t, err)
	t.Cleanup(w.Close)
	return w
}

// openLeader is openWriter with the lease.
func openLeader(t testing.TB, o store.Options) *store.Writer {
	t.Helper()
	w := openWriter(t, o, "w")
	_, err := w.Acquire(t.Context())
	require.NoError(t, err)
	return w
}

func openReader(t testing.TB, o store.Options) *store.Reader {
	t.Helper()
	r, err := store.OpenReader(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

// seed is what seedPosts makes.
type seed struct {
	posts int
	// tags of post number i.
	tags func(i int) []string
	// langs of post number i, nil for none of any.
	langs func(i int) []string
	// second of post number i; several may share one.
	second func(i int) int
}

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// seedPosts writes posts through the writer, as the indexer does, and returns
// them newest first.
func seedPosts(t testing.TB, w *store.Writer, s seed) []*store.Post {
	t.Helper()
	const batch = 1000
	account := &store.Account{DID: "did:plc:author", Seq: 1}
	var all []*store.Post
	for from := 0; from < s.posts; from += batch {
		var c store.Changes
		if from == 0 {
			c.Accounts = []*store.Account{account}
		}
		for i := from; i < min(from+batch, s.posts); i++ {
			p := &store.Post{
				Account: account, Rkey: fmt.Sprintf("rkey%06d", i), Rev: "3abcdefghijkl", CID: "bafy", Tags: s.tags(i),
				IndexedAt: epoch, Seq: uint64(i + 1), Record: []byte(`{"text":"hello"}`),
			}
			if s.langs != nil {
				p.Langs = s.langs(i)
			}
			p.Key = event.NewKey(epoch.Add(time.Duration(s.second(i))*time.Second), event.URI(account.DID, p.Rkey))
			c.Posts = append(c.Posts, store.PostChange{New: p, NewVisible: true})
			all = append(all, p)
		}
		require.NoError(t, w.Apply(t.Context(), func(tx *store.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
			cp.Seq += uint64(len(c.Posts))
			return cp, tx.Write(t.Context(), c)
		}))
	}
	slices.SortFunc(all, func(a, b *store.Post) int { return slices.Compare(b.Key[:], a.Key[:]) })
	return all
}

// Invariant: a writer whose term is over changes nothing: the epoch is checked under the row
// lock.
func TestLease(t *testing.T) {
	t.Parallel()
	o := newDatabase(t)
	a, b := openWriter(t, o, "a"), openWriter(t, o, "b")
	_, err := a.Acquire(t.Context())
	require.NoError(t, err)
	_, err = b.Acquire(t.Context())
	require.ErrorIs(t, err, store.ErrLeaseHeld)
	require.NoError(t, a.Renew(t.Context()))

	require.NoError(t, a.Release(t.Context()))
	cp, err := b.Acquire(t.Context())
	require.NoError(t, err)
	require.Zero(t, cp.Seq)

	// The first holder wakes up and goes on: nothing of it may stay.
	ran := false
	err = a.Apply(t.Context(), func(_ *store.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		ran = true
		return cp, nil
	})
	require.ErrorIs(t, err, store.ErrLeaseLost)
	require.False(t, ran)
	require.ErrorIs(t, a.Renew(t.Context()), store.ErrLeaseLost)
}

func TestNotMigrated(t *testing.T) {
	t.Parallel()
	o := store.Options{URL: pgtest.Database(t).URL}
	_, err := openWriter(t, o, "a").Acquire(t.Context())
	require.ErrorIs(t, err, store.ErrNotMigrated)
	_, err = openReader(t, o).Status(t.Context())
	require.ErrorIs(t, err, store.ErrNotMigrated)
}

func TestMigrateTwiceAndAtOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	o := store.Options{URL: db.URL}
	require.NoError(t, store.CreateRoles(t.Context(), o, db.Role(t, "writer").Name, db.Role(t, "reader").Name))
	errs := make(chan error, 12)
	for range cap(errs) {
		go func() { errs <- store.Migrate(context.WithoutCancel(t.Context()), o, quiet) }()
	}
	for range cap(errs) {
		require.NoError(t, <-errs)
	}
}

// A run that was killed leaves its number marked dirty, with or without the
// work done.
// A migration that was killed half-way is dirty, and its work was either all
// done or none of it.
//
// Invariant: the next run finishes a migration that was killed, and an older program does not
// touch the migration of a newer one. See also TestMigrationsAreTransactions and
// TestOlderProgramLeavesANewerRunAlone.
func TestMigrateAfterAKill(t *testing.T) {
	t.Parallel()
	for _, killed := range migrations(t) {
		for _, done := range []bool{true, false} {
			t.Run(fmt.Sprintf("migration %d, done %t", killed, done), func(t *testing.T) {
				t.Parallel()
				o := newDatabase(t)
				pool := pgtest.Pool(t, o.URL)
				if done {
					downTo(t, pool, killed)
				} else {
					downTo(t, pool, killed-1)
				}
				_, err := pool.Exec(t.Context(), "UPDATE tagstream.schema_migrations SET dirty = true, version = $1", killed)
				require.NoError(t, err)
				require.NoError(t, store.EnsureMigrated(t.Context(), o, quiet))
				_, err = openReader(t, o).Status(t.Context())
				require.NoError(t, err)
				_, err = openLeader(t, o).Acquire(t.Context())
				require.NoError(t, err)
			})
		}
	}
}

// TestMigrateEndsWithItsContext: a migration that waits, or works for hours, is left
// where it is.
func TestMigrateEndsWithItsContext(t *testing.T) {
	t.Parallel()
	o := newDatabase(t)
	pool := pgtest.Pool(t, o.URL)
	downTo(t, pool, 2)
	free := holdCheckpoint(t, pool)
	stopping := errors.New("told to stop")
	ctx, stop := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- store.Migrate(ctx, o, quiet) }()
	poll.Until(t, patience, func() (waits bool, _ string) {
		require.NoError(t, pool.QueryRow(t.Context(), `
			SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database() AND l.locktype = 'transactionid')`).Scan(&waits))
		return waits, "the migration does not wait yet"
	})
	stop(stopping)
	require.ErrorIs(t, <-done, stopping)
	free()
	require.NoError(t, store.Migrate(t.Context(), o, quiet))
}

func TestReaderCannotWrite(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	reader, writer := db.Role(t, "reader"), db.Role(t, "writer")
	o := store.Options{URL: db.URL}
	require.NoError(t, store.CreateRoles(t.Context(), o, writer.Name, reader.Name))
	require.NoError(t, store.Migrate(t.Context(), o, quiet))

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

	// The writer's role is enough to index, and says what it lacks otherwise.
	w := openWriter(t, store.Options{URL: writer.URL}, "w")
	_, err := w.Acquire(t.Context())
	require.NoError(t, err)
	require.NoError(t, store.EnsureMigrated(t.Context(), store.Options{URL: writer.URL}, quiet))
	require.NoError(t, store.NewOwner(o).Drop(t.Context(), store.Rebuilding))
}

// Invariant: a post never takes a key that another post has.
func TestKeyCollision(t *testing.T) {
	t.Parallel()
	o := newDatabase(t)
	w := openLeader(t, o)
	account := &store.Account{DID: "did:plc:author", Seq: 1}
	key := event.NewKey(epoch, "at://x")
	put := func(rkey string) *store.Post {
		p := &store.Post{Key: key, Account: account, Rkey: rkey, Rev: "3abcdefghijkl", CID: "bafy", Tags: []string{"art"}, IndexedAt: epoch, Seq: 1, Record: []byte("{}")}
		c := store.Changes{Posts: []store.PostChange{{New: p, NewVisible: true}}}
		if account.ID == 0 {
			c.Accounts = []*store.Account{account}
		}
		require.NoError(t, w.Apply(t.Context(), func(tx *store.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
			return cp, tx.Write(t.Context(), c)
		}))
		return p
	}
	require.Equal(t, key, put("first").Key)
	require.Equal(t, key.Next(), put("second").Key)
	require.Equal(t, key.Next().Next(), put("third").Key)
	r := openReader(t, o)
	for _, rkey := range []string{"first", "second", "third"} {
		p, err := r.Post(t.Context(), account.DID, rkey)
		require.NoError(t, err)
		require.Equal(t, rkey, p.Rkey)
	}
}

// An older program that meets a newer one's unfinished migration leaves it alone.
func TestOlderProgramLeavesANewerRunAlone(t *testing.T) {
	t.Parallel()
	o := newDatabase(t)
	pool := pgtest.Pool(t, o.URL)
	_, err := pool.Exec(t.Context(), "UPDATE tagstream.schema_migrations SET version = 9, dirty = true")
	require.NoError(t, err)
	for range 2 {
		require.ErrorContains(t, store.EnsureMigrated(t.Context(), o, quiet), "newer program's migration 9 is unfinished")
	}
	_, err = pool.Exec(t.Context(), "UPDATE tagstream.schema_migrations SET dirty = false")
	require.NoError(t, err)
	require.NoError(t, store.EnsureMigrated(t.Context(), o, quiet))
}

// A post that finds all its places taken is bad data, not a reason to stop.
func TestCrowdedKeyIsRejected(t *testing.T) {
	t.Parallel()
	o := newDatabase(t)
	w := openLeader(t, o)
	account := &store.Account{DID: "did:plc:author", Seq: 1}
	var err error
	for i := range 9 {
		p := &store.Post{
			Key: event.NewKey(epoch, "at://x"), Account: account, Rkey: fmt.Sprint(i), Rev: "3abcdefghijkl", CID: "bafy",
			Tags: []string{"art"}, IndexedAt: epoch, Seq: 1, Record: []byte("{}"),
		}
		c := store.Changes{Posts: []store.PostChange{{New: p, NewVisible: true}}}
		if account.ID == 0 {
			c.Accounts = []*store.Account{account}
		}
		err = w.Apply(t.Context(), func(tx *store.Tx, cp store.Checkpoint) (store.Checkpoint, error) { return cp, tx.Write(t.Context(), c) })
	}
	require.Error(t, err)
	require.True(t, store.Rejected(err))
}

// A program that does not know a part of the index must not write the rest.
//
// Invariant: a program that does not know everything the schema holds does not write to it. See
// also TestVersionOneIsKeptFromWriting.
func TestOutdatedWriter(t *testing.T) {
	t.Parallel()
	o := newDatabase(t)
	leader := openLeader(t, o)
	_, err := pgtest.Pool(t, o.URL).Exec(t.Context(), "UPDATE tagstream.checkpoint SET writer_version = $1", store.SchemaVersion+1)
	require.NoError(t, err)
	err = leader.Apply(t.Context(), func(_ *store.Tx, cp store.Checkpoint) (store.Checkpoint, error) { return cp, nil })
	require.ErrorIs(t, err, store.ErrOutdated)
	_, err = openWriter(t, o, "old").Acquire(t.Context())
	require.ErrorIs(t, err, store.ErrOutdated)
}

// An indexer of version 1 of the schema does not ask whether it may write. It is
// kept from it, while an API of that version goes on.
func TestVersionOneIsKeptFromWriting(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t, newDatabase(t).URL)
	for _, sql := range []string{
		"UPDATE tagstream.checkpoint SET epoch = epoch + 1, holder = 'old', expires_at = clock_timestamp()",
		"UPDATE tagstream.checkpoint SET seq = 1, source_seq = 1, applied_at = clock_timestamp(), expires_at = clock_timestamp()",
	} {
		_, err := pool.Exec(t.Context(), sql)
		require.ErrorContains(t, err, "42703", "what version 1 takes for a schema that is not there")
	}
	var n int
	require.NoError(t, pool.QueryRow(t.Context(), `
		SELECT c.dead_letters FROM tagstream.checkpoint c CROSS JOIN tagstream.heartbeat h WHERE c.posts + c.visible_posts + c.tags + c.seq + h.stream_last >= 0`).Scan(&n))
}
