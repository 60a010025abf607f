package forward

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
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

const (
	waitLimit = 2 * time.Minute
	testHost  = "https://host.example"
)

var testTime = time.Date(2026, 8, 31, 12, 0, 0, 0, time.UTC)

func at(seq uint64) event.Position {
	return event.Position{Host: testHost, Seq: seq, Time: testTime.Add(time.Duration(seq) * time.Second)}
}

func deletion(seq uint64) *event.Event {
	return &event.Event{V: event.Version, Kind: event.KindDelete, Source: at(seq), DID: "did:plc:a", Rkey: fmt.Sprintf("r%d", seq), Rev: "3l3qo2vutsw2b"}
}

// upstream is a source with events from the test. Its history survives each reading.
type upstream struct {
	mu      sync.Mutex
	last    uint64        // events 1..last exist
	over    bool          // no more events follow
	changed chan struct{} // closed and replaced by each change
	starts  []event.Position
	emitted atomic.Int64
	running atomic.Int32
}

func newUpstream() *upstream { return &upstream{changed: make(chan struct{})} }

func (u *upstream) set(last uint64, over bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last, u.over = last, over
	close(u.changed)
	u.changed = make(chan struct{})
}

func (u *upstream) source(ctx context.Context, from event.Position, _ int, emit func(context.Context, Batch) error) error {
	if u.running.Add(1) > 1 {
		panic("two sources at a time")
	}
	defer u.running.Add(-1)
	u.mu.Lock()
	u.starts = append(u.starts, from)
	u.mu.Unlock()
	if from.IsZero() {
		from = at(0)
	}
	if err := emit(ctx, Batch{Position: from}); err != nil {
		return err
	}
	for seq := from.Seq; ; {
		u.mu.Lock()
		last, over, changed := u.last, u.over, u.changed
		u.mu.Unlock()
		for seq < last {
			seq++
			if err := emit(ctx, Batch{Events: []*event.Event{deletion(seq)}, Position: at(seq)}); err != nil {
				return err
			}
			u.emitted.Add(1)
		}
		if over {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (u *upstream) begun() []event.Position {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]event.Position(nil), u.starts...)
}

// running is a running forwarder.
type running struct {
	t         *testing.T
	stop      context.CancelFunc
	done      chan error
	retries   atomic.Int32
	fenced    atomic.Int32
	full      atomic.Bool
	wasFull   atomic.Int32
	holding   atomic.Bool
	published atomic.Int32
	past      atomic.Int32
	gaps      atomic.Int32
	condition atomic.Value // string
}

func start(t *testing.T, js jetstream.JetStream, id string, source script, heartbeat time.Duration) *running {
	t.Helper()
	return startWith(t, js, Config{ID: id, Heartbeat: heartbeat}, source, slog.DiscardHandler)
}

func startWith(t *testing.T, js jetstream.JetStream, cfg Config, source script, log slog.Handler) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{t: t, stop: cancel, done: make(chan error, 1)}
	f := New(js, cfg, source.source, slog.New(log), r)
	go func() { r.done <- f.Run(ctx) }()
	t.Cleanup(func() { r.stop(); _ = r.end() })
	return r
}

// Stored, Holding, Condition and Gap make it an Observer.
func (r *running) Stored(events []*event.Event, _ time.Duration) {
	if events[0].Resume != nil {
		r.past.Add(int32(len(events)))
	} else {
		r.published.Add(int32(len(events)))
	}
}

func (r *running) Holding(held bool) { r.holding.Store(held) }
func (r *running) Gap(string)        { r.gaps.Add(1) }

func (r *running) Condition(err error) {
	r.condition.Store(fmt.Sprint(err))
	switch {
	case err == nil:
		r.full.Store(false)
	case errors.Is(err, ErrRetrying):
		r.retries.Add(1)
	case errors.Is(err, stream.ErrFenced):
		r.fenced.Add(1)
	case errors.Is(err, stream.ErrFull) && !r.full.Swap(true):
		r.wasFull.Add(1)
	}
}

