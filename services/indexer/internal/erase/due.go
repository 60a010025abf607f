package erase

import (
	"context"

	"github.com/tagstream/tagstream/pkg/event"
)

const (
	// window is how many messages before a due one are read, to know which #sync may be open there.
	window = 500
	// duePiece is how many due messages are looked up at once.
	duePiece = 1000
)

// around is the state of reading from the middle of the stream.
type around struct {
	// blind reports that it is not known yet whether a #sync is open. None is after messages of two
	// accounts, the first of which is did's.
	blind bool
	did   string
	// sync is the old #sync that may be open.
	sync event.SyncRun
	// due are the messages to decide about, with the outcomes.
	due map[uint64]outcome
}

// outcome is the decision about a due message.
type outcome int

const (
	isErased outcome = iota // now or before
	isThere                 // its content was not removed after all, or it stays for good
	unknown                 // its effect on a #sync is not known
)

// begin prepares to decide about messages from a number on, and returns where to read from.
func (p *pass) begin(first uint64, due []uint64) (from uint64) {
	from = max(p.first, first-min(first, window))
	p.around = around{blind: from > p.first, due: map[uint64]outcome{}}
	for _, seq := range due {
		p.due[seq] = isErased
	}
	return from
}

// mayErase reads the stream's next message, and reports whether it may be erased: its content is
// gone, and it does not affect an old #sync. Messages that fix the revision of one, or end it, stay
// for good.
func (p *pass) mayErase(m message) bool {
	_, due := p.due[m.seq]
	if due {
		p.due[m.seq] = isThere
	}
	ev, err := event.Decode(m.data)
	if err != nil {
		return m.gone // no reader sees it: as if it were not there
	}
	if p.blind && ev.Kind == event.KindSync {
		p.blind = false
	}
	if p.blind {
		if m.gone {
			p.undecided = p.undecided || due || m.seq > p.looked
			if due {
				p.due[m.seq] = unknown
			}
			return false
		}
		if ev.Kind == event.KindPosition || ev.LookedUp() {
			return false // it may continue any #sync
		}
		if p.did == "" {
			p.did = ev.DID
		}
		if p.blind = ev.DID == p.did; p.blind {
			return false
		}
	}
	before := p.sync
	p.sync = before.After(ev)
	return m.gone && p.sync == before
}

// readDue reads the due messages among those that were read before.
func (p *pass) readDue(ctx context.Context) error {
	for after := uint64(0); ; {
		due, err := p.Writer.DuePayloads(ctx, after, p.looked, duePiece)
		if err != nil || len(due) == 0 {
			return err
		}
		after = due[len(due)-1]
		for len(due) > 0 {
			n := 1
			for n < len(due) && due[n]-due[n-1] <= 2*window {
				n++
			}
			if err := p.readAround(ctx, due[:n]); err != nil {
				return err
			}
			due = due[n:]
		}
	}
}

// readAround reads due messages that are close together.
func (p *pass) readAround(ctx context.Context, due []uint64) error {
	from := p.begin(due[0], due)
	if _, err := p.readRange(ctx, from, min(due[len(due)-1], p.last)); err != nil {
		return err
	}
	var erased, there []uint64
	for seq, is := range p.due {
		switch is {
		case isErased:
			erased = append(erased, seq)
		case isThere:
			there = append(there, seq)
		case unknown: // the next pass reads it again
		}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return p.Writer.ForgetPayloads(ctx, erased, there)
}
