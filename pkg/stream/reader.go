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
	// ErrTrimmed is returned by OpenReader when the message to start with was
	// trimmed away, and by Next when the stream was trimmed faster than it was
	// read: reading on would skip events silently.
	ErrTrimmed = errors.New("the stream no longer has the message to start with")
	// ErrBehind is returned by OpenReader when the stream ends before the
	// message that precedes the start: it was restored from an older copy, or
	// it is another stream. Next returns it where that happened meanwhile.
	ErrBehind = errors.New("the stream ends before the position to start at")
	// ErrReplaced is returned by CheckSource when the stream holds another
	// message than the one that was read there before: it is another stream. Next
	// returns it where that happened meanwhile.
	ErrReplaced = errors.New("the stream holds another message where reading ended before")
)

// Message is one stored message of the stream.
type Message struct {
	Seq  uint64
	Data []byte
	// Traceparent is the trace that the message is part of (event.Event).
	Traceparent string

	// What Data says, where a reader has decoded it, while another batch is being worked on.
	event *event.Event
	err   error
}

// Event decodes the message, as event.Decode does. It must not be changed.
func (m Message) Event() (*event.Event, error) {
	if m.event != nil || m.err != nil {
		return m.event, m.err
	}
	return event.Decode(m.Data)
}

// What a reader holds in memory at most, between what it asks the server for
// and what one call of Next returns.
const (
	readAheadBytes = 128 << 20 // for messages as big as the server takes them
	readAheadMin   = 32        // messages, however big
	readAheadMax   = 512       // messages, however small
	nextMaxBytes   = 8 << 20   // Next ends a batch that has become this big
	// What waits for Next besides, by the bytes that the messages have: about a batch, so that one
	// is read while another is written.
	queueBytes    = 4 << 20
	queueMessages = 3072
)

// tipWait is how long Next waits for more behind the stream's last message: of many that come at
// once the first ones wait longer for the write before than for one another.
const tipWait = time.Millisecond

const (
	// readPull is how long one request for messages stands, and readHeartbeat
	// how often the server says that it still does: a consumer that is silent
	// for two of them is recreated.
	readPull      = 10 * time.Second
	readHeartbeat = 2 * time.Second
	// readStall is how long a consumer may give nothing until it is looked whether
	// there is something; longer than silence is noticed.
	readStall = 5 * time.Second
	// readInactive is how long the server keeps a consumer without requests.
	readInactive = time.Minute
	readTimeout  = 5 * time.Second
	readRetryMin = 50 * time.Millisecond
	readRetryMax = 2 * time.Second
)

// Reader reads the stream in order from a sequence number, with a bounded
// number of messages in memory: when they are not taken, it stops asking.
//
// A server that is away is waited for, and the reading continues behind the last
// message. No message comes twice, none is left out but those that were erased
// one by one.
type Reader struct {
	js       jetstream.JetStream
	messages chan message
	room     *semaphore.Weighted // what the messages in the queue take of queueBytes
	done     chan struct{}
	err      error // set before done is closed
	stop     context.CancelFunc
	trouble  atomic.Pointer[error]
	batch    []message // read and not yet returned; of Next's goroutine
	// last is the newest message read, or the one before the first to read, and
	// when the server stored it, which tells it from any other at its number; 0
	// where that one is not there. Of read's goroutine.
	last   uint64
	stored time.Time
}

// message is one that was read, with the first sequence number that is missing
// before it, 0 where none is.
type message struct {
	Message
	missing uint64
	// tip says that it was the stream's last one when the server sent it.
	tip bool
}

// weight is what the message takes of queueBytes. One that is over it passes alone.
func (m message) weight() int64 { return min(int64(len(m.Data)), queueBytes) }

// OpenReader starts to read at sequence number start (the checkpoint plus
// one), 1 or more. The error wraps ErrTrimmed, ErrBehind, or the server's own.
func OpenReader(ctx context.Context, js jetstream.JetStream, start uint64) (*Reader, error) {
	cons, err := openConsumer(ctx, js, start)
	if err != nil {
		return nil, err
	}
	r := &Reader{js: js, messages: make(chan message, queueMessages), room: semaphore.NewWeighted(queueBytes), done: make(chan struct{})}
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

// openConsumer checks that nothing between start and the stream's end is
// missing, and makes the server's side of reading it. The server forgets it
// when it is not used, or restarts.
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

// read reads from next on until ctx ends or the stream no longer has what
// follows. Whatever else becomes of a consumer, another continues where it
// stopped.
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

// checkLast checks that the stream still has the message that was read last (the
// one before the start, where none was yet), or has erased it: one that was made
// again or restored unobserved may have grown past it since.
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

// consume passes on what a consumer delivers until that breaks off, and returns
// the sequence number to continue with.
func (r *Reader) consume(ctx context.Context, connected <-chan nats.Status, cons jetstream.Consumer, next uint64) uint64 {
	// Not the client's own limit of bytes: it lets messages get lost.
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
		// A consumer does not outlive its server: do not wait to miss it.
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
		// A message that got lost on its way shows in the consumer's numbers.
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

// await returns the consumer's next message. A consumer that gives none although
// the stream had one when it was last looked at, and still has it, stands still:
// one of a cluster may, and says all the time that it is alive.
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
				return nil, fmt.Errorf("read %s at %d: the consumer stands still", Posts, next)
			}
			owed = true
		}
	}
}

// Trouble returns why the reader cannot read at the moment, nil while it can: it
// keeps trying, and Next does not tell. It may be called from any goroutine.
func (r *Reader) Trouble() error {
	if err := r.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Next waits for a message and returns it with those that follow within wait, or are there already
// where one was the stream's last, at most limit of them and a few megabytes. It returns ctx's error, ErrTrimmed,
// ErrBehind or ErrReplaced, or why the reader ended otherwise. It must be called from one
// goroutine.
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
	r.batch = nil
	return batch, nil
}

// gather fills r.batch.
func (r *Reader) gather(ctx context.Context, limit int, wait time.Duration) error {
	bytes := 0
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

// checkMissing tells messages that were erased one by one, which is meant, from
// a beginning that was trimmed off before it was read: a stream that begins
// before the first message missing was not trimmed up to there.
//
// A deadline of ctx's is for waiting for messages. Where there are some, a server
// that answers slowly must not keep them back indefinitely.
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

// Close stops reading. It waits for nothing from the server, but may have to wait
// until the client gives up an attempt to connect (nats.Timeout, 2 s where nothing
// else is set). It may be called more than once.
func (r *Reader) Close() {
	r.stop()
	<-r.done
}
