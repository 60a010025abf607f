package stream_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// TestMain lets more tests run in parallel than there are processors, since they mostly wait for
// timeouts.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set("8") // always valid
	}
	os.Exit(m.Run())
}

// patience bounds one wait for something that usually takes much less.
const patience = time.Minute

// serve starts a server with the streams on it.
func serve(t testing.TB, options ...natstest.Option) (*natstest.TestServer, jetstream.JetStream) {
	t.Helper()
	s := natstest.Server(t, options...)
	js := s.JetStream(t)
	require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}))
	return s, js
}

// serveEvents starts a server whose stream has n events, and opens their writer.
func serveEvents(t testing.TB, n int) (jetstream.JetStream, *stream.Writer) {
	t.Helper()
	_, js := serve(t)
	w := openWriter(t, js)
	require.NoError(t, w.Append(t.Context(), numbered(1, n)))
	return js, w
}

func within(t testing.TB, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// numbered returns n events with consecutive upstream sequence numbers.
func numbered(from, n int) []*event.Event {
	events := make([]*event.Event, n)
	for i := range events {
		seq := from + i
		events[i] = &event.Event{
			Kind: event.KindDelete, Source: sourceOf(seq),
			DID: "did:plc:alice", Rkey: fmt.Sprint(seq), Rev: "3jzfcijpj2z2a",
		}
	}
	return events
}

func sourceOf(seq int) event.Position {
	return event.Position{Host: "https://host", Seq: uint64(seq), Time: time.UnixMicro(1_780_000_000_000_000 + int64(seq)).UTC()}
}

// big returns an event that is size bytes long when encoded.
func big(t testing.TB, seq, size int) *event.Event {
	t.Helper()
	ev := &event.Event{
		Kind: event.KindCreate, Source: sourceOf(seq), DID: "did:plc:alice", Rkey: fmt.Sprint(seq), Rev: "3jzfcijpj2z2a",
		CID: "bafy", Tags: []string{"art"}, Record: json.RawMessage(`{"text":""}`),
	}
	data, err := ev.Encode()
	require.NoError(t, err)
	text := make([]byte, size-len(data))
	for i := range text {
		text[i] = 'x'
	}
	ev.Record = json.RawMessage(`{"text":"` + string(text) + `"}`)
	return ev
}

func openWriter(t testing.TB, js jetstream.JetStream) *stream.Writer {
	t.Helper()
	w, err := stream.OpenWriter(within(t, patience), js, t.Name(), func(err error) { t.Logf("retrying: %v", err) })
	require.NoError(t, err)
	return w
}

// requireStored checks that the stream holds exactly the events 1 to n, once and in order, without
// gaps in its own numbers.
func requireStored(t testing.TB, js jetstream.JetStream, n int) {
	t.Helper()
	st, err := stream.GetState(t.Context(), js)
	require.NoError(t, err)
	var got []uint64
	if st.Last >= st.First {
		r, err := stream.OpenReader(t.Context(), js, st.First)
		require.NoError(t, err)
		defer r.Close()
		next := st.First
		for next <= st.Last {
			batch, err := r.Next(within(t, patience), 1000, 0)
			require.NoError(t, err)
			for _, m := range batch {
				require.Equal(t, next, m.Seq)
				next++
				ev, err := event.Decode(m.Data)
				require.NoError(t, err)
				got = append(got, ev.Source.Seq)
			}
		}
	}
	require.Len(t, got, n)
	for i, seq := range got {
		require.Equal(t, uint64(i+1), seq, "upstream number of message %d", i)
	}
}

// change updates the stream of events.
func change(t testing.TB, js jetstream.JetStream, with func(*jetstream.StreamConfig)) {
	t.Helper()
	s, err := js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	cfg := s.CachedInfo().Config
	with(&cfg)
	_, err = js.UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
}

// pollSeq waits until the stream ends at seq.
func pollSeq(t testing.TB, js jetstream.JetStream, seq uint64) {
	t.Helper()
	poll.Until(t, patience, func() (bool, string) {
		st, err := stream.GetState(t.Context(), js)
		return err == nil && st.Last == seq, fmt.Sprint(st, err)
	})
}
