package stream_test

import (
	"context"
	"errors"
	"os"
	"runtime/pprof"
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

func openReader(t testing.TB, js jetstream.JetStream, start uint64) *stream.Reader {
	t.Helper()
	r, err := stream.OpenReader(within(t, patience), js, start)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

// requireRead reads up to message last, and returns the numbers of the messages.
func requireRead(t testing.TB, r *stream.Reader, last uint64) []uint64 {
	t.Helper()
	var got []uint64
	for len(got) == 0 || got[len(got)-1] < last {
		batch, err := r.Next(within(t, patience), 100, 0)
		require.NoError(t, err)
		for _, m := range batch {
			ev, err := event.Decode(m.Data)
			require.NoError(t, err)
			require.Equal(t, m.Seq, ev.Source.Seq)
			got = append(got, m.Seq)
		}
	}
	return got
}

// upTo returns the numbers from first to last, except those in without.
func upTo(first, last uint64, without ...uint64) []uint64 {
	var out []uint64
next:
	for seq := first; seq <= last; seq++ {
		for _, w := range without {
			if seq == w {
				continue next
			}
		}
		out = append(out, seq)
	}
	return out
}

func TestReadFromAnywhere(t *testing.T) {
	t.Parallel()
	js, w := serveEvents(t, 1500)
	for _, start := range []uint64{1, 2, 777, 1500} {
		require.Equal(t, upTo(start, 1500), requireRead(t, openReader(t, js, start), 1500))
	}
	tail := openReader(t, js, 1501)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := tail.Next(ctx, 10, time.Second)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, w.Append(t.Context(), numbered(1501, 3)))
	require.Equal(t, upTo(1501, 1503), requireRead(t, tail, 1503), "it must follow the stream")

	_, err = stream.OpenReader(t.Context(), js, 1505)
	require.ErrorIs(t, err, stream.ErrBehind)
	_, err = stream.OpenReader(t.Context(), js, 0)
	require.ErrorIs(t, err, stream.ErrTrimmed, "message 0 cannot exist")
}

func TestReadEmptyStream(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	r := openReader(t, js, 1)
	_, err := stream.OpenReader(t.Context(), js, 2)
	require.ErrorIs(t, err, stream.ErrBehind)
	require.NoError(t, openWriter(t, js).Append(t.Context(), numbered(1, 2)))
	require.Equal(t, upTo(1, 2), requireRead(t, r, 2))

	_, err = stream.OpenReader(t.Context(), natstest.Server(t).JetStream(t), 1)
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
}

func TestNextLimits(t *testing.T) {
	t.Parallel()
	js, w := serveEvents(t, 10)
	r := openReader(t, js, 1)
	batch, err := r.Next(within(t, patience), 4, patience)
	require.NoError(t, err)
	require.Len(t, batch, 4, "the limit must end the wait")
	batch, err = r.Next(within(t, patience), 100, 50*time.Millisecond)
	require.NoError(t, err)
	require.Len(t, batch, 6, "the wait must end without the limit")

	var events []*event.Event
	for seq := range 12 {
		events = append(events, big(t, 11+seq, 1_000_000))
	}
	require.NoError(t, w.Append(t.Context(), events))
	r = openReader(t, js, 11) // none of these was the last one when it was sent
	batch, err = r.Next(within(t, patience), 1000, patience)
	require.NoError(t, err)
	require.Len(t, batch, 9, "a few megabytes must end it")
	require.Equal(t, upTo(20, 22), requireRead(t, r, 22))
}

// At the stream's last message the reader does not wait: a post is indexed immediately, however
// long a batch may wait for more.
func TestNextDoesNotWaitAtTip(t *testing.T) {
	t.Parallel()
	js, _ := serveEvents(t, 3)
	r := openReader(t, js, 1)
	var got []uint64
	for len(got) < 3 {
		ctx := within(t, patience)
		batch, err := r.Next(ctx, 100, 10*patience)
		require.NoError(t, err)
		require.NoError(t, ctx.Err(), "it must not wait for the whole time")
		for _, m := range batch {
			ev, err := m.Event()
			require.NoError(t, err)
			require.Equal(t, m.Seq, ev.Source.Seq)
			got = append(got, m.Seq)
		}
	}
	require.Equal(t, upTo(1, 3), got)
}

func TestReadPastErasedMessages(t *testing.T) {
	t.Parallel()
	js, _ := serveEvents(t, 300)
	erased := []uint64{3, 4, 5, 100, 298, 299}
	erase(t, js, erased...)
	require.Equal(t, upTo(1, 300, erased...), requireRead(t, openReader(t, js, 1), 300))
	for _, start := range []uint64{3, 4, 100, 299} {
		require.Equal(t, upTo(start, 300, erased...), requireRead(t, openReader(t, js, start), 300))
	}
	// At the end there is nothing to read, and the next message is not missed.
	erase(t, js, 300)
	r := openReader(t, js, 300)
	require.NoError(t, openWriter(t, js).Append(t.Context(), numbered(301, 1)))
	require.Equal(t, []uint64{301}, requireRead(t, r, 301))
}

func erase(t testing.TB, js jetstream.JetStream, seqs ...uint64) {
	t.Helper()
	s, err := js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	for _, seq := range seqs {
		require.NoError(t, s.SecureDeleteMsg(t.Context(), seq))
	}
}

func TestTrimmed(t *testing.T) {
	t.Parallel()
	trim := func(t *testing.T, js jetstream.JetStream, first uint64) {
		t.Helper()
		s, err := js.Stream(t.Context(), stream.Posts)
		require.NoError(t, err)
		require.NoError(t, s.Purge(t.Context(), jetstream.WithPurgeSequence(first)))
	}
	t.Run("before", func(t *testing.T) {
		t.Parallel()
		js, _ := serveEvents(t, 100)
		trim(t, js, 51)
		for _, start := range []uint64{1, 50} {
			_, err := stream.OpenReader(t.Context(), js, start)
			require.ErrorIs(t, err, stream.ErrTrimmed)
		}
		require.Equal(t, upTo(51, 100), requireRead(t, openReader(t, js, 51), 100))
		trim(t, js, 101)
		_, err := stream.OpenReader(t.Context(), js, 100)
		require.ErrorIs(t, err, stream.ErrTrimmed, "all messages are trimmed")
		openReader(t, js, 101)
	})
	t.Run("while a slow reader reads", func(t *testing.T) {
		t.Parallel()
		js, _ := serveEvents(t, 5000)
		r := openReader(t, js, 1)
		requireRead(t, r, 10)
		trim(t, js, 4001)
		var err error
		var last uint64
		for err == nil {
			var batch []stream.Message
			if batch, err = r.Next(within(t, patience), 100, 0); err == nil {
				for _, m := range batch {
					require.True(t, last == 0 || m.Seq == last+1, "%d after %d", m.Seq, last)
					last = m.Seq
				}
			}
		}
		require.ErrorIs(t, err, stream.ErrTrimmed, "it must not skip trimmed messages")
		require.Less(t, last, uint64(4001))
		_, err = r.Next(t.Context(), 100, 0)
		require.ErrorIs(t, err, stream.ErrTrimmed, "the error must remain")
	})
}

// Servers restart, connections break, and no message is lost or repeated.
func TestReadDuringRestartsAndDisconnects(t *testing.T) {
	t.Parallel()
	const total, chunk = 6000, 500
	s, js := serve(t, natstest.Listen())
	p := newProxy(t, s)
	w := openWriter(t, js)
	w.SetTimeout(time.Second)
	require.NoError(t, w.Append(t.Context(), numbered(1, chunk)))
	r := openReader(t, through(t, p), 1)
	written := make(chan error, 1)
	go func() {
		written <- func() error {
			for from := chunk + 1; from <= total; from += chunk {
				if err := w.Append(within(t, patience), numbered(from, chunk)); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	var got []uint64
	for i := 0; len(got) == 0 || got[len(got)-1] < total; i++ {
		switch i {
		case 5, 25:
			s.Restart(t)
		case 10, 15, 20, 30:
			p.Break(fault.Cut)
		}
		batch, err := r.Next(within(t, patience), 100, 0)
		require.NoError(t, err)
		for _, m := range batch {
			got = append(got, m.Seq)
		}
	}
	require.NoError(t, <-written)
	require.Equal(t, upTo(1, total), got)
}

// The server drops the reader's consumer without notice, as after a long pause.
func TestReadAfterLostConsumer(t *testing.T) {
	t.Parallel()
	js, w := serveEvents(t, 10)
	r := openReader(t, js, 1)
	require.Equal(t, upTo(1, 10), requireRead(t, r, 10))
	s, err := js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	for info := range s.ListConsumers(t.Context()).Info() {
		require.NoError(t, js.DeleteConsumer(t.Context(), stream.Posts, info.Name))
	}
	require.NoError(t, w.Append(t.Context(), numbered(11, 10)))
	require.Equal(t, upTo(11, 20), requireRead(t, r, 20))
}

// noConsumers is a server that creates no consumers while refuse is set.
type noConsumers struct {
	jetstream.JetStream
	refuse atomic.Bool
}

func (s *noConsumers) CreateConsumer(ctx context.Context, name string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	if s.refuse.Load() {
		return nil, errors.New("insufficient resources")
	}
	return s.JetStream.CreateConsumer(ctx, name, cfg) //nolint:wrapcheck // unchanged
}

// A reader that cannot get another consumer reports that, and continues once it can.
func TestLastingFailureIsReported(t *testing.T) {
	t.Parallel()
	js, w := serveEvents(t, 10)
	server := &noConsumers{JetStream: js}
	r := openReader(t, server, 1)
	requireRead(t, r, 10)
	require.NoError(t, r.Trouble())
	server.refuse.Store(true)
	s, err := js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	for info := range s.ListConsumers(t.Context()).Info() {
		require.NoError(t, js.DeleteConsumer(t.Context(), stream.Posts, info.Name))
	}
	require.NoError(t, w.Append(t.Context(), numbered(11, 10)))
	poll.Until(t, patience, func() (bool, string) { return r.Trouble() != nil, "no trouble" })
	require.ErrorContains(t, r.Trouble(), "insufficient resources")
	server.refuse.Store(false)
	require.Equal(t, upTo(11, 20), requireRead(t, r, 20))
	require.NoError(t, r.Trouble())
}

// As after a restore from an older copy.
func TestStreamReplacedByShorterOne(t *testing.T) {
	t.Parallel()
	js, _ := serveEvents(t, 10)
	r := openReader(t, js, 1)
	requireRead(t, r, 10)
	require.NoError(t, js.DeleteStream(t.Context(), stream.Posts))
	require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}))
	require.NoError(t, openWriter(t, js).Append(t.Context(), numbered(1, 5)))
	_, err := r.Next(within(t, patience), 10, 0)
	require.ErrorIs(t, err, stream.ErrBehind)
}

// A different stream that has grown past the reader's position is recognized by its message there,
// even though it holds the same events.
func TestStreamReplacedByLongerOne(t *testing.T) {
	t.Parallel()
	var dir, other string
	at := func(dir *string) natstest.Option { return natstest.With(func(o *server.Options) { *dir = o.StoreDir }) }
	s, js := serve(t, at(&dir))
	require.NoError(t, openWriter(t, js).Append(t.Context(), numbered(1, 10)))
	s2, js2 := serve(t, at(&other))
	require.NoError(t, openWriter(t, js2).Append(t.Context(), numbered(1, 20)))
	r := openReader(t, js, 1)
	requireRead(t, r, 10)
	waiting := openReader(t, js, 11) // it has read nothing
	s.Shutdown()
	s2.Shutdown()
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.Rename(other, dir))
	s.Restart(t)
	_, err := r.Next(within(t, patience), 100, 0)
	require.ErrorIs(t, err, stream.ErrReplaced)
	_, err = waiting.Next(within(t, patience), 100, 0)
	require.ErrorIs(t, err, stream.ErrReplaced)
}

