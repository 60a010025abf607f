package stream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"

	"github.com/tagstream/tagstream/pkg/event"
)

var (
	// ErrTrimmed is returned by OpenReader if the message to start with was trimmed, and by Next if
	// the stream was trimmed faster than it was read. Continuing would skip events silently.
	ErrTrimmed = errors.New("the stream no longer has the message to start with")
	// ErrBehind is returned by OpenReader if the stream ends before the message that precedes the
	// start: it was restored from an older copy, or is another stream. Next returns it if that
	// happens while reading.
	ErrBehind = errors.New("the stream ends before the position to start at")
	// ErrReplaced is returned by CheckSource if the stream holds a different message than the one
	// that was read at that number: it is another stream. Next returns it if that happens while
	// reading.
	ErrReplaced = errors.New("the stream holds another message where reading ended before")
)

// Message is one stored message of the stream.
type Message struct {
	Seq  uint64
	Data []byte
	// Traceparent is the trace that the message is part of (event.Event).
	Traceparent string

	// The decoded Data, if a reader has decoded it already, while another batch was in work.
	event *event.Event
	err   error
}

// Event decodes the message, as event.Decode does. The caller must not change the event.
func (m Message) Event() (*event.Event, error) {
	if m.event != nil || m.err != nil {
		return m.event, m.err
	}
	return event.Decode(m.Data)
}

// ReadAhead is how many messages wait for Next at most.
const ReadAhead = 4096

// The most that a reader holds in memory, between what it requests from the server and what one
// call of Next returns.
const (
	readAheadBytes = 128 << 20 // for messages as big as the server takes them
	readAheadMin   = 32        // messages, however big
	readAheadMax   = 512       // messages, however small
	nextMaxBytes   = 8 << 20   // Next ends a batch that has become this big
	// queueBytes and ReadAhead bound what waits for Next in addition: one batch, so that it is read
	// while another is written. A larger batch would wait for the rest.
	queueBytes = 4 << 20
)

// How long Next waits for more after the stream's last message: the least for one that comes alone,
// and in a burst as long as the caller took with the previous batch, up to the most. Each batch has
// a fixed cost: a caller that waits is busy half of the time, not all of it.
const (
	tipWaitMin = time.Millisecond
	tipWaitMax = 20 * time.Millisecond
)

const (
	// readPull is how long one request for messages lasts, and readHeartbeat how often the server
	// confirms it: a consumer that misses two heartbeats is recreated.
	readPull      = 10 * time.Second
	readHeartbeat = 2 * time.Second
	// readStall is how long a consumer may deliver nothing before the reader checks whether there
	// are messages. It is longer than the detection of missed heartbeats.
	readStall = 5 * time.Second
	// readInactive is how long the server keeps a consumer without requests.
	readInactive = time.Minute
	readTimeout  = 5 * time.Second
	readRetryMin = 50 * time.Millisecond
	readRetryMax = 2 * time.Second
)

// Reader reads the stream in order from a sequence number, with a bounded number of messages in
// memory: if they are not taken, it stops requesting more.
//
// It waits for a server that is away, then continues after the last message. It returns every
// message exactly once, except those that were erased one by one.
type Reader struct {
	js       jetstream.JetStream
	messages chan message
	room     *semaphore.Weighted // what the messages in the queue take of queueBytes
	done     chan struct{}
	err      error // set before done is closed
	stop     context.CancelFunc
	trouble  atomic.Pointer[error]
	batch    []message // read and not yet returned; of Next's goroutine
	returned time.Time // when Next returned last; of its goroutine
	// last is the newest message read, or the one before the first to read; 0 if that message
	// does not exist. stored is when the server stored it, which distinguishes it from any other
	// message at its number. Both belong to read's goroutine.
	last   uint64
	stored time.Time
}

// message is a message that was read, with the first missing sequence number before it, or 0.
type message struct {
	Message
	missing uint64
	// tip reports that it was the stream's last message when the server sent it.
	tip bool
}

// weight is the message's share of queueBytes. A message that is larger than that passes alone.
func (m message) weight() int64 { return min(int64(len(m.Data)), queueBytes) }

