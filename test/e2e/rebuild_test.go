package e2e_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/check"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/test/model"
)

var trimSeeds = seedFlags("trim", "TestRebuildFromTrimmedStream", 4)

// steps collects the steps that a rebuild reports, and lets a test react to them.
type steps struct {
	mu       sync.Mutex
	said     []string
	at       func(done uint64)
	say      func(step string)
	replayed uint64 // how many messages the rebuild has read
}

func (s *steps) At(done, _ uint64) {
	if s.at != nil {
		s.at(done)
	}
}

func (s *steps) Say(step string) {
	s.mu.Lock()
	s.said = append(s.said, step)
	s.mu.Unlock()
	if s.say != nil {
		s.say(step)
	}
}

func (s *steps) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.said, "; ")
}

// tryRebuild rebuilds like an operator, and returns the output.
func (b *indexBench) tryRebuild(ctx context.Context, cfg indexer.RebuildConfig, s *steps) (_ string, err error) {
	b.t.Helper()
	logger := b.logger("rebuild")
	cfg.Database, cfg.ID = b.owner, fmt.Sprint("rebuild-", b.runs)
	s.replayed, err = indexer.Rebuild(ctx, cfg, b.nats.Conn(b.t), logger, s)
	return s.String(), err
}

// rebuild rebuilds the index from the start and switches it in.
func (b *indexBench) rebuild() {
	b.t.Helper()
	said, err := b.tryRebuild(b.t.Context(), indexer.RebuildConfig{Restart: true}, &steps{})
	require.NoError(b.t, err, said)
}

// purge removes everything before a message from the stream.
func (b *indexBench) purge(before uint64) {
	b.t.Helper()
	s, err := b.js.Stream(b.t.Context(), stream.Posts)
	require.NoError(b.t, err)
	require.NoError(b.t, s.Purge(b.t.Context(), jetstream.WithPurgeSequence(before)))
}

// TestRebuildFromTrimmedStream rebuilds repeatedly from a stream whose beginning is trimmed while a
// history full of edge cases arrives, with interruptions and sweeps of accounts of every size. The
// new index equals the live one and the model, including keys, according to the rebuild's own
// comparison and the API's answers.
//
// Invariant: an index rebuilt from a trimmed stream has everything that the live index has from the
// trimmed time, or the rebuild stops and says why. See also TestRebuildDuringTrimming and
// TestRebuildRefusesToLosePosts.
func TestRebuildFromTrimmedStream(t *testing.T) {
	t.Parallel()
	trimSeeds.run(t, rebuildTrimmed)
}

func rebuildTrimmed(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	b, url := newIndex(t)
	b.big = []int{0, 3, 20}[rng.IntN(3)]
	b.indexer(100)
	want := model.New()
	var seq uint64
	first := uint64(1)
	history := model.GenerateMessages(seed, 1500)
	erasing := seed%2 == 0
	if erasing {
		history = encoded(t, model.Generate(seed, 1500)) // without dead letters, which erasing also removes and the model does not know
	}
	for len(history) > 0 {
		n := min(len(history), 200+rng.IntN(300))
		seq = b.feed(want, history[:n]...)
		history = history[n:]
		b.await(url, seq)
		if erasing {
			b.erase(week)
		}
		first += 1 + rng.Uint64N(seq-first)
		b.purge(first)

		ctx, interrupt := context.WithCancel(t.Context())
		s := &steps{}
		if rng.IntN(2) == 0 {
			s.at = func(uint64) { interrupt() }
		}
		said, err := b.tryRebuild(ctx, indexer.RebuildConfig{}, s)
		if ctx.Err() != nil {
			require.ErrorIs(t, err, context.Canceled)
			said, err = b.tryRebuild(t.Context(), indexer.RebuildConfig{}, s)
		}
		interrupt()
		require.NoError(t, err)
		require.Contains(t, said, "copying what the live index has")
		require.Contains(t, said, "there is no difference")
		b.await(url, seq)
		model.CheckHTTP(t, url, want)
	}
}

