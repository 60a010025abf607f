package e2e_test

import (
	"context"
	"io/fs"
	"log/slog"
	neturl "net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/pgserver"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/model"
	"github.com/tagstream/tagstream/test/simnet"
)

// These tests follow the backup and restore procedures of docs/operations.md.

// copyTree copies a folder like cp -a.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// replaceTree replaces a folder with a copy of another.
func replaceTree(t *testing.T, from, to string) {
	t.Helper()
	require.NoError(t, os.RemoveAll(to))
	copyTree(t, from, to)
}

// pgRun runs one of Postgres's programs.
func pgRun(t *testing.T, name string, args ...string) {
	t.Helper()
	binaries, err := pgserver.Find(t.Context(), "")
	require.NoError(t, err)
	path := filepath.Join(binaries.Dir, name)
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("there is no %s next to Postgres: %v", name, err)
		}
		t.Skipf("SKIPPED: there is no %s next to Postgres: %v", name, err)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	require.NoError(t, err, "%s %s: %s", name, strings.Join(args, " "), out)
}

// deployed gives the bench a separate Postgres server with the roles of a deployment.
func (b *indexBench) deployed() *pgtest.PrivateServer {
	b.t.Helper()
	pg := pgtest.Server(b.t)
	pool := pg.Pool(b.t)
	for _, stmt := range []string{
		"CREATE ROLE tagstream_owner LOGIN PASSWORD 'owner'", "CREATE ROLE tagstream_indexer LOGIN PASSWORD 'indexer'",
		"CREATE ROLE tagstream_api LOGIN PASSWORD 'api'", "CREATE DATABASE tagstream OWNER tagstream_owner",
	} {
		_, err := pool.Exec(b.t.Context(), stmt)
		require.NoError(b.t, err)
	}
	as := func(role string) store.Options {
		u, err := neturl.Parse(pg.URL)
		require.NoError(b.t, err)
		u.User, u.Path = neturl.UserPassword("tagstream_"+role, role), "/tagstream"
		return store.Options{URL: u.String()}
	}
	require.NoError(b.t, store.CreateRoles(b.t.Context(), store.Options{URL: pg.URL}, "tagstream_indexer", "tagstream_api"))
	b.owner, b.writer, b.reader = as("owner"), as("indexer"), as("api")
	require.NoError(b.t, store.Migrate(b.t.Context(), b.owner, slog.New(slog.DiscardHandler)))
	return pg
}

// verified checks that the live index is consistent.
func (b *indexBench) verified() {
	b.t.Helper()
	_, found, err := indexer.Verify(b.t.Context(), indexer.VerifyConfig{Database: b.reader, Alone: true}, slog.New(slog.DiscardHandler), &steps{})
	require.NoError(b.t, err)
	require.Zero(b.t, found.N, found.String())
}

// TestRestorePostgres restores an older copy of the index, from a dump and from a base backup. The
// index catches up from the stream, and tokens stay valid.
//
// Invariant: an index restored from a backup older than the stream catches up, and tokens stay
// valid. See also TestRestoreBoth and TestRestoreStandalone.
func TestRestorePostgres(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"dump", "base backup"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			b := newIndexBench(t, natstest.Server(t))
			pg := b.deployed()
			url := b.api()
			history := model.GenerateMessages(31, 1000)
			want := model.Fold(history)
			backup := filepath.Join(t.TempDir(), "backup")
			ix := b.indexer(50)
			b.await(url, b.publish(history[:500]...))
			switch how {
			case "dump":
				pgRun(t, "pg_dump", "--format=custom", "--schema=tagstream", "--file="+backup, b.owner.URL)
			default:
				pgRun(t, "pg_basebackup", "--pgdata="+backup, "--wal-method=stream", "--checkpoint=fast", "--dbname="+pg.URL)
			}
			b.await(url, b.publish(history[500:]...))
			b.verified()
			query := "/v1/posts?limit=20&tags=" + neturl.QueryEscape(want.TagCounts()[0].Tag)
			_, token := page(t, url+query)
			second, _ := page(t, url+query+"&after="+token)
			require.NotEmpty(t, second)
			require.NoError(t, ix.stop())

			switch how {
			case "dump":
				pool := pgtest.Pool(t, b.owner.URL)
				_, err := pool.Exec(t.Context(), "DROP SCHEMA IF EXISTS tagstream, tagstream_rebuild, tagstream_retired CASCADE")
				require.NoError(t, err)
				pgRun(t, "pg_restore", "--exit-on-error", "--single-transaction", "--dbname="+b.owner.URL, backup)
				_, err = pool.Exec(t.Context(), "VACUUM (ANALYZE)")
				require.NoError(t, err)
				require.NoError(t, store.Migrate(t.Context(), b.owner, slog.New(slog.DiscardHandler)))
			default:
				var pid string
				require.NoError(t, pg.Pool(t).QueryRow(t.Context(), "SELECT split_part(pg_read_file('postmaster.pid'), chr(10), 1)").Scan(&pid))
				data, err := os.Readlink("/proc/" + pid + "/cwd")
				require.NoError(t, err)
				info, err := os.Stat(data)
				require.NoError(t, err)
				pg.Stop(t)
				require.NoError(t, os.Rename(data, data+".lost"))
				copyTree(t, backup, data)
				owner := info.Sys().(*syscall.Stat_t)
				require.NoError(t, filepath.WalkDir(data, func(path string, _ fs.DirEntry, err error) error {
					if err != nil {
						return err
					}
					return os.Lchown(path, int(owner.Uid), int(owner.Gid))
				}))
				pg.Start(t)
			}
			cp, _, err := write.NewOwner(b.owner).CheckpointOf(t.Context(), store.Live)
			require.NoError(t, err)
			require.EqualValues(t, 500, cp.Seq, "the index is as old as the backup")
			b.indexer(50)
			b.await(url, uint64(len(history)))
			model.CheckHTTP(t, url, want)
			b.verified()
			again, _ := page(t, url+query+"&after="+token)
			require.Equal(t, second, again, "a token from before must stay valid")
		})
	}
}

