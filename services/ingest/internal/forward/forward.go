// Package forward stores events in the stream. It owns the writer's term: winning the lease,
// finding in the stream where to resume, and the loop between the sources and the stream's writer
// (term.go).
//
// It promises that everything up to the stream's last position is in the stream, each event at
// most once per reading of it, and that nothing counts as read that the stream has not
// acknowledged. After a crash at any point the next run resumes after the last stored message.
//
// Without NATS it waits. Without room it stops reading, says so and tries the same batch again.
// Fenced by another writer it stops its sources and waits for the lease. It ends only with its
// context, with its live source, or on a stream that it cannot read (written by a newer version).
package forward

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
)

const (
	// lastWriteTimeout bounds the writes after the context has ended.
	lastWriteTimeout = 3 * time.Second
	// retryMin and retryMax bound the pause after a failure to start writing.
	retryMin = 500 * time.Millisecond
	retryMax = 10 * time.Second
	// fullRetryMin and fullRetryMax bound the pause while the stream is full.
	fullRetryMin = time.Second
	fullRetryMax = 30 * time.Second
)

// DefaultHeartbeat is how long after the last message a position is published.
const DefaultHeartbeat = 10 * time.Second

// Source reads upstream after from until ctx ends or there is nothing more to read. Encoded events
// must not be longer than maxPayload bytes. An error comes last.
type Source func(ctx context.Context, from event.Position, maxPayload int) iter.Seq2[Batch, error]

// Config is the configuration of a Forwarder.
type Config struct {
	// Stream has the settings of the streams that ingest creates.
	Stream stream.Config
	// ID is unique to this run of the program.
	ID string
	// Heartbeat is the interval of positions; 0 means DefaultHeartbeat.
	Heartbeat time.Duration
	// Reading reports whether upstream is being read at the moment; nil means always. While it is
	// not, no position is written: it would look like a quiet network.
	Reading func() bool
	// SideWork runs alongside the live source for as long as the lease is held.
	SideWork []func(ctx context.Context, to *SideWriter)
}

// Observer receives what happens. Its methods must not block; all are called from one goroutine.
type Observer interface {
	// Stored is called after each append, with the events that are now in the stream, one or more:
	// all from the live source or, if Resume is set, all from one SideWriter.
	Stored(events []*event.Event, took time.Duration)
	// Holding reports whether this program has the lease and writes.
	Holding(bool)
	// Condition reports what prevents writing, nil if nothing does. It is often called with the
	// same error. ErrStandingBy, ErrRetrying, stream.ErrFull and stream.ErrFenced have their own
	// meanings.
	Condition(error)
	// Gap is called if reading starts as if for the first time although it is not.
	Gap(detail string)
}

var (
	// ErrStandingBy is the condition while all is well and another program writes.
	ErrStandingBy = errors.New("standing by")
	// ErrRetrying is the condition after each failed append that will be retried.
	ErrRetrying = errors.New("append to the stream")
	// errSourceDone ends the term when the live source is finished.
	errSourceDone = errors.New("the source is done")
)

// Forwarder writes the stream.
type Forwarder struct {
	js       jetstream.JetStream
	cfg      Config
	source   Source
	logger   *slog.Logger
	observer Observer
}

// New returns a forwarder. It starts nothing.
func New(js jetstream.JetStream, cfg Config, source Source, logger *slog.Logger, observer Observer) *Forwarder {
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = DefaultHeartbeat
	}
	if cfg.Reading == nil {
		cfg.Reading = func() bool { return true }
	}
	return &Forwarder{js: js, cfg: cfg, source: source, logger: logger, observer: observer}
}

// Run writes until ctx ends or the live source is finished. In both cases it writes a last position
// and returns nil. The error is that of a stream that it must not write.
func (f *Forwarder) Run(ctx context.Context) error {
	delay := retryMin
	for {
		err := f.term(ctx)
		f.observer.Holding(false)
		switch {
		case errors.Is(err, errSourceDone), ctx.Err() != nil:
			return nil
		case errors.Is(err, event.ErrUnknownVersion), errors.Is(err, event.ErrInvalid):
			return fmt.Errorf("this program must not write after the stream's last message: %w", err)
		case errors.Is(err, stream.ErrFenced):
			f.logger.Warn("another writer has appended to the stream: waiting for the lease", "err", err)
			delay = retryMin
		case errors.Is(err, stream.ErrLeaseLost):
			delay = retryMin
		}
		f.observer.Condition(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
		delay = min(2*delay, retryMax)
	}
}

// lead waits for the writer's lease and then applies the configured settings of the streams.
func (f *Forwarder) lead(ctx context.Context) (held context.Context, release func(), err error) {
	lease := stream.NewLease(f.js, f.cfg.ID)
	lease.OnWait = func(reason string, elsewhere bool) {
		if reason == "" {
			return
		}
		err := fmt.Errorf("waiting for the writer's lease: %s", reason)
		if elsewhere {
			err = fmt.Errorf("%w: %w", ErrStandingBy, err)
		}
		f.observer.Condition(err)
	}
	held, release, err = lease.Acquire(ctx)
	if err != nil {
		return nil, nil, err
	}
	changes, err := stream.Adjust(held, f.js, f.cfg.Stream)
	for _, c := range changes {
		f.logger.Info("changed a stream's setting", "stream", c.Stream, "setting", c.Setting, "from", c.From, "to", c.To)
	}
	if err != nil {
		release()
	}
	return held, release, err
}

// resume returns where reading resumes: at the stream's last position or, if the stream was purged
// or trimmed empty, at the position stored separately. It is zero if nothing was ever read, or the
// position is unknown.
func (f *Forwarder) resume(ctx context.Context, w *stream.Writer) (event.Position, error) {
	log := f.logger.With("stream_seq", w.Seq())
	from := w.ResumeAt()
	if from.IsZero() && w.Seq() > 0 {
		var err error
		if from, err = stream.GetPosition(ctx, f.js); err != nil {
			return from, err
		}
		if from.IsZero() {
			f.observer.Gap("the stream is empty and nothing says how far was read: starting as if for the first time")
		} else {
			log.Warn("the stream is empty: continuing from the separately stored position", "time", from.Time)
		}
	}
	if from.IsZero() {
		log.Info("writing to the stream for the first time")
	} else {
		log.Info("writing to the stream", "host", from.Host, "seq", from.Seq)
	}
	return from, nil
}

// finishing returns a context for writes: a write in progress when held ends is finished, unless
// the lease is lost.
func finishing(held context.Context) (writing context.Context, stop func()) {
	writing, end := context.WithCancelCause(context.WithoutCancel(held))
	forget := context.AfterFunc(held, func() {
		if cause := context.Cause(held); errors.Is(cause, stream.ErrLeaseLost) {
			end(cause)
		} else {
			time.AfterFunc(lastWriteTimeout, func() { end(cause) })
		}
	})
	return writing, func() { forget(); end(nil) }
}
