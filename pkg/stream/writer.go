package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/tagstream/tagstream/pkg/event"
)

var (
	// ErrFenced is returned by Append when another writer has appended since.
	// Nothing of the batch was stored. The writer must stop, win the lease
	// again, and go on from a new Open.
	ErrFenced = errors.New("another writer has appended to the stream")
	// ErrFull is returned by Append when the stream or its disk has no room.
	// Nothing of the batch was stored; the same batch may be appended again
	// once an operator has made room.
	ErrFull = errors.New("the stream has no room")
)

const (
	// MaxBatch is the most messages of one atomic batch: the server's limit.
	MaxBatch = 1000
	// maxBatchBytes keeps a batch well inside what a server stages in memory.
	maxBatchBytes = 8 << 20

	writerHeader = "Tagstream-Writer"

	publishTimeout  = 10 * time.Second
	retryMin        = 100 * time.Millisecond
	retryMax        = 5 * time.Second
	payloadHeadroom = 1 << 10 // headers count towards the server's limit
)

// Writer appends events to the stream. It has one batch in flight at a time
// and must be used from one goroutine.
type Writer struct {
	js jetstream.JetStream
	id string
	// seq is the stream's last sequence as far as this writer knows: what the
	// next batch expects.
	seq     uint64
	last    event.Position
	onError func(error)
}

// OpenWriter reads where the stream ends and returns a writer that appends
// there. id must be unique to this run of the program: it is how the writer
// tells its own batches from another's after an error whose outcome is
// unknown. onError, if not nil, hears of each failed attempt that will be
// retried.
func OpenWriter(ctx context.Context, js jetstream.JetStream, id string, onError func(error)) (*Writer, error) {
	if onError == nil {
		onError = func(error) {}
	}
	w := &Writer{js: js, id: id, onError: onError}
	seq, ev, _, err := last(ctx, js)
	if err != nil {
		return nil, err
	}
	w.seq = seq
	if ev != nil {
		w.last = ev.Source
	}
	return w, nil
}

// Seq is the sequence number of the last message that the writer knows of.
func (w *Writer) Seq() uint64 { return w.seq }

// Last is the upstream position of the stream's last message, zero where the
// stream holds none: where reading upstream goes on.
func (w *Writer) Last() event.Position { return w.last }

// MaxPayload is the largest encoded event that the server takes, in bytes.
func (w *Writer) MaxPayload() int {
	return int(w.js.Conn().MaxPayload()) - payloadHeadroom
}

// Append stores events in order, in as many atomic batches as they need, and
// returns when the server has acknowledged all of them. It retries for as long
// as ctx lasts what may pass by itself: a server that is away or slow.
//
// The error is ErrFenced, ErrFull, ctx's, or that of an event that cannot be
// encoded. On ErrFull and ctx's error Seq and Last say how far it came: an
// earlier batch of the same call may be stored.
func (w *Writer) Append(ctx context.Context, events []*event.Event) error {
	var (
		msgs  []*nats.Msg
		bytes int
	)
	flush := func(upTo int) error {
		if len(msgs) == 0 {
			return nil
		}
		if err := w.appendBatch(ctx, msgs, events[upTo-1].Source); err != nil {
			return fmt.Errorf("append %d events up to upstream seq %d: %w", len(msgs), events[upTo-1].Source.Seq, err)
		}
		msgs, bytes = msgs[:0], 0
		return nil
	}
	for i, ev := range events {
		data, err := ev.Encode()
		if err != nil {
			return err
		}
		if len(msgs) == MaxBatch || bytes+len(data) > maxBatchBytes && len(msgs) > 0 {
			if err := flush(i); err != nil {
				return err
			}
		}
		// NewMsg, not a literal: a nil Header panics inside the batch client.
		msg := nats.NewMsg(Subject(ev.Kind))
		msg.Data = data
		msgs = append(msgs, msg)
		bytes += len(data)
	}
	return flush(len(events))
}

// appendBatch stores one batch or returns an error that retrying cannot mend.
//
// A crash anywhere in here leaves the stream with the whole batch or without
// it; the next OpenWriter reads which.
func (w *Writer) appendBatch(ctx context.Context, msgs []*nats.Msg, pos event.Position) error {
	delay := retryMin
	for {
		seq, err := w.publish(ctx, msgs)
		if err == nil {
			w.seq, w.last = seq, pos
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if isFull(err) {
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
		if !isWrongLastSequence(err) {
			w.onError(err)
		}
		// Failed, or failed but took effect: only the stream knows.
		stored, lookErr := w.lookBack(ctx, uint64(len(msgs)))
		switch {
		case errors.Is(lookErr, ErrFenced):
			return lookErr
		case lookErr != nil:
			w.onError(lookErr)
		case stored:
			w.last = pos
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(delay):
		}
		delay = min(2*delay, retryMax)
	}
}

// lookBack reads the stream's last message to learn what became of the one
// batch in flight. A batch whose commit is still on its way can arrive after
// this look and win; the retry then fails on its expected sequence and the
// next look finds it stored.
func (w *Writer) lookBack(ctx context.Context, n uint64) (stored bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	seq, _, writer, err := last(ctx, w.js)
	if errors.Is(err, errNotOurs) {
		return false, fmt.Errorf("%w: %w", ErrFenced, err)
	}
	if err != nil {
		return false, err
	}
	switch {
	case seq == w.seq:
		return false, nil
	case seq == w.seq+n && writer == w.id:
		w.seq = seq
		return true, nil
	}
	return false, fmt.Errorf("%w: its last sequence is %d, expected %d", ErrFenced, seq, w.seq)
}

func (w *Writer) publish(ctx context.Context, msgs []*nats.Msg) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	for i, m := range msgs {
		// Published anew on each attempt: the batch client adds its own headers.
		h := nats.Header{writerHeader: {w.id}, jetstream.ExpectedStreamHeader: {Posts}}
		if i == 0 {
			h.Set(jetstream.ExpectedLastSeqHeader, fmt.Sprint(w.seq))
		}
		m.Header = h
	}
	if len(msgs) == 1 {
		ack, err := w.js.PublishMsg(ctx, msgs[0], jetstream.WithRetryAttempts(0))
		if err != nil {
			return 0, err
		}
		return ack.Sequence, nil
	}
	ack, err := jetstreamext.PublishMsgBatch(ctx, w.js, msgs)
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

func isWrongLastSequence(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

// Error codes of the server for a stream or an account without room, which
// the client library has no names for.
const (
	errCodeStreamStoreFailed      jetstream.ErrorCode = 10077 // also "maximum bytes exceeded" under DiscardNew
	errCodeInsufficientResources  jetstream.ErrorCode = 10023
	errCodeAccountResourcesExceed jetstream.ErrorCode = 10002
	errCodeStorageResources       jetstream.ErrorCode = 10047
)

func isFull(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode {
	case errCodeStreamStoreFailed, errCodeInsufficientResources, errCodeAccountResourcesExceed, errCodeStorageResources:
		return true
	}
	return false
}