func TestCloseIsPrompt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		interrupt func(s *natstest.TestServer, p *fault.Proxy)
	}{
		{"idle", func(*natstest.TestServer, *fault.Proxy) {}},
		{"server away", func(s *natstest.TestServer, _ *fault.Proxy) { s.Shutdown() }},
		{"server silent", func(_ *natstest.TestServer, p *fault.Proxy) {
			p.Hold()
			p.Break(fault.Cut)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, js := serve(t, natstest.Listen())
			p := newProxy(t, s)
			w := openWriter(t, js)
			for i := range 5 { // more than is prefetched
				require.NoError(t, w.Append(t.Context(), numbered(i*1000+1, 1000)))
			}
			idle, blocked := openReader(t, through(t, p), 5001), openReader(t, through(t, p), 1)
			requireRead(t, blocked, 1)
			waiting := make(chan error, 1)
			go func() {
				_, err := idle.Next(t.Context(), 1, time.Hour)
				waiting <- err
			}()
			c.interrupt(s, p)
			begun := time.Now()
			for _, r := range []*stream.Reader{idle, blocked} {
				r.Close()
				r.Close()
			}
			// The client holds its lock while it connects, once for each reader.
			require.Less(t, time.Since(begun), 4*nats.DefaultTimeout)
			require.ErrorContains(t, <-waiting, "closed")
		})
	}
}