// refused runs an indexer until it fails, and returns the error.
func (b *indexBench) refused() error {
	b.t.Helper()
	logger := b.logger("indexer")
	x := b.newIndexer(indexer.Config{Database: b.writer}, logger, obs.NewHealth(logger))
	ctx, cancel := context.WithTimeout(b.t.Context(), indexWait)
	defer cancel()
	return x.Run(ctx)
}

// TestRestoreStream restores an older copy of the stream under a newer index, in the whole pipeline
// with the real Jetstream server. The indexer stops and says why. Ingest reads the missing events
// again, which get other sequence numbers. The rebuild waits for that, and the former index is
// served until then.
//
// Invariant: if the stream was restored from a backup older than the index, the indexer stops. A
// rebuild then follows the stream, serves the former index until the switch, and drops no post
// silently. See also TestRebuildFromNewStream and TestConflicts.
func TestRestoreStream(t *testing.T) {
	t.Parallel()
	b := newIngestBench(t, 20)
	var dir string
	b.nats = natstest.Server(t, natstest.With(func(o *server.Options) { dir = o.StoreDir }))
	b.js = b.nats.JetStream(t)
	traffic := func(seed uint64, n int) {
		require.NoError(t, simnet.Traffic{Count: n, Seed: seed}.Run(b.ctx, b.net))
	}
	host := b.host()
	x, url := b.newIndex()
	run := func(seed uint64, n int) {
		in := b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive"})
		ix := x.indexer(200)
		traffic(seed, n)
		b.settle(host, url)
		in.halt()
		require.NoError(t, ix.stop())
	}
	run(1, 400)
	backup := filepath.Join(t.TempDir(), "nats")
	b.nats.Shutdown()
	copyTree(t, dir, backup)
	b.nats.Restart(t)
	run(2, 400)
	query := "/v1/posts?limit=20&tags=settled"
	_, token := page(t, url+query)
	second, _ := page(t, url+query+"&after="+token)
	before, _ := page(t, url+query)

	b.nats.Shutdown()
	replaceTree(t, backup, dir)
	b.nats.Restart(t)
	err := x.refused()
	require.ErrorIs(t, err, stream.ErrBehind)
	require.ErrorContains(t, err, "restored from an older copy")
	require.ErrorContains(t, err, "indexer rebuild")

	// Here the rebuild starts first, and waits for ingest.
	waiting := make(chan struct{})
	s := &steps{say: func(step string) {
		if strings.Contains(step, "waiting until ingest") {
			close(waiting)
		}
	}}
	rebuilt := make(chan error, 1)
	go func() {
		_, err := x.tryRebuild(context.WithoutCancel(t.Context()), indexer.RebuildConfig{}, s)
		rebuilt <- err
	}()
	select {
	case <-waiting:
	case err := <-rebuilt:
		t.Fatalf("it must wait: %v; %s", err, s)
	}
	again, _ := page(t, url+query)
	require.Equal(t, before, again, "the former index must be served")
	in := b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive"})
	traffic(3, 200)
	require.NoError(t, <-rebuilt, s.String())
	require.NotContains(t, s.String(), "accepted")
	ix := x.indexer(200)
	b.settle(host, url)
	in.halt()
	require.NoError(t, ix.stop())
	b.check(url)
	x.verified()
	after, _ := page(t, url+query+"&after="+token)
	require.Equal(t, second, after, "a token from before must stay valid")
}

