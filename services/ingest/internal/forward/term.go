package forward

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
)

// term is the state of one holding of the lease, owned by its goroutine.
type term struct {
	*Forwarder
	w *stream.Writer
	// pos is how far upstream was read, as far as everything up to there is in
	// the stream.
	pos event.Position
	// kept is the position that was kept beside the stream last, and keptAt when.
	kept   event.Position
	keptAt time.Time
	unkept bool // it could not be kept, and that was said
	// begun says that the first batch was taken, and told that a position was written.
	begun, told bool
	// room is what the batches that wait take of queueBytes.
	room *semaphore.Weighted
	// past are the events that a job has to be stored.
	past chan pastRequest
	// heard says that something was read since the last event that was stored, or
	// the last position.
	heard bool
}

// pump appends batches until the channel is closed or held ends, and returns
// what keeps it from going on. It reads on only when the stream has
// acknowledged what was read before.
func (t *term) pump(held, writing context.Context, batches <-chan Batch) error {
	heartbeat := time.NewTimer(t.cfg.Heartbeat)
	defer heartbeat.Stop()
	for {
		past := t.past
		if t.pos.IsZero() {
			past = nil // there is no position yet to mark its events with
		}
		select {
		case <-held.Done():
			return nil
		case <-heartbeat.C:
			if t.cfg.Reading == nil || t.cfg.Reading() {
				if t.pos.Sync.DID != "" && !t.heard && len(batches) == 0 { // nothing for so long: it is complete
					if err := t.append(writing, []*event.Event{t.pos.Over()}, t.hooks.Published); err != nil {
						return err
					}
					t.pos.Sync = event.OpenSync{}
				}
				t.heard = false
				if err := t.putPosition(writing); err != nil {
					return err
				}
			}
			heartbeat.Reset(t.cfg.Heartbeat)
		case p := <-past:
			if err := t.store(writing, p); err != nil {
				return err
			}
		case b, more := <-batches:
			if !more {
				return nil
			}
			if t.begun {
				b = t.gather(b, batches)
			}
			if len(b.Events) > 0 {
				if err := t.append(writing, b.Events, t.hooks.Published); err != nil {
					return err
				}
				heartbeat.Reset(t.cfg.Heartbeat)
			}
			t.heard = len(b.Events) == 0
			t.room.Release(b.weight)
			if !b.Position.IsZero() {
				t.pos = b.Position
			}
			if !t.begun {
				t.begun = true
				if err := t.putPosition(writing); err != nil {
					return err
				}
			} else if time.Since(t.keptAt) >= t.cfg.Heartbeat {
				t.keep(writing)
			}
		}
	}
}

// store stores events of a job behind what is stored and before anything live. Each gets the
// live position, where the next term goes on whatever the stream ends with.
func (t *term) store(ctx context.Context, p pastRequest) error {
	live := t.pos
	for _, ev := range p.events {
		ev.Resume = &live
	}
	if len(p.events) > 0 {
		if err := t.append(ctx, p.events, t.hooks.Past); err != nil {
			return err
		}
	}
	p.stored <- live
	return nil
}

// gather adds to a batch what is already waiting, and waits for nothing: at a
// low rate each event goes at once, at a high one batches fill up while the one
// before is being stored.
func (t *term) gather(b Batch, batches <-chan Batch) Batch {
	for len(b.Events) < stream.MaxBatch {
		select {
		case next, more := <-batches:
			if !more {
				return b
			}
			b.Events = append(b.Events, next.Events...)
			b.weight += next.weight
			if !next.Position.IsZero() {
				b.Position = next.Position
			}
		default:
			return b
		}
	}
	return b
}

// append stores events and calls tell with what is. While the stream is full it tries again and again, and
// nothing else is read. A crash in here leaves some whole batches of them; the
// next term reads on behind the last.
func (t *term) append(ctx context.Context, events []*event.Event, tell func([]*event.Event, time.Duration)) error {
	delay := fullRetryMin
	full := false
	for {
		before, began := t.w.Seq(), time.Now()
		err := t.w.Append(ctx, events)
		stored := int(t.w.Seq() - before)
		if stored > 0 {
			tell(events[:stored], time.Since(began))
			events = events[stored:]
		}
		if err == nil {
			if full {
				t.logger.Info("the stream has room again")
				t.hooks.Full(false)
			}
			t.hooks.Condition(nil)
			return nil
		}
		if !errors.Is(err, stream.ErrFull) {
			return err
		}
		if !full {
			full = true
			t.logger.Error("the stream has no room: reading waits until there is some", "err", err)
			t.hooks.Full(true)
		}
		t.hooks.Condition(err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("append %d events: %w", len(events), context.Cause(ctx))
		case <-time.After(delay):
		}
		delay = min(2*delay, fullRetryMax)
	}
}

// putPosition writes how far was read, so that progress is never only in memory, and
// whether that may be in the midst of a #sync, of which an older ingest said no end.
func (t *term) putPosition(ctx context.Context) error {
	if t.pos.IsZero() {
		return nil
	}
	sync := event.SyncOver
	if t.pos.Sync.DID != "" || !t.told {
		sync = event.SyncOpen
	}
	if err := t.append(ctx, []*event.Event{{V: event.Version, Kind: event.KindPosition, Source: t.pos, Sync: sync}}, t.hooks.Published); err != nil {
		return err
	}
	t.told = true
	t.keep(ctx)
	return nil
}

// keep stores the position beside the stream, where trimming cannot reach, as well
// as it can: an older one makes events come again. A crash before it leaves that.
func (t *term) keep(ctx context.Context) {
	t.keptAt = time.Now()
	if t.pos == t.kept {
		return
	}
	if err := stream.PutPosition(ctx, t.js, t.pos); err != nil {
		if !t.unkept {
			t.unkept = true
			t.logger.Warn("could not save the position beside the stream: purging the stream now would repeat or lose events", "err", err)
		}
		return
	}
	t.kept, t.unkept = t.pos, false
}
