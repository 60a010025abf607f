package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

func TestAppend(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	w := openWriter(t, js)
	require.Zero(t, w.Seq())
	require.True(t, w.ResumeAt().IsZero())
	require.NoError(t, w.Append(t.Context(), nil))
	done := 0
	for _, n := range []int{1, 2, 1000, 2500, 1, 1001} {
		require.NoError(t, w.Append(t.Context(), numbered(done+1, n)))
		done += n
		require.Equal(t, uint64(done), w.Seq())
		require.Equal(t, sourceOf(done), w.ResumeAt())
	}
	requireStored(t, js, done)

	w = openWriter(t, js)
	require.Equal(t, uint64(done), w.Seq(), "it must continue at the end of the stream")
	require.Equal(t, sourceOf(done), w.ResumeAt())
	require.NoError(t, w.Append(t.Context(), numbered(done+1, 3)))
	requireStored(t, js, done+3)
}

func TestAppendSplitsByBytes(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	w := openWriter(t, js)
	var events []*event.Event
	for seq := range 11 {
		events = append(events, big(t, seq+1, 900_000))
	}
	require.NoError(t, w.Append(t.Context(), events))
	requireStored(t, js, 11)
	batches := map[string]int{}
	s, err := js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	for seq := range 11 {
		msg, err := s.GetMsg(t.Context(), uint64(seq+1))
		require.NoError(t, err)
		batches[msg.Header.Get(stream.BatchHeader)]++
	}
	require.Len(t, batches, 2, "%v", batches)
}

// TestAppendDuringFaults breaks the connection around the decisive messages, each time in both
// forms: the request did not take effect, or it did but the writer does not know.
func TestAppendDuringFaults(t *testing.T) {
	t.Parallel()
	every, look := to("posts."), to("$JS.API.STREAM.INFO.")
	for _, n := range []int{1, 2, 500} {
		for _, c := range []struct {
			name  string
			fault fault.Fault
		}{
			{"commit cut off", fault.Fault{Match: stored}},
			{"commit lost", fault.Fault{Match: stored, Break: fault.Silent}},
			{"commit stored, answer cut off", fault.Fault{Match: stored, Form: fault.TookEffect}},
			{"commit stored, answer lost", fault.Fault{Match: stored, Form: fault.TookEffect, Break: fault.Silent}},
			{"second commit stored, answer cut off", fault.Fault{Match: stored, Form: fault.TookEffect, Nth: 2}},
			{"first message cut off", fault.Fault{Match: every}},
			{"first message staged, answer cut off", fault.Fault{Match: every, Form: fault.TookEffect}},
			{"last but one lost", fault.Fault{Match: every, Break: fault.Silent, Nth: n - 1}},
			{"last but one cut off", fault.Fault{Match: every, Nth: n - 1}},
			{"look back cut off", fault.Fault{Match: look}},
		} {
			t.Run(fmt.Sprintf("%d/%s", n, c.name), func(t *testing.T) {
				t.Parallel()
				s, direct := serve(t, natstest.Listen())
				p := newProxy(t, s)
				w := openWriter(t, through(t, p))
				w.SetTimeout(500 * time.Millisecond)
				if strings.HasPrefix(c.name, "look back") {
					p.Arm(fault.Fault{Match: stored, Form: fault.TookEffect})
				}
				armed := p.Arm(c.fault)
				for batch := range 3 {
					require.NoError(t, w.Append(within(t, patience), numbered(batch*n+1, n)))
					require.Equal(t, uint64((batch+1)*n), w.Seq())
					require.Equal(t, sourceOf((batch+1)*n), w.ResumeAt())
				}
				<-armed.Fired()
				requireStored(t, direct, 3*n)
			})
		}
	}
}

func TestAppendDuringRestarts(t *testing.T) {
	t.Parallel()
	const batches, size, restarts = 60, 50, 3
	s, js := serve(t)
	w := openWriter(t, js)
	w.SetTimeout(time.Second)
	at := make(chan struct{}, batches)
	failed := make(chan error, 1)
	go func() {
		defer close(at)
		for i := range batches {
			at <- struct{}{}
			if err := w.Append(within(t, patience), numbered(i*size+1, size)); err != nil {
				failed <- err
				return
			}
		}
	}()
	i := 0
	for range at {
		if i++; i%(batches/restarts) == batches/restarts/2 {
			s.Restart(t) // while it appends
		}
	}
	select {
	case err := <-failed:
		require.NoError(t, err)
	default:
	}
	requireStored(t, js, batches*size)
}

