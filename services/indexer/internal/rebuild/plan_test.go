package rebuild

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/eventtest"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

type silent struct{}

func (silent) At(uint64, uint64) {}
func (silent) Say(string)        {}

// live is a stream with a live index at its end.
type live struct {
	js       jetstream.JetStream
	database store.Options
	writer   *write.Writer
}

func newLive(t *testing.T, cfg stream.Config, messages int) *live {
	t.Helper()
	l := &live{js: natstest.Server(t).JetStream(t), database: storetest.Database(t)}
	require.NoError(t, stream.Ensure(t.Context(), l.js, cfg))
	l.writer = storetest.Leader(t, l.database)
	l.grow(t, messages)
	return l
}

// grow adds messages to the stream, and brings the live index to its end.
func (l *live) grow(t *testing.T, messages int) {
	t.Helper()
	for range messages {
		ev := event.Event{Kind: event.KindPosition, Source: event.Position{Host: "a", Time: time.Now().UTC().Truncate(time.Microsecond)}}
		require.NoError(t, l.writer.Apply(t.Context(), func(_ *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
			ev.Source.Seq = cp.Seq + 1
			ack, err := l.js.Publish(t.Context(), stream.Subject(ev.Kind), eventtest.Encode(t, ev))
			require.NoError(t, err)
			return store.Checkpoint{Seq: ack.Sequence, Source: ev.Source}, nil
		}))
	}
}

func (l *live) plan(t *testing.T, js jetstream.JetStream) *Rebuild {
	t.Helper()
	r := &Rebuild{JS: js, Database: l.database, Logger: storetest.Quiet, Progress: silent{}, owner: write.NewOwner(l.database)}
	require.NoError(t, r.makePlan(t.Context()))
	return r
}

// growing is a stream that calls after right after it was examined.
type growing struct {
	jetstream.JetStream
	after func()
}

func (g growing) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	s, err := g.JetStream.Stream(ctx, name)
	g.after()
	if err != nil {
		return nil, fmt.Errorf("look: %w", err)
	}
	return s, nil
}

// The stream and the live index grow while the plan is made. That must not count as an index of
// another stream, which would be replaced without catching up and comparing.
func TestGrowingIndexIsNotForeign(t *testing.T) {
	t.Parallel()
	l := newLive(t, stream.Config{}, 5)
	grow := sync.OnceFunc(func() { l.grow(t, 3) })
	r := l.plan(t, growing{l.js, grow})
	require.False(t, r.plan.foreign)
	cp, _, err := r.owner.CheckpointOf(t.Context(), store.Live)
	require.NoError(t, err)
	require.Equal(t, uint64(8), cp.Seq, "it must have grown")
}

// A stream that is being trimmed loses its first messages while the live index's state is copied.
// The replay begins at messages that still exist afterwards: trimming is limited.
func TestReplayStaysAheadOfTrimming(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg   stream.Config
		first uint64
	}{
		"bounded by age":  {stream.Config{MaxAge: time.Hour}, 41 + 15},
		"bounded by size": {stream.Config{MaxBytes: 1 << 30}, 41 + 15},
		"purged once":     {stream.Config{}, 41},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLive(t, c.cfg, 100)
			s, err := l.js.Stream(t.Context(), stream.Posts)
			require.NoError(t, err)
			require.NoError(t, s.Purge(t.Context(), jetstream.WithPurgeSequence(41)))
			r := l.plan(t, l.js)
			require.True(t, r.plan.carry)
			require.Equal(t, c.first, r.plan.first)
		})
	}
}

// The index of an interrupted rebuild may belong to the previous stream without evidence, for
// example if it had only copied the live index's earlier state.
func TestIndexOfUnknownStreamIsRestarted(t *testing.T) {
	t.Parallel()
	l := newLive(t, stream.Config{}, 10)
	w := storetest.Rebuilding(t, l.database)
	require.NoError(t, w.Apply(t.Context(), func(_ *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		cp.Seq = 5
		return cp, nil
	}))
	left := func(r *Rebuild) bool {
		_, exists, err := r.owner.CheckpointOf(t.Context(), store.Rebuilding)
		require.NoError(t, err)
		return exists
	}
	require.True(t, left(l.plan(t, l.js)), "it must belong to the current stream")

	require.NoError(t, l.js.DeleteStream(t.Context(), stream.Posts))
	require.NoError(t, stream.Ensure(t.Context(), l.js, stream.Config{}))
	require.NoError(t, w.Renew(t.Context()))
	for range 20 {
		other := event.Event{Kind: event.KindPosition, Source: event.Position{Host: "b", Seq: 1, Time: time.Now().UTC()}}
		_, err := l.js.Publish(t.Context(), stream.Subject(other.Kind), eventtest.Encode(t, other))
		require.NoError(t, err)
	}
	// A rebuild that is working on it keeps it.
	running := &Rebuild{JS: l.js, Database: l.database, Restart: true, Logger: storetest.Quiet, Progress: silent{}}
	_, err := running.Run(t.Context())
	require.ErrorIs(t, err, errRunning)
	require.ErrorIs(t, running.makePlan(t.Context()), errRunning)
	require.True(t, left(running))

	require.NoError(t, w.Release(t.Context()))
	r := l.plan(t, l.js)
	require.True(t, r.plan.foreign)
	require.False(t, left(r))
}