// end waits for Run to return.
func (r *running) end() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(waitLimit):
		r.t.Error("the forwarder did not stop")
		return errors.New("hangs")
	}
}

func (r *running) await(what string, check func() bool) {
	r.t.Helper()
	poll.Until(r.t, waitLimit, func() (bool, string) {
		return check(), fmt.Sprintf("waiting for %s; condition: %v", what, r.condition.Load())
	})
}

// stored returns the stream's contents: sequence numbers of events, and the positions.
func stored(t *testing.T, js jetstream.JetStream) (events []uint64, positions []event.Position) {
	t.Helper()
	for _, e := range all(t, js) {
		if e.Kind == event.KindPosition {
			positions = append(positions, e.Source)
		} else {
			events = append(events, e.Source.Seq)
		}
	}
	return events, positions
}

func upTo(last uint64) []uint64 {
	var out []uint64
	for s := uint64(1); s <= last; s++ {
		out = append(out, s)
	}
	return out
}

func awaitLast(t *testing.T, js jetstream.JetStream, last uint64) {
	t.Helper()
	poll.Until(t, waitLimit, func() (bool, string) {
		s, err := js.Stream(t.Context(), stream.Posts)
		if err != nil {
			return false, err.Error()
		}
		msg, err := s.GetMsg(t.Context(), s.CachedInfo().State.LastSeq)
		if err != nil {
			return false, err.Error()
		}
		e, err := event.Decode(msg.Data)
		require.NoError(t, err)
		return e.Source.Seq == last && e.Kind != event.KindPosition, fmt.Sprint("the last is of ", e.Source.Seq)
	})
}

func TestForwardsInOrderAndResumes(t *testing.T) {
	t.Parallel()
	js := natstest.Server(t).JetStream(t)
	u := newUpstream()
	u.set(2500, false)
	a := start(t, js, "a", u.source, time.Hour)
	awaitLast(t, js, 2500)
	a.stop()
	require.NoError(t, a.end())
	events, positions := stored(t, js)
	require.Equal(t, upTo(2500), events)
	require.Equal(t, []event.Position{at(0), at(2500)}, positions, "positions at the first connection and at the stop")
	require.Equal(t, int32(2502), a.published.Load())

	u.set(2600, true)
	b := start(t, js, "b", u.source, time.Hour)
	require.NoError(t, b.end(), "the source must end without an error")
	events, positions = stored(t, js)
	require.Equal(t, upTo(2600), events)
	require.Equal(t, []event.Position{at(0), at(2500), at(2500), at(2600)}, positions)
	require.Equal(t, []event.Position{{}, at(2500)}, u.begun())
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	js := natstest.Server(t).JetStream(t)
	moved := make(chan struct{})
	source := func(ctx context.Context, _ event.Position, _ int, emit func(context.Context, Batch) error) error {
		if err := emit(ctx, Batch{Position: at(1)}); err != nil {
			return err
		}
		<-moved
		if err := emit(ctx, Batch{Position: at(7)}); err != nil { // read, but nothing kept
			return err
		}
		<-ctx.Done()
		return context.Cause(ctx)
	}
	start(t, js, "a", source, 50*time.Millisecond)
	last := func(n int, want event.Position) {
		poll.Until(t, waitLimit, func() (bool, string) {
			_, positions := stored(t, js)
			return len(positions) >= n && positions[len(positions)-1] == want, fmt.Sprint(positions)
		})
	}
	last(3, at(1)) // also if the position does not move
	close(moved)
	last(4, at(7))
}