func TestFencedByAnotherWriter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ before, theirs, ours int }{{0, 1, 1}, {1, 1, 1}, {5, 3, 3}, {5, 1, 7}, {5, 7, 1}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			_, js := serve(t)
			stale := openWriter(t, js)
			require.NoError(t, stale.Append(t.Context(), numbered(1, c.before)))
			other := openWriter(t, js) // of the same run: the same id does not help
			require.NoError(t, other.Append(t.Context(), numbered(c.before+1, c.theirs)))
			for range 2 {
				require.ErrorIs(t, stale.Append(within(t, patience), numbered(c.before+1, c.ours)), stream.ErrFenced)
				require.Equal(t, uint64(c.before), stale.Seq())
			}
			require.NoError(t, other.Append(t.Context(), numbered(c.before+c.theirs+1, 1)))
			requireStored(t, js, c.before+c.theirs+1)
		})
	}
}

// A batch that its writer gave up is stored after all, just before another one of the same size and
// run.
func TestLateBatchIsNotMistaken(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 4} {
		for _, same := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d events, same writer %t", n, same), func(t *testing.T) {
				t.Parallel()
				s, direct := serve(t, natstest.Listen())
				p := newProxy(t, s)
				w := openWriter(t, through(t, p))
				require.NoError(t, w.Append(t.Context(), numbered(1, 2)))
				held, release := make(chan struct{}), make(chan struct{})
				p.Arm(fault.Fault{Match: stored, Break: fault.Nothing, Then: func() { close(held); <-release }})
				ctx, cancel := context.WithCancel(t.Context())
				go func() { <-held; cancel() }()
				require.ErrorIs(t, w.Append(ctx, numbered(3, n)), context.Canceled)
				later := w
				if !same {
					later = openWriter(t, direct)
					require.Equal(t, uint64(2), later.Seq(), "the batch must not be stored yet")
				}
				close(release)
				if !same {
					pollSeq(t, direct, uint64(2+n))
				}
				err := later.Append(within(t, patience), numbered(100, n))
				require.ErrorIs(t, err, stream.ErrFenced)
				requireStored(t, direct, 2+n)
			})
		}
	}
}

// A batch with an event that cannot be encoded, or is too big, stores nothing and is not retried.
// The writer accepts other events afterwards.
func TestAppendGivesUpWithinABatch(t *testing.T) {
	t.Parallel()
	_, js := serve(t, natstest.With(func(o *server.Options) { o.MaxPayload = 64 << 10 }))
	w := openWriter(t, js)
	for name, bad := range map[string]*event.Event{"not JSON": {Record: []byte("{")}, "too big": big(t, 2, 65<<10)} {
		events := numbered(1, 3)
		events[1] = bad
		err := w.Append(within(t, patience), events)
		require.Error(t, err, name)
		require.NotErrorIs(t, err, context.DeadlineExceeded, name)
		requireStored(t, js, 0)
	}
	require.NoError(t, w.Append(within(t, patience), numbered(1, 3)))
	requireStored(t, js, 3)
}

func TestMaxPayload(t *testing.T) {
	t.Parallel()
	_, js := serve(t, natstest.With(func(o *server.Options) { o.MaxPayload = 64 << 10 }))
	w := openWriter(t, js)
	limit := w.MaxPayload()
	require.Less(t, limit, 64<<10)
	require.NoError(t, w.Append(t.Context(), []*event.Event{big(t, 1, limit)}))
	require.NoError(t, w.Append(t.Context(), []*event.Event{big(t, 2, limit), big(t, 3, limit)}))
	for _, events := range [][]*event.Event{{big(t, 4, 65<<10)}, {big(t, 4, 10_000), big(t, 5, 65<<10)}, {big(t, 4, 65<<10), big(t, 5, 10_000)}} {
		require.ErrorIs(t, w.Append(within(t, patience), events), nats.ErrMaxPayload, "it must not be retried")
	}
	require.NoError(t, w.Append(within(t, patience), numbered(4, 2)))
	requireStored(t, js, 5)
}

