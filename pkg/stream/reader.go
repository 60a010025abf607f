package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

var (
	// ErrTrimmed is returned by OpenReader when the message to start with was
	// trimmed away: reading on would skip events silently.
	ErrTrimmed = errors.New("the stream no longer has the message to start with")
	// ErrBehind is returned by OpenReader when the stream ends before the
	// message that precedes the start: it was restored from an older copy, or
	// it is another stream.
	ErrBehind = errors.New("the stream ends before the position to start at")
)

// Message is one stored message of the stream.
type Message struct {
	Seq  uint64
	Data []byte
}

const readerBuffer = 1024 // messages that wait in memory between stream and indexer

// Reader reads the stream in order from a sequence number, with a bounded
// number of messages in memory: when nobody takes them, it stops asking.
type Reader struct {
	messages chan Message
	done     chan struct{}
	err      error // set before done is closed
	stop     func()
}

// OpenReader starts to read at sequence number start (the checkpoint plus
// one). The error wraps ErrTrimmed, ErrBehind, or the server's own.
func OpenReader(ctx context.Context, js jetstream.JetStream, start uint64) (*Reader, error) {
	st, err := GetState(ctx, js)
	if err != nil {
		return nil, err
	}
	if start < st.First && start <= st.Last {
		return nil, fmt.Errorf("%w: wanted %d, the first is %d", ErrTrimmed, start, st.First)
	}
	if start > st.Last+1 {
		return nil, fmt.Errorf("%w: wanted %d, the last is %d", ErrBehind, start, st.Last)
	}
	cons, err := js.OrderedConsumer(ctx, Posts, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   start,
	})
	if err != nil {
		return nil, fmt.Errorf("read %s from %d: %w", Posts, start, err)
	}
	it, err := cons.Messages(jetstream.PullMaxMessages(readerBuffer / 2))
	if err != nil {
		return nil, fmt.Errorf("read %s from %d: %w", Posts, start, err)
	}
	r := &Reader{messages: make(chan Message, readerBuffer), done: make(chan struct{})}
	quit, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.stop = func() { cancel(); it.Stop() }
	go func() {
		defer close(r.done)
		defer it.Stop()
		r.err = pump(quit, it, start, r.messages)
	}()
	return r, nil
}

func pump(ctx context.Context, it jetstream.MessagesContext, next uint64, out chan<- Message) error {
	for {
		msg, err := it.Next()
		if err != nil {
			return fmt.Errorf("read %s at %d: %w", Posts, next, err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("read %s at %d: %w", Posts, next, err)
		}
		// The ordered consumer never goes back. It may go forward where
		// messages were erased one by one, which is meant.
		if meta.Sequence.Stream < next {
			return fmt.Errorf("read %s: got message %d after %d", Posts, meta.Sequence.Stream, next-1)
		}
		next = meta.Sequence.Stream + 1
		select {
		case out <- Message{Seq: meta.Sequence.Stream, Data: msg.Data()}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Next waits for a message and returns it with those that follow within wait,
// at most limit. It returns ctx's error, or why reading ended: the caller then
// opens a new reader.
func (r *Reader) Next(ctx context.Context, limit int, wait time.Duration) ([]Message, error) {
	var batch []Message
	select {
	case m := <-r.messages:
		batch = append(batch, m)
	case <-r.done:
		// What was read before the end is still good.
		select {
		case m := <-r.messages:
			batch = append(batch, m)
		default:
			return nil, r.err
		}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for len(batch) < limit {
		select {
		case m := <-r.messages:
			batch = append(batch, m)
		case <-timer.C:
			return batch, nil
		case <-r.done:
			return batch, nil
		case <-ctx.Done():
			return batch, nil
		}
	}
	return batch, nil
}

// Close stops reading. It may be called more than once.
func (r *Reader) Close() {
	r.stop()
	<-r.done
}
