package e2e_test

import (
	"fmt"
	neturl "net/url"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/test/model"
	"github.com/tagstream/tagstream/test/simnet"
)

// TestProgramsThroughPgBouncer is TestPipeline with the built programs, whose indexer and api reach
// Postgres through PgBouncer, in both of its modes. Commands that need a session say so, leave
// nothing behind, and work with a direct connection.
func TestProgramsThroughPgBouncer(t *testing.T) {
	t.Parallel()
	binary := pgtest.Bouncers(t)[0]
	_, err := programs() // before the test's time limit starts
	require.NoError(t, err)
	for _, mode := range []string{pgtest.SessionPooling, pgtest.TransactionPooling} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			b := newIngestBench(t, 30)
			b.nats = natstest.Server(t, natstest.Listen())
			b.js = b.nats.JetStream(t)
			require.NoError(t, simnet.Traffic{Count: 300, Seed: 11, TagsOnly: true}.Run(b.ctx, b.net))
			host := b.host()
			x := newIndexBench(t, b.nats)
			through := pgtest.Bouncer(t, binary, mode, x.owner.URL, x.writer.URL, x.reader.URL)
			nats := "TAGSTREAM_NATS_URL=" + b.nats.URL()
			database := func(url string) []string { return []string{nats, "TAGSTREAM_DATABASE_URL=" + url} }
			direct, owner, writer, reader := database(x.owner.URL), database(through[0]), database(through[1]), database(through[2])
			once := func(code int, command string, env []string) string {
				t.Helper()
				p := begin(t, "indexer", strings.Fields(command), env...)
				require.Equal(t, code, p.exit(), "indexer %s: %s", command, p.Output())
				return p.Output()
			}

			// Start without an index.
			pool := pgtest.Pool(t, x.owner.URL)
			_, err := pool.Exec(b.ctx, "DROP SCHEMA tagstream CASCADE")
			require.NoError(t, err)
			require.Contains(t, once(1, "migrate", owner), "connect directly to Postgres")
			var left int
			require.NoError(t, pool.QueryRow(b.ctx, "SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'tagstream')").Scan(&left))
			require.Zero(t, left, "a refused migrate must not create tables")
			once(0, "migrate", direct)

			keys, apiAddr := filepath.Join(t.TempDir(), "cursor.keys"), freeAddr(t)
			made := begin(t, "api", []string{"keys", "--out", keys})
			require.Zero(t, made.exit(), made.Output())
			url := "http://" + apiAddr
			run := func(name string, env ...string) *program {
				t.Helper()
				return begin(t, name, nil, append(env, "TAGSTREAM_OPS_LISTEN="+freeAddr(t))...)
			}
			served := run("api", append(reader[1:], "TAGSTREAM_API_LISTEN="+apiAddr, "TAGSTREAM_CURSOR_KEYS_FILE="+keys)...)
			edges := simnet.NewEdges(b.net, 11)
			for round := range uint64(3) {
				in := run("ingest", nats, "TAGSTREAM_JETSTREAM_HOSTS="+host.URL(), "TAGSTREAM_JETSTREAM_START=archive")
				ix := run("indexer", writer...)
				if round > 0 {
					for slice := range uint64(20) {
						require.NoError(t, simnet.Traffic{Count: 20, Seed: round<<8 + slice}.Run(b.ctx, b.net))
						for range 4 {
							require.NoError(t, edges.Act())
						}
					}
				}
				b.settle(host, url)
				if round == 1 { // the programs continue with the rebuilt index
					require.Contains(t, once(1, "rebuild", owner), "connect directly to Postgres")
					once(0, "rebuild", direct)
					b.settle(host, url)
				}
				for _, p := range []*program{in, ix} {
					require.Zero(t, p.end(syscall.SIGTERM), p.Output())
				}
			}
			once(0, "verify", writer)
			once(0, "dlq list", writer)
			b.check(url)
			require.Zero(t, served.end(syscall.SIGTERM), served.Output())
		})
	}
}

// foundWithin bounds how long an indexer takes to find the promoted server, on a busy machine.
const foundWithin = 30 * time.Second

// TestPromotedStandby stops the primary and promotes its standby. An indexer whose address names
// both continues there, and so does one whose address always led to the standby.
func TestPromotedStandby(t *testing.T) {
	t.Parallel()
	b := newIndexBench(t, natstest.Server(t))
	primary := b.deployed()
	standby := primary.Standby(t)
	host := func(s *pgtest.PrivateServer) string {
		u, err := neturl.Parse(s.URL)
		require.NoError(t, err)
		return u.Host
	}
	at := func(o store.Options, hosts string) store.Options {
		o.URL = strings.Replace(o.URL, host(primary), hosts, 1)
		return o
	}
	b.reader = at(b.reader, host(standby))
	toStandby := at(b.writer, host(standby))
	b.writer = at(b.writer, host(standby)+","+host(primary))
	url := b.api()
	history := model.GenerateMessages(12, 900)
	want := model.Fold(history)

	first := b.indexer(20)
	b.await(url, b.publish(history[:300]...))
	logger := b.logger("led to the standby")
	health := obs.NewHealth(logger, indexer.HealthDatabase)
	b.start(b.newIndexer(indexer.Config{Database: toStandby, BatchSize: 20}, logger, health).Run)
	poll.Until(t, indexWait, func() (bool, string) {
		return strings.Contains(health.NotReady()[indexer.HealthDatabase], store.ErrReadOnly.Error()), fmt.Sprint(health.NotReady())
	})

	// The standby has everything that the primary accepted before it stopped.
	last := b.publish(history[300:600]...)
	primary.Stop(t)
	standby.Promote(t)
	promoted := time.Now()
	b.await(url, last)
	t.Logf("indexing after %v", time.Since(promoted))
	require.Less(t, time.Since(promoted), foundWithin)
	poll.Until(t, foundWithin, func() (bool, string) { return len(health.NotReady()) == 0, fmt.Sprint(health.NotReady()) })
	t.Logf("both have found it after %v", time.Since(promoted))
	require.NoError(t, first.stop())
	b.await(url, b.publish(history[600:]...))
	model.CheckHTTP(t, url, want)
}
