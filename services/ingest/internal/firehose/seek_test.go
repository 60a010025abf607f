package firehose

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

// network adds the events that a host receives in the network's first n seconds, one commit per
// second: with numbers from first on, stamped late by lag.
func (h *fakeHost) network(first uint64, n int, lag time.Duration) {
	h.change(func() {
		for i := range n {
			made := past.Add(time.Duration(i) * time.Second)
			h.events = append(h.events, fakeEvent{
				seq: first + uint64(i), made: made, time: made.Add(lag), did: fmt.Sprintf("did:plc:n%d", i%40),
			})
		}
	})
}

func TestFailOver(t *testing.T) {
	t.Parallel()
	const longAgo = -3 * 365 * 24 * time.Hour
	const minute = 60 // of the network, with one event per second
	tests := map[string]struct {
		read         int // progress of the first host, in the network's seconds
		lagA, lagB   time.Duration
		imported     time.Duration // shown for the last event of the first host, relative to its own time; 0 means none
		active       uint64        // the second host has an index of events before this number
		from, latest int           // reading begins between these seconds of the network
	}{
		"both are in time": {read: 20 * minute, from: 18 * minute, latest: 19 * minute},
		// By stamps, reading would continue about 540 events after the last one.
		"the first is ten minutes late":             {read: 5, lagA: 10 * time.Minute, from: 0, latest: 0},
		"the first is ten minutes late, further on": {read: 20 * minute, lagA: 10 * time.Minute, from: 18 * minute, latest: 19 * minute},
		"the second is ten minutes late":            {read: 20 * minute, lagB: 10 * time.Minute, from: 8 * minute, latest: 19 * minute},
		"the second's clock is ten minutes slow":    {read: 20 * minute, lagB: -10 * time.Minute, from: 0, latest: 19 * minute},
		"the last event has an imported time":       {read: 20 * minute, imported: longAgo, from: 18 * minute, latest: 19 * minute},
		"and one of the far future":                 {read: 20 * minute, imported: -longAgo, from: 18 * minute, latest: 19 * minute},
		"the second has no index of the last hour":  {read: 70 * minute, active: 601, from: 69*minute - seekStride, latest: 69 * minute},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newFakeHost(t), newFakeHost(t)
			a.network(1, tt.read, tt.lagA)
			if tt.imported != 0 {
				last := &a.events[len(a.events)-1]
				last.shown = last.time.Add(tt.imported)
			}
			// The other host has its own numbers, and more events.
			b.network(500, tt.read+15*minute, tt.lagB)
			b.change(func() { b.active = tt.active })
			s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, a, b)
			s.await(fmt.Sprint("a:", tt.read))
			before := len(s.all())

			a.change(func() { a.status = http.StatusServiceUnavailable })
			a.cutAll()
			s.await(fmt.Sprint("b:", 499+tt.read+15*minute))
			got := s.all()[before:]
			var begins int
			_, err := fmt.Sscanf(got[0], "b:%d", &begins)
			require.NoError(t, err)
			begins -= 500
			require.GreaterOrEqual(t, begins, tt.from)
			require.LessOrEqual(t, begins, tt.latest, "at least a minute before the last event")
			require.Len(t, got, tt.read+15*minute-begins, "everything from there on must be read")

			// The preferred host is retried first.
			a.change(func() { a.status = 0 })
			a.emit(time.Now(), 9000)
			b.change(func() { b.status = http.StatusServiceUnavailable })
			b.cutAll()
			s.await("a:9000")
			s.mu.Lock()
			defer s.mu.Unlock()
			var clock time.Time
			for _, batch := range s.batches {
				for _, p := range slices.Concat(batch.Positions, []event.Position{batch.Last}) {
					require.False(t, p.Clock.Before(clock) && !p.Clock.IsZero(), "the clock must not go back")
					clock = p.Clock
				}
			}
		})
	}
}

// A host was wiped and has grown beyond a position from before that. The position is older than the
// live window, so the host refuses it like one from its own past.
func TestWipedHostBeyondPosition(t *testing.T) {
	t.Parallel()
	const gone = 19 // replaced since
	a := newFakeArchive(t, 3, gone)
	own := func(seq uint64) identity {
		return identity{did: "did:plc:a", accountTime: past.Add(time.Duration(seq) * time.Second).Format(time.RFC3339Nano)}
	}
	for name, tt := range map[string]struct {
		pos      event.Position
		switched int
		first    uint64
	}{
		"its own past": {pos: event.Position{Seq: 17, Mark: own(17).mark()}, first: 18},
		"another event has the number": {
			pos: event.Position{Seq: 17, Mark: own(16).mark()}, switched: 1, first: 1,
		},
		"its history begins later, and the event is not in its archive": {
			pos:      event.Position{Seq: gone, Mark: own(gone).mark(), Clock: past.Add(-time.Hour), Time: past.Add(-time.Hour)},
			switched: 1, first: 1,
		},
		"the event is not in its archive": {
			pos: event.Position{Seq: gone, Mark: own(gone).mark()}, first: gone + 1,
		},
		"from before there were marks": {
			pos: event.Position{Seq: 17, Time: past.Add(-time.Hour)}, switched: 1, first: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newFakeHost(t)
			a.attach(h)
			h.emit(past.Add(time.Hour), a.last()+1)
			h.change(func() { h.floor = a.last() }) // the sealed tip is just within the live window
			pos := tt.pos
			pos.Host = h.srv.URL
			if pos.Time.IsZero() {
				pos.Time = past.Add(time.Duration(pos.Seq) * time.Second)
			}
			s := read(t, pos, Config{}, h)
			s.await(fmt.Sprint("a:", a.last()+1))
			require.Equal(t, tt.switched, s.count(Switched))
			require.Equal(t, fmt.Sprint("a:", tt.first), s.all()[0])
		})
	}
}

