package forward

import (
	"context"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
)

const (
	// resumeHeadroom is the most that Resume adds to a message.
	resumeHeadroom = 2 << 10
	// sideBytes is about how much a SideWriter stores in one write, during which live events wait.
	sideBytes = 512 << 10
)

// SideWriter stores events between the live ones, for side work such as a job. It must be used from
// one goroutine. Its errors are the context's: what cannot be stored ends the term, and with it
// that context.
type SideWriter struct {
	writes     chan<- sideWrite
	maxPayload int

	events []*event.Event // put and not stored yet
	bytes  int
	live   event.Position
}

// sideWrite asks the term to store events. It is answered with the live position once they are.
type sideWrite struct {
	events []*event.Event
	stored chan<- event.Position
}

// MaxPayload is the largest encoded event that can be put, in bytes.
func (w *SideWriter) MaxPayload() int { return w.maxPayload - resumeHeadroom }

// Live returns how far live reading had come when the last events were stored.
func (w *SideWriter) Live() event.Position { return w.live }

// Put queues an event, which is stored by the next Flush at the latest.
func (w *SideWriter) Put(ctx context.Context, ev *event.Event) error {
	w.events, w.bytes = append(w.events, ev), w.bytes+eventBytes+len(ev.Record)
	if len(w.events) < stream.MaxBatch && w.bytes < sideBytes {
		return nil
	}
	return w.Flush(ctx)
}

// Flush stores the queued events. If live reading has no position yet, it waits for one.
func (w *SideWriter) Flush(ctx context.Context) error {
	stored := make(chan event.Position, 1)
	select {
	case w.writes <- sideWrite{w.events, stored}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case w.live = <-stored:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	w.events, w.bytes = nil, 0
	return nil
}
