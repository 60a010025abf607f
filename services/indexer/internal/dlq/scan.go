package dlq

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

const (
	scanBatch = 2000
	scanWait  = 20 * time.Millisecond
	idleWait  = 500 * time.Millisecond
	// maxHistory bounds what the histories of one pass take in memory, as
	// messages; decoded they are about twice as big.
	maxHistory = 128 << 20
)

// errTooBig is returned where the accounts of a pass have more history than
// that.
var errTooBig = errors.New("too much history for one pass")

// account is what is known of one account with dead letters.
type account struct {
	did     string
	letters []uint64 // of the stream, lowest first
	steps   []apply.Step
}

// histories collects what the stream says of some accounts.
type histories struct {
	accounts map[string]*account
	// stays reports whether a message is a dead letter that is to stay one.
	stays func(stream.Message) (bool, error)
	// open are the accounts behind whose last step nothing of others came yet.
	open  map[string]*account
	bytes int
	limit int
}

func newHistories(accounts []*account, limit int, stays func(stream.Message) (bool, error)) *histories {
	h := &histories{accounts: map[string]*account{}, stays: stays, open: map[string]*account{}, limit: limit}
	for _, a := range accounts {
		a.steps = nil
		h.accounts[a.did] = a
	}
	return h
}

// add takes the stream's next message.
func (h *histories) add(m stream.Message) error {
	if len(h.open) == 0 && !h.mentions(m.Data) {
		return nil
	}
	ev, err := event.Decode(m.Data)
	if err != nil {
		return nil //nolint:nilerr // a dead letter that nobody redrives: as when it was passed
	}
	for did, a := range h.open {
		switch {
		case did == ev.DID:
		case ev.Kind == event.KindPosition:
			// It may come in the midst of a #sync's replacements.
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

// mentions reports whether a message may be about one of the accounts: it
// looks for their DIDs in it, which is much faster than to decode it.
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

// scan reads the stream in order, in stages.
type scan struct {
	js     jetstream.JetStream
	reader *stream.Reader
	// at is the last number that was read up to; ahead is what was fetched and
	// not asked for yet.
	at    uint64
	ahead []stream.Message
}

func openScan(ctx context.Context, js jetstream.JetStream, from uint64) (*scan, error) {
	reader, err := stream.OpenReader(ctx, js, from)
	if err != nil {
		return nil, err
	}
	return &scan{js: js, reader: reader, at: from - 1}, nil
}

func (s *scan) close() { s.reader.Close() }

// until gives fn every message up to number to. step is called now and then.
func (s *scan) until(ctx context.Context, to uint64, fn func(stream.Message) error, step func()) error {
	end, err := s.lastStored(ctx, to)
	if err != nil {
		return err
	}
	for s.at < end {
		if len(s.ahead) == 0 {
			wait, cancel := context.WithTimeout(ctx, idleWait)
			s.ahead, err = s.reader.Next(wait, scanBatch, scanWait)
			cancel()
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
		}
		for len(s.ahead) > 0 && s.at < end {
			m := s.ahead[0]
			if m.Seq > to {
				break
			}
			if err := fn(m); err != nil {
				return err
			}
			s.at, s.ahead = m.Seq, s.ahead[1:]
		}
		step()
	}
	s.at = max(s.at, to)
	return nil
}

// lastStored returns the number of the last message that the stream has of
// those behind s.at and up to number to, or s.at where it has none: some may
// have been erased, and nothing would come of waiting for them.
func (s *scan) lastStored(ctx context.Context, to uint64) (uint64, error) {
	for seq := to; seq > s.at; seq-- {
		msg, err := stream.GetMessage(ctx, s.js, seq)
		if err != nil {
			return 0, err
		}
		if msg != nil {
			return seq, nil
		}
	}
	return s.at, nil
}
