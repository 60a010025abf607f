package forward

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
)

// GuestSubject is where the holder of the writer's lease takes events of a
// guest. It is no stream's: a request is answered when its events are stored.
const GuestSubject = "tagstream.ingest.append"

// Headers of a guest's request. Its body is events as JSON, one a line.
const (
	guestHeader = "Tagstream-Guest" // who asks
	chunkHeader = "Tagstream-Chunk" // the request's number, from 1; a retry has the same
	moreHeader  = "Tagstream-More"  // set where what follows belongs to the same #sync
)

// guestReply answers a request: with how far the live events have come, with
// why to try again later, or with why never to.
type guestReply struct {
	Live  event.Position `json:"live,omitzero"`
	Later string         `json:"later,omitempty"`
	Error string         `json:"error,omitempty"`
}

const (
	// guestHeadroom is what Resume and the headers add to a message.
	guestHeadroom = 2 << 10
	// chunkBytes is how much one request has at most: the live events wait
	// while it is stored.
	chunkBytes = 512 << 10

	guestAttempt  = 30 * time.Second
	guestRetryMin = 100 * time.Millisecond
	guestRetryMax = 2 * time.Second
	// DefaultGuestPatience is how long a guest waits for a writer in the midst
	// of its work, and helloPatience before it begins.
	DefaultGuestPatience = 10 * time.Minute
	helloPatience        = time.Minute
)

var (
	// ErrNoWriter is returned where no writer took a guest's events for long.
	// What was put before is stored; all of it may be put again.
	ErrNoWriter = errors.New("no ingest service takes the events")
	errRefused  = errors.New("the ingest service refuses the events")
)

// Guest appends events of another history to the stream through the program
// that holds the lease, between its live ones. The events of a #sync stay
// together. It must be used from one goroutine.
type Guest struct {
	nc *nats.Conn
	id string
	// Patience is how long to wait for a writer; 0 means DefaultGuestPatience.
	Patience time.Duration
	// OnWait, if set, hears why the writer does not take events, each time
	// that the reason changes ("" when it does).
	OnWait func(reason string)

	chunk  uint64
	lines  [][]byte // encoded, not sent yet
	size   int
	run    event.SyncRun
	begin  int  // where in lines the open #sync begins
	halved bool // the open #sync's beginning was sent
	live   event.Position
}

// NewGuest returns a guest; id names it and must be unique.
func NewGuest(nc *nats.Conn, id string) *Guest { return &Guest{nc: nc, id: id} }

// MaxPayload is the largest encoded event that can be put, in bytes.
func (g *Guest) MaxPayload() int { return int(g.nc.MaxPayload()) - 2*guestHeadroom }

// Live is how far the live events had come when the last events were stored.
func (g *Guest) Live() event.Position { return g.live }

// Hello waits until a writer is there to take events, for a minute at most.
func (g *Guest) Hello(ctx context.Context) error {
	return g.send(ctx, nil, false, min(g.patience(), helloPatience))
}

func (g *Guest) patience() time.Duration {
	if g.Patience == 0 {
		return DefaultGuestPatience
	}
	return g.Patience
}

// Put appends an event, at the latest with the next Flush. The error is ctx's,
// ErrNoWriter, or that of an event that cannot be stored.
func (g *Guest) Put(ctx context.Context, ev *event.Event) error {
	line, err := ev.Encode()
	if err != nil {
		return err
	}
	if len(line) > g.MaxPayload() {
		return fmt.Errorf("put %s event of %s: %w", ev.Kind, ev.DID, nats.ErrMaxPayload)
	}
	was := g.run.Open()
	if g.run = g.run.After(ev); was && !g.run.Open() {
		// The writer waits for the end of a #sync that it has the beginning of.
		if g.halved {
			if err := g.Flush(ctx); err != nil {
				return err
			}
		}
	}
	if len(g.lines) > 0 && (len(g.lines) == stream.MaxBatch || g.size+len(line) > min(chunkBytes, g.MaxPayload())) {
		if err := g.makeRoom(ctx, ev); err != nil {
			return err
		}
	}
	if ev.Kind == event.KindSync && !g.halved {
		g.begin = len(g.lines)
	}
	g.lines, g.size = append(g.lines, line), g.size+len(line)+1
	return nil
}

// SyncOver says that the #sync that was put last is over, if it is not by what was
// put behind it. at is how far was read.
func (g *Guest) SyncOver(ctx context.Context, at event.Position) error {
	if !g.run.Open() {
		return nil
	}
	return g.Put(ctx, &event.Event{Kind: event.KindPosition, Source: at, Sync: event.SyncOver})
}

// makeRoom sends what comes before the open #sync; where nothing does, the
// beginning of it.
func (g *Guest) makeRoom(ctx context.Context, next *event.Event) error {
	if !g.run.Open() || next.Kind == event.KindSync {
		return g.Flush(ctx)
	}
	n := g.begin
	if more := n == 0; more {
		n, g.halved = len(g.lines), true
		if err := g.send(ctx, g.lines, true, g.patience()); err != nil {
			return err
		}
	} else if err := g.send(ctx, g.lines[:n], false, g.patience()); err != nil {
		return err
	}
	g.drop(n)
	return nil
}

func (g *Guest) drop(n int) {
	g.lines, g.begin, g.size = g.lines[n:], 0, 0
	for _, l := range g.lines {
		g.size += len(l) + 1
	}
}

// Flush stores what was put and ends the #sync that is open.
func (g *Guest) Flush(ctx context.Context) error {
	if len(g.lines) == 0 && !g.halved {
		return nil
	}
	if err := g.send(ctx, g.lines, false, g.patience()); err != nil {
		return err
	}
	g.drop(len(g.lines))
	g.halved = false
	return nil
}

// send makes one request until it is answered. A request whose answer is lost
// may be stored twice, by two writers; no message hurts a second time.
func (g *Guest) send(ctx context.Context, lines [][]byte, more bool, patience time.Duration) error {
	g.chunk++
	reason, delay, begun := "", guestRetryMin, time.Now()
	for {
		reply, err := g.request(ctx, lines, more)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			reply.Later = err.Error()
		case reply.Error != "":
			return fmt.Errorf("%w: %s", errRefused, reply.Error)
		}
		if reply.Later != reason && g.OnWait != nil {
			g.OnWait(reply.Later)
		}
		reason = reply.Later
		if reason == "" {
			g.live = reply.Live
			return nil
		}
		if time.Since(begun) > patience {
			return fmt.Errorf("%w for %s: %s", ErrNoWriter, patience, reason)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(delay):
		}
		delay = min(2*delay, guestRetryMax)
	}
}

func (g *Guest) request(ctx context.Context, lines [][]byte, more bool) (guestReply, error) {
	ctx, cancel := context.WithTimeout(ctx, guestAttempt)
	defer cancel()
	msg := nats.NewMsg(GuestSubject)
	msg.Data = bytes.Join(lines, []byte("\n"))
	msg.Header.Set(guestHeader, g.id)
	msg.Header.Set(chunkHeader, strconv.FormatUint(g.chunk, 10))
	if more {
		msg.Header.Set(moreHeader, "1")
	}
	answer, err := g.nc.RequestMsgWithContext(ctx, msg)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return guestReply{}, errors.New("none is writing to the stream")
	case err != nil:
		return guestReply{}, fmt.Errorf("no answer: %w", err)
	}
	var reply guestReply
	if err := json.Unmarshal(answer.Data, &reply); err != nil {
		return guestReply{}, fmt.Errorf("read the answer: %w", err)
	}
	return reply, nil
}