// OpenReader starts to read at sequence number start (the checkpoint plus one), 1 or more. The
// error wraps ErrTrimmed, ErrBehind, or the server's.
func OpenReader(ctx context.Context, js jetstream.JetStream, start uint64) (*Reader, error) {
	cons, err := openConsumer(ctx, js, start)
	if err != nil {
		return nil, err
	}
	r := &Reader{js: js, messages: make(chan message, ReadAhead), room: semaphore.NewWeighted(queueBytes), done: make(chan struct{})}
	if start > 1 {
		before, err := GetMessage(ctx, js, start-1)
		if err != nil {
			return nil, err
		}
		if before != nil {
			r.last, r.stored = before.Sequence, before.Time
		}
	}
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	r.stop = stop
	go func() {
		defer close(r.done)
		r.err = r.read(reading, cons, start)
	}()
	return r, nil
}

// openConsumer checks that nothing between start and the stream's end is missing, and creates the
// consumer on the server. The server drops it if it is unused, or when the server restarts.
func openConsumer(ctx context.Context, js jetstream.JetStream, start uint64) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	st, err := GetState(ctx, js)
	if err != nil {
		return nil, err
	}
	if start < st.First {
		return nil, fmt.Errorf("%w: wanted %d, the first is %d", ErrTrimmed, start, st.First)
	}
	if start > st.Last+1 {
		return nil, fmt.Errorf("%w: wanted %d, the last is %d", ErrBehind, start, st.Last)
	}
	cons, err := js.CreateConsumer(ctx, Posts, jetstream.ConsumerConfig{
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       start,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: readInactive,
	})
	if err != nil {
		return nil, fmt.Errorf("read %s from %d: %w", Posts, start, err)
	}
	return cons, nil
}

// read reads from next until ctx ends or the stream no longer has the next message. After any other
// failure of a consumer, another one continues at the same place.
func (r *Reader) read(ctx context.Context, cons jetstream.Consumer, next uint64) error {
	conn := r.js.Conn()
	connected := conn.StatusChanged(nats.CONNECTED)
	defer conn.RemoveStatusListener(connected)
	for {
		next = r.consume(ctx, connected, cons, next)
		delay := readRetryMin
		for {
			select {
			case <-ctx.Done():
				return fmt.Errorf("read %s at %d: the reader was closed", Posts, next)
			case <-connected:
			case <-time.After(delay):
			}
			var err error
			if cons, err = openConsumer(ctx, r.js, next); err == nil {
				err = r.checkLast(ctx)
			}
			if err == nil {
				r.trouble.Store(nil)
				break
			}
			r.trouble.Store(&err)
			if errors.Is(err, ErrTrimmed) || errors.Is(err, ErrBehind) || errors.Is(err, ErrReplaced) || conn.IsClosed() {
				return err
			}
			delay = min(2*delay, readRetryMax)
		}
	}
}

// checkLast checks that the stream still has the last message that was read (or the one before the
// start), or has erased it. A stream that was recreated or restored unnoticed may have grown past
// it.
func (r *Reader) checkLast(ctx context.Context) error {
	if r.last == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	msg, err := GetMessage(ctx, r.js, r.last)
	if err != nil || msg == nil || msg.Time.Equal(r.stored) {
		return err
	}
	return fmt.Errorf("%w: message %d was stored at %s, not at %s", ErrReplaced, r.last,
		msg.Time.Format(time.RFC3339Nano), r.stored.Format(time.RFC3339Nano))
}

// consume passes on the messages of a consumer until the consumer fails, and returns the sequence
// number to continue with.
func (r *Reader) consume(ctx context.Context, connected <-chan nats.Status, cons jetstream.Consumer, next uint64) uint64 {
	// The client's own limit in bytes is not used: it loses messages.
	ahead := readAheadBytes / max(r.js.Conn().MaxPayload(), 1)
	it, err := cons.Messages(
		jetstream.PullMaxMessages(min(max(ahead, readAheadMin), readAheadMax)),
		jetstream.PullExpiry(readPull), jetstream.PullHeartbeat(readHeartbeat),
		jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return next
	}
	defer it.Stop()
	ctx, end := context.WithCancel(ctx)
	defer end()
	go func() {
		// A consumer does not survive a restart of its server: do not wait for missed heartbeats.
		select {
		case <-connected:
			end()
		case <-ctx.Done():
		}
	}()
	for delivered := uint64(1); ; delivered++ {
		msg, err := r.await(ctx, it, next)
		if err != nil {
			return next
		}
		meta, err := msg.Metadata()
		// The consumer's numbers reveal a message that was lost on the way.
		if err != nil || meta.Sequence.Consumer != delivered || meta.Sequence.Stream < next {
			return next
		}
		m := message{Message: Message{Seq: meta.Sequence.Stream, Data: msg.Data(), Traceparent: msg.Headers().Get(traceHeader)},
			tip: meta.NumPending == 0}
		m.event, m.err = event.Decode(m.Data)
		if m.Seq > next {
			m.missing = next
		}
		if r.room.Acquire(ctx, m.weight()) != nil {
			return next
		}
		select {
		case r.messages <- m:
			next = m.Seq + 1
			r.last, r.stored = m.Seq, meta.Timestamp
		case <-ctx.Done():
			r.room.Release(m.weight())
			return next
		}
	}
}

