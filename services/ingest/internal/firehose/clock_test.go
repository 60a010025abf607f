package firehose

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/bluesky-social/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

func TestClock(t *testing.T) {
	t.Parallel()
	type said struct {
		did    string
		at     time.Duration // after past
		create bool
	}
	const year = 365 * 24 * time.Hour
	// honest returns events of n accounts, one second apart.
	honest := func(n int) []said {
		var out []said
		for i := range n {
			out = append(out, said{did: fmt.Sprint("h", i), at: time.Duration(i) * time.Second})
		}
		return out
	}
	tests := map[string]struct {
		from   time.Duration // the position's clock; 0 means none
		events []said
		want   time.Duration
	}{
		"one event":                      {events: honest(1), want: 0},
		"two":                            {events: honest(2), want: 0},
		"three":                          {events: honest(3), want: time.Second},
		"many":                           {events: honest(100), want: 95 * time.Second},
		"one account alone":              {events: []said{{did: "a"}, {did: "a", at: time.Second}, {did: "a", at: 2 * time.Second}}, want: 2 * time.Second},
		"one says far too late":          {events: append(honest(100), said{did: "liar", at: year}, said{did: "liar", at: 2 * year}), want: 96 * time.Second},
		"one says far too early":         {events: append(honest(100), said{did: "liar", at: -year}, said{did: "liar", at: -2 * year}), want: 95 * time.Second},
		"four of nine lie":               {events: append(honest(100), said{did: "a", at: year}, said{did: "b", at: year}, said{did: "c", at: year}, said{did: "d", at: year}), want: 99 * time.Second},
		"one alone moves no known clock": {from: -time.Hour, events: []said{{did: "liar", at: year}, {did: "liar", at: 2 * year}}, want: -time.Hour},
		"two do, by the earlier":         {from: -time.Hour, events: []said{{did: "liar", at: year}, {did: "a"}}, want: 0},
		"creates behind the position, which may be bulk": {
			from: -time.Hour, events: []said{{"a", 0, true}, {"b", time.Second, true}, {"c", 2 * time.Second, true}}, want: -time.Hour,
		},
		"what follows them": {
			from: -time.Hour, events: append([]said{{"a", time.Minute, true}, {"b", time.Minute, true}}, honest(3)...), want: time.Second,
		},
		"behind the position":        {from: time.Hour, events: honest(100), want: time.Hour},
		"back on an earlier history": {events: append(honest(100), honest(50)...), want: 95 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var from event.Position
			if tt.from != 0 {
				from.Clock = past.Add(tt.from)
			}
			c := newClock(from)
			var last, got time.Time
			for _, s := range tt.events {
				got = c.read(identity{did: s.did, rev: revOf(past.Add(s.at))}, s.create)
				require.False(t, got.Before(last), "it must never go back")
				last = got
			}
			require.Equal(t, past.Add(tt.want).UTC(), got)
		})
	}
	t.Run("a bulk ends at the first newer event", func(t *testing.T) {
		t.Parallel()
		c := newClock(event.Position{Seq: 7, Mark: "marked"})
		c.since = past
		require.Zero(t, c.read(identity{did: "liar", rev: revOf(time.Now().Add(year))}, true))
		require.Zero(t, c.read(identity{did: "a", rev: revOf(past.Add(-time.Second))}, true))
		require.Zero(t, c.read(identity{did: "b", rev: revOf(past.Add(-time.Second))}, true))
		require.Equal(t, past.Add(time.Second).UTC(), c.read(identity{did: "a", rev: revOf(past.Add(time.Second))}, true))
	})
	t.Run("before anything was read", func(t *testing.T) {
		t.Parallel()
		c := newClock(event.Position{})
		c.beginBulk(time.Unix(0, 0).Add(-switchMargin))
		require.Zero(t, c.at, "no position could store it")
	})
	t.Run("all are ahead of this machine", func(t *testing.T) {
		t.Parallel()
		c := newClock(event.Position{Clock: time.Now().Add(year)})
		for i := range 100 {
			got := c.read(identity{did: fmt.Sprint(i), rev: revOf(time.Now().Add(year))}, false)
			require.LessOrEqual(t, time.Until(got), clockAhead)
		}
	})
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	events := []*jetstream.Event{
		{DID: "did:plc:a", Commit: &jetstream.Commit{Rkey: "p", Rev: revOf(past)}},
		{DID: "did:plc:a", Commit: &jetstream.Commit{Rkey: "q", Rev: revOf(past)}},
		{DID: "did:plc:a", Commit: &jetstream.Commit{Rkey: "p", Rev: revOf(past.Add(time.Second))}},
		{DID: "did:plc:b", Commit: &jetstream.Commit{Rkey: "p", Rev: revOf(past)}},
		{DID: "did:plc:a", Sync: &jetstream.Sync{Rev: revOf(past)}},
		{DID: "did:plc:a", Account: &jetstream.Account{Time: past.Format(time.RFC3339Nano)}},
		{DID: "did:plc:a", Account: &jetstream.Account{Time: past.Add(time.Second).Format(time.RFC3339Nano)}},
		{DID: "did:plc:a", Identity: &jetstream.Identity{Time: past.Format(time.RFC3339Nano)}},
	}
	marks := map[string]bool{}
	for _, ev := range events {
		id := identityOf(ev)
		marks[id.mark()] = true
		at, ok := id.time()
		require.True(t, ok)
		require.Less(t, at.Sub(past), 2*time.Second)
		again := *ev
		again.Seq, again.TimeUS = 7, 7
		require.Equal(t, id.mark(), identityOf(&again).mark(), "numbers and times must not matter")
	}
	require.Len(t, marks, len(events), "all must differ")
	require.Equal(t, "Vh1Wu97u", identity{did: "did:plc:a", rkey: "p", rev: "3l3qo2vutsw2b"}.mark(), "as in stored positions")
	_, ok := identityOf(&jetstream.Event{DID: "did:plc:a", Sync: &jetstream.Sync{}}).time()
	require.False(t, ok)
}

