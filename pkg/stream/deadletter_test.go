package stream_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
)

func letter(seq uint64) stream.DeadLetter {
	return stream.DeadLetter{
		Seq: seq, Reason: "invalid", Error: fmt.Sprintf("invalid event: bad rev of %d", seq),
		At: time.Date(2026, 8, 20, 12, 0, 0, 123456789, time.UTC), Payload: fmt.Appendf(nil, `{"v":1,"n":%d}`, seq),
	}
}

func allLetters(t testing.TB, js jetstream.JetStream) []stream.DeadLetter {
	t.Helper()
	var all []stream.DeadLetter
	require.NoError(t, stream.EachDeadLetter(t.Context(), js, func(d stream.DeadLetter) error {
		all = append(all, d)
		return nil
	}))
	return all
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	require.Empty(t, allLetters(t, js))
	for _, seq := range []uint64{7, 5, 1 << 62} {
		require.NoError(t, stream.PutDeadLetter(t.Context(), js, letter(seq)))
	}
	require.Equal(t, []stream.DeadLetter{letter(1 << 62), letter(7), letter(5)}, allLetters(t, js), "newest message first")

	again := letter(7)
	again.Reason, again.At = "rejected", again.At.Add(time.Hour)
	require.NoError(t, stream.PutDeadLetter(t.Context(), js, again))
	require.Equal(t, []stream.DeadLetter{letter(1 << 62), again, letter(5)}, allLetters(t, js), "a repeated put must not add another one")

	got, err := stream.GetDeadLetter(t.Context(), js, 7)
	require.NoError(t, err)
	require.Equal(t, again, got)
	_, err = stream.GetDeadLetter(t.Context(), js, 6)
	require.ErrorIs(t, err, stream.ErrNoDeadLetter)

	for range 2 {
		require.NoError(t, stream.DeleteDeadLetter(t.Context(), js, 5))
	}
	require.Equal(t, []stream.DeadLetter{letter(1 << 62), again}, allLetters(t, js))
	seqs, err := stream.DeadLetterSeqs(t.Context(), js)
	require.NoError(t, err)
	require.Equal(t, []uint64{1 << 62, 7}, seqs)
	enough := errors.New("enough")
	require.ErrorIs(t, stream.EachDeadLetter(t.Context(), js, func(stream.DeadLetter) error { return enough }), enough)
}

// The nats tool shows the data unchanged.
func TestDeadLetterIsReadable(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	require.NoError(t, stream.PutDeadLetter(t.Context(), js, letter(7)))
	s, err := js.Stream(t.Context(), stream.DeadLetters)
	require.NoError(t, err)
	msg, err := s.GetMsg(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "posts_dlq.7", msg.Subject)
	require.JSONEq(t, `{"v":1,"n":7}`, string(msg.Data))
	require.Equal(t, "7", msg.Header.Get("Tagstream-Seq"))
	require.Equal(t, "invalid", msg.Header.Get("Tagstream-Reason"))
	require.Equal(t, "invalid event: bad rev of 7", msg.Header.Get("Tagstream-Error"))
	require.Equal(t, "2026-08-20T12:00:00.123456789Z", msg.Header.Get("Tagstream-At"))
}

func TestDeadLetterOfAnyMessage(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	w := openWriter(t, js)
	largest, err := big(t, 1, w.MaxPayload()).Encode()
	require.NoError(t, err)
	for i, c := range []struct {
		name, err, wantErr string
		payload            []byte
		gone               bool
	}{
		{name: "lines", err: "one\r\ntwo\nNats-Msg-Id: x", wantErr: "one  two Nats-Msg-Id: x", payload: []byte("x")},
		{name: "not UTF-8", err: "a\xffb\x00", wantErr: "ab", payload: []byte("\xff\x00\n")},
		{name: "no payload", err: "e", wantErr: "e", payload: []byte{}},
		{name: "no error", payload: []byte("x")},
		{name: "long error, largest event", err: strings.Repeat("é", 5000), wantErr: strings.Repeat("é", 200), payload: largest},
		{name: "more than any event", err: "e", wantErr: "e", payload: make([]byte, 1<<20), gone: true},
	} {
		d := stream.DeadLetter{Seq: uint64(i + 1), Reason: "invalid", Error: c.err, At: time.Unix(1, 0), Payload: c.payload}
		require.NoError(t, stream.PutDeadLetter(t.Context(), js, d), c.name)
		got, err := stream.GetDeadLetter(t.Context(), js, d.Seq)
		require.NoError(t, err, c.name)
		require.Equal(t, c.wantErr, got.Error, c.name)
		if c.gone {
			c.payload = []byte{}
		}
		require.Equal(t, string(c.payload), string(got.Payload), c.name)
		require.Equal(t, time.Unix(1, 0).UTC(), got.At)
	}
	require.Len(t, allLetters(t, js), 6)
	_, err = event.Decode(largest)
	require.NoError(t, err)
}

// A letter from another program is shown as far as possible, and does not prevent the listing of
// others.
func TestForeignDeadLetter(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	for _, subject := range []string{"posts_dlq.9", "posts_dlq.x", "posts_dlq.007"} {
		_, err := js.Publish(t.Context(), subject, []byte("by hand"))
		require.NoError(t, err)
	}
	got, err := stream.GetDeadLetter(t.Context(), js, 9)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), got.At, time.Minute)
	require.Equal(t, stream.DeadLetter{Seq: 9, At: got.At, Payload: []byte("by hand")}, got)
	require.Equal(t, []stream.DeadLetter{got}, allLetters(t, js))
	_, err = stream.GetDeadLetter(t.Context(), js, 7)
	require.ErrorIs(t, err, stream.ErrNoDeadLetter)
}

func TestIngestLog(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	read := func(limit int) (out []stream.LogEntry) {
		require.NoError(t, stream.Log(t.Context(), js, limit, func(e stream.LogEntry) error {
			out = append(out, e)
			return nil
		}))
		return out
	}
	require.Empty(t, read(10))
	var all []stream.LogEntry
	for i := range 5 {
		e := stream.LogEntry{At: time.Unix(int64(i), 0).UTC(), What: "connected", Host: "https://host", Position: sourceOf(i + 1), Detail: fmt.Sprint("<", i, ">")}
		if i == 2 {
			e = stream.LogEntry{At: e.At, What: "started"}
		}
		all = append(all, e)
		require.NoError(t, stream.PutLog(t.Context(), js, e))
	}
	require.Equal(t, all, read(10))
	require.Equal(t, all, read(5))
	require.Equal(t, all[3:], read(2))
	s, err := js.Stream(t.Context(), stream.IngestLog)
	require.NoError(t, err)
	require.NoError(t, s.Purge(t.Context(), jetstream.WithPurgeSequence(5)))
	require.Equal(t, all[4:], read(3), "the rest must be trimmed")
	enough := errors.New("enough")
	require.ErrorIs(t, stream.Log(t.Context(), js, 5, func(stream.LogEntry) error { return enough }), enough)
}
