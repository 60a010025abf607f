package forward

import (
	"context"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
)

const (
	// pastHeadroom is the most that Resume adds to a message.
	pastHeadroom = 2 << 10
	// pastBytes is about how much is stored in one write, during which live events wait.
	pastBytes = 512 << 10
)

// Past stores events of another history between the live ones, for work that runs alongside the
// live source, such as a job. It must be used from one goroutine. Its errors are the context's:
// what cannot be stored ends the term, and with it that context.
type Past struct {
	requests   chan<- pastRequest
	maxPayload int

	events []*event.Event // put and not stored yet
	bytes  int
	live   event.Position
}

// pastRequest is answered with the live position once its events are stored.
type pastRequest struct {
	events []*event.Event
	stored chan<- event.Position
}

// MaxPayload is the largest encoded event that can be put, in bytes.
func (p *Past) MaxPayload() int { return p.maxPayload - pastHeadroom }

// Live returns how far live reading had come when the last events were stored.
func (p *Past) Live() event.Position { return p.live }

// Put queues an event, which is stored by the next Flush at the latest.
func (p *Past) Put(ctx context.Context, ev *event.Event) error {
	p.events, p.bytes = append(p.events, ev), p.bytes+eventBytes+len(ev.Record)
	if len(p.events) < stream.MaxBatch && p.bytes < pastBytes {
		return nil
	}
	return p.Flush(ctx)
}

// Flush stores the queued events. If live reading has no position yet, it waits for one.
func (p *Past) Flush(ctx context.Context) error {
	stored := make(chan event.Position, 1)
	select {
	case p.requests <- pastRequest{p.events, stored}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case p.live = <-stored:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	p.events, p.bytes = nil, 0
	return nil
}
