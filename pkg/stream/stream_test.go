package stream_test

import (
	"context"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

func TestSubjectOfEveryKind(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	var events []*event.Event
	for i, kind := range event.Kinds {
		ev := big(t, i+1, 1000)
		ev.Kind, ev.Profile = kind, &event.Profile{}
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
	require.Equal(t, stream.State{First: 1, Last: 0}, st, "an empty stream")
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
	change(t, js, func(s *jetstream.StreamConfig) { s.MaxBytes = 1 << 20 })
	st, err = stream.GetState(t.Context(), js)
	require.NoError(t, err)
	require.Zero(t, st.MaxBytes, "a limit at which writing stops must not count as trimming")
	change(t, js, func(s *jetstream.StreamConfig) { s.Discard = jetstream.DiscardOld })
	st, err = stream.GetState(t.Context(), js)
	require.NoError(t, err)
	require.EqualValues(t, 1<<20, st.MaxBytes)
}

// TestJetStreamDomain uses a leaf node, which has no streams itself.
func TestJetStreamDomain(t *testing.T) {
	t.Parallel()
	port := natstest.FreePorts(t, 1)[0]
	hub := natstest.Server(t, natstest.Listen(), natstest.With(func(o *server.Options) {
		o.ServerName, o.JetStreamDomain = "hub", "hub"
		o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", port
	}))
	remote, err := url.Parse(fmt.Sprint("nats-leaf://127.0.0.1:", port))
	require.NoError(t, err)
	leaf := natstest.Server(t, natstest.With(func(o *server.Options) {
		o.ServerName, o.JetStream = "leaf", false
		o.LeafNode.Remotes = []*server.RemoteLeafOpts{{URLs: []*url.URL{remote}}}
	}))
	js, err := stream.JetStream(leaf.Conn(t), "hub")
	require.NoError(t, err)
	poll.Until(t, patience, func() (bool, string) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := js.AccountInfo(ctx)
		return err == nil, fmt.Sprint(err)
	})
	require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}))
	changes, err := stream.Adjust(t.Context(), js, stream.Config{MaxAge: time.Hour})
	require.NoError(t, err)
	require.Len(t, changes, 1)
	a := contend(t.Context(), stream.NewLease(js, "holder"))
	a.requireHeld(t)
	require.NoError(t, openWriter(t, js).Append(t.Context(), numbered(1, 10)))
	require.NoError(t, stream.PutPosition(t.Context(), js, sourceOf(10)))
	p, err := stream.GetPosition(t.Context(), js)
	require.NoError(t, err)
	require.Equal(t, sourceOf(10), p)
	require.NoError(t, stream.PutDeadLetter(t.Context(), js, stream.DeadLetter{Seq: 3, At: time.Now()}))
	requireStored(t, js, 10)
	requireStored(t, hub.JetStream(t), 10)
	close(a.end)
	require.NoError(t, receive(t, a.result))
}