func TestFencedByAnotherWriter(t *testing.T) {
	t.Parallel()
	js := natstest.Server(t).JetStream(t)
	u := newUpstream()
	u.set(10, false)
	r := start(t, js, "a", u.source, time.Hour)
	awaitLast(t, js, 10)
	// Another program writes without the lease.
	w, err := stream.OpenWriter(t.Context(), js, "intruder", nil)
	require.NoError(t, err)
	require.NoError(t, w.Append(t.Context(), []*event.Event{deletion(11), deletion(12)}))

	u.set(20, false)
	awaitLast(t, js, 20)
	events, _ := stored(t, js)
	require.Equal(t, upTo(20), events, "it must continue after the other's events")
	require.Equal(t, int32(1), r.fenced.Load())
	require.Equal(t, []event.Position{{}, at(12)}, u.begun())
}

func TestLeaseIsTakenOver(t *testing.T) {
	t.Parallel()
	js := natstest.Server(t).JetStream(t)
	u := newUpstream() // one source: it panics if both read at the same time
	u.set(10, false)
	a := start(t, js, "a", u.source, time.Hour)
	awaitLast(t, js, 10)
	b := start(t, js, "b", u.source, time.Hour)
	b.await("b to wait", func() bool { return b.condition.Load() == "standing by: waiting for the writer's lease: held by a" })
	require.False(t, b.holding.Load())

	a.stop()
	require.NoError(t, a.end())
	u.set(20, false)
	awaitLast(t, js, 20)
	events, _ := stored(t, js)
	require.Equal(t, upTo(20), events)
	require.True(t, b.holding.Load())
	require.False(t, a.holding.Load())
}

func TestLostLeaseStopsReading(t *testing.T) {
	t.Parallel()
	js := natstest.Server(t).JetStream(t)
	u := newUpstream()
	u.set(10, false)
	a := start(t, js, "a", u.source, time.Hour)
	awaitLast(t, js, 10)
	kv, err := js.KeyValue(t.Context(), stream.Leases)
	require.NoError(t, err)
	_, err = kv.PutString(t.Context(), "ingest", "somebody else")
	require.NoError(t, err)
	a.await("a to stop reading", func() bool { return u.running.Load() == 0 && !a.holding.Load() })
	// The other never renews, so the lease returns.
	a.await("a to read again", func() bool { return len(u.begun()) == 2 })
	u.set(11, false)
	awaitLast(t, js, 11)
	events, _ := stored(t, js)
	require.Equal(t, upTo(11), events)
}

func TestStreamDownThenUp(t *testing.T) {
	t.Parallel()
	s := natstest.Server(t)
	js := s.JetStream(t)
	u := newUpstream()
	u.set(10, false)
	r := start(t, js, "a", u.source, time.Hour)
	awaitLast(t, js, 10)

	s.Shutdown()
	u.set(10_000, false)
	r.await("trouble to be noticed", func() bool { return r.condition.Load() != "<nil>" })
	require.LessOrEqual(t, u.emitted.Load(), int64(10+2*queueBatches+1000), "back-pressure must reach the source")

	s.Restart(t)
	awaitLast(t, js, 10_000)
	events, _ := stored(t, js)
	require.Equal(t, upTo(10_000), events, "nothing may be lost, duplicated or out of order")
	r.await("the condition to clear", func() bool { return r.condition.Load() == "<nil>" })
}

func TestStreamDownAtStart(t *testing.T) {
	t.Parallel()
	s := natstest.Server(t)
	js := s.JetStream(t)
	s.Shutdown()
	u := newUpstream()
	u.set(3, false)
	r := start(t, js, "a", u.source, time.Hour)
	r.await("trouble to be said", func() bool { return r.condition.Load() != nil })
	require.Empty(t, u.begun(), "nothing must be read without a stream")
	s.Restart(t)
	awaitLast(t, js, 3)
}