// A rebuild that would lose part of the index stops first and says what to do. The live index
// stays.
func TestRebuildRefusesToLosePosts(t *testing.T) {
	t.Parallel()
	b, url := newIndex(t)
	history := model.GenerateMessages(11, 900)
	want := model.Fold(history[:600])
	ix := b.indexer(100)
	b.await(url, b.publish(history[:600]...))
	require.NoError(t, ix.stop())

	// Neither the index nor the stream has the messages in between.
	b.publish(history[600:]...)
	b.purge(700)
	_, err := b.tryRebuild(t.Context(), indexer.RebuildConfig{}, &steps{})
	require.ErrorIs(t, err, indexer.ErrTrimmed)
	require.ErrorContains(t, err, "starts at 700 and the live index ends at 600")
	require.ErrorContains(t, err, "Restore the stream")
	model.CheckHTTP(t, url, want)

	// A stream that was recreated and then trimmed.
	require.NoError(t, b.js.DeleteStream(t.Context(), stream.Posts))
	b.publish(model.GenerateMessages(12, 800)...)
	b.purge(100)
	_, err = b.tryRebuild(t.Context(), indexer.RebuildConfig{}, &steps{})
	require.ErrorIs(t, err, indexer.ErrTrimmed)
	require.ErrorContains(t, err, "the live index is of another one")
	model.CheckHTTP(t, url, want)
}

// If the live index differs from the fold of the stream, the new one stays next to it until an
// operator accepts it.
func TestRebuildOfDifferentIndex(t *testing.T) {
	t.Parallel()
	b, url := newIndex(t)
	history := model.GenerateMessages(13, 1500)
	want := model.Fold(history)
	b.indexer(100)
	b.await(url, b.publish(history[:1000]...))
	pool := pgtest.Pool(t, b.owner.URL)
	var rkey string
	require.NoError(t, pool.QueryRow(t.Context(), `
		DELETE FROM tagstream.posts WHERE key = (SELECT key FROM tagstream.posts p JOIN tagstream.accounts a ON a.id = p.account_id
			WHERE a.state = 0 ORDER BY p.key LIMIT 1) RETURNING rkey`).Scan(&rkey))

	said, err := b.tryRebuild(t.Context(), indexer.RebuildConfig{}, &steps{})
	require.ErrorIs(t, err, indexer.ErrDiffers, said)
	require.ErrorContains(t, err, rkey)
	require.ErrorContains(t, err, "--accept-differences")
	_, exists, err := write.NewOwner(b.owner).CheckpointOf(t.Context(), store.Rebuilding)
	require.NoError(t, err)
	require.True(t, exists, "the new index must stay next to the live one")

	last := b.publish(history[1000:]...)
	said, err = b.tryRebuild(t.Context(), indexer.RebuildConfig{AcceptDifferences: true}, &steps{})
	require.NoError(t, err)
	require.Contains(t, said, "accepted: the rebuilt index differs")
	require.Contains(t, said, "continuing an interrupted rebuild from message")
	b.await(url, last)
	model.CheckHTTP(t, url, want)
}

// The live index is idle before the end of the stream. The rebuild compares there, before the new
// index continues.
func TestRebuildNextToIdleIndex(t *testing.T) {
	t.Parallel()
	b, url := newIndex(t)
	history := model.GenerateMessages(14, 6000)
	want := model.Fold(history)
	ix := b.indexer(77)
	b.await(url, b.publish(history[:1000]...))
	require.NoError(t, ix.stop())
	last := b.publish(history[1000:]...)
	said, err := b.tryRebuild(t.Context(), indexer.RebuildConfig{}, &steps{})
	require.NoError(t, err)
	require.Contains(t, said, "there is no difference")
	b.indexer(100)
	b.await(url, last)
	model.CheckHTTP(t, url, want)
}

