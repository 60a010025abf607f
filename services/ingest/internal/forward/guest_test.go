package forward

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

const pastHost = "https://past.example"

// past is an event of another history.
func past(seq uint64) *event.Event {
	e := deletion(seq)
	e.DID, e.Source = "did:plc:past", event.Position{Host: pastHost, Seq: seq, Time: testTime.Add(-time.Hour)}
	return e
}

// syncOf is a #sync and n creates behind it, at a time of their own.
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

// whole returns the stream's messages as "host seq", positions left out, and
// the messages.
func whole(t *testing.T, js jetstream.JetStream) (names []string, events []*event.Event) {
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
		names, _ = whole(t, js)
		return len(names) >= n, fmt.Sprint(len(names), " of ", n)
	})
	return names
}

// Invariant: events of a past window move neither the live position nor a #sync in progress, and
// restore nothing that is gone. See also TestLiveWaitsForTheEndOfAGuestsSync and
// TestBackfillFillsInWhatALateStartMissed.
func TestGuestsEventsDoNotMoveTheLivePosition(t *testing.T) {
	t.Parallel()
	server := natstest.Server(t)
	js := server.JetStream(t)
	u := newUpstream()
	u.set(3, false)
	a := start(t, js, "a", u.source, time.Hour)
	awaitLast(t, js, 3)

	g := NewGuest(server.Conn(t), "guest")
	for seq := uint64(1); seq <= 2500; seq++ {
		require.NoError(t, g.Put(t.Context(), past(seq)))
	}
	require.NoError(t, g.Flush(t.Context()))
	require.Equal(t, at(3), g.Live())
	names, events := whole(t, js)
	require.Equal(t, 2503, len(names))
	for i, e := range events[3:] {
		require.Equal(t, uint64(i+1), e.Source.Seq, "in order, once")
		require.Equal(t, at(3), e.Checkpoint())
	}
	require.Equal(t, int32(2500), a.guests.Load())
	require.Equal(t, int32(4), a.published.Load(), "three events and the position of the first connection")

	// Without the position that a clean stop writes: as after a crash.
	w, err := stream.OpenWriter(t.Context(), js, "b", nil)
	require.NoError(t, err)
	require.Equal(t, at(3), w.Last())
	u.set(4, false)
	awaitStored(t, js, 2504)
	a.stop()
	require.NoError(t, a.end())
	u.set(5, true)
	b := start(t, js, "b", u.source, time.Hour)
	require.NoError(t, b.end())
	names, _ = whole(t, js)
	require.Equal(t, []string{"host 4", "host 5"}, names[2503:])
	require.Equal(t, []event.Position{{}, at(4)}, u.begun())
}

func TestGuestsRequests(t *testing.T) {
	t.Parallel()
	server := natstest.Server(t)
	js := server.JetStream(t)
	nc := server.Conn(t)
	u := newUpstream()
	u.set(1, false)
	start(t, js, "a", u.source, time.Hour)
	awaitLast(t, js, 1)
	line, err := past(1).Encode()
	require.NoError(t, err)
	big := past(1)
	big.Kind, big.CID, big.Tags = event.KindCreate, "bafy", []string{"art"}
	big.Record = json.RawMessage(`{"text":"` + strings.Repeat("x", int(nc.MaxPayload())-guestHeadroom-500) + `"}`)
	tooBig, err := big.Encode()
	require.NoError(t, err)
	tests := []struct {
		name, guest, chunk string
		data               []byte
		err                string
		stored             int
	}{
		{name: "no guest", chunk: "1", data: line, err: "names no guest", stored: 1},
		{name: "no event", guest: "g", chunk: "1", data: []byte("{}"), err: "invalid event", stored: 1},
		{name: "too big", guest: "g", chunk: "1", data: tooBig, err: nats.ErrMaxPayload.Error(), stored: 1},
		{name: "nothing", guest: "g", chunk: "1", stored: 1},
		{name: "two", guest: "g", chunk: "2", data: append(append(line, '\n'), line...), stored: 3},
		{name: "the same request again", guest: "g", chunk: "2", data: append(append(line, '\n'), line...), stored: 3},
		{name: "the next", guest: "g", chunk: "3", data: line, stored: 4},
	}
	for _, tt := range tests { // one after the other
		msg := nats.NewMsg(GuestSubject)
		msg.Data = tt.data
		msg.Header.Set(guestHeader, tt.guest)
		msg.Header.Set(chunkHeader, tt.chunk)
		answer, err := nc.RequestMsg(msg, waitLimit)
		require.NoError(t, err, tt.name)
		var reply guestReply
		require.NoError(t, json.Unmarshal(answer.Data, &reply))
		require.Contains(t, reply.Error, tt.err, tt.name)
		require.Equal(t, tt.err == "", reply.Error == "", "%s: %s", tt.name, answer.Data)
		require.Empty(t, reply.Later, tt.name)
		names, _ := whole(t, js)
		require.Len(t, names, tt.stored, tt.name)
	}
}

func TestGuestWithoutAWriter(t *testing.T) {
	t.Parallel()
	server := natstest.Server(t)
	g := NewGuest(server.Conn(t), "guest")
	g.Patience = 300 * time.Millisecond
	require.ErrorIs(t, g.Hello(t.Context()), ErrNoWriter)

	// One that comes late is waited for, and one that goes away in between.
	js := server.JetStream(t)
	g.Patience = waitLimit
	require.NoError(t, g.Put(t.Context(), past(1)))
	done := make(chan error, 1)
	go func() { done <- g.Flush(t.Context()) }()
	u := newUpstream()
	u.set(1, false)
	a := start(t, js, "a", u.source, time.Hour)
	require.NoError(t, <-done)
	a.stop()
	require.NoError(t, a.end())
	require.NoError(t, g.Put(t.Context(), past(2)))
	go func() { done <- g.Flush(t.Context()) }()
	u.set(2, false)
	start(t, js, "b", u.source, time.Hour)
	require.NoError(t, <-done)
	names := awaitStored(t, js, 4)
	require.ElementsMatch(t, []string{"host 1", "host 2", "past 1", "past 2"}, names)
}
