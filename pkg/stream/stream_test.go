package stream_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
)

func TestEnsure(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	config := func() jetstream.StreamConfig {
		s, err := js.Stream(t.Context(), stream.Posts)
		require.NoError(t, err)
		return s.CachedInfo().Config
	}
	require.NoError(t, openWriter(t, js).Append(t.Context(), numbered(1, 10)))
	a := contend(t.Context(), stream.NewLease(js, "holder"))
	held := a.requireHeld(t)
	for _, c := range []struct {
		name    string
		cfg     stream.Config
		discard jetstream.DiscardPolicy
		bytes   int64
		age     time.Duration
	}{
		{name: "again", discard: jetstream.DiscardNew, bytes: -1},
		{name: "bounded by bytes", cfg: stream.Config{MaxBytes: 1 << 20}, discard: jetstream.DiscardOld, bytes: 1 << 20},
		{name: "bounded by age", cfg: stream.Config{MaxAge: time.Hour}, discard: jetstream.DiscardOld, bytes: -1, age: time.Hour},
		{name: "by less than the server remembers ids", cfg: stream.Config{MaxAge: time.Minute}, discard: jetstream.DiscardOld, bytes: -1, age: time.Minute},
		{name: "bounded by both", cfg: stream.Config{MaxBytes: 2 << 20, MaxAge: time.Hour}, discard: jetstream.DiscardOld, bytes: 2 << 20, age: time.Hour},
		{name: "unbounded again", discard: jetstream.DiscardNew, bytes: -1},
	} {
		require.NoError(t, stream.Ensure(t.Context(), js, c.cfg), c.name)
		got := config()
		require.Equal(t, c.discard, got.Discard, c.name)
		require.Equal(t, c.bytes, got.MaxBytes, c.name)
		require.Equal(t, c.age, got.MaxAge, c.name)
		require.Equal(t, jetstream.FileStorage, got.Storage)
		require.True(t, got.AllowAtomicPublish)
	}
	requireStored(t, js, 10)
	require.NoError(t, held.Err(), "the lease outlasts it")
	close(a.end)
	require.NoError(t, receive(t, a.result))
	require.ErrorContains(t, stream.Ensure(t.Context(), js, stream.Config{Replicas: 3}), "create stream POSTS", "one server is no cluster")
}

// TestEnsureFitsASmallDisk: what the side streams reserve is not much.
func TestEnsureFitsASmallDisk(t *testing.T) {
	t.Parallel()
	js := natstest.Server(t, natstest.MaxStore(512<<20)).JetStream(t)
	require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}))
}

func TestEveryKindHasItsSubject(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	var events []*event.Event
	for i, kind := range event.Kinds {
		ev := big(t, i+1, 1000)
		ev.Kind = kind
		events = append(events, ev)
		require.Equal(t, "posts."+string(kind), stream.Subject(kind))
	}
	require.NoError(t, openWriter(t, js).Append(t.Context(), events))
	requireStored(t, js, len(events))
}

func TestGetState(t *testing.T) {
	t.Parallel()
	_, err := stream.GetState(t.Context(), natstest.Server(t).JetStream(t))
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)

	_, js := serve(t, natstest.With(func(o *server.Options) { o.MaxPayload = 1 << 20 }))
	st, err := stream.GetState(t.Context(), js)
	require.NoError(t, err)
	require.Equal(t, stream.State{First: 1, Last: 0}, st, "an empty one")
	require.NoError(t, openWriter(t, js).Append(t.Context(), numbered(1, 10)))
	st, err = stream.GetState(t.Context(), js)
	require.NoError(t, err)
	require.Equal(t, uint64(1), st.First)
	require.Equal(t, uint64(10), st.Last)
	require.Positive(t, st.Bytes)
	s, err := js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	require.NoError(t, s.Purge(t.Context(), jetstream.WithPurgeSequence(4)))
	st, err = stream.GetState(t.Context(), js)
	require.NoError(t, err)
	require.Equal(t, []uint64{4, 10}, []uint64{st.First, st.Last})
	require.NoError(t, s.Purge(t.Context()))
	st, err = stream.GetState(t.Context(), js)
	require.NoError(t, err)
	require.Equal(t, []uint64{11, 10}, []uint64{st.First, st.Last}, "trimmed empty")
}
