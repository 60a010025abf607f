package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	neturl "net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/test/model"
	"github.com/tagstream/tagstream/test/process"
)

// TestIndexerSurvivesServerOutages stops the stream and then the database while the indexer works.
// Nothing is lost and no program exits.
func TestIndexerSurvivesServerOutages(t *testing.T) {
	t.Parallel()
	server := natstest.Server(t)
	b := newIndexBench(t, server)
	pg := b.ownServer()
	url := b.api()
	b.indexer(20)
	want := model.New()
	history := model.GenerateMessages(3, 1200)
	put := func(n int) (last uint64) {
		last, history = b.feed(want, history[:n]...), history[n:]
		return last
	}

	b.await(url, put(200))
	for range 2 {
		last := put(200)
		server.Restart(t)
		b.await(url, last)

		last = put(200)
		pg.Kill(t)
		status, body := process.Fetch(url + "/v1/posts?tags=art")
		require.Equal(t, http.StatusServiceUnavailable, status)
		require.Contains(t, body, `"code":"unavailable"`)
		pg.Start(t)
		b.await(url, last)
	}
	b.await(url, put(200))
	model.CheckHTTP(t, url, want)
}

// One indexer works and the other takes over when it ends. They never work at the same time.
func TestTwoIndexers(t *testing.T) {
	t.Parallel()
	b, url := newIndex(t)
	history := model.GenerateMessages(4, 1500)
	want := model.Fold(history)
	first := b.indexer(10)
	b.await(url, b.publish(history[:500]...))
	second := b.indexer(10)
	b.publish(history[500:1000]...)
	require.NoError(t, first.stop())
	b.await(url, 1000)
	third := b.indexer(10)
	b.await(url, b.publish(history[1000:]...))
	model.CheckHTTP(t, url, want)
	require.NoError(t, second.stop())
	require.NoError(t, third.stop())
}

// TestRebuildWhileServing rebuilds the index while the live one is written and read. No request
// fails, and earlier tokens stay valid.
func TestRebuildWhileServing(t *testing.T) {
	t.Parallel()
	b, url := newIndex(t)
	b.indexer(50)
	history := model.GenerateMessages(5, 3000)
	want := model.Fold(history)
	b.await(url, b.publish(history[:2000]...))

	tag := neturl.QueryEscape(want.TagCounts()[0].Tag)
	ctx, cancel := context.WithCancel(t.Context())
	var asked, failed atomic.Int64
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				for _, path := range []string{"/v1/posts?limit=5&tags=" + tag, "/v1/status", "/v1/posts?limit=5&tags=" + tag + "&tags=photo"} {
					status, body := process.Fetch(url + path)
					if ctx.Err() != nil {
						return
					}
					asked.Add(1)
					if status != http.StatusOK {
						failed.Add(1)
						t.Errorf("%s: %d %s", path, status, body)
					}
				}
			}
		})
	}
	done := make(chan error, 1)
	go func() {
		_, err := b.tryRebuild(context.WithoutCancel(t.Context()), indexer.RebuildConfig{}, &steps{})
		done <- err
	}()
	b.publish(history[2000:2500]...)
	require.NoError(t, <-done)
	b.await(url, b.publish(history[2500:]...))
	cancel()
	readers.Wait()
	require.Zero(t, failed.Load())
	require.Greater(t, asked.Load(), int64(50))
	model.CheckHTTP(t, url, want)
	t.Logf("%d requests, none failed", asked.Load())

	// The former index is removed completely.
	_, exists, err := write.NewOwner(b.owner).CheckpointOf(t.Context(), store.Retired)
	require.NoError(t, err)
	require.False(t, exists)
}