// TestRestoreBoth restores copies of both, made in the order of the procedure (index first). No
// rebuild is needed.
func TestRestoreBoth(t *testing.T) {
	t.Parallel()
	var dir string
	b := newIndexBench(t, natstest.Server(t, natstest.With(func(o *server.Options) { dir = o.StoreDir })))
	b.deployed()
	url := b.api()
	history := model.GenerateMessages(32, 900)
	want := model.Fold(history)
	ix := b.indexer(50)
	b.await(url, b.publish(history[:300]...))
	dump, copied := filepath.Join(t.TempDir(), "dump"), filepath.Join(t.TempDir(), "nats")
	pgRun(t, "pg_dump", "--format=custom", "--schema=tagstream", "--file="+dump, b.owner.URL)
	b.await(url, b.publish(history[300:600]...))
	b.nats.Shutdown()
	copyTree(t, dir, copied)
	b.nats.Restart(t)
	b.await(url, b.publish(model.GenerateMessages(33, 100)...))
	require.NoError(t, ix.stop())

	b.nats.Shutdown()
	replaceTree(t, copied, dir)
	b.nats.Restart(t)
	_, err := pgtest.Pool(t, b.owner.URL).Exec(t.Context(), "DROP SCHEMA IF EXISTS tagstream, tagstream_rebuild, tagstream_retired CASCADE")
	require.NoError(t, err)
	pgRun(t, "pg_restore", "--exit-on-error", "--single-transaction", "--dbname="+b.owner.URL, dump)
	b.indexer(50)
	b.await(url, b.publish(history[600:]...))
	model.CheckHTTP(t, url, want)
	b.verified()
}

// The stream was lost and there is no copy. Posts that the new stream lacks are kept until an
// operator accepts their loss.
func TestRebuildFromNewStream(t *testing.T) {
	t.Parallel()
	b, url := newIndex(t)
	history := model.GenerateMessages(34, 600)
	former := model.Fold(history)
	ix := b.indexer(50)
	b.await(url, b.publish(history...))
	require.NoError(t, ix.stop())
	require.NoError(t, b.js.DeleteStream(t.Context(), stream.Posts))
	// It has only the newest posts, and is as recent as the index was.
	want := model.New()
	last := b.publish(history[500:]...)
	for i, m := range history[500:] {
		want.Apply(uint64(i+1), m)
	}
	require.Error(t, b.refused())
	_, err := b.tryRebuild(t.Context(), indexer.RebuildConfig{}, &steps{})
	require.ErrorIs(t, err, indexer.ErrDiffers)
	require.ErrorContains(t, err, "where nothing removed it")
	model.CheckHTTP(t, url, former)

	said, err := b.tryRebuild(t.Context(), indexer.RebuildConfig{AcceptDifferences: true}, &steps{})
	require.NoError(t, err)
	require.Contains(t, said, "accepted: ")
	b.indexer(50)
	b.await(url, last)
	b.verified()
	// Dead letters of the former stream still exist, and are not counted.
	model.CheckHTTP(t, url, want)
}

// TestRestoreStandalone restores a copy of the all-in-one program's data directory: the program
// reads everything since then again.
func TestRestoreStandalone(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 20)
	dir := filepath.Join(t.TempDir(), "data")
	backup := filepath.Join(t.TempDir(), "backup")
	apiAddr := freeAddr(t)
	env := []string{
		"TAGSTREAM_DATA_DIR=" + dir, "TAGSTREAM_JETSTREAM_HOSTS=" + host.URL(), "TAGSTREAM_JETSTREAM_START=archive",
		"TAGSTREAM_API_LISTEN=" + apiAddr, "TAGSTREAM_OPS_LISTEN=" + freeAddr(t),
	}
	url := "http://" + apiAddr
	for round := range 3 {
		p := begin(t, "tagstream", nil, env...)
		awaitAnswer(t, url+"/v1/status")
		require.NoError(t, simnet.Traffic{Count: 200, Seed: uint64(40 + round)}.Run(b.ctx, b.net))
		b.settle(host, url)
		if round == 2 {
			b.check(url)
		}
		require.Zero(t, p.end(syscall.SIGTERM))
		switch round {
		case 0:
			copyTree(t, dir, backup)
		case 1:
			replaceTree(t, backup, dir)
		}
	}
}
