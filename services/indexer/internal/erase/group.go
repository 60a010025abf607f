package erase

import (
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// group is a #sync whose replacements may be following, as in the fold: there
// the first event that is none of them ends it, and posts that did not come again
// are gone from then on. One that comes after that gets a new place.
type group struct {
	open bool
	did  string
	// held says that one of the messages that are held surely ends it.
	held bool
	// rev is not above the revision that the fold takes replacements at, which counts
	// #syncs from before what is looked at, too; highest, which is what came of all of
	// them, is not below it.
	rev, highest string
	time         time.Time
}

// continues reports whether an event surely leaves the group open: package apply has
// the rule.
func (g *group) continues(ev *event.Event) bool {
	switch ev.Kind {
	case event.KindPosition:
		return ev.Source.Time.Equal(g.time)
	case event.KindSync:
		return ev.DID == g.did
	case event.KindCreate, event.KindUpdate:
		return ev.DID == g.did && (ev.Source.Time.Equal(g.time) || ev.Rev == g.rev && g.rev >= g.highest)
	}
	return false
}

// ends reports whether an event surely ends it. A post may do the one or the other
// where more than one #sync has to do with its revision.
func (g *group) ends(ev *event.Event) bool {
	if ev.DID == g.did && (ev.Kind == event.KindCreate || ev.Kind == event.KindUpdate) && g.rev <= ev.Rev && ev.Rev <= g.highest {
		return false
	}
	return !g.continues(ev)
}

// decide takes the stream's next message, and returns those that may be erased
// now. What may have ended a #sync is among them only when a message that stays, ahead
// of any that may go on with it, ends it as well.
func (p *pass) decide(m message) []message {
	var out []message
	rev := ""
	if p.sync.open {
		ev, err := event.Decode(m.data)
		if err != nil {
			// No reader sees it: as if it were not there.
			return erasable(nil, m)
		}
		on := p.sync.continues(ev)
		switch {
		case on && len(p.held) == 0:
		case m.gone:
			p.held = append(p.held, m)
			p.sync.held = p.sync.held || p.sync.ends(ev)
			return nil
		case p.sync.ends(ev):
			out, p.held, p.sync = p.held, nil, group{}
		case p.sync.held:
			p.held, p.sync = nil, group{} // they keep this one out of the group
		default:
			p.held = nil // they may
		}
		if on && ev.Kind != event.KindPosition {
			p.sync.rev = max(p.sync.rev, ev.Rev)
		}
		rev = p.sync.rev
	}
	if m.head.Kind == event.KindSync {
		if ev, err := event.Decode(m.data); err == nil {
			p.sync = group{open: true, did: ev.DID, rev: max(rev, ev.Rev), highest: p.floors[ev.DID], time: ev.Source.Time}
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
