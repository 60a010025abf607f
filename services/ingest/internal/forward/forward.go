// Package forward owns the way into the stream: it wins the writer's lease,
// reads from the stream where to go on, and appends what it is given, in
// order, one acknowledged batch after the other.
//
// What it promises: everything up to the stream's last position is in the
// stream, each event at most once per reading of it; nothing is taken as read
// that the stream has not acknowledged. A crash at any point leaves whole
// batches, and the next run goes on behind the last of them.
//
// A job (Config.Job) can have events of another history stored between the live ones (Past):
// there is one writer, and it marks them with its own position.
//
// How it fails: without NATS it waits; without room it stops reading, says so
// and tries the same batch again; fenced by another writer it stops the source
// and waits for the lease. It ends only with its context, with its source, or
// on a stream that it cannot read (written by a newer version).
package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
)

const (
	// queue is how many batches of the source may wait: a full batch of the stream, also
	// where each has one event.
	queue = stream.MaxBatch
	// queueBytes is how much all of them together may take in memory.
	queueBytes = 16 << 20
	// lastWriteTimeout bounds the writes after the context has ended.
	lastWriteTimeout = 3 * time.Second
	// retryMin and retryMax bound the pause after a failure to start writing.
	retryMin = 500 * time.Millisecond
	retryMax = 10 * time.Second
	// fullRetryMin and fullRetryMax bound the pause while the stream is full.
	fullRetryMin = time.Second
	fullRetryMax = 30 * time.Second
)

// DefaultHeartbeat is how long nothing may be published before a position is.
const DefaultHeartbeat = 10 * time.Second

// Batch is what the source gives: events, and how far upstream was read with
// them. Both may be empty.
type Batch struct {
	Events   []*event.Event
	Position event.Position
	// weight is what the batch takes of queueBytes.
	weight int64
}

// weigh returns about how much memory the batch takes. One that is over the
// limit by itself passes when nothing else is there.
func (b Batch) weigh() int64 {
	n := 0
	for _, e := range b.Events {
		n += eventBytes + len(e.Record)
	}
	return int64(min(n, queueBytes))
}

// eventBytes is about what an event takes without its record.
const eventBytes = 512

// Source reads upstream behind from and gives batches to emit until ctx ends.
// An event must not be longer than maxPayload bytes when encoded. It returns
// nil when there is nothing more to read.
type Source func(ctx context.Context, from event.Position, maxPayload int, emit func(context.Context, Batch) error) error

// Config is how to write.
type Config struct {
	// Stream is what ingest creates.
	Stream stream.Config
	// ID is unique to this run of the program.
	ID string
	// Heartbeat; 0 means DefaultHeartbeat.
	Heartbeat time.Duration
	// Reading says whether upstream is being read right now; nil means always.
	// While it is not, no position is written: it would look like a quiet
	// network.
	Reading func() bool
	// Job, if set, runs beside the source for as long as the lease is held.
	Job func(ctx context.Context, to *Past)
}

// Hooks hear of what happens. All may be nil; none may block.
type Hooks struct {
	// Published is called after each append, with the events in the stream.
	Published func(events []*event.Event, took time.Duration)
	// Past is called likewise with the events of a job.
	Past func(events []*event.Event, took time.Duration)
	// Holding says whether this program has the lease and writes.
	Holding func(bool)
	// Condition tells what stands in the way of writing, nil when nothing does.
	Condition func(error)
	// Fenced is called when another writer was there first.
	Fenced func(error)
	// Full is called when the stream has no room, and when it has again.
	Full func(bool)
	// Gap is called where reading goes on as if for the first time though it was not.
	Gap func(detail string)
	// Retry is called for each failed attempt to append that is tried again.
	Retry func(error)
}

// Forwarder writes the stream.
type Forwarder struct {
	js     jetstream.JetStream
	cfg    Config
	source Source
	logger *slog.Logger
	hooks  Hooks
}

// New returns a forwarder. It starts nothing.
func New(js jetstream.JetStream, cfg Config, source Source, logger *slog.Logger, hooks Hooks) *Forwarder {
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = DefaultHeartbeat
	}
	return &Forwarder{js: js, cfg: cfg, source: source, logger: logger, hooks: hooks.withDefaults()}
}

func (h Hooks) withDefaults() Hooks {
	if h.Published == nil {
		h.Published = func([]*event.Event, time.Duration) {}
	}
	if h.Past == nil {
		h.Past = func([]*event.Event, time.Duration) {}
	}
	if h.Holding == nil {
		h.Holding = func(bool) {}
	}
	if h.Condition == nil {
		h.Condition = func(error) {}
	}
	if h.Fenced == nil {
		h.Fenced = func(error) {}
	}
	if h.Full == nil {
		h.Full = func(bool) {}
	}
	if h.Gap == nil {
		h.Gap = func(string) {}
	}
	if h.Retry == nil {
		h.Retry = func(error) {}
	}
	return h
}

// ErrStandingBy is the condition while all is well and another program writes.
var ErrStandingBy = errors.New("standing by")

// errSourceDone ends the lease's holding when the source has nothing more.
var errSourceDone = errors.New("the source is done")