func TestOpenWriter(t *testing.T) {
	t.Parallel()
	t.Run("without a stream", func(t *testing.T) {
		t.Parallel()
		_, err := stream.OpenWriter(t.Context(), natstest.Server(t).JetStream(t), "id", nil)
		require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
	})
	t.Run("trimmed empty", func(t *testing.T) {
		t.Parallel()
		js, _ := serveEvents(t, 5)
		s, err := js.Stream(t.Context(), stream.Posts)
		require.NoError(t, err)
		require.NoError(t, s.Purge(t.Context()))
		w := openWriter(t, js)
		require.Equal(t, uint64(5), w.Seq())
		require.True(t, w.ResumeAt().IsZero(), "it must not return a position")
		require.NoError(t, w.Append(t.Context(), numbered(1, 2)))
		require.Equal(t, uint64(7), w.Seq())
		requireStored(t, js, 2)
	})
	t.Run("last messages erased", func(t *testing.T) {
		t.Parallel()
		js, _ := serveEvents(t, 5)
		s, err := js.Stream(t.Context(), stream.Posts)
		require.NoError(t, err)
		require.NoError(t, s.SecureDeleteMsg(t.Context(), 4))
		require.NoError(t, s.SecureDeleteMsg(t.Context(), 5))
		w := openWriter(t, js)
		require.Equal(t, uint64(5), w.Seq())
		require.Equal(t, sourceOf(3), w.ResumeAt(), "reading must resume from the remaining messages")
		require.NoError(t, w.Append(t.Context(), numbered(4, 2)))
		require.Equal(t, uint64(7), w.Seq())
	})
	for name, data := range map[string]string{"foreign": "hello", "newer": `{"v":3}`} {
		t.Run("last message is "+name, func(t *testing.T) {
			t.Parallel()
			js, w := serveEvents(t, 1)
			_, err := js.Publish(t.Context(), "posts.x", []byte(data))
			require.NoError(t, err)
			_, err = stream.OpenWriter(t.Context(), js, "id", nil)
			want := event.ErrInvalid
			if name == "newer" {
				want = event.ErrUnknownVersion
			}
			require.ErrorIs(t, err, want)
			require.ErrorIs(t, w.Append(within(t, patience), numbered(2, 1)), stream.ErrFenced)
		})
	}
}

// The client library's own retry of an unanswered publish would precede the check of the stream.
func TestSinglePublishIsTriedOnce(t *testing.T) {
	t.Parallel()
	s, direct := serve(t, natstest.Listen())
	p := newProxy(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var published, atError atomic.Int64
	w, err := stream.OpenWriter(ctx, through(t, p), "id", func(err error) {
		if atError.Load() == 0 {
			atError.Store(published.Load())
			t.Logf("failed: %v", err)
		}
		cancel()
	})
	require.NoError(t, err)
	p.Arm(fault.Fault{Match: func(op fault.Op) bool { // only to count them
		if stored(op) {
			published.Add(1)
		}
		return false
	}})
	require.NoError(t, direct.DeleteStream(t.Context(), stream.Posts)) // there is no answer
	require.ErrorIs(t, w.Append(ctx, numbered(1, 1)), context.Canceled)
	require.Equal(t, int64(1), atError.Load())
	require.Equal(t, int64(1), published.Load())
}

// The server limits the remains of failed attempts and drops them after a while. The writer waits
// for that.
func TestAbandonedBatchesDoNotBlock(t *testing.T) {
	t.Parallel()
	_, js := serve(t, natstest.With(func(o *server.Options) {
		o.JetStreamLimits.MaxBatchInflightPerStream = 3
		o.JetStreamLimits.MaxBatchTimeout = time.Second
	}))
	for i := range 3 {
		msg := nats.NewMsg("posts.delete")
		msg.Header.Set("Nats-Batch-Id", fmt.Sprint("abandoned", i))
		msg.Header.Set("Nats-Batch-Sequence", "1")
		_, err := js.Conn().RequestMsg(msg, patience)
		require.NoError(t, err)
	}
	retried := 0
	w, err := stream.OpenWriter(t.Context(), js, "id", func(err error) { retried++; t.Logf("retrying: %v", err) })
	require.NoError(t, err)
	require.NoError(t, w.Append(within(t, patience), numbered(1, 10)))
	require.Positive(t, retried)
	requireStored(t, js, 10)
}

func TestAppendStopsWithContext(t *testing.T) {
	t.Parallel()
	s, js := serve(t)
	w := openWriter(t, js)
	require.NoError(t, w.Append(t.Context(), numbered(1, 1)))
	s.Shutdown()
	for _, n := range []int{1, 10} {
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := fmt.Errorf("stopped by the test")
		time.AfterFunc(50*time.Millisecond, func() { cancel(stop) })
		begun := time.Now()
		require.ErrorIs(t, w.Append(ctx, numbered(2, n)), stop)
		require.Less(t, time.Since(begun), 5*time.Second)
	}
	s.Restart(t)
	// The abandoned batch may be stored now or just after the first check. In that case the writer
	// is fenced, and a second check shows the batch.
	var last int
	poll.NoError(t, patience, func() error {
		after, err := stream.OpenWriter(within(t, time.Second), js, "after", nil)
		if err != nil {
			return err
		}
		last = int(after.ResumeAt().Seq) + 1
		return after.Append(within(t, patience), numbered(last, 1))
	})
	requireStored(t, js, last)
}

// A server that kept the beginning of a batch stores the rest when it restarts, without the
// writer's knowledge.
func TestServerCompletesBatchAtRestart(t *testing.T) {
	t.Parallel()
	s := natstest.Server(t, natstest.MaxStore(300_000))
	js := s.JetStream(t)
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: stream.Posts, Subjects: []string{"posts.>"}, Discard: jetstream.DiscardNew, AllowAtomicPublish: true, AllowDirect: true,
	})
	require.NoError(t, err)
	other, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"other"}})
	require.NoError(t, err)
	for range 20 {
		_, err := js.Publish(t.Context(), "other", make([]byte, 10_000))
		require.NoError(t, err)
	}
	w := openWriter(t, js)
	w.SetTimeout(time.Second)
	const size = 400
	require.ErrorIs(t, w.Append(within(t, patience), numbered(1, size)), stream.ErrFull)
	front := int(w.Seq())
	require.Positive(t, front, "the server must fail in the middle of the batch")
	require.Less(t, front, size)
	requireStored(t, js, front)

	require.NoError(t, other.Purge(t.Context()))
	s.Restart(t)
	pollSeq(t, js, size)
	requireStored(t, js, size)
	require.ErrorIs(t, w.Append(within(t, patience), numbered(front+1, size-front)), stream.ErrFenced)
	w = openWriter(t, js)
	require.Equal(t, sourceOf(size), w.ResumeAt())
	require.NoError(t, w.Append(within(t, patience), numbered(size+1, 10)))
	requireStored(t, js, size+10)
}

