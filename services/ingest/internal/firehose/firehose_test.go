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

// past is the beginning of the fakes' histories.
var past = time.Date(2026, 8, 20, 12, 0, 0, 123456000, time.UTC)

func TestBegin(t *testing.T) {
	t.Parallel()
	at := func(seconds int) time.Time { return past.Add(time.Duration(seconds) * time.Second) }
	t.Run("archive means everything", func(t *testing.T) {
		t.Parallel()
		h := newFakeHost(t)
		h.emit(past, seqs(1, 5)...)
		s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, h)
		s.await("a:5")
		require.Equal(t, []string{"a:1", "a:2", "a:3", "a:4", "a:5"}, s.all())
		require.Equal(t, []string{"tip", "0"}, cursors(h.dialed()))
		require.Empty(t, s.batches[0].Events, "the first batch of a connection must have no events")
	})
	t.Run("a time becomes a sequence number", func(t *testing.T) {
		t.Parallel()
		h := newFakeHost(t)
		h.emit(past, seqs(1, 200)...)
		s := read(t, event.Position{}, Config{Start: Start{Time: at(100)}}, h)
		s.await("a:200")
		require.Equal(t, "a:101", s.all()[0])
		require.Equal(t, []string{micros(at(100).Add(-seekSlack)), "70", "70"}, cursors(h.dialed()))
	})
	t.Run("a time below the live window is looked up in the archive", func(t *testing.T) {
		t.Parallel()
		h, a := newFakeHost(t), newFakeArchive(t, 6)
		a.attach(h)
		h.emit(at(int(a.last())), a.last())
		h.emit(past.Add(time.Hour), a.last()+1)
		h.change(func() { h.floor = a.last() }) // the sealed tip is just within the live window
		s := read(t, event.Position{}, Config{Start: Start{Time: at(25).Add(seekSlack)}}, h)
		s.await(fmt.Sprint("a:", a.last()+1))
		require.Equal(t, "a:55", s.all()[0])
		a.mu.Lock()
		defer a.mu.Unlock()
		require.LessOrEqual(t, a.blocks, 2*4*blocksPerSegment, "two segments are entirely before; the others are examined, then read")
	})
	t.Run("a time before there was anything", func(t *testing.T) {
		t.Parallel()
		h := newFakeHost(t)
		h.emit(past, seqs(1, 5)...)
		s := read(t, event.Position{}, Config{Start: Start{Time: at(-100)}}, h)
		s.await("a:5")
		require.Equal(t, "a:1", s.all()[0])
		require.Equal(t, past.UTC(), s.lateHistory())
	})
}

// A setting such as -2h means a later time with each start of the program.
func TestStartAppliesOnce(t *testing.T) {
	t.Parallel()
	later := Start{Time: past.Add(time.Hour)}
	h := newFakeHost(t)
	h.emit(past, seqs(1, 20)...)
	h.emit(later.Time, 21)
	first := read(t, event.Position{}, Config{Start: Start{Time: past}}, h)
	var third event.Position
	first.awaitThat("the third event", func() bool {
		for _, b := range first.batches {
			if i := slices.IndexFunc(b.Positions, func(p event.Position) bool { return p.Seq == 3 }); i >= 0 {
				third = b.Positions[i]
			}
		}
		return third.Seq == 3
	})
	first.cancel()
	require.Error(t, first.ended())

	s := read(t, third, Config{Start: later}, h)
	s.await("a:21")
	require.Equal(t, "a:4", s.all()[0], "events from while the program was stopped must be read")
	require.Len(t, s.all(), 18)

	t.Run("nothing was there at first", func(t *testing.T) {
		t.Parallel()
		s := read(t, event.Position{Host: h.srv.URL, Time: past}, Config{Start: later}, h)
		s.await("a:21")
		require.Equal(t, "a:1", s.all()[0])
	})
}

func TestTipHasNoGapBeforeFirstEvent(t *testing.T) {
	t.Parallel()
	h := newFakeHost(t)
	h.emit(past, seqs(1, 5)...)
	// The first probe is disconnected while it waits, and misses an event.
	h.change(func() { h.cut = 1 })
	before := time.Now().Truncate(time.Second)
	s := read(t, event.Position{}, Config{}, h)
	s.awaitThat("a second dial", func() bool { return len(h.dialed()) >= 2 })
	h.emit(time.Now().Add(time.Second), 6, 7)
	s.await("a:6", "a:7")
	dials := h.dialed()
	require.False(t, dials[0].Has("cursor"), "the tip must be requested without a cursor")
	require.GreaterOrEqual(t, dials[1].Get("cursor"), micros(before.Add(-seekSlack)), "then with the host's clock")
	require.LessOrEqual(t, dials[1].Get("cursor"), micros(time.Now().Add(-seekSlack)))
}