// Run writes until ctx ends (it returns nil after a last position) or the
// source is done (nil). The error is that of a stream that it must not write.
func (f *Forwarder) Run(ctx context.Context) error {
	delay := retryMin
	for {
		err := f.hold(ctx)
		f.hooks.Holding(false)
		switch {
		case errors.Is(err, errSourceDone):
			return nil
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, stream.ErrFenced):
			f.logger.Warn("another writer has appended to the stream: waiting for the lease", "err", err)
			f.hooks.Fenced(err)
			f.hooks.Condition(err)
			delay = retryMin
		case errors.Is(err, stream.ErrLeaseLost):
			f.hooks.Condition(err)
			delay = retryMin
		case errors.Is(err, event.ErrUnknownVersion), errors.Is(err, event.ErrInvalid):
			return fmt.Errorf("this program must not write after the stream's last message: %w", err)
		default:
			f.hooks.Condition(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
		delay = min(2*delay, retryMax)
	}
}

// hold waits for the lease and writes for as long as it is held.
func (f *Forwarder) hold(ctx context.Context) error {
	if !f.js.Conn().IsConnected() {
		return nats.ErrDisconnected // else requests fail for want of a buffer
	}
	// Without its bucket there is no lease to wait for. What is there already is
	// changed by who has the lease.
	if err := stream.Ensure(ctx, f.js, f.cfg.Stream); err != nil {
		return err
	}
	lease := stream.NewLease(f.js, f.cfg.ID)
	lease.OnWait = func(reason string, elsewhere bool) {
		if reason == "" {
			return
		}
		err := fmt.Errorf("waiting for the writer's lease: %s", reason)
		if elsewhere {
			err = fmt.Errorf("%w: %w", ErrStandingBy, err)
		}
		f.hooks.Condition(err)
	}
	held, release, err := lease.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	return f.write(held)
}

// write is one term: from reading where the stream ends to the last position.
func (f *Forwarder) write(held context.Context) error {
	changes, err := stream.Adjust(held, f.js, f.cfg.Stream)
	for _, c := range changes {
		f.logger.Info("changed a stream's setting", "stream", c.Stream, "setting", c.Setting, "from", c.From, "to", c.To)
	}
	if err != nil {
		return err
	}
	w, err := stream.OpenWriter(held, f.js, f.cfg.ID, func(err error) {
		f.hooks.Retry(err)
		f.hooks.Condition(fmt.Errorf("append to the stream: %w", err))
	})
	if err != nil {
		return err
	}
	from, err := f.resume(held, w)
	if err != nil {
		return err
	}
	f.hooks.Holding(true)
	f.hooks.Condition(nil)
	if log := f.logger.With("stream_seq", w.Seq()); from.IsZero() {
		log.Info("writing to the stream for the first time")
	} else {
		log.Info("writing to the stream", "host", from.Host, "seq", from.Seq)
	}

	// A write under way when ctx ends is finished, unless the lease is lost.
	writing, stop := context.WithCancelCause(context.WithoutCancel(held))
	defer stop(nil)
	defer context.AfterFunc(held, func() {
		if cause := context.Cause(held); errors.Is(cause, stream.ErrLeaseLost) {
			stop(cause)
		} else {
			time.AfterFunc(lastWriteTimeout, func() { stop(cause) })
		}
	})()

	reading, stopSource := context.WithCancelCause(held)
	batches := make(chan Batch, queue)
	room := semaphore.NewWeighted(queueBytes)
	var sourceErr error // of the goroutine until batches is closed
	var running sync.WaitGroup
	running.Go(func() {
		defer close(batches)
		sourceErr = f.source(reading, from, w.MaxPayload(), func(ctx context.Context, b Batch) error {
			b.weight = b.weigh()
			if err := room.Acquire(ctx, b.weight); err != nil {
				return context.Cause(ctx)
			}
			select {
			case batches <- b:
				return nil // pump gives the room back
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
	defer running.Wait()
	defer stopSource(nil)

	t := &term{Forwarder: f, w: w, pos: from, room: room, past: make(chan pastRequest)}
	if f.cfg.Job != nil {
		running.Go(func() { f.cfg.Job(reading, &Past{requests: t.past, maxPayload: w.MaxPayload()}) })
	}
	if err := t.pump(held, writing, batches); err != nil {
		return err
	}
	if held.Err() == nil {
		// The source ended by itself: batches is closed.
		if sourceErr != nil {
			return fmt.Errorf("read upstream: %w", sourceErr)
		}
	} else if cause := context.Cause(held); errors.Is(cause, stream.ErrLeaseLost) {
		return cause
	}
	if err := t.putPosition(writing); err != nil {
		f.logger.Warn("could not write the last position: events after it will be read again", "err", err)
	}
	if held.Err() != nil {
		return context.Cause(held)
	}
	return errSourceDone
}

// resume returns where reading goes on: at the stream's last position or, where it
// was purged or trimmed empty, at the one that was kept beside it. It is zero where
// nothing was ever read, or nothing says how far.
func (f *Forwarder) resume(ctx context.Context, w *stream.Writer) (event.Position, error) {
	if !w.Last().IsZero() || w.Seq() == 0 {
		return w.Last(), nil
	}
	from, err := stream.GetPosition(ctx, f.js)
	if err != nil {
		return from, err
	}
	if from.IsZero() {
		f.hooks.Gap("the stream is empty and nothing says how far was read: starting as if for the first time")
		return from, nil
	}
	f.logger.Warn("the stream is empty: continuing from the position stored beside it", "stream_seq", w.Seq(), "time", from.Time)
	return from, nil
}
