package firehose

import (
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// asked counts the connections that probe other hosts, from their tips.
func asked(dials []url.Values) int {
	n := 0
	for _, q := range dials {
		if q.Has("collections") && !q.Has("cursor") {
			n++
		}
	}
	return n
}

// Invariant: ingest leaves a host that is silent while another host has newer events, and
// prefers it again only when it has more itself. A quiet network is not mistaken for a silent
// host. See also TestWatchdogFindsStalledClient, TestWatchdogIgnoresQuietNetwork,
// TestSilentHostIsNotPreferred, TestQuietNetworkIsNotSilentHost and
// TestHostWithoutRelay.
func TestSilentHostIsLeft(t *testing.T) {
	t.Parallel()
	for name, when := range map[string]func(b *fakeHost, emit func()){
		"what is new came before the question": func(_ *fakeHost, emit func()) { emit() },
		"what is new comes after a question": func(b *fakeHost, emit func()) {
			poll.Until(t, waitLimit, func() (bool, string) { return asked(b.dialed()) > 0, "the other host is not asked" })
			emit()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newFakeHost(t), newFakeHost(t)
			a.emit(past, seqs(1, 3)...)
			b.emit(past, seqs(501, 503)...)
			s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, a, b)
			s.await("a:3")
			when(b, func() { b.emit(past.Add(3*time.Second), 504) })
			s.await("b:504")
			require.Equal(t, 1, s.count(Silent))
			require.Equal(t, 1, s.count(Switched))
			require.Zero(t, s.count(Disconnected))
		})
	}
}

func TestSilentHostIsNotPreferred(t *testing.T) {
	t.Parallel()
	a, b := newFakeHost(t), newFakeHost(t)
	a.emit(past, seqs(1, 3)...)
	b.emit(past, seqs(501, 504)...)
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, a, b)
	s.await("b:504")

	// The other host stops. The first one is asked, and has nothing.
	b.change(func() { b.status = 503 })
	b.cutAll()
	before := asked(a.dialed())
	s.awaitThat("the silent host to be asked twice", func() bool { return asked(a.dialed()) >= before+2 })
	s.mu.Lock()
	for _, n := range s.notices {
		require.False(t, n.Kind == Connected && n.Host == a.srv.URL && n.Position.Seq > 0, "%+v", n)
	}
	s.mu.Unlock()

	// A new reader that starts at this position does not choose the silent host either.
	s.mu.Lock()
	last := s.batches[len(s.batches)-1].Last
	s.mu.Unlock()
	b.change(func() { b.status = 0 })
	again := read(t, last, Config{}, a, b)
	again.awaitThat("a connection", func() bool { return len(again.batches) > 0 })
	require.Equal(t, b.srv.URL, again.batches[0].Host)
	require.Zero(t, again.count(Switched))
	again.cancel()
	b.change(func() { b.status = 503 })
	b.cutAll()

	// It receives events again: it has some that the other host lacks.
	a.emit(past.Add(3*time.Second), 4, 5)
	s.await("a:4", "a:5")
	silent := s.count(Silent) // it may have tried b once more and left it because of this
	b.change(func() { b.status = 0 })
	b.emit(past.Add(4*time.Second), 505)
	before = asked(b.dialed())
	s.awaitThat("a question that leads nowhere", func() bool { return asked(b.dialed()) >= before+2 })
	require.Equal(t, silent, s.count(Silent), "no host has more: it must stay")
}

func TestQuietNetworkIsNotSilentHost(t *testing.T) {
	t.Parallel()
	a, b := newFakeHost(t), newFakeHost(t)
	a.emit(past, seqs(1, 30)...)
	b.emit(past, seqs(501, 530)...)
	// An author's clock is wrong.
	future := time.Now().Add(time.Hour)
	a.emit(future, 31)
	b.emit(future, 531)
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, a, b)
	s.await("a:31")
	s.awaitThat("the other host to be asked thrice", func() bool { return asked(b.dialed()) >= 3 })
	require.Zero(t, s.count(Silent)+s.count(Disconnected)+s.count(Switched))
	require.Equal(t, 1, s.count(Quiet), "it must be reported once")

	// A new reader does not mistake what both hosts have for new events either.
	s.mu.Lock()
	last := s.batches[len(s.batches)-1].Last
	s.mu.Unlock()
	again := read(t, last, Config{}, a, b)
	before := asked(b.dialed())
	again.awaitThat("the other host to be asked", func() bool { return asked(b.dialed()) >= before+6 })
	require.Zero(t, again.count(Silent)+again.count(Switched))
}

func TestSingleSilentHost(t *testing.T) {
	t.Parallel()
	a := newFakeHost(t)
	a.emit(past, seqs(1, 3)...)
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, a)
	s.await("a:3")
	s.awaitThat("silence to be said", func() bool {
		for _, n := range s.notices {
			if n.Kind == Quiet {
				require.Contains(t, n.Detail, "there is no other host to ask")
				return true
			}
		}
		return false
	})
	require.Zero(t, s.count(Disconnected), "it must not be left")
	a.emit(past.Add(time.Minute), 4)
	s.await("a:4")
}

func TestRotation(t *testing.T) {
	t.Parallel()
	r := newRotation(3, impatient())
	next := func() int {
		host, _ := r.next()
		return host
	}
	require.Equal(t, 0, next())
	r.ended(true, false)
	r.fellSilent(2)
	require.Equal(t, 2, next(), "the host with newer events comes first")
	r.ended(true, true)
	require.Equal(t, 1, next(), "a silent host must not be preferred")
	r.ended(false, true)
	require.Equal(t, 0, next(), "it has its turn when no other host is left")
	r.ended(false, true)
	require.Equal(t, 1, next(), "it is also the last of the next round")
	require.True(t, r.mustAsk(0))
	require.True(t, r.answered(0, true), "it has newer events")
	r.ended(true, true)
	require.Equal(t, 0, next())
	require.False(t, r.mustAsk(0))
}

func TestRestartReturnsToPreferredHost(t *testing.T) {
	t.Parallel()
	a, b := newFakeHost(t), newFakeHost(t)
	a.emit(past, seqs(1, 4)...)
	b.emit(past, seqs(501, 503)...)
	from := event.Position{Host: b.srv.URL, Seq: 503, Time: past.Add(2 * time.Second)}
	s := read(t, from, Config{}, a, b)
	s.await("a:4")
	require.Zero(t, s.count(Failed))
}
