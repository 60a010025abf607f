package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/api"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/test/model"
)

func TestMain(m *testing.M) {
	if service := os.Getenv(followChild); service != "" {
		if err := serveFollow(service); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	pgtest.Main(m)
}

// indexWait bounds one wait for progress of the index.
const indexWait = 60 * time.Second

// indexBench is a stream and a migrated database, on which indexers and APIs run with the roles of
// a deployment.
type indexBench struct {
	t                     *testing.T
	nats                  *natstest.TestServer
	js                    jetstream.JetStream
	owner, writer, reader store.Options
	key                   keyset.Key
	runs                  int
	// big is the indexers' BigAccount.
	big int
	// deny is their DenyFile.
	deny string
	// tracer is the tracer of the indexers and APIs; nil disables tracing.
	tracer trace.Tracer
}

// roles creates the group roles, which are shared by the whole test server, once.
var roles sync.Mutex

func newIndexBench(t *testing.T, server *natstest.TestServer) *indexBench {
	t.Helper()
	db := pgtest.Database(t)
	b := &indexBench{t: t, nats: server, js: server.JetStream(t), owner: store.Options{URL: db.URL}}
	writer, reader := db.Role(t, "indexer"), db.Role(t, "api")
	b.writer, b.reader = store.Options{URL: writer.URL}, store.Options{URL: reader.URL}
	func() {
		roles.Lock()
		defer roles.Unlock()
		require.NoError(t, store.CreateRoles(t.Context(), b.owner, writer.Name, reader.Name))
	}()
	require.NoError(t, store.Migrate(t.Context(), b.owner, slog.New(slog.DiscardHandler)))
	var err error
	b.key, err = keyset.NewKey("test", bytes.Repeat([]byte("k"), keyset.MinSecret))
	require.NoError(t, err)
	return b
}

// newIndex returns a bench that has its own stream, and the URL of an API on it.
func newIndex(t *testing.T) (*indexBench, string) {
	t.Helper()
	b := newIndexBench(t, natstest.Server(t))
	return b, b.api()
}

// publish stores raw messages in the stream, in order, and returns the last sequence.
func (b *indexBench) publish(messages ...[]byte) uint64 {
	b.t.Helper()
	require.NoError(b.t, stream.Ensure(b.t.Context(), b.js, stream.Config{}))
	const window = 1000
	var seq uint64
	for chunk := range slices.Chunk(messages, window) {
		var last jetstream.PubAckFuture
		for _, m := range chunk {
			var err error
			last, err = b.js.PublishAsync("posts.test", m)
			require.NoError(b.t, err)
		}
		select {
		case ack := <-last.Ok():
			seq = ack.Sequence
		case err := <-last.Err():
			require.NoError(b.t, err)
		case <-time.After(indexWait):
			b.t.Fatal("the stream does not acknowledge")
		}
	}
	return seq
}

// feed publishes messages and folds them into the model. It returns the last sequence.
func (b *indexBench) feed(want *model.Index, messages ...[]byte) (last uint64) {
	b.t.Helper()
	last = b.publish(messages...)
	for i, m := range messages {
		want.Apply(last-uint64(len(messages)-i-1), m)
	}
	return last
}

// ownServer gives the bench a separate Postgres that the test may damage, with one role for
// everything.
func (b *indexBench) ownServer(settings ...pgtest.Option) *pgtest.PrivateServer {
	b.t.Helper()
	pg := pgtest.Server(b.t, settings...)
	b.owner = store.Options{URL: pg.URL}
	b.writer, b.reader = b.owner, b.owner
	require.NoError(b.t, store.Migrate(b.t.Context(), b.owner, slog.New(slog.DiscardHandler)))
	return pg
}

// run is a service that runs until stop or the end of the test.
type run struct {
	stop func() error
}

func (b *indexBench) start(fn func(context.Context) error) *run {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.t.Context()))
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	r := &run{stop: sync.OnceValue(func() error {
		cancel()
		return <-done
	})}
	b.t.Cleanup(func() { require.NoError(b.t, r.stop()) })
	return r
}

func (b *indexBench) logger(what string) *slog.Logger {
	b.runs++
	return slog.New(slog.NewTextHandler(testWriter{b.t, fmt.Sprintf("%s %d: ", what, b.runs)}, nil))
}

// indexer runs an indexer with batches of at most size messages.
func (b *indexBench) indexer(size int) *run {
	b.t.Helper()
	logger := b.logger("indexer")
	x := b.newIndexer(indexer.Config{Database: b.writer, BatchSize: size, BigAccount: b.big, DenyFile: b.deny}, logger, obs.NewHealth(logger))
	return b.start(x.Run)
}

func (b *indexBench) newIndexer(cfg indexer.Config, logger *slog.Logger, health *obs.Health) *indexer.Indexer {
	b.t.Helper()
	b.runs++
	x, err := indexer.New(cfg, indexer.Deps{
		NATS: b.nats.Conn(b.t), Logger: logger, Registry: prometheus.NewRegistry(), Health: health, ID: fmt.Sprint("test-", b.runs), Tracer: b.tracer,
	})
	require.NoError(b.t, err)
	return x
}

// api runs an API and returns its URL.
func (b *indexBench) api() string {
	b.t.Helper()
	logger := b.logger("api")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b.t, err)
	a, err := api.New(api.Config{Database: b.reader, CursorKeys: []keyset.Key{b.key}}, api.Deps{
		Logger: logger, Registry: prometheus.NewRegistry(), Health: obs.NewHealth(logger), Listener: listener, Tracer: b.tracer,
	})
	require.NoError(b.t, err)
	b.start(a.Run)
	return "http://" + listener.Addr().String()
}

// await returns when the index has folded everything up to seq and finished the resulting sweeps.
func (b *indexBench) await(url string, seq uint64) {
	b.t.Helper()
	poll.Until(b.t, indexWait, func() (bool, string) {
		var status struct {
			Checkpoint struct{ Seq uint64 }
			Sweeping   int
		}
		res, err := http.Get(url + "/v1/status")
		if err != nil {
			return false, err.Error()
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(&status); err != nil {
			return false, err.Error()
		}
		return status.Checkpoint.Seq >= seq && status.Sweeping == 0, fmt.Sprintf("checkpoint %d of %d, %d accounts being swept", status.Checkpoint.Seq, seq, status.Sweeping)
	})
}