// Invariant: a full stream stops reading, and the current batch is stored once there is space.
func TestStreamFullThenFree(t *testing.T) {
	t.Parallel()
	js := natstest.Server(t).JetStream(t)
	u := newUpstream()
	r := start(t, js, "a", u.source, time.Hour)
	r.await("the stream", func() bool { return r.holding.Load() })
	// An operator's limit with DiscardNew is an error like a full disk.
	limit := func(bytes int64) {
		info, err := js.Stream(t.Context(), stream.Posts)
		require.NoError(t, err)
		cfg := info.CachedInfo().Config
		cfg.MaxBytes = bytes
		_, err = js.UpdateStream(t.Context(), cfg)
		require.NoError(t, err)
	}
	limit(64 << 10)
	u.set(3000, false)
	r.await("the stream to be full", r.full.Load)
	require.LessOrEqual(t, u.emitted.Load(), int64(2500), "reading must stop")
	limit(-1)
	awaitLast(t, js, 3000)
	events, _ := stored(t, js)
	require.Equal(t, upTo(3000), events)
	require.False(t, r.full.Load())
	require.Equal(t, int32(1), r.wasFull.Load(), "it must be reported once")
	require.Equal(t, int32(3001), r.published.Load())
}

func TestBigEventsDoNotAccumulate(t *testing.T) {
	t.Parallel()
	s := natstest.Server(t)
	js := s.JetStream(t)
	var emitted atomic.Int64
	source := func(ctx context.Context, _ event.Position, _ int, emit func(context.Context, Batch) error) error {
		for seq := uint64(1); seq <= 100; seq++ {
			e := deletion(seq)
			// Not realistic for a deletion, but as big as a record can be.
			e.Record = json.RawMessage(`"` + strings.Repeat("x", 900<<10) + `"`)
			if err := emit(ctx, Batch{Events: []*event.Event{e}, Position: at(seq)}); err != nil {
				return err
			}
			emitted.Add(1)
			if seq == 1 {
				s.Shutdown() // while the first batch may be in progress
			}
		}
		return nil
	}
	r := start(t, js, "a", source, time.Hour)
	r.await("the queue to be full", func() bool { return emitted.Load() >= queueBytes/(1<<20) })
	require.LessOrEqual(t, emitted.Load(), int64(queueBytes/(900<<10)+1))
	s.Restart(t)
	require.NoError(t, r.end())
	events, _ := stored(t, js)
	require.Equal(t, upTo(100), events)
}

func TestRefusesToWriteAfterNewerVersion(t *testing.T) {
	t.Parallel()
	js := natstest.Server(t).JetStream(t)
	require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}))
	_, err := js.Publish(t.Context(), stream.Subject(event.KindDelete), []byte(`{"v":99}`))
	require.NoError(t, err)
	u := newUpstream()
	r := start(t, js, "a", u.source, time.Hour)
	require.ErrorIs(t, r.end(), event.ErrUnknownVersion)
	require.Empty(t, u.begun())
}

func TestSourceErrorStartsNewTerm(t *testing.T) {
	t.Parallel()
	js := natstest.Server(t).JetStream(t)
	var tries atomic.Int32
	source := func(ctx context.Context, from event.Position, _ int, emit func(context.Context, Batch) error) error {
		if tries.Add(1) == 1 {
			return errors.New("scripted")
		}
		return emit(ctx, Batch{Events: []*event.Event{deletion(1)}, Position: at(1)})
	}
	r := start(t, js, "a", source, time.Hour)
	require.NoError(t, r.end())
	events, positions := stored(t, js)
	require.Equal(t, []uint64{1}, events)
	require.Equal(t, []event.Position{at(1), at(1)}, positions)
}

// The server was never up. The condition must say that, instead of the error of a request.
func TestNATSDown(t *testing.T) {
	t.Parallel()
	nc, err := nats.Connect("nats://127.0.0.1:1", nats.RetryOnFailedConnect(true), nats.ReconnectBufSize(-1))
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	r := start(t, js, "w", newUpstream().source, time.Hour)
	r.await("NATS", func() bool { return r.condition.Load() == nats.ErrDisconnected.Error() })
}
