package stream_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
)

// newErasable returns a stream of n messages.
func newErasable(t *testing.T, n int) (jetstream.JetStream, *stream.Eraser) {
	t.Helper()
	js := natstest.Server(t).JetStream(t)
	require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}))
	for i := range n {
		_, err := js.Publish(t.Context(), "posts.create", fmt.Appendf(nil, "payload %d", i+1))
		require.NoError(t, err)
	}
	e, err := stream.OpenEraser(t.Context(), js)
	require.NoError(t, err)
	return js, e
}

func TestErase(t *testing.T) {
	t.Parallel()
	js, e := newErasable(t, 9)
	has := func(from, to uint64) bool {
		t.Helper()
		yes, err := stream.HasMessage(t.Context(), js, from, to)
		require.NoError(t, err)
		return yes
	}
	gaps := func() bool {
		t.Helper()
		yes, err := stream.HasGaps(t.Context(), js)
		require.NoError(t, err)
		return yes
	}
	require.False(t, gaps())
	for _, seq := range []uint64{4, 5, 4, 20} {
		require.NoError(t, e.Erase(t.Context(), seq), "a missing message must not be an error")
	}
	require.True(t, gaps())
	require.True(t, has(3, 5))
	require.False(t, has(4, 5))
	require.True(t, has(4, 6))
	require.False(t, has(10, 20))

	other, err := e.EraseSame(t.Context(), 6, []byte("payload of a former stream"))
	require.NoError(t, err)
	require.True(t, other)
	require.True(t, has(6, 6))
	other, err = e.EraseSame(t.Context(), 6, []byte("payload 6"))
	require.NoError(t, err)
	require.False(t, other)
	require.False(t, has(6, 6))
	other, err = e.EraseSame(t.Context(), 6, []byte("payload 6"))
	require.NoError(t, err)
	require.False(t, other, "it must be gone")

	st, err := stream.GetState(t.Context(), js)
	require.NoError(t, err)
	require.Equal(t, []uint64{1, 9}, []uint64{st.First, st.Last})
}

func TestStoredBefore(t *testing.T) {
	t.Parallel()
	js, e := newErasable(t, 9)
	for _, seq := range []uint64{3, 4, 8} {
		require.NoError(t, e.Erase(t.Context(), seq))
	}
	s, err := js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	there := []uint64{1, 2, 5, 6, 7, 9}
	for _, before := range there {
		msg, err := s.GetMsg(t.Context(), before)
		require.NoError(t, err)
		for first := uint64(1); first <= 9; first++ {
			for last := first; last <= 9; last++ {
				got, err := e.StoredBefore(t.Context(), msg.Time, first, last)
				require.NoError(t, err)
				require.True(t, first-1 <= got && got <= last)
				for _, seq := range there {
					if first <= seq && seq <= last {
						require.Equal(t, seq < before, seq <= got, "before %d, from %d to %d: %d", before, first, last, got)
					}
				}
			}
		}
	}
	got, err := e.StoredBefore(t.Context(), time.Now().Add(time.Hour), 1, 9)
	require.NoError(t, err)
	require.EqualValues(t, 9, got)
}

func TestEraseDeadLetter(t *testing.T) {
	t.Parallel()
	js := natstest.Server(t).JetStream(t)
	require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}))
	require.NoError(t, stream.TidyDeadLetters(t.Context(), js), "a missing dead letter must not be an error")
	for _, seq := range []uint64{5, 7, 5} {
		require.NoError(t, stream.PutDeadLetter(t.Context(), js, stream.DeadLetter{Seq: seq, Reason: "rejected", At: time.Now(), Payload: []byte("x")}))
	}
	require.NoError(t, stream.EraseDeadLetter(t.Context(), js, 5))
	require.NoError(t, stream.EraseDeadLetter(t.Context(), js, 5))
	require.NoError(t, stream.TidyDeadLetters(t.Context(), js))
	seqs, err := stream.DeadLetterSeqs(t.Context(), js)
	require.NoError(t, err)
	require.Equal(t, []uint64{7}, seqs)
	require.NoError(t, stream.EraseDeadLetter(t.Context(), js, 7))
	require.NoError(t, stream.TidyDeadLetters(t.Context(), js))
	require.NoError(t, stream.PutDeadLetter(t.Context(), js, stream.DeadLetter{Seq: 9, Reason: "rejected", At: time.Now(), Payload: []byte("x")}))
	seqs, err = stream.DeadLetterSeqs(t.Context(), js)
	require.NoError(t, err)
	require.Equal(t, []uint64{9}, seqs)
}