func TestResume(t *testing.T) {
	t.Parallel()
	at := func(seq int) time.Time { return past.Add(time.Duration(seq-1) * time.Second) }
	tests := map[string]struct {
		from     int       // resume after this event
		time     time.Time // the time in the position; zero means the right one
		host     func(h *fakeHost)
		want     []string
		switched int
	}{
		"behind the last event": {from: 3, want: []string{"a:4", "a:5"}},
		"at the tip":            {from: 5, want: nil},
		"at the beginning": {
			from: 0, time: time.Unix(0, 0).UTC(), want: []string{"a:1", "a:2", "a:3", "a:4", "a:5"},
		},
		"above the tip: another history, and silence": {
			from: 900, time: at(3).Add(switchMargin), want: []string{"a:1", "a:2", "a:3", "a:4", "a:5"}, switched: 1,
		},
		"another time at that number: another history": {
			from: 2, time: at(4).Add(switchMargin), want: []string{"a:1", "a:2", "a:3", "a:4", "a:5"}, switched: 1,
		},
		"a hole where the event was": {
			from: 3, want: []string{"a:4", "a:5"},
			host: func(h *fakeHost) { h.events = append(h.events[:2], h.events[3:]...) },
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newFakeHost(t)
			h.emit(past, seqs(1, 5)...)
			if tt.host != nil {
				h.change(func() { tt.host(h) })
			}
			pos := event.Position{Host: h.srv.URL, Seq: uint64(tt.from), Time: at(tt.from)}
			if !tt.time.IsZero() {
				pos.Time = tt.time
			}
			s := read(t, pos, Config{}, h)
			s.awaitThat("a connection", func() bool { return len(s.batches) > 0 })
			h.emit(past.Add(time.Hour), 6)
			s.await("a:6")
			require.Equal(t, append(tt.want, "a:6"), s.all())
			require.Equal(t, tt.switched, s.count(Switched))
		})
	}
}

func TestResumeOnWipedHost(t *testing.T) {
	t.Parallel()
	h := newFakeHost(t)
	s := read(t, event.Position{Host: h.srv.URL, Seq: 900, Time: past}, Config{}, h)
	s.awaitThat("the position to be verified", func() bool { return len(h.dialed()) > 0 })
	h.emit(past, 1)
	s.await("a:1")
	h.emit(past.Add(time.Minute), 2)
	s.await("a:1", "a:2")
	require.Equal(t, 1, s.count(Switched))
}

func TestAllHostsDownThenUp(t *testing.T) {
	t.Parallel()
	a, b := newFakeHost(t), newFakeHost(t)
	a.change(func() { a.status = http.StatusServiceUnavailable })
	b.change(func() { b.status = http.StatusServiceUnavailable })
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, a, b)
	s.awaitThat("several failures", func() bool {
		n := 0
		for _, notice := range s.notices {
			if notice.Kind != Connected {
				n++
			}
		}
		return n >= 3
	})
	b.emit(past, 1)
	b.change(func() { b.status = 0 })
	s.await("b:1")
	said := map[string]int{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.notices {
		if n.Kind == Failed && !n.Repeated {
			said[n.Host]++
		}
	}
	require.Equal(t, map[string]int{a.srv.URL: 1, b.srv.URL: 1}, said, "each failure must be reported once")
}

func TestDroppedConnectionsAreReplaced(t *testing.T) {
	t.Parallel()
	h := newFakeHost(t)
	h.emit(past, 1)
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, h)
	s.await("a:1")
	for seq := uint64(2); seq < 5; seq++ {
		h.cutAll()
		h.emit(past.Add(time.Duration(seq)*time.Second), seq)
		s.await(fmt.Sprint("a:", seq))
	}
	require.Equal(t, []string{"a:1", "a:2", "a:3", "a:4"}, s.all(), "nothing may be lost or duplicated")
}

