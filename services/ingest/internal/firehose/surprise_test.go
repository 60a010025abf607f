package firehose

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

// raw is an event with a payload from the test.
func raw(seq uint64, kind, more string) fakeEvent {
	at := past.Add(time.Duration(seq) * time.Second)
	return fakeEvent{seq: seq, time: at, raw: fmt.Sprintf(`{"$type":"network.bsky.jetstream.subscribeEvents#%s","did":"did:plc:a","seq":%d,"time":%q%s}`,
		kind, seq, at.Format("2006-01-02T15:04:05.000000Z"), more)}
}

func TestUnknownKindsAndFields(t *testing.T) {
	t.Parallel()
	h := newFakeHost(t)
	h.emit(past, 1)
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, h)
	s.await("a:1")
	account := `,"account":{"did":"did:plc:a","active":true,"seq":1,"time":"2026-08-20T12:00:00Z","mood":{"deep":[1,2,{"x":null}]}},"color":"red"`
	h.change(func() {
		h.events = append(h.events,
			raw(2, "gossip", `,"gossip":{"a":1}`),
			raw(3, "account", account),
			raw(4, "gossip", ""))
	})
	s.await("a:1", "a:3")
	// The host's last event is of a kind that is not read. That is not a stall.
	asked := len(h.dialed())
	s.awaitThat("the watchdog to have asked thrice", func() bool { return len(h.dialed()) >= asked+3 })
	require.Zero(t, s.count(Disconnected))
	h.change(func() { h.events = append(h.events, raw(5, "account", account)) })
	s.await("a:1", "a:3", "a:5")
	require.Equal(t, 1, s.count(Connected))
	// An event that the client cannot decode is skipped after some attempts.
	h.change(func() {
		h.events = append(h.events,
			raw(6, "commit", `,"rev":"3l3qo2vutsw2b","operation":"like","collection":"app.bsky.feed.post","rkey":"a"`),
			raw(7, "account", account))
	})
	s.await("a:5", "a:7")
	require.Equal(t, 1, s.count(Skipped))
}

func TestOversizedMessageIsSkipped(t *testing.T) {
	t.Parallel()
	account := func(seq uint64, padding int) fakeEvent {
		return raw(seq, "account", `,"account":{"did":"did:plc:a","active":true,"seq":1,"time":"2026-08-20T12:00:00Z"},"padding":"`+strings.Repeat("x", padding)+`"`)
	}
	h := newFakeHost(t)
	h.emit(past, 1)
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, h)
	s.await("a:1")
	h.change(func() {
		h.events = append(h.events, account(2, 0), account(3, frameLimit))
	})
	s.await("a:1", "a:2")
	s.awaitThat("it to be passed over", func() bool {
		return slices.ContainsFunc(s.notices, func(n Notice) bool { return n.Kind == Skipped })
	})
	// Also as the first message of a new connection.
	h.cutAll()
	s.awaitThat("a new connection", func() bool { return len(s.batches) > 0 && s.batches[len(s.batches)-1].Events == nil })
	h.emit(past.Add(time.Hour), 4)
	s.await("a:1", "a:2", "a:4")
	require.Zero(t, s.count(Switched))
	require.Equal(t, 2, s.count(Skipped))
}

func TestHostWithShortHistory(t *testing.T) {
	t.Parallel()
	young := func(t *testing.T) *fakeHost {
		h := newFakeHost(t)
		h.emit(past.Add(time.Hour), seqs(1, 3)...)
		return h
	}
	t.Run("is skipped for one that has more", func(t *testing.T) {
		t.Parallel()
		a, b := young(t), newFakeHost(t)
		b.emit(past.Add(-time.Hour), 501)
		b.emit(past.Add(time.Minute), 502)
		s := read(t, event.Position{Host: "https://gone.example", Seq: 9, Time: past}, Config{}, a, b)
		s.await("b:502")
		require.Equal(t, []string{"b:501", "b:502"}, s.all())
		require.Zero(t, s.count(Gap))
	})
	t.Run("is used as a last resort", func(t *testing.T) {
		t.Parallel()
		a, b := young(t), newFakeHost(t)
		b.change(func() { b.status = 503 })
		s := read(t, event.Position{Host: "https://gone.example", Seq: 9, Time: past}, Config{}, a, b)
		s.await("a:1", "a:2", "a:3")
		require.Equal(t, 1, s.count(Gap))
	})
	t.Run("is used if there is no other", func(t *testing.T) {
		t.Parallel()
		a := young(t)
		s := read(t, event.Position{Host: a.srv.URL, Seq: 9, Time: past}, Config{}, a)
		s.await("a:1", "a:2", "a:3")
		require.Equal(t, 1, s.count(Gap))
	})
	t.Run("has an archive", func(t *testing.T) {
		t.Parallel()
		a := young(t)
		a.change(func() {
			a.pages = []string{fmt.Sprintf(`[{"maxSeq":1,"minWitnessedAt":%s,"maxWitnessedAt":%s}]`, micros(past.Add(time.Hour)), micros(past.Add(time.Hour)))}
		})
		s := read(t, event.Position{Host: a.srv.URL, Seq: 9, Time: past}, Config{}, a)
		s.await("a:1", "a:2", "a:3")
		require.Equal(t, 1, s.count(Gap))
	})
}
