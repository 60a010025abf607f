package stream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
)

var (
	// ErrFenced is returned by Append if another writer has appended to the stream. The caller must
	// stop, win the lease again, and continue with a new OpenWriter, which finds what is stored of
	// the batch: nothing, or all of it before the other writer's messages.
	ErrFenced = errors.New("another writer has appended to the stream")
	// ErrFull is returned by Append if the stream or its disk has no room. The writer's Seq says
	// how many of the events are stored; the others may be appended again once an operator has made
	// room.
	ErrFull = errors.New("the stream has no room")

	errNotEncoded = errors.New("the event cannot be encoded")
)

const (
	// MaxBatch is the most messages of one atomic batch: the server's limit.
	MaxBatch = 1000
	// maxBatchBytes keeps a batch well inside what a server stages in memory. It is approximate:
	// envelopeBytes is about what an event takes beside the parts whose size upstream chooses.
	maxBatchBytes = 8 << 20
	envelopeBytes = 512

	// batchHeader names the batch of a message: the writer's id and a random part.
	batchHeader = "Tagstream-Batch"
	// traceHeader is the W3C Trace Context header, on traced messages.
	traceHeader = "traceparent"

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
	// msg is the message being published. Publishing copies it.
	msg nats.Msg
	// seq is the stream's last sequence as far as this writer knows: the next batch expects it.
	seq      uint64
	resumeAt event.Position
	onError  func(error)
	timeout  time.Duration // of one exchange with the server
}

// OpenWriter reads the end of the stream and returns a writer that appends there. id names this run
// of the program in message headers. onError, if not nil, is called with each failed attempt that
// will be retried.
func OpenWriter(ctx context.Context, js jetstream.JetStream, id string, onError func(error)) (*Writer, error) {
	if onError == nil {
		onError = func(error) {}
	}
	w := &Writer{js: js, id: id, msg: nats.Msg{Header: nats.Header{}}, onError: onError, timeout: publishTimeout}
	end, err := readEnd(ctx, js)
	if err != nil {
		return nil, err
	}
	w.seq = end.seq
	if end.event != nil {
		w.resumeAt = end.event.ResumeAt()
	}
	return w, nil
}

// Seq returns the sequence number of the last message that the writer knows of.
func (w *Writer) Seq() uint64 { return w.seq }

// ResumeAt returns where reading upstream resumes after the stream's last message; it is zero if
// the stream is empty. If the last messages were erased, the last remaining one counts, and some
// events are read again.
func (w *Writer) ResumeAt() event.Position { return w.resumeAt }

// MaxPayload returns the largest encoded event that the server accepts, in bytes.
func (w *Writer) MaxPayload() int {
	return int(w.js.Conn().MaxPayload()) - payloadHeadroom
}

// Append stores events in order, in as many atomic batches as they need, and returns when the
// server has acknowledged all of them. It retries temporary failures until ctx ends: a server that
// is away or slow.
//
// The error is ErrFenced, ErrFull, ctx's, or that of an event that cannot be encoded or exceeds the
// server's payload limit (nats.ErrMaxPayload). Seq and ResumeAt say how far Append got. After ctx's
// error more may be stored, now or later: only a new OpenWriter can tell.
func (w *Writer) Append(ctx context.Context, events []*event.Event) error {
	for len(events) > 0 {
		n := batchLength(events)
		if err := w.appendBatch(ctx, events[:n]); err != nil {
			return fmt.Errorf("append %d events up to upstream seq %d: %w", n, events[n-1].Source.Seq, err)
		}
		events = events[n:]
	}
	return nil
}

// batchLength returns how many of the events fit one batch, at least one.
func batchLength(events []*event.Event) int {
	bytes := 0
	for i, ev := range events {
		bytes += envelopeBytes + len(ev.Record) + len(ev.CreatedAt)
		for _, tag := range ev.Tags {
			bytes += len(tag)
		}
		for _, lang := range ev.Langs {
			bytes += len(lang)
		}
		if i == MaxBatch || i > 0 && bytes > maxBatchBytes {
			return i
		}
	}
	return len(events)
}