// Traceparents are outside the encoding, on the messages of traced events and no others, whatever
// happens to earlier attempts.
func TestTraceparentHeaders(t *testing.T) {
	t.Parallel()
	s, js := serve(t, natstest.Listen())
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	failed := make(chan error, 100)
	w, err := stream.OpenWriter(t.Context(), js, "a", func(err error) { failed <- err })
	require.NoError(t, err)
	events := numbered(1, 5)
	events[1].Traceparent = parent
	s.Shutdown()
	appended := make(chan error, 1)
	ctx := within(t, patience)
	go func() { appended <- w.Append(ctx, events) }()
	<-failed
	s.Restart(t)
	require.NoError(t, <-appended)
	single := numbered(6, 1)
	single[0].Traceparent = parent
	require.NoError(t, w.Append(ctx, single))

	r, err := stream.OpenReader(ctx, js, 1)
	require.NoError(t, err)
	defer r.Close()
	var got []string
	for len(got) < 6 {
		batch, err := r.Next(ctx, 10, time.Millisecond)
		require.NoError(t, err)
		for _, m := range batch {
			got = append(got, m.Traceparent)
			require.NotContains(t, string(m.Data), "0af7651916cd43dd", "the encoding must not contain it")
		}
	}
	require.Equal(t, []string{"", parent, "", "", "", parent}, got)
}

// A server that does not know batches would store their messages one by one.
func TestWriterRefusesOldServer(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, natstest.Listen())
	nc, err := nats.Connect(s.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	w, err := stream.OpenWriter(ctx, js, "writer", func(err error) {
		if errors.Is(err, stream.ErrOldServer) {
			cancel(err)
		}
	})
	require.NoError(t, err)
	require.NoError(t, w.Append(ctx, numbered(1, 3)))
	s.Shutdown()
	natstest.Impostor(t, strings.TrimPrefix(s.URL(), "nats://"), "2.11.12")
	w.SetTimeout(time.Second)
	require.ErrorIs(t, w.Append(ctx, numbered(4, 3)), stream.ErrOldServer)
}