// await returns the consumer's next message. It gives up on a consumer that delivers nothing
// although the stream had a message at the last check and still has it: a consumer in a cluster may
// stall while its heartbeats continue.
func (r *Reader) await(ctx context.Context, it jetstream.MessagesContext, next uint64) (jetstream.Msg, error) {
	for owed := false; ; {
		wait, cancel := context.WithTimeout(ctx, readStall)
		msg, err := it.Next(jetstream.NextContext(wait))
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return msg, err
		}
		look, cancel := context.WithTimeout(ctx, readTimeout)
		st, err := GetState(look, r.js)
		cancel()
		if err == nil && st.Last >= next {
			if owed {
				return nil, fmt.Errorf("read %s at %d: the consumer is stalled", Posts, next)
			}
			owed = true
		}
	}
}

// Trouble returns why the reader cannot read at the moment, or nil: it keeps trying, and Next does
// not report it. Trouble may be called from any goroutine.
func (r *Reader) Trouble() error {
	if err := r.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Next waits for a message and returns it with those that arrive within wait, at most limit
// messages and a few megabytes. At the stream's last message it returns at once with what is there.
// It returns ctx's error, ErrTrimmed, ErrBehind or ErrReplaced, or another reason why the reader
// ended. It must be called from one goroutine.
func (r *Reader) Next(ctx context.Context, limit int, wait time.Duration) ([]Message, error) {
	if len(r.batch) == 0 {
		if err := r.gather(ctx, limit, wait); err != nil {
			return nil, err
		}
	}
	if err := r.checkMissing(ctx); err != nil {
		return nil, err // and the batch waits for the next call
	}
	batch := make([]Message, len(r.batch))
	for i, m := range r.batch {
		batch[i] = m.Message
	}
	r.batch, r.returned = nil, time.Now()
	return batch, nil
}

// gather fills r.batch.
func (r *Reader) gather(ctx context.Context, limit int, wait time.Duration) error {
	bytes := 0
	tipWait := tipWaitMin
	if busy := time.Since(r.returned); len(r.messages) > 1 {
		tipWait = min(max(tipWait, busy), tipWaitMax)
	}
	take := func(m message) {
		r.room.Release(m.weight())
		r.batch = append(r.batch, m)
		bytes += len(m.Data)
	}
	select {
	case m := <-r.messages:
		take(m)
	default: // what was read comes before the reader's end
		select {
		case m := <-r.messages:
			take(m)
		case <-r.done:
			return r.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	begun := time.Now()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for atTip := false; len(r.batch) < limit && bytes < nextMaxBytes; {
		if !atTip && r.batch[len(r.batch)-1].tip {
			atTip = true
			timer.Reset(max(0, min(tipWait, wait-time.Since(begun))))
		}
		select {
		case m := <-r.messages:
			take(m)
		case <-timer.C:
			return nil
		case <-r.done:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// checkMissing distinguishes messages that were erased one by one, which is intended, from a
// beginning that was trimmed before it was read: a stream that starts before the first missing
// message was not trimmed up to there.
//
// A deadline of ctx limits the wait for messages. It does not apply here, because messages that are
// already read must not wait indefinitely for a slow server.
func (r *Reader) checkMissing(ctx context.Context) error {
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			cancel()
		}
	})()
	for _, m := range r.batch {
		if m.missing == 0 {
			continue
		}
		st, err := GetState(look, r.js)
		if err != nil {
			return err
		}
		if st.First > m.missing {
			return fmt.Errorf("%w: wanted %d, the first is %d", ErrTrimmed, m.missing, st.First)
		}
		break // the later ones too
	}
	return nil
}

// Close stops reading. It does not wait for the server, but may wait until the client gives up an
// attempt to connect (nats.Timeout, 2 s by default). It may be called more than once.
func (r *Reader) Close() {
	r.stop()
	<-r.done
}
