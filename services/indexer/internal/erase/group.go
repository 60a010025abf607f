package erase

import (
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// group is a #sync whose replacements may be following, as in the fold: there
// the first event that is none of them ends it, and posts that did not come again
// are gone from then on. One that comes after that gets a new place.
type group struct {
	open     bool
	did, rev string
	time     time.Time
}

// continues reports whether an event leaves the group open: package apply has
// the rule.
func (g *group) continues(ev *event.Event) bool {
	if ev.Kind == event.KindPosition {
		return ev.Source.Time.Equal(g.time)
	}
	if ev.DID != g.did {
		return false
	}
	switch ev.Kind {
	case event.KindSync:
		return true
	case event.KindCreate, event.KindUpdate:
		return ev.Rev == g.rev || ev.Source.Time.Equal(g.time)
	}
	return false
}

// decide takes the stream's next message, and returns those that may be erased
// now. What ended a #sync is among them only when a message that stays, ahead of
// any that goes on with it, ends it as well.
func (p *pass) decide(m message) []message {
	var out []message
	if p.sync.open {
		ev, err := event.Decode(m.data)
		if err != nil {
			// No reader sees it: as if it were not there.
			return erasable(nil, m)
		}
		on := p.sync.continues(ev)
		if on && ev.Kind != event.KindPosition {
			p.sync.rev = max(p.sync.rev, ev.Rev)
		}
		switch {
		case on && len(p.held) > 0 && !m.gone:
			// What is held keeps it out of the group.
			p.held, p.sync = nil, group{}
		case on:
		case m.gone:
			p.held = append(p.held, m)
			return nil
		default:
			out, p.held, p.sync = p.held, nil, group{}
		}
	}
	if m.head.Kind == event.KindSync {
		if ev, err := event.Decode(m.data); err == nil {
			p.sync = group{open: true, did: ev.DID, rev: ev.Rev, time: ev.Source.Time}
		}
	}
	return erasable(out, m)
}

func erasable(out []message, m message) []message {
	if m.gone {
		out = append(out, m)
	}
	return out
}
