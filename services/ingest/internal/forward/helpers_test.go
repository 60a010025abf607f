package forward

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// script is a source that calls emit with batches. The error of emit ends it.
type script func(ctx context.Context, from event.Position, maxPayload int, emit func(context.Context, Batch) error) error

func (s script) source(ctx context.Context, from event.Position, maxPayload int) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		stopped := errors.New("no more is accepted")
		err := s(ctx, from, maxPayload, func(_ context.Context, b Batch) error {
			if !yield(b, nil) {
				return stopped
			}
			return nil
		})
		if err != nil && !errors.Is(err, stopped) {
			yield(Batch{}, err)
		}
	}
}

const pastHost = "https://past.example"

// past is an event of another history.
func past(seq uint64) *event.Event {
	e := deletion(seq)
	e.DID, e.Source = "did:plc:past", event.Position{Host: pastHost, Seq: seq, Time: testTime.Add(-time.Hour)}
	return e
}

// syncOf returns a #sync followed by n creates, with their own times.
func syncOf(host string, seq uint64, did string, n int) []*event.Event {
	src := event.Position{Host: host, Seq: seq, Time: testTime.Add(time.Duration(seq) * time.Second)}
	const rev = "3l3qo2vutsw2b"
	out := []*event.Event{{V: event.Version, Kind: event.KindSync, Source: src, DID: did, Rev: rev}}
	for i := range n {
		src.Seq++
		out = append(out, &event.Event{
			V: event.Version, Kind: event.KindCreate, Source: src, DID: did, Rev: rev, Rkey: fmt.Sprint("r", i), CID: "bafy",
			Tags: []string{"art"}, Record: json.RawMessage(`{}`),
		})
	}
	return out
}

// contents returns the stream's messages as "host seq", without positions, and the messages.
func contents(t *testing.T, js jetstream.JetStream) (names []string, events []*event.Event) {
	t.Helper()
	for _, e := range all(t, js) {
		if e.Kind != event.KindPosition {
			names = append(names, fmt.Sprint(strings.TrimSuffix(strings.TrimPrefix(e.Source.Host, "https://"), ".example"), " ", e.Source.Seq))
			events = append(events, e)
		}
	}
	return names, events
}

// all returns the stream's messages.
func all(t *testing.T, js jetstream.JetStream) (events []*event.Event) {
	t.Helper()
	st, err := stream.GetState(t.Context(), js)
	if err != nil {
		return nil
	}
	s, err := js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	for seq := st.First; seq <= st.Last; seq++ {
		msg, err := s.GetMsg(t.Context(), seq)
		require.NoError(t, err)
		e, err := event.Decode(msg.Data)
		require.NoError(t, err)
		events = append(events, e)
	}
	return events
}

func awaitStored(t *testing.T, js jetstream.JetStream, n int) []string {
	t.Helper()
	var names []string
	poll.Until(t, waitLimit, func() (bool, string) {
		names, _ = contents(t, js)
		return len(names) >= n, fmt.Sprint(len(names), " of ", n)
	})
	return names
}