// bulk adds a new host's initial download: unordered creates, most of them made shortly before.
func (h *fakeHost) bulk(n int, at time.Time) {
	h.change(func() {
		for i := range n {
			made := at.Add(-time.Duration((i*7919)%1000) * time.Hour)
			if i%10 > 3 {
				made = at.Add(-time.Duration(i%300) * time.Second)
			}
			h.events = append(h.events, fakeEvent{
				seq: uint64(i + 1), made: made, time: at.Add(time.Duration(i) * time.Millisecond), did: fmt.Sprintf("did:plc:b%d", i), op: "create",
			})
		}
	})
}

// A host that stops within its bulk covers nothing: another one is read completely.
func TestFailOverDuringBulk(t *testing.T) {
	t.Parallel()
	const bulk, live = 400, 600
	for name, restarts := range map[string]bool{"in one run": false, "after a restart": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newFakeHost(t), newFakeHost(t)
			a.bulk(bulk/2, past.Add(5*time.Minute))
			b.bulk(bulk, past.Add(-2*time.Hour))
			b.network(bulk+1, live, 0)
			s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, a, b)
			s.await(fmt.Sprint("a:", bulk/2))
			if restarts {
				s.cancel()
				require.Error(t, s.ended())
				last := s.last()
				a.change(func() { a.status = http.StatusServiceUnavailable })
				s = read(t, last, Config{}, a, b)
			}
			read := len(s.all())
			a.change(func() { a.status = http.StatusServiceUnavailable })
			a.cutAll()
			s.await(fmt.Sprint("b:", bulk+live))
			require.Len(t, s.all()[read:], bulk+live, "it must be read from its beginning")
			require.Zero(t, s.count(Gap))
		})
	}
}

// A host's initial download does not move the clock of what was read from another host.
func TestBulkKeepsClock(t *testing.T) {
	t.Parallel()
	a, b := newFakeHost(t), newFakeHost(t)
	a.network(1, 300, 0)
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, a, b)
	s.await("a:300")
	clock := s.last().Clock
	require.False(t, clock.IsZero())
	b.bulk(100, past.Add(time.Hour))
	a.change(func() { a.status = http.StatusServiceUnavailable })
	a.cutAll()
	s.await("b:100")
	require.Equal(t, 1, s.count(Gap), "the newer event must move it")
	require.Equal(t, clock, s.last().Clock)
}

// A host that stops within a #sync leaves replacements that mean nothing without it. The next host
// must deliver the whole #sync again, however much earlier it has it, even if a host in between
// stops before it, or the reader stops first.
func TestFailOverWithinSync(t *testing.T) {
	t.Parallel()
	const synced, died = 600, 1200 // in the network's seconds
	sync := past.Add(synced * time.Second)
	for name, tt := range map[string]struct{ between, restart bool }{
		"at once": {}, "by a host that gives one event": {between: true}, "after a restart": {restart: true},
		"after a restart on that host": {between: true, restart: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const x = "did:plc:x"
			a, b, c := newFakeHost(t), newFakeHost(t), newFakeHost(t)
			a.network(1, died, 0)
			at := past.Add(died * time.Second)
			a.change(func() { // it fetched the repository late
				a.events = append(a.events,
					fakeEvent{seq: died + 1, made: sync, time: at, did: x, op: "sync"},
					fakeEvent{seq: died + 2, made: sync, time: at, did: x, op: "create"})
			})
			hosts := []*fakeHost{a, b}
			for _, h := range []*fakeHost{b, c} {
				h.network(1, died+300, 0)
				h.change(func() {
					h.events[synced].op, h.events[synced].did = "sync", x
					h.events[synced+1].op, h.events[synced+1].did, h.events[synced+1].made = "create", x, sync
				})
			}
			if tt.between {
				hosts = append(hosts, c)
				b.change(func() { b.events = b.events[:synced-30] }) // it has not reached it yet
			}
			s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, hosts...)
			leave := func(dead *fakeHost) (begin int) {
				if tt.restart {
					s.cancel()
					require.ErrorIs(t, s.ended(), context.Canceled)
					s = read(t, s.last(), Config{}, hosts...)
				}
				begin = len(s.all())
				dead.change(func() { dead.status = http.StatusServiceUnavailable })
				dead.cutAll()
				return begin
			}
			s.await(fmt.Sprint("a:", died+2))
			require.Equal(t, x, s.last().Sync.DID)
			begin, last := leave(a), "b"
			if tt.between {
				s.await(fmt.Sprint("b:", synced-30))
				begin, last = leave(b), "c"
			}
			s.await(fmt.Sprintf("%s:%d", last, died+300))
			require.Contains(t, s.all()[begin:], fmt.Sprintf("%s:%d", last, synced+1))
			require.Equal(t, event.OpenSync{}, s.firstOf(hosts[1]).Sync, "the part from the first host must not be all of it")
			require.Contains(t, s.all()[begin:], fmt.Sprintf("%s:%d", last, synced+2))
		})
	}
}