// appendBatch stores one batch or returns an error that retrying cannot fix.
//
// After a crash anywhere in here the stream has the whole batch, nothing of it or, if the server's
// storage failed too, the front of it; the next OpenWriter reads which.
func (w *Writer) appendBatch(ctx context.Context, events []*event.Event) error {
	// Unique to the call, not to the writer: a batch that the caller gave up on may be stored much
	// later, and must not be mistaken for a later one.
	batch := w.id + "." + rand.Text()[:10]
	delay := retryMin
	for {
		seq, err := w.publish(ctx, events, batch)
		if err == nil {
			w.seq, w.resumeAt = seq, events[len(events)-1].ResumeAt()
			return nil
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case isFull(err):
			return fmt.Errorf("%w: %w", ErrFull, err)
		case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, errNotEncoded):
			return err
		case !isWrongLastSequence(err):
			w.onError(err)
		}
		// Failed, or failed but took effect: only the stream knows.
		n, lookErr := w.lookBack(ctx, batch, len(events))
		switch {
		case errors.Is(lookErr, ErrFenced):
			return lookErr
		case lookErr != nil && ctx.Err() == nil:
			w.onError(lookErr)
		case n > 0:
			w.seq, w.resumeAt = w.seq+uint64(n), events[n-1].ResumeAt()
			events = events[n:]
			if len(events) == 0 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(delay):
		}
		delay = min(2*delay, retryMax)
	}
}

// lookBack reads the stream's last message to learn how many of the n messages in flight are
// stored. A batch whose commit is still on its way can arrive after this look and win; the retry
// then fails on its expected sequence, and the next look finds it stored.
//
// A number between none and all means that the server ran out of storage in the middle of the
// commit: it keeps the front of the batch, and may store the rest when it is restarted. The retry,
// which starts after that front, then fails in the same way.
func (w *Writer) lookBack(ctx context.Context, batch string, n int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	end, err := readEnd(ctx, w.js)
	switch {
	case errors.Is(err, errNotOurs):
		return 0, fmt.Errorf("%w: %w", ErrFenced, err)
	case err != nil:
		return 0, err
	case end.seq == w.seq:
		return 0, nil
	case end.batch == batch && end.seq > w.seq && end.seq <= w.seq+uint64(n):
		return int(end.seq - w.seq), nil
	}
	return 0, fmt.Errorf("%w: its last sequence is %d, expected %d", ErrFenced, end.seq, w.seq)
}

// publish makes one attempt at storing a batch. Each event is encoded just before it is sent, while
// the server is busy with the events before it.
func (w *Writer) publish(ctx context.Context, events []*event.Event, batch string) (uint64, error) {
	// A server that does not know batches would store the messages one by one.
	if err := CheckServer(w.js.Conn()); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	name := []string{batch}
	message := func(i int) (*nats.Msg, error) {
		ev, m := events[i], &w.msg
		data, err := ev.AppendEncoded(m.Data[:0])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNotEncoded, err)
		}
		m.Subject, m.Data = Subject(ev.Kind), data
		clear(m.Header)
		m.Header[batchHeader] = name
		if ev.Traceparent != "" {
			m.Header.Set(traceHeader, ev.Traceparent)
		}
		if i == 0 { // the others are refused with it
			m.Header.Set(jetstream.ExpectedStreamHeader, Posts)
			m.Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(w.seq, 10))
		}
		return m, nil
	}
	if len(events) > 1 {
		return publishBatch(ctx, w.js.Conn(), len(events), message)
	}
	m, err := message(0)
	if err != nil {
		return 0, err
	}
	// No retries: after a failure the stream is read first.
	ack, err := w.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

func isWrongLastSequence(err error) bool {
	return isCode(err, jetstream.JSErrCodeStreamWrongLastSequence)
}

// Error codes of the server that the client library has no names for.
const (
	// No room in the stream, or no room for a stream.
	errCodeAccountResources      jetstream.ErrorCode = 10002 // the account's limit
	errCodeNoPeers               jetstream.ErrorCode = 10005 // no servers of a cluster have it
	errCodeInsufficientResources jetstream.ErrorCode = 10023 // the server's max_file_store
	errCodeStorageResources      jetstream.ErrorCode = 10047 // the same, for a reservation
	errCodeStoreFailed           jetstream.ErrorCode = 10077 // the stream's own limit, under DiscardNew
	errCodeStreamTooBig          jetstream.ErrorCode = 10122 // the account's limit of one stream
	// The account requires a size for each stream.
	errCodeSizeRequired        jetstream.ErrorCode = 10113
	errCodeReplicasUnclustered jetstream.ErrorCode = 10074 // more than one without a cluster
)

func isCode(err error, codes ...jetstream.ErrorCode) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && slices.Contains(codes, api.ErrorCode)
}

// isFull reports whether the server refused to store for lack of room. A full disk is reported only
// for a batch; a single message gets no answer.
func isFull(err error) bool {
	return errors.Is(err, errNotStaged) || isCode(err, errCodeAccountResources, errCodeInsufficientResources, errCodeStoreFailed)
}

// lacksRoom reports whether the server has no room for a stream of that size.
func lacksRoom(err error) bool {
	return isCode(err, errCodeAccountResources, errCodeNoPeers, errCodeInsufficientResources, errCodeStorageResources, errCodeStreamTooBig)
}