// A crashed host reuses numbers that it had not stored for other events. The client by itself would
// drop these as duplicates.
func TestReusedNumbers(t *testing.T) {
	t.Parallel()
	crash := func(h *fakeHost, then func()) {
		h.change(func() {
			h.events = append(h.events[:2:2], fakeEvent{seq: 3, time: past.Add(time.Minute)})
			then()
		})
	}
	for name, notice := range map[string]func(h *fakeHost){
		"the connection drops":   func(h *fakeHost) { crash(h, func() {}); h.cutAll() },
		"the connection is mute": func(h *fakeHost) { crash(h, func() { h.epoch++ }) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newFakeHost(t)
			h.emit(past, seqs(1, 3)...)
			s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, h)
			s.await("a:3")
			notice(h)
			s.awaitThat("the new event 3", func() bool {
				for _, b := range s.batches {
					for _, e := range b.Events {
						if e.TimeUS == past.Add(time.Minute).UnixMicro() {
							return true
						}
					}
				}
				return false
			})
			require.Equal(t, 1, s.count(Switched))
		})
	}
}

func TestUnreadableFrameIsSkipped(t *testing.T) {
	t.Parallel()
	h := newFakeHost(t)
	h.emit(past, 1)
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, h)
	s.await("a:1")
	h.change(func() {
		h.events = append(h.events, fakeEvent{seq: 2, time: past, raw: `{"$type":"network.bsky.jetstream.subscribeEvents#account","seq":2}`})
	})
	h.emit(past.Add(time.Second), 3)
	s.await("a:1", "a:3")
	require.Equal(t, 1, s.count(Skipped))
	require.Equal(t, maxUnreadable, s.count(Disconnected))
}

func TestWatchdogIgnoresQuietNetwork(t *testing.T) {
	t.Parallel()
	h := newFakeHost(t)
	h.emit(past, 1)
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, h)
	s.await("a:1")
	s.awaitThat("the watchdog to have asked thrice", func() bool { return len(h.dialed()) >= 5 })
	for _, q := range h.dialed()[2:] {
		require.Equal(t, "1", q.Get("cursor"))
		require.Equal(t, event.Collection, q.Get("collections"), "it must request what the client reads")
	}
	require.Zero(t, s.count(Disconnected))
	h.emit(past, 2)
	s.await("a:1", "a:2")
	require.Equal(t, 1, s.count(Connected))
}

func TestWatchdogFindsStalledClient(t *testing.T) {
	t.Parallel()
	h := newFakeHost(t)
	h.emit(past, 1)
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, h)
	s.await("a:1")
	h.change(func() { h.epoch++ }) // the open connection goes silent
	h.emit(past.Add(time.Second), 2)
	s.await("a:1", "a:2")
	require.Equal(t, []string{"a:1", "a:2"}, s.all())
	require.Equal(t, 1, s.count(Disconnected))
}

func TestWatchdogLeavesHangingHost(t *testing.T) {
	t.Parallel()
	a, b := newFakeHost(t), newFakeHost(t)
	a.emit(past, 1)
	b.emit(past, 7)
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, a, b)
	s.await("a:1")
	a.change(func() { a.hung, a.epoch = true, a.epoch+1 })
	s.await("b:7")
}

func TestFatalErrorReplacesClient(t *testing.T) {
	t.Parallel()
	h := newFakeHost(t)
	h.emit(past, 1)
	// An archive whose plan makes no progress is fatal to the client.
	h.change(func() { h.plan = `[{"name":""}]` })
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, h)
	s.awaitThat("two plans", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.planned >= 2
	})
	h.change(func() { h.plan = "" })
	s.await("a:1")
	require.Positive(t, s.count(Disconnected))
}

func TestUnreadableArchiveIsReported(t *testing.T) {
	t.Parallel()
	h := newFakeHost(t)
	h.emit(past, seqs(1, 5)...)
	// getBlock is not served: the client reports that and would continue.
	h.change(func() {
		h.sealed = 3
		h.plan = `[{"name":"seg_0000000000.jss","index":0,"checksum":"0","minSeq":1,"maxSeq":3,"mode":"blocks","blocks":[{"first":0,"last":0}]}]`
	})
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, h)
	s.await("a:4", "a:5")
	h.mu.Lock()
	planned := h.planned
	h.mu.Unlock()
	require.Equal(t, maxUnreadable+1, planned, "it must be retried before it is skipped")
	require.Equal(t, maxUnreadable, s.count(Disconnected))
	require.Equal(t, 1, s.count(Skipped), "then it must be reported")
}