// The stream constantly loses its first messages, even while the live index's state from the
// trimmed time is copied.
func TestRebuildDuringTrimming(t *testing.T) {
	t.Parallel()
	b, url := newIndex(t)
	history := model.GenerateMessages(15, 2000)
	want := model.Fold(history)
	b.indexer(100)
	seq := b.publish(history...)
	b.await(url, seq)
	_, err := stream.Adjust(t.Context(), b.js, stream.Config{MaxAge: time.Hour})
	require.NoError(t, err)
	b.purge(500)
	s := &steps{say: func(step string) {
		if strings.HasPrefix(step, "copied ") {
			b.purge(600)
		}
	}}
	said, err := b.tryRebuild(t.Context(), indexer.RebuildConfig{}, s)
	require.NoError(t, err)
	require.Contains(t, said, "there is no difference")
	b.await(url, seq)
	model.CheckHTTP(t, url, want)
}

// TestVerifyWhileIndexing compares a live index that changes with the result of an interrupted
// rebuild, which is brought to the same message, and checks the live one alone with a read-only
// role.
func TestVerifyWhileIndexing(t *testing.T) {
	t.Parallel()
	b, url := newIndex(t)
	b.indexer(500)
	history := model.GenerateMessages(21, 6000)
	b.await(url, b.publish(history[:3000]...))
	ctx, interrupt := context.WithCancel(t.Context())
	_, err := b.tryRebuild(ctx, indexer.RebuildConfig{}, &steps{at: func(done uint64) {
		if done >= 1000 {
			interrupt()
		}
	}})
	require.ErrorIs(t, err, context.Canceled)

	tryVerify := func(cfg indexer.VerifyConfig, p obs.Progress) (string, check.Findings, error) {
		t.Helper()
		b.runs++
		cfg.ID = fmt.Sprint("verify-", b.runs)
		cfg.Connect = func(context.Context) (*nats.Conn, error) { return nats.Connect("", nats.InProcessServer(b.nats)) }
		return indexer.Verify(t.Context(), cfg, slog.New(slog.DiscardHandler), p)
	}
	verify := func(cfg indexer.VerifyConfig, p obs.Progress) (string, check.Findings) {
		t.Helper()
		did, f, err := tryVerify(cfg, p)
		require.NoError(t, err)
		return did, f
	}
	published := 3000
	more := &steps{at: func(uint64) {
		if next := min(published+100, len(history)); next > published {
			b.publish(history[published:next]...)
			published = next
		}
	}}
	did, f := verify(indexer.VerifyConfig{Database: b.owner}, more)
	require.Zero(t, f.N, f.String())
	require.Equal(t, "tagstream was compared with tagstream_rebuild", did)
	require.Greater(t, published, 3000)

	did, f = verify(indexer.VerifyConfig{Database: b.reader, Alone: true}, more)
	require.Zero(t, f.N, f.String())
	require.Equal(t, "tagstream was checked alone", did)

	_, err = pgtest.Pool(t, b.owner.URL).Exec(t.Context(), `
		UPDATE tagstream_rebuild.posts SET rev = '3zzzzzzzzzzzz' WHERE key = (
			SELECT r.key FROM tagstream_rebuild.posts r JOIN tagstream.posts p USING (key) WHERE r.rev = p.rev ORDER BY r.seq LIMIT 1)`)
	require.NoError(t, err)
	_, f = verify(indexer.VerifyConfig{Database: b.owner}, more)
	require.Equal(t, 1, f.N, f.String())
	require.Contains(t, f.First, "differs in its revision")

	// As an older program leaves it.
	_, err = pgtest.Pool(t, b.owner.URL).Exec(t.Context(), `UPDATE tagstream_rebuild.schema_migrations SET version = version - 1`)
	require.NoError(t, err)
	b.await(url, b.publish(history[len(history)-1])) // the other index must be brought to this message
	_, _, err = tryVerify(indexer.VerifyConfig{Database: b.owner}, more)
	require.ErrorContains(t, err, "tagstream_rebuild is of an older program version")
	b.await(url, uint64(published))
}
