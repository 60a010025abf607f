package stream_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/stream"
)

// A consumer that sends heartbeats but delivers nothing, although there are messages, is abandoned.
// A paused consumer behaves like that.
func TestReadPastAConsumerThatStandsStill(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	w := openWriter(t, js)
	require.NoError(t, w.Append(t.Context(), numbered(1, 5)))
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

// Copies are not compressed; a stream that was compressed gets a log line.
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
