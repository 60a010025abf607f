package stream_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// A consumer that sends heartbeats but delivers nothing, although there are messages, is abandoned.
// A paused consumer behaves like that.
func TestReadPastStalledConsumer(t *testing.T) {
	t.Parallel()
	js, w := serveEvents(t, 5)
	r := openReader(t, js, 1)
	require.Equal(t, upTo(1, 5), requireRead(t, r, 5))

	s, err := js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	names := s.ConsumerNames(t.Context())
	paused := 0
	for name := range names.Name() {
		_, err := js.PauseConsumer(t.Context(), stream.Posts, name, time.Now().Add(time.Hour))
		require.NoError(t, err)
		paused++
	}
	require.NoError(t, names.Err())
	require.Equal(t, 1, paused)
	require.NoError(t, w.Append(t.Context(), numbered(6, 5)))
	require.Equal(t, upTo(6, 10), requireRead(t, r, 10))
}

// Replicas are not compressed; a compressed stream gets a log line.
func TestCompression(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	s, err := js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	c := s.CachedInfo().Config
	require.Equal(t, jetstream.S2Compression, c.Compression)
	c.Compression = jetstream.NoCompression
	s, err = js.UpdateStream(t.Context(), c)
	require.NoError(t, err)
	require.Equal(t, jetstream.NoCompression, s.CachedInfo().Config.Compression)
}

func TestSlowReaderUsesLittleMemory(t *testing.T) {
	t.Parallel()
	s, js := serve(t)
	w := openWriter(t, js)
	for i := range 8 {
		require.NoError(t, w.Append(t.Context(), numbered(i*1000+1, 1000)))
	}
	nc := s.Conn(t)
	mine, err := jetstream.New(nc)
	require.NoError(t, err)
	r := openReader(t, mine, 1)
	got := requireRead(t, r, 1)
	// The reader requests only its share, however long the caller takes no message.
	var seen uint64
	poll.Until(t, patience, func() (bool, string) {
		st, err := js.Stream(t.Context(), stream.Posts)
		require.NoError(t, err)
		var delivered uint64
		for info := range st.ListConsumers(t.Context()).Info() {
			delivered = max(delivered, info.Delivered.Stream)
		}
		stable := delivered == seen && delivered > 0
		seen = delivered
		return stable, fmt.Sprint(delivered)
	})
	require.LessOrEqual(t, seen, uint64(4000))
	require.Equal(t, upTo(1, 8000), append(got, requireRead(t, r, 8000)...), "it must continue")
}

// A deadline limits the wait for messages. A server that takes longer to say whether the stream was
// trimmed must not delay them, but a canceled caller stops.
func TestSlowServerAfterGap(t *testing.T) {
	t.Parallel()
	for name, stopped := range map[string]bool{"deadline": false, "stopped": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, js := serve(t, natstest.Listen())
			p := newProxy(t, s)
			require.NoError(t, openWriter(t, js).Append(t.Context(), numbered(1, 10)))
			erase(t, js, 5)
			r := openReader(t, through(t, p), 1)
			batch, err := r.Next(within(t, patience), 4, patience)
			require.NoError(t, err)
			require.Len(t, batch, 4)

			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			if stopped {
				ctx, cancel = context.WithCancel(t.Context())
			}
			defer cancel()
			look := fault.Fault{Match: to("$JS.API.STREAM.INFO"), Break: fault.Nothing, Then: func() { <-ctx.Done() }}
			if stopped {
				look.Break, look.Then = fault.Silent, cancel
			}
			p.Arm(look)
			batch, err = r.Next(ctx, 1, 0)
			if stopped {
				require.ErrorIs(t, err, context.Canceled)
				return
			}
			require.NoError(t, err)
			require.Equal(t, uint64(6), batch[0].Seq)
		})
	}
}