// TestRebuildIsResumed interrupts a rebuild and runs it again.
func TestRebuildIsResumed(t *testing.T) {
	t.Parallel()
	b, url := newIndex(t)
	b.indexer(500)
	history := model.GenerateMessages(6, 20_000)
	want := model.Fold(history)
	b.await(url, b.publish(history...))
	query := "/v1/posts?limit=20&tags=" + neturl.QueryEscape(want.TagCounts()[0].Tag)
	_, token := page(t, url+query)
	second, _ := page(t, url+query+"&after="+token)
	require.NotEmpty(t, second)

	ctx, interrupt := context.WithCancel(t.Context())
	_, err := b.tryRebuild(ctx, indexer.RebuildConfig{}, &steps{at: func(done uint64) {
		if done > 2000 {
			interrupt()
		}
	}})
	require.ErrorIs(t, err, context.Canceled)
	cp, exists, err := write.NewOwner(b.owner).CheckpointOf(t.Context(), store.Rebuilding)
	require.NoError(t, err)
	require.True(t, exists)
	require.Positive(t, cp.Seq)

	ctx, interrupt = context.WithCancel(t.Context())
	defer interrupt()
	_, err = b.tryRebuild(ctx, indexer.RebuildConfig{}, &steps{say: func(step string) {
		if step == "making the new index's lists" {
			interrupt()
		}
	}})
	require.ErrorIs(t, err, context.Canceled)
	cp, _, err = write.NewOwner(b.owner).CheckpointOf(t.Context(), store.Rebuilding)
	require.NoError(t, err)
	_, err = pgtest.Pool(t, b.owner.URL).Exec(t.Context(), `UPDATE `+store.Rebuilding+`.checkpoint SET unlisted_from = '00000000-0000-0000-0000-000000000001'`)
	require.NoError(t, err, "like after a finished piece of the lists, without a post")

	s := &steps{}
	_, err = b.tryRebuild(t.Context(), indexer.RebuildConfig{}, s)
	require.NoError(t, err)
	require.Equal(t, uint64(len(history))-cp.Seq, s.replayed)
	model.CheckHTTP(t, url, want)
	again, _ := page(t, url+query+"&after="+token)
	require.Equal(t, second, again, "a token from before the rebuild must stay valid")
}

// getJSON decodes an answer with status 200.
func getJSON(t *testing.T, url string, into any) {
	t.Helper()
	status, body := process.Fetch(url)
	require.Equal(t, http.StatusOK, status, body)
	require.NoError(t, json.Unmarshal([]byte(body), into), body)
}

// page returns the posts of a page and the token of the next.
func page(t *testing.T, url string) (uris []string, next string) {
	t.Helper()
	var answer struct {
		Posts []struct{ URI string }
		Page  struct{ Next string }
	}
	getJSON(t, url, &answer)
	for _, p := range answer.Posts {
		uris = append(uris, p.URI)
	}
	return uris, answer.Page.Next
}

// Invariant: a rebuild that overtakes the live index stores the dead letters that it finds.
func TestRebuildStoresDeadLetters(t *testing.T) {
	t.Parallel()
	b := newIndexBench(t, natstest.Server(t))
	b.publish(model.GenerateMessages(6, 3000)...)
	_, err := b.tryRebuild(t.Context(), indexer.RebuildConfig{}, &steps{})
	require.NoError(t, err)
	dead, err := b.js.Stream(t.Context(), stream.DeadLetters)
	require.NoError(t, err)
	status := b.status()
	require.Positive(t, status.DeadLetters)
	require.EqualValues(t, status.DeadLetters, dead.CachedInfo().State.Msgs)
}

// Invariant: a lasting problem is logged once, and a standby is ready. See also
// TestLastingFailureIsReported.
func TestReadiness(t *testing.T) {
	t.Parallel()
	b, url := newIndex(t)
	b.indexer(10)
	b.await(url, b.publish(model.GenerateMessages(4, 50)...))
	var log lockedBuffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	health := obs.NewHealth(logger, indexer.HealthDatabase, indexer.HealthStream)
	b.start(b.newIndexer(indexer.Config{Database: b.writer}, logger, health).Run)
	poll.Until(t, indexWait, func() (bool, string) { return len(health.NotReady()) == 0, fmt.Sprint(health.NotReady()) })

	// If dead letters cannot be stored, indexing stops, and the log says so once.
	b2 := newIndexBench(t, natstest.Server(t))
	b2.publish([]byte("not an event"))
	require.NoError(t, b2.js.DeleteStream(t.Context(), stream.DeadLetters))
	log = lockedBuffer{}
	health = obs.NewHealth(logger, indexer.HealthDatabase, indexer.HealthStream)
	b2.start(b2.newIndexer(indexer.Config{Database: b2.writer}, logger, health).Run)
	poll.Until(t, indexWait, func() (bool, string) {
		return strings.Contains(health.NotReady()[indexer.HealthStream], "dead letter"), fmt.Sprint(health.NotReady())
	})
	require.NoError(t, stream.Ensure(t.Context(), b2.js, stream.Config{}))
	poll.Until(t, indexWait, func() (bool, string) { return len(health.NotReady()) == 0, fmt.Sprint(health.NotReady()) })
	require.LessOrEqual(t, strings.Count(log.String(), "not ready"), 2, log.String())
	require.LessOrEqual(t, strings.Count(log.String(), "ready again"), 2, log.String())
}

