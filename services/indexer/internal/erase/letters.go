package erase

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/dlq"
)

// letters are the dead letters with a payload, and what the stream says about them. The index does
// not have messages that could not be applied, so their removal left no marker: the stream itself
// is the evidence.
type letters struct {
	byDID      map[string]*author
	unreadable []unreadable
}

// author is an account with dead letters.
type author struct {
	letters []*letter
	// status is the account's last status, by the same order as in the fold.
	status event.StatusOrder
}

type letter struct {
	seq     uint64
	version write.Version
	payload []byte
	// removed reports that the stream removes the message's post, or says something later of each
	// part of the author.
	removed bool
}

type unreadable struct {
	seq uint64
	at  time.Time
}

// withoutPayload are the kinds of events with nothing to erase.
var withoutPayload = []event.Kind{event.KindDelete, event.KindRemove, event.KindAccount, event.KindSync, event.KindPosition}

// load reads the dead letters of messages up to number last; later ones are left to the next pass.
func (l *letters) load(ctx context.Context, e *Eraser, last uint64) error {
	l.byDID = map[string]*author{}
	return stream.EachDeadLetter(ctx, e.JS, func(d stream.DeadLetter) error {
		if len(d.Payload) == 0 {
			return nil
		}
		var h head
		err := json.Unmarshal(d.Payload, &h)
		v := h.version()
		// A newer format may say other things of an author: nothing shows that those are outdated.
		isAuthor := err == nil && h.Kind == event.KindAuthor && event.ValidDID(h.DID) && (v.Rev != "" || !v.At.IsZero())
		switch {
		case err == nil && (h.isPost() || isAuthor):
			if d.Seq > last {
				return nil
			}
			a := l.byDID[h.DID]
			if a == nil {
				a = &author{}
				l.byDID[h.DID] = a
			}
			a.letters = append(a.letters, &letter{seq: d.Seq, version: v, payload: d.Payload})
		case err == nil && slices.Contains(withoutPayload, h.Kind):
		default:
			l.unreadable = append(l.unreadable, unreadable{d.Seq, d.At})
		}
		return nil
	})
}

// read reads the stream's next message.
func (l *letters) read(m message) {
	a := l.byDID[m.head.DID]
	if a == nil || m.head.isPost() {
		return
	}
	ev, err := event.Decode(m.data)
	if err != nil {
		return // a dead letter itself
	}
	var removes func(*letter) bool
	switch ev.Kind {
	default:
		return
	case event.KindDelete, event.KindRemove:
		removes = func(d *letter) bool { return d.version.Rkey == ev.Rkey && d.version.Rev <= ev.Rev }
	case event.KindAuthor:
		removes = func(d *letter) bool { return d.version.Rkey == "" && d.outdated(ev) }
	case event.KindAccount:
		if !ev.ChangesStatus() {
			return
		}
		if newer, _ := a.status.Advance(ev.StatusOrder()); !newer || !ev.Erases() {
			return
		}
		removes = func(*letter) bool { return true }
	}
	for _, d := range a.letters {
		if d.seq < m.seq && removes(d) {
			d.removed = true
		}
	}
}

// outdated notes what an author event says later than a letter of the author, and reports whether
// that is all there was.
func (d *letter) outdated(ev *event.Event) bool {
	v := &d.version
	if ev.Profile != nil && v.Rev < ev.Rev {
		v.Rev = ""
	}
	if ev.Handle != nil && v.At.Before(ev.Handle.Time) {
		v.At = time.Time{}
	}
	return v.Rev == "" && v.At.IsZero()
}

// eraseLetters erases the letters of removed posts, with their messages, and unreadable ones that
// are older than the stated time.
func (p *pass) eraseLetters(ctx context.Context, now time.Time) error {
	for _, a := range p.letters.byDID {
		versions := make([]write.Version, len(a.letters))
		for i, d := range a.letters {
			versions[i] = d.version
		}
		gone, err := p.gone(ctx, versions)
		if err != nil {
			return err
		}
		for i, d := range a.letters {
			// The index never had what a letter says of an author: that it has not shows nothing.
			if err := p.eraseLetter(ctx, d, gone[i] && d.version.Rkey != ""); err != nil {
				return err
			}
		}
	}
	for _, u := range p.letters.unreadable {
		if now.Sub(u.at) < p.Within {
			continue
		}
		p.Logger.Warn("dropped an unreadable dead letter: nothing shows whether its post still exists", "seq", u.seq, "since", u.at)
		if err := p.dropLetter(ctx, u.seq, Unreadable); err != nil {
			return err
		}
	}
	// This includes what redrives left in the files.
	if err := stream.TidyDeadLetters(ctx, p.JS); err != nil {
		return err
	}
	if p.sum.Erased[Letters]+p.sum.Erased[Unreadable] == 0 {
		return nil
	}
	return dlq.Recount(ctx, p.JS, p.Writer)
}

// eraseLetter erases a letter if its post is gone. The message goes first: a crash in between
// leaves the letter for the next pass.
func (p *pass) eraseLetter(ctx context.Context, d *letter, gone bool) error {
	if !gone && !d.removed {
		return nil
	}
	if d.seq > p.first {
		err := p.eraseMessageOf(ctx, d)
		if errors.Is(err, errForeign) {
			if !gone {
				return nil // what follows in this stream is not about it
			}
		} else if err != nil {
			return err
		}
	}
	return p.dropLetter(ctx, d.seq, Letters)
}

func (p *pass) eraseMessageOf(ctx context.Context, d *letter) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	other, err := p.posts.EraseSame(ctx, d.seq, d.payload)
	if err == nil && other {
		return errForeign
	}
	return err
}

func (p *pass) dropLetter(ctx context.Context, seq uint64, kind string) error {
	attempt, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := stream.EraseDeadLetter(attempt, p.JS, seq); err != nil {
		return err
	}
	p.count(kind)
	return nil
}