func TestReaderEndsWithConnection(t *testing.T) {
	t.Parallel()
	s, _ := serve(t)
	nc := s.Conn(t)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	r := openReader(t, js, 1)
	nc.Close()
	_, err = r.Next(within(t, patience), 1, 0)
	require.Error(t, err)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
}

// It is not parallel: it looks at all goroutines.
func TestReaderLeavesNoGoroutines(t *testing.T) {
	s, js := serve(t, natstest.Listen())
	require.NoError(t, openWriter(t, js).Append(t.Context(), numbered(1, 1000)))
	for i := range 10 {
		r := openReader(t, js, 1)
		if i%2 == 0 {
			requireRead(t, r, 10)
		}
		if i == 5 {
			s.Restart(t)
		}
		r.Close()
	}
	poll.Until(t, patience, func() (bool, string) {
		var all strings.Builder
		require.NoError(t, pprof.Lookup("goroutine").WriteTo(&all, 2))
		for _, g := range strings.Split(all.String(), "\n\n") {
			if strings.Contains(g, "stream.(*Reader)") || strings.Contains(g, "jetstream.(*pullSubscription)") {
				return false, g
			}
		}
		return true, ""
	})
}

func TestReaderOutlivesOpenContext(t *testing.T) {
	t.Parallel()
	js, _ := serveEvents(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := stream.OpenReader(ctx, js, 1)
	require.NoError(t, err)
	defer r.Close()
	cancel()
	require.Equal(t, upTo(1, 3), requireRead(t, r, 3))
}
