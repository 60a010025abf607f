package forward

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/tagstream/tagstream/pkg/event"
)

// guestQueue is how many requests of guests may wait: each is answered before the
// next is made.
const guestQueue = 8

// visitors is what a tenure knows of its guests.
type visitors struct {
	requests chan *nats.Msg
	// done is the last request stored, by guest and number: its retry is
	// answered and not stored again.
	done, doneChunk string
}

// receive begins to take requests.
func (t *tenure) receive(nc *nats.Conn) (stop func(), err error) {
	t.visitors.requests = make(chan *nats.Msg, guestQueue)
	sub, err := nc.ChanSubscribe(GuestSubject, t.visitors.requests)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", GuestSubject, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil // gone with its connection, else
}

// serve stores what a guest asks for, behind what is stored and before anything
// live. Each event gets the live position, where the next tenure goes on
// whatever the stream ends with. The error is the tenure's.
func (t *tenure) serve(ctx context.Context, msg *nats.Msg) error {
	v := &t.visitors
	guest, chunk := msg.Header.Get(guestHeader), msg.Header.Get(chunkHeader)
	switch {
	case guest == "":
		t.answer(msg, guestReply{Error: "the request names no guest"})
		return nil
	case t.pos.IsZero():
		t.answer(msg, guestReply{Later: "the ingest service has no position of its own yet"})
		return nil
	case v.done == guest && v.doneChunk == chunk:
		t.answer(msg, guestReply{Live: t.pos})
		return nil
	}
	var events []*event.Event
	live := t.pos
	for line := range bytes.SplitSeq(msg.Data, []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		ev, err := event.Decode(line)
		if err == nil && len(line)+guestHeadroom > t.w.MaxPayload() {
			err = nats.ErrMaxPayload
		}
		if err != nil {
			t.answer(msg, guestReply{Error: err.Error()})
			return nil
		}
		ev.Resume = &live
		events = append(events, ev)
	}
	if len(events) > 0 {
		if err := t.append(ctx, events, t.hooks.Guest); err != nil {
			return err
		}
	}
	v.done, v.doneChunk = guest, chunk
	t.answer(msg, guestReply{Live: t.pos})
	return nil
}

// answer replies; a guest that does not hear it asks again.
func (t *tenure) answer(msg *nats.Msg, reply guestReply) {
	data, err := json.Marshal(reply)
	if err == nil {
		err = msg.Respond(data)
	}
	if err != nil {
		t.logger.Debug("could not answer a guest", "err", err)
	}
}
