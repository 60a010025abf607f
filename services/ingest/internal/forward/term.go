package forward

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
)

// term is one term of leadership: it waits for the lease, reads the end of the stream, and stores
// the events of the live source and of the side work, in order, one acknowledged batch after the
// other. The live source can read ahead only as far as its bounded queue allows.
func (f *Forwarder) term(ctx context.Context) error {
	if !f.js.Conn().IsConnected() {
		return nats.ErrDisconnected // without a reconnect buffer requests would fail
	}
	// Without its bucket there is no lease to wait for. Only the holder changes existing settings.
	if err := stream.Ensure(ctx, f.js, f.cfg.Stream); err != nil {
		return err
	}
	held, release, err := f.lead(ctx)
	if err != nil {
		return err
	}
	defer release()
	w, err := stream.OpenWriter(held, f.js, f.cfg.ID, func(err error) {
		f.observer.Condition(fmt.Errorf("%w: %w", ErrRetrying, err))
	})
	if err != nil {
		return err
	}
	from, err := f.resume(held, w)
	if err != nil {
		return err
	}
	f.observer.Holding(true)
	f.observer.Condition(nil)

	writing, stopWriting := finishing(held)
	defer stopWriting()
	reading, stopReading := context.WithCancel(held)
	var sources sync.WaitGroup
	defer sources.Wait()
	defer stopReading()
	live, side := newQueue(), make(chan sideWrite)
	sources.Go(func() { live.fill(reading, f.source(reading, from, w.MaxPayload())) })
	for _, work := range f.cfg.SideWork {
		sources.Go(func() { work(reading, &SideWriter{writes: side, maxPayload: w.MaxPayload()}) })
	}

	t := &tail{Forwarder: f, w: w, pos: from}
	heartbeat := time.NewTimer(f.cfg.Heartbeat)
	defer heartbeat.Stop()
	for more := true; more && held.Err() == nil; {
		ready := side
		if t.pos.IsZero() {
			ready = nil // there is no live position yet to set as Resume
		}
		var b Batch
		select {
		case <-held.Done():
		case <-heartbeat.C:
			err = t.beat(writing, len(live.batches) > 0)
			heartbeat.Reset(f.cfg.Heartbeat)
		case write := <-ready:
			err = t.storeSide(writing, write)
		case b, more = <-live.batches:
			if more && t.begun {
				b = live.gather(b)
			}
			if more {
				err = t.storeLive(writing, b)
				live.stored(b)
			}
			if len(b.Events) > 0 {
				heartbeat.Reset(f.cfg.Heartbeat)
			}
		}
		if err != nil {
			return err
		}
	}
	switch cause := context.Cause(held); {
	case errors.Is(cause, stream.ErrLeaseLost):
		return cause
	case cause == nil && live.err != nil:
		return fmt.Errorf("read upstream: %w", live.err)
	}
	if err := t.writePosition(writing); err != nil {
		f.logger.Warn("could not write the last position: events after it will be read again", "err", err)
	}
	if held.Err() != nil {
		return context.Cause(held)
	}
	return errSourceDone
}

// tail is the end of the stream that a term writes, owned by its goroutine.
type tail struct {
	*Forwarder
	w *stream.Writer
	// pos is how far upstream was read; everything up to it is in the stream.
	pos event.Position
	// saved is the last position that was stored separately. savedAt is when that was last tried.
	saved   event.Position
	savedAt time.Time
	// saveFailed reports that the last try failed, which was logged.
	saveFailed bool
	// begun reports that the first live batch was taken, and positioned that a position was
	// written.
	begun, positioned bool
	// heard reports that something was read since the last stored event or position.
	heard bool
}

// storeLive stores a batch of the live source, and a position after the first one.
func (t *tail) storeLive(ctx context.Context, b Batch) error {
	if len(b.Events) > 0 {
		if err := t.append(ctx, b.Events); err != nil {
			return err
		}
	}
	t.heard = len(b.Events) == 0
	if !b.Position.IsZero() {
		t.pos = b.Position
	}
	if !t.begun {
		t.begun = true
		return t.writePosition(ctx)
	}
	if time.Since(t.savedAt) >= t.cfg.Heartbeat {
		t.savePosition(ctx)
	}
	return nil
}

// storeSide stores events of side work, between live batches. Each carries the live position, so
// that the next term resumes there whatever message is last.
func (t *tail) storeSide(ctx context.Context, w sideWrite) error {
	live := t.pos
	for _, ev := range w.events {
		ev.Resume = &live
	}
	if len(w.events) > 0 {
		if err := t.append(ctx, w.events); err != nil {
			return err
		}
	}
	w.stored <- live
	return nil
}

// beat is called if nothing live was stored for a heartbeat. It writes the position and, if nothing
// was read and nothing waits, the end of an open #sync, which is then complete.
func (t *tail) beat(ctx context.Context, waiting bool) error {
	if !t.cfg.Reading() {
		return nil
	}
	if t.pos.Sync.DID != "" && !t.heard && !waiting {
		if err := t.append(ctx, []*event.Event{t.pos.Over()}); err != nil {
			return err
		}
		t.pos.Sync = event.OpenSync{}
	}
	t.heard = false
	return t.writePosition(ctx)
}

// append stores events. While the stream is full it retries and nothing else is read. After a crash
// in here some whole batches are stored; the next term resumes after the last.
func (t *tail) append(ctx context.Context, events []*event.Event) error {
	delay := fullRetryMin
	full := false
	for {
		before, began := t.w.Seq(), time.Now()
		err := t.w.Append(ctx, events)
		if stored := int(t.w.Seq() - before); stored > 0 {
			t.observer.Stored(events[:stored], time.Since(began))
			events = events[stored:]
		}
		if err == nil {
			if full {
				t.logger.Info("the stream has room again")
			}
			t.observer.Condition(nil)
			return nil
		}
		if !errors.Is(err, stream.ErrFull) {
			return err
		}
		if !full {
			full = true
			t.logger.Error("the stream has no room: reading waits until there is some", "err", err)
		}
		t.observer.Condition(err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("append %d events: %w", len(events), context.Cause(ctx))
		case <-time.After(delay):
		}
		delay = min(2*delay, fullRetryMax)
	}
}

// writePosition publishes how far was read, so that progress is never only in memory, and whether
// the position may be within a #sync whose end an older ingest did not write.
func (t *tail) writePosition(ctx context.Context) error {
	if t.pos.IsZero() || !t.pos.Valid() {
		return nil // one that nothing can decode would stop every later writer
	}
	sync := event.SyncOver
	if t.pos.Sync.DID != "" || !t.positioned {
		sync = event.SyncOpen
	}
	if err := t.append(ctx, []*event.Event{{V: event.Version, Kind: event.KindPosition, Source: t.pos, Sync: sync}}); err != nil {
		return err
	}
	t.positioned = true
	t.savePosition(ctx)
	return nil
}

// savePosition tries to store the position separately, out of reach of trimming. A failure or a
// crash leaves an older position, from which some events are read again.
func (t *tail) savePosition(ctx context.Context) {
	t.savedAt = time.Now()
	if t.pos == t.saved {
		return
	}
	if err := stream.PutPosition(ctx, t.js, t.pos); err != nil {
		if !t.saveFailed {
			t.saveFailed = true
			t.logger.Warn("could not store the position separately: purging the stream now would repeat or lose events", "err", err)
		}
		return
	}
	t.saved, t.saveFailed = t.pos, false
}