// A position that cannot be stored would block the stream: nothing could follow it.
func TestPositionsCanBeStored(t *testing.T) {
	t.Parallel()
	for _, reported := range []string{"", "0005-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59Z", "never"} {
		for _, shown := range []int64{math.MinInt64, -1, 0, maxTimeUS + 1, math.MaxInt64} {
			r := &run{pos: event.Position{Time: past}, clock: newClock(event.Position{})}
			p := r.observe("http://a", &jetstream.Event{Seq: 7, TimeUS: shown, DID: "did:plc:a", Account: &jetstream.Account{Time: reported}})
			requireStorable(t, p, reported, shown)
		}
	}
	for _, did := range []string{"", "nonsense"} {
		r := &run{pos: event.Position{Time: past}, clock: newClock(event.Position{})}
		for seq, ev := range []jetstream.Event{
			{DID: did, Kind: jetstream.KindSync, Sync: &jetstream.Sync{Rev: revOf(past)}},
			{DID: "did:plc:a", Kind: jetstream.KindAccount, Account: &jetstream.Account{}},
		} {
			ev.Seq, ev.TimeUS = uint64(seq+1), past.UnixMicro()
			requireStorable(t, r.observe("http://a", &ev), did, seq)
		}
	}
}

func requireStorable(t *testing.T, p event.Position, of ...any) {
	t.Helper()
	data, err := (&event.Event{Kind: event.KindPosition, Source: p}).Encode()
	require.NoError(t, err)
	_, err = event.Decode(data)
	require.NoError(t, err, of...)
}

// An import changes the time of an event that was already read. It is the same event.
func TestImportedTimeKeepsHistory(t *testing.T) {
	t.Parallel()
	imported := past.AddDate(-3, 0, 0)
	for name, marked := range map[string]bool{"with a mark": true, "from before there were marks": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newFakeHost(t)
			h.emit(past, seqs(1, 3)...)
			s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, h)
			s.await("a:3")
			s.cancel()
			require.Error(t, s.ended())
			s.mu.Lock()
			last := s.batches[len(s.batches)-1].Last
			s.mu.Unlock()
			require.NotEmpty(t, last.Mark)
			if !marked {
				last = event.Position{Host: last.Host, Seq: last.Seq, Time: last.Time}
			}
			h.change(func() { h.events[2].shown = imported })

			s = read(t, last, Config{}, h)
			s.awaitThat("a connection", func() bool { return len(s.batches) > 0 })
			h.emit(past.Add(time.Minute), 4)
			s.await("a:4")
			require.Equal(t, []string{"a:4"}, s.all())
			require.Zero(t, s.count(Switched))
			// The watchdog also requests the event by its known time.
			h.change(func() { h.events[3].shown = imported })
			asked := len(h.dialed())
			s.awaitThat("the watchdog to have asked", func() bool { return len(h.dialed()) >= asked+2 })
			require.Zero(t, s.count(Disconnected))
		})
	}
}

// The first events of a small network can be the same in a host's new history.
func TestWipedHostWithSameEvent(t *testing.T) {
	t.Parallel()
	h := newFakeHost(t)
	h.emit(past, seqs(1, 3)...)
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, h)
	s.await("a:3")
	s.cancel()
	require.Error(t, s.ended())
	last := s.batches[len(s.batches)-1].Last
	h.change(func() {
		for i := range h.events {
			h.events[i].made, h.events[i].time = h.events[i].time, h.events[i].time.Add(time.Hour)
			h.events[i].raw = (fakeEvent{seq: h.events[i].seq, time: h.events[i].made, shown: h.events[i].time}).frame()
		}
	})
	s = read(t, last, Config{}, h)
	s.await("a:1", "a:2", "a:3")
	require.Equal(t, 1, s.count(Switched))
}

// A position's clock does not follow the host's times of events.
func TestPositionsDoNotFollowImportedTimes(t *testing.T) {
	t.Parallel()
	h := newFakeHost(t)
	h.emit(past, seqs(1, 5)...)
	h.change(func() { h.events[4].shown = past.AddDate(-3, 0, 0) })
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, h)
	s.await("a:5")
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.batches[len(s.batches)-1]
	require.Len(t, b.Positions, len(b.Events))
	require.Equal(t, past.AddDate(-3, 0, 0), b.Last.Time)
	require.Equal(t, past.Add(4*time.Second).UTC().Truncate(time.Microsecond), b.Last.NetworkTime())
}