// A recreated stream is not mixed into the index of the former one, even if it has grown past the
// checkpoint.
func TestIndexerRefusesAnotherStream(t *testing.T) {
	t.Parallel()
	b, url := newIndex(t)
	history := model.GenerateMessages(7, 300)
	want := model.Fold(history)
	first := b.indexer(100)
	b.await(url, b.publish(history...))
	require.NoError(t, first.stop())

	require.NoError(t, b.js.DeleteStream(t.Context(), stream.Posts))
	b.publish(encoded(t, model.Generate(8, 600))...)
	require.ErrorIs(t, b.refused(), stream.ErrReplaced)
	model.CheckHTTP(t, url, want)
}

// TestStreamIsLostWhileIndexing removes the stream of an idle indexer, which reports it and waits,
// and then provides another stream, shorter or longer than the checkpoint: the indexer ends and
// says why.
func TestStreamIsLostWhileIndexing(t *testing.T) {
	t.Parallel()
	for name, length := range map[string]int{"shorter": 100, "longer": 600} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, url := newIndex(t)
			history := model.GenerateMessages(7, 300)
			want := model.Fold(history)
			last := b.publish(history...)
			logger := b.logger("indexer")
			health := obs.NewHealth(logger, indexer.HealthDatabase, indexer.HealthStream)
			x := b.newIndexer(indexer.Config{Database: b.writer}, logger, health)
			ctx, cancel := context.WithTimeout(t.Context(), indexWait)
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- x.Run(ctx) }()
			b.await(url, last)

			require.NoError(t, b.js.DeleteStream(t.Context(), stream.Posts))
			poll.Until(t, indexWait, func() (bool, string) {
				return strings.Contains(health.NotReady()[indexer.HealthStream], "stream not found"), fmt.Sprint(health.NotReady())
			})
			b.publish(model.GenerateMessages(8, length)...)
			err := <-ended
			require.True(t, errors.Is(err, stream.ErrBehind) || errors.Is(err, stream.ErrReplaced), "%v", err)
			require.ErrorContains(t, err, "docs/operations.md")
			model.CheckHTTP(t, url, want)
		})
	}
}

// TestIndexerCommitFaults breaks the connection at commits of batches, in each way and in both
// forms: the commit never arrives, or it takes effect and its answer is lost.
func TestIndexerCommitFaults(t *testing.T) {
	t.Parallel()
	b := newIndexBench(t, natstest.Server(t))
	pg := b.ownServer() // over TCP
	url := b.api()
	target, err := neturl.Parse(pg.URL)
	require.NoError(t, err)
	var log fault.Log
	proxy := fault.New(t, fault.Postgres, target.Host, &log)
	target.Host = proxy.Addr()
	b.writer.URL = target.String()
	b.indexer(20)
	want := model.New()
	history := model.GenerateMessages(10, 1500)
	put := func(n int) (last uint64) {
		last, history = b.feed(want, history[:n]...), history[n:]
		return last
	}
	b.await(url, put(100))
	for _, form := range fault.Forms {
		for _, how := range []fault.Break{fault.Cut, fault.Reset, fault.Torn} {
			armed := proxy.Arm(fault.Fault{Kind: "commit", Match: fault.CommitAfter("COPY posts"), Nth: 3, Form: form, Break: how})
			last := put(200)
			b.await(url, last)
			select {
			case <-armed.Fired():
			case <-time.After(indexWait):
				t.Fatalf("the fault %s, %s did not fire", form, how)
			}
		}
	}
	require.Equal(t, map[string]int{"commit, failed": 3, "commit, took effect": 3}, log.Counts())
	model.CheckHTTP(t, url, want)
}

// A database that has lost acknowledged commits (an asynchronous commit and a crash, or a lagging
// standby) catches up, even if the indexer was idle and saw no error.
func TestIndexerAfterDatabaseLostCommits(t *testing.T) {
	t.Parallel()
	b := newIndexBench(t, natstest.Server(t))
	// Postgres writes to disk only at a checkpoint.
	pg := b.ownServer(pgtest.Setting("synchronous_commit", "off"), pgtest.Setting("wal_writer_delay", "10s"))
	url := b.api()
	b.indexer(100)
	history := model.GenerateMessages(9, 900)
	want := model.Fold(history)
	checkpoint := func() (seq int) {
		require.NoError(t, pg.Pool(t).QueryRow(t.Context(), "SELECT seq FROM tagstream.checkpoint").Scan(&seq))
		return seq
	}
	b.await(url, b.publish(history[:300]...))
	_, err := pg.Pool(t).Exec(t.Context(), "CHECKPOINT")
	require.NoError(t, err)
	b.await(url, b.publish(history[300:600]...))
	pg.Kill(t)
	pg.Start(t)
	require.Less(t, checkpoint(), 600, "the database has lost nothing: the test proves nothing")
	b.await(url, b.publish(history[600:]...))
	model.CheckHTTP(t, url, want)
}

// lockedBuffer is written by a service and read by the test.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
