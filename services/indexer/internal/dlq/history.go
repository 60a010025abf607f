package dlq

import (
	"bytes"
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

// maxHistory bounds the histories of one pass in memory, as messages; decoded they take about twice
// as much.
const maxHistory = 128 << 20

// errTooBig is returned if the accounts of a pass have more history than that.
var errTooBig = errors.New("too much history for one pass")

// account is what is known about an account with dead letters.
type account struct {
	did     string
	letters []uint64 // of the stream, lowest first
	steps   []apply.Step
}

// histories collects the stream's history of some accounts.
type histories struct {
	accounts map[string]*account
	// stays reports whether a message is a dead letter that must stay one.
	stays func(stream.Message) (bool, error)
	// open are the accounts whose last step no other event has followed yet.
	open  map[string]*account
	bytes int
	limit int
	// at is the last message that was read up to.
	at uint64
}

func newHistories(accounts []*account, from uint64, limit int, stays func(stream.Message) (bool, error)) *histories {
	h := &histories{accounts: map[string]*account{}, stays: stays, open: map[string]*account{}, limit: limit, at: from - 1}
	for _, a := range accounts {
		a.steps = nil
		h.accounts[a.did] = a
	}
	return h
}

// read adds the stream's messages up to number to. step, if not nil, is called from time to time.
func (h *histories) read(ctx context.Context, js jetstream.JetStream, to uint64, step func()) error {
	for batch, err := range stream.Range(ctx, js, h.at+1, to) {
		if err != nil {
			return err
		}
		for _, m := range batch {
			if err := h.add(m); err != nil {
				return err
			}
			h.at = m.Seq
		}
		if step != nil {
			step()
		}
	}
	h.at = max(h.at, to)
	return nil
}

// add adds the stream's next message.
func (h *histories) add(m stream.Message) error {
	if len(h.open) == 0 && !h.mentions(m.Data) {
		return nil
	}
	ev, err := event.Decode(m.Data)
	if err != nil {
		return nil //nolint:nilerr // a dead letter that is not redriven: as when it was passed
	}
	for did, a := range h.open {
		switch {
		case did == ev.DID:
		case ev.Kind == event.KindPosition:
			// It may lie between the replacements of a #sync.
			a.steps = append(a.steps, apply.Step{Seq: m.Seq, Event: ev})
		default:
			a.steps = append(a.steps, apply.End(m.Seq))
			delete(h.open, did)
		}
	}
	a := h.accounts[ev.DID]
	if a == nil {
		return nil
	}
	if stays, err := h.stays(m); err != nil || stays {
		return err
	}
	a.steps = append(a.steps, apply.Step{Seq: m.Seq, Event: ev})
	h.open[a.did] = a
	if h.bytes += len(m.Data); h.bytes > h.limit {
		return errTooBig
	}
	return nil
}

// mentions reports whether a message may be about one of the accounts: it searches for their DIDs,
// which is much faster than decoding.
func (h *histories) mentions(data []byte) bool {
	for {
		i := bytes.Index(data, []byte("did:"))
		if i < 0 {
			return false
		}
		data = data[i:]
		if end := bytes.IndexByte(data, '"'); end > 0 && h.accounts[string(data[:end])] != nil {
			return true
		}
		data = data[len("did:"):]
	}
}