func TestStopAfter(t *testing.T) {
	t.Parallel()
	t.Run("an event past the end", func(t *testing.T) {
		t.Parallel()
		h := newFakeHost(t)
		h.emit(past, seqs(1, 9)...)
		s := read(t, event.Position{}, Config{Start: Start{Time: past.Add(time.Second)}, StopAfter: 3 * time.Second}, h)
		require.NoError(t, s.ended())
		require.Equal(t, []string{"a:2", "a:3", "a:4"}, s.all())
	})
	t.Run("counted from the first event of the archive", func(t *testing.T) {
		t.Parallel()
		h := newFakeHost(t)
		h.emit(past, seqs(1, 9)...)
		s := read(t, event.Position{}, Config{Start: Start{Archive: true}, StopAfter: 2 * time.Second}, h)
		require.NoError(t, s.ended())
		require.Equal(t, []string{"a:1", "a:2"}, s.all())
	})
	t.Run("a quiet network", func(t *testing.T) {
		t.Parallel()
		h := newFakeHost(t)
		h.emit(past, seqs(1, 3)...)
		s := read(t, event.Position{}, Config{Start: Start{Time: past}, StopAfter: time.Hour}, h)
		require.NoError(t, s.ended())
		require.Equal(t, []string{"a:1", "a:2", "a:3"}, s.all())
	})
}

func TestReadingEndsOnRequest(t *testing.T) {
	t.Parallel()
	h := newFakeHost(t)
	h.emit(past, 1, 2)
	r := New(Config{Hosts: []string{h.srv.URL}, Start: Start{Archive: true}, Timing: impatient()}, discard())
	var notices []NoticeKind
	r.OnNotice = func(n Notice) { notices = append(notices, n.Kind) }
	read := 0
	for b, err := range r.Read(t.Context(), event.Position{}) {
		require.NoError(t, err)
		if read += len(b.Events); read > 0 {
			break
		}
	}
	require.Positive(t, read)
	require.Equal(t, []NoticeKind{Connected}, notices, "it must not count as a failure of the host")
}

func TestSlowHandlerIsNotSilence(t *testing.T) {
	t.Parallel()
	h := newFakeHost(t)
	h.emit(past, 1)
	release := make(chan struct{})
	r := New(Config{Hosts: []string{h.srv.URL}, Start: Start{Archive: true}, Timing: impatient()}, discard())
	var notices []Notice
	r.OnNotice = func(n Notice) { notices = append(notices, n) }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	handling := make(chan struct{}, 10)
	go func() {
		done <- each(r.Read(ctx, event.Position{}), func(b Batch) {
			if len(b.Events) > 0 {
				handling <- struct{}{}
				<-release
			}
		})
	}()
	<-handling
	h.emit(past, 2) // the host has more than the handler accepted
	// Longer than all limits: the handler's time does not count.
	<-time.After(3 * impatient().Idle)
	close(release)
	<-handling
	cancel()
	<-done
	require.Len(t, notices, 1, "%v", notices)
}

func TestParseStart(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 8, 31, 10, 0, 0, 5, time.UTC)
	for in, want := range map[string]Start{
		"":                          {},
		"tip":                       {},
		"archive":                   {Archive: true},
		"-2h":                       {Time: now.Add(-2 * time.Hour).Truncate(time.Microsecond)},
		"-3d":                       {Time: now.Add(-72 * time.Hour).Truncate(time.Microsecond)},
		"-90m":                      {Time: now.Add(-90 * time.Minute).Truncate(time.Microsecond)},
		"2026-08-30":                {Time: time.Date(2026, 8, 30, 0, 0, 0, 0, time.UTC)},
		"2026-08-30T10:00:00+02:00": {Time: time.Date(2026, 8, 30, 8, 0, 0, 0, time.UTC)},
		"2026-08-30T10:00:00.5Z":    {Time: time.Date(2026, 8, 30, 10, 0, 0, 5e8, time.UTC)},
	} {
		got, err := ParseStart(in, now)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for _, in := range []string{"TIP", "2h", "-", "-x", "--2h", "-0s", "-0d", "-99999999d", "yesterday", "2026-08-32",
		"2026-08-30T10:00:00", "2026-09-01", "1969-01-01", "-1000000h"} {
		_, err := ParseStart(in, now)
		require.Error(t, err, in)
	}
}
