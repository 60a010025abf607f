package stream_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
)

// shortTTL is how long leases last in tests: long enough for a busy machine to renew them, short
// enough to wait for their expiry.
const shortTTL = 2 * time.Second

// leases creates a bucket of leases that last for ttl.
func leases(t testing.TB, js jetstream.JetStream, ttl time.Duration) {
	t.Helper()
	_, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{
		Bucket: stream.Leases, TTL: ttl, History: 1, Storage: jetstream.FileStorage,
	})
	require.NoError(t, err)
}

// hold runs fn while it has the lease.
func hold(ctx context.Context, l *stream.Lease, fn func(context.Context) error) error {
	held, release, err := l.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	return fn(held)
}

// contender is one run that competes for a lease.
type contender struct {
	held   chan context.Context // receives once, when the lease is held
	end    chan struct{}        // closing it ends the function
	result chan error
	began  time.Time // set before held receives
}

func contend(ctx context.Context, l *stream.Lease) *contender {
	c := &contender{held: make(chan context.Context, 1), end: make(chan struct{}), result: make(chan error, 1)}
	go func() {
		c.result <- hold(ctx, l, func(ctx context.Context) error {
			c.began = time.Now()
			c.held <- ctx
			select {
			case <-c.end:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}()
	return c
}

func (c *contender) requireHeld(t testing.TB) context.Context {
	t.Helper()
	select {
	case ctx := <-c.held:
		return ctx
	case err := <-c.result:
		require.FailNow(t, "it must not end", "%v", err)
	case <-time.After(patience):
		require.FailNow(t, "it must get the lease")
	}
	return nil
}

// finish ends the contender, which holds the lease.
func (c *contender) finish(t testing.TB) {
	t.Helper()
	close(c.end)
	require.NoError(t, receive(t, c.result))
}

// waitsOf returns the reasons why a lease is waited for.
func waitsOf(l *stream.Lease) <-chan string {
	reasons := make(chan string, 10)
	l.OnWait = func(reason string, _ bool) { reasons <- reason }
	return reasons
}

func receive(t testing.TB, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(patience):
		require.FailNow(t, "nothing was received")
		return nil
	}
}

func TestLeaseIsHandedOver(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	first := stream.NewLease(js, "first")
	var said []string
	first.OnWait = func(reason string, _ bool) { said = append(said, reason) }
	a := contend(t.Context(), first)
	a.requireHeld(t)
	require.Equal(t, []string{""}, said)

	second := stream.NewLease(js, "second")
	waits := waitsOf(second)
	b := contend(t.Context(), second)
	require.Equal(t, "held by first", <-waits)
	released := time.Now()
	close(a.end)
	b.requireHeld(t)
	took := b.began.Sub(released)
	t.Logf("taken over %v after the release began", took)
	require.Less(t, took, stream.LeaseTTL/4, "the waiter must be notified, and not poll")
	require.Equal(t, "", <-waits)
	require.NoError(t, receive(t, a.result))

	// Again, with the delete marker of the release.
	b.finish(t)
	c := contend(t.Context(), stream.NewLease(js, "third"))
	c.requireHeld(t)
	c.finish(t)
}

// TestLeaseOfDeadHolder measures the takeover with the real timing.
func TestLeaseOfDeadHolder(t *testing.T) {
	t.Parallel()
	s, js := serve(t)
	nc := s.Conn(t)
	dying, err := jetstream.New(nc)
	require.NoError(t, err)
	a := contend(t.Context(), stream.NewLease(dying, "dying"))
	held := a.requireHeld(t)
	b := contend(t.Context(), stream.NewLease(js, "heir"))
	nc.Close()
	died := time.Now()
	require.ErrorIs(t, receive(t, a.result), stream.ErrLeaseLost)
	lost := time.Now()
	require.ErrorIs(t, context.Cause(held), stream.ErrLeaseLost)
	require.LessOrEqual(t, lost.Sub(died), stream.LeaseTTL+time.Second)
	b.requireHeld(t)
	t.Logf("lost after %v, taken over after %v", lost.Sub(died), b.began.Sub(died))
	require.Less(t, b.began.Sub(died), stream.LeaseTTL*4/3+2*time.Second)
	b.finish(t)
}

// TestLeaseHasOneHolder lets contenders come and go, some without releasing the lease, and checks
// that no two hold it at the same time.
func TestLeaseHasOneHolder(t *testing.T) {
	t.Parallel()
	s := natstest.Server(t)
	js := s.JetStream(t)
	leases(t, js, shortTTL)
	var holding, held atomic.Int32
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for round := range 5 {
				l := stream.NewShortLease(js, fmt.Sprintf("%d.%d", i, round), shortTTL)
				err := hold(within(t, patience), l, func(context.Context) error {
					held.Add(1)
					if n := holding.Add(1); n != 1 {
						t.Errorf("held by %d", n)
					}
					holding.Add(-1)
					return errors.New("done")
				})
				if err == nil || err.Error() != "done" {
					t.Errorf("contender %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, int32(30), held.Load())
}

func TestLeaseDuringOutages(t *testing.T) {
	t.Parallel()
	t.Run("shorter than the lease", func(t *testing.T) {
		t.Parallel()
		s := natstest.Server(t, natstest.Listen())
		js := s.JetStream(t)
		leases(t, js, stream.LeaseTTL)
		p := newProxy(t, s)
		a := contend(t.Context(), stream.NewLease(through(t, p), "holder"))
		held := a.requireHeld(t)
		// The server is unavailable for one renewal.
		<-p.Arm(fault.Fault{Match: to(leaseKey)}).Fired()
		waitRevision(t, js, revision(t, js))
		require.NoError(t, held.Err())
		a.finish(t)
	})
	t.Run("longer", func(t *testing.T) {
		t.Parallel()
		s := natstest.Server(t)
		js := s.JetStream(t)
		leases(t, js, shortTTL)
		a := contend(t.Context(), stream.NewShortLease(js, "holder", shortTTL))
		held := a.requireHeld(t)
		s.Shutdown()
		down := time.Now()
		require.ErrorIs(t, receive(t, a.result), stream.ErrLeaseLost)
		require.Less(t, time.Since(down), shortTTL+shortTTL, "the release must not delay it")
		require.ErrorIs(t, context.Cause(held), stream.ErrLeaseLost)
		b := contend(t.Context(), stream.NewShortLease(js, "other", shortTTL))
		s.Restart(t)
		b.requireHeld(t)
		b.finish(t)
	})
	t.Run("lost answers", func(t *testing.T) {
		t.Parallel()
		// Every third renewal takes effect but the holder gets no answer; its next attempt is
		// refused.
		s := natstest.Server(t, natstest.Listen())
		js := s.JetStream(t)
		leases(t, js, shortTTL)
		p := newProxy(t, s)
		a := contend(t.Context(), stream.NewShortLease(through(t, p), "holder", shortTTL))
		held := a.requireHeld(t)
		unanswered := fault.Fault{Match: to(leaseKey), Form: fault.TookEffect}
		unanswered.Then = func() {
			unanswered.Nth = 3
			p.Arm(unanswered)
		}
		p.Arm(unanswered)
		for range 4 {
			waitRevision(t, js, revision(t, js))
		}
		require.NoError(t, held.Err())
		a.finish(t)
	})
}

func revision(t testing.TB, js jetstream.JetStream) uint64 {
	t.Helper()
	kv, err := js.KeyValue(t.Context(), stream.Leases)
	require.NoError(t, err)
	e, err := kv.Get(t.Context(), "ingest")
	require.NoError(t, err)
	return e.Revision()
}

// waitRevision waits until the lease was renewed after the revision before.
func waitRevision(t testing.TB, js jetstream.JetStream, before uint64) {
	t.Helper()
	kv, err := js.KeyValue(t.Context(), stream.Leases)
	require.NoError(t, err)
	w, err := kv.Watch(within(t, patience), "ingest")
	require.NoError(t, err)
	defer w.Stop()
	for e := range w.Updates() {
		if e != nil && e.Revision() > before {
			return
		}
	}
	require.FailNow(t, "not renewed")
}

// A process that slept through the end of its lease, and does not notice that, cannot damage what
// the next holder wrote.
func TestPausedHolderIsFenced(t *testing.T) {
	t.Parallel()
	s, js := serve(t)
	// The holder's renewals stop with its connection. Its writer, on another connection, does not
	// notice, like a process that was paused between two lines.
	nc := s.Conn(t)
	paused, err := jetstream.New(nc)
	require.NoError(t, err)
	kv, err := js.KeyValue(t.Context(), stream.Leases)
	require.NoError(t, err)
	a := contend(t.Context(), stream.NewLease(paused, "paused"))
	a.requireHeld(t)
	stale := openWriter(t, js)
	require.NoError(t, stale.Append(t.Context(), numbered(1, 3)))
	nc.Close()
	require.NoError(t, kv.Purge(t.Context(), "ingest")) // the lease expires
	b := contend(t.Context(), stream.NewLease(js, "next"))
	b.requireHeld(t)
	w := openWriter(t, js)
	require.Equal(t, sourceOf(3), w.ResumeAt())
	require.NoError(t, w.Append(t.Context(), numbered(4, 3)))
	require.ErrorIs(t, stale.Append(within(t, patience), numbered(4, 3)), stream.ErrFenced)
	requireStored(t, js, 6)
	b.finish(t)
}

// The key was removed, or has another holder.
func TestLeaseTakenAway(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(*testing.T, jetstream.KeyValue){
		"deleted": func(t *testing.T, kv jetstream.KeyValue) { require.NoError(t, kv.Delete(t.Context(), "ingest")) },
		"purged":  func(t *testing.T, kv jetstream.KeyValue) { require.NoError(t, kv.Purge(t.Context(), "ingest")) },
		"taken": func(t *testing.T, kv jetstream.KeyValue) {
			_, err := kv.Put(t.Context(), "ingest", []byte("thief"))
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			js := natstest.Server(t).JetStream(t)
			leases(t, js, shortTTL)
			a := contend(t.Context(), stream.NewShortLease(js, "holder", shortTTL))
			a.requireHeld(t)
			kv, err := js.KeyValue(t.Context(), stream.Leases)
			require.NoError(t, err)
			take(t, kv)
			taken := time.Now()
			require.ErrorIs(t, receive(t, a.result), stream.ErrLeaseLost)
			require.Less(t, time.Since(taken), shortTTL, "it must not wait for the expiry")
			if name == "taken" {
				e, err := kv.Get(t.Context(), "ingest")
				require.NoError(t, err)
				require.Equal(t, "thief", string(e.Value()), "it must not release another holder's lease")
			}
		})
	}
}

// The answer to the creation is lost, but the key is the contender's.
func TestLeaseCreatedWithoutAnswer(t *testing.T) {
	t.Parallel()
	for _, form := range fault.Forms {
		t.Run(form.String(), func(t *testing.T) {
			t.Parallel()
			s := natstest.Server(t, natstest.Listen())
			leases(t, s.JetStream(t), shortTTL)
			p := newProxy(t, s)
			js := through(t, p)
			armed := p.Arm(fault.Fault{Match: to(leaseKey), Form: form})
			a := contend(t.Context(), stream.NewShortLease(js, "holder", shortTTL))
			held := a.requireHeld(t)
			<-armed.Fired()
			waitRevision(t, s.JetStream(t), revision(t, s.JetStream(t)))
			require.NoError(t, held.Err())
			a.finish(t)
		})
	}
}

func TestLeaseWaitEndsWithContext(t *testing.T) {
	t.Parallel()
	s, js := serve(t)
	a := contend(t.Context(), stream.NewLease(js, "holder"))
	a.requireHeld(t)
	stop := errors.New("stopped by the test")
	for _, away := range []bool{false, true} {
		ctx, cancel := context.WithCancelCause(t.Context())
		l := stream.NewLease(js, "waiter")
		waiting := waitsOf(l)
		b := contend(ctx, l)
		require.NotEmpty(t, <-waiting)
		cancel(stop)
		begun := time.Now()
		require.ErrorIs(t, receive(t, b.result), stop)
		require.Less(t, time.Since(begun), time.Second)
		if !away {
			a.finish(t)
			s.Shutdown()
		}
	}
}

func TestLeaseWithoutBucket(t *testing.T) {
	t.Parallel()
	js := natstest.Server(t).JetStream(t)
	l := stream.NewShortLease(js, "early", shortTTL)
	waiting := waitsOf(l)
	a := contend(t.Context(), l)
	require.Contains(t, <-waiting, "bucket")
	leases(t, js, shortTTL)
	a.requireHeld(t)
	a.finish(t)
}
