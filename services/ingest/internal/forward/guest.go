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
// that holds the lease, between its live ones. It must be used from one goroutine.
type Guest struct {
	nc *nats.Conn
	id string
	// Patience is how long to wait for a writer; 0 means DefaultGuestPatience.
	Patience time.Duration
	// OnWait, if set, hears why the writer does not take events, each time
	// that the reason changes ("" when it does).
	OnWait func(reason string)

	chunk uint64
	lines [][]byte // encoded, not sent yet
	size  int
	live  event.Position
}

// NewGuest returns a guest; id names it and must be unique.
func NewGuest(nc *nats.Conn, id string) *Guest { return &Guest{nc: nc, id: id} }

// MaxPayload is the largest encoded event that can be put, in bytes.
func (g *Guest) MaxPayload() int { return int(g.nc.MaxPayload()) - 2*guestHeadroom }

// Live is how far the live events had come when the last events were stored.
func (g *Guest) Live() event.Position { return g.live }

// Hello waits until a writer is there to take events, for a minute at most.
func (g *Guest) Hello(ctx context.Context) error {
	return g.send(ctx, nil, min(g.patience(), helloPatience))
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
	if len(g.lines) > 0 && (len(g.lines) == stream.MaxBatch || g.size+len(line) > min(chunkBytes, g.MaxPayload())) {
		if err := g.Flush(ctx); err != nil {
			return err
		}
	}
	g.lines, g.size = append(g.lines, line), g.size+len(line)+1
	return nil
}

// Flush stores what was put.
func (g *Guest) Flush(ctx context.Context) error {
	if len(g.lines) == 0 {
		return nil
	}
	if err := g.send(ctx, g.lines, g.patience()); err != nil {
		return err
	}
	g.lines, g.size = nil, 0
	return nil
}

// send makes one request until it is answered. A request whose answer is lost
// may be stored twice, by two writers; no message hurts a second time.
func (g *Guest) send(ctx context.Context, lines [][]byte, patience time.Duration) error {
	g.chunk++
	reason, delay, begun := "", guestRetryMin, time.Now()
	for {
		reply, err := g.request(ctx, lines)
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

func (g *Guest) request(ctx context.Context, lines [][]byte) (guestReply, error) {
	ctx, cancel := context.WithTimeout(ctx, guestAttempt)
	defer cancel()
	msg := nats.NewMsg(GuestSubject)
	msg.Data = bytes.Join(lines, []byte("\n"))
	msg.Header.Set(guestHeader, g.id)
	msg.Header.Set(chunkHeader, strconv.FormatUint(g.chunk, 10))
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
