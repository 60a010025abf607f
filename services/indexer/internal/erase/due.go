package erase

import (
	"context"

	"github.com/tagstream/tagstream/pkg/event"
)

const (
	// window is how many messages ahead of one that is due are read, to know which #sync
	// may be under way there.
	window = 500
	// duePiece is how many due messages are looked up at once.
	duePiece = 1000
)

// around is the state of reading from somewhere in the stream.
type around struct {
	// blind says that it is not known yet whether a #sync is under way. It surely is not behind
	// messages of two accounts, the first of which is did's.
	blind bool
	did   string
	// due are the messages that are looked for, and what became of them.
	due map[uint64]outcome
}

// outcome is what became of a message that is due.
type outcome int

const (
	isErased outcome = iota // or was so before
	isThere                 // it is not of something removed after all
	stays                   // for now: see decide
)

// begin prepares to decide about messages from a number on, and returns where to read from.
func (p *pass) begin(first uint64, due []uint64) (from uint64) {
	from = max(p.first, first-min(first, window))
	p.around = around{blind: from > p.first, due: map[uint64]outcome{}}
	for _, seq := range due {
		p.due[seq] = isErased
	}
	p.sync = group{}
	return from
}

// sees takes note of the stream's next message.
func (p *pass) sees(m message) {
	_, due := p.due[m.seq]
	if due {
		p.due[m.seq] = map[bool]outcome{true: stays, false: isThere}[m.gone]
	}
	if !p.blind {
		return
	}
	if m.gone {
		p.lost = p.lost || due || m.seq > p.looked
		return
	}
	if _, err := event.Decode(m.data); err != nil || m.head.Kind == event.KindPosition {
		return // no reader sees it, or it may go on with any #sync
	}
	if p.did == "" {
		p.did = m.head.DID
	}
	p.blind = m.head.DID == p.did
}

// readDue looks at the messages that are due, of those that were looked at before.
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

// readAround looks at messages that are due and near each other.
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
		case stays: // it is looked at again by the next pass
		}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return p.Writer.ForgetPayloads(ctx, erased, there)
}
