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
	// held is the most that a message that is held may do, and raises the highest
	// revision of those that go on with it.
	held   effect
	raises string
	// rev is not above the revision that the fold takes replacements at, which counts
	// #syncs from before what is looked at, too. That is not above the greater of
	// highest, which is what came of all of them, and raises.
	rev, highest string
	time         time.Time
}

// effect is what a message that may be erased does to a group.
type effect int

const (
	effectRaises effect = iota + 1 // it goes on with it, at a higher revision
	effectMayEnd
	effectEnds
)

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
	if ev.DID == g.did && (ev.Kind == event.KindCreate || ev.Kind == event.KindUpdate) && g.rev <= ev.Rev && ev.Rev <= max(g.highest, g.raises) {
		return false
	}
	return !g.continues(ev)
}

// decide takes the stream's next message, and returns those that may be erased
// now. What may have ended a #sync is among them only when a message that stays, ahead
// of any that may go on with it, ends it as well; and what has raised its revision,
// when one that stays does so too.
func (p *pass) decide(m message) []message {
	var out []message
	if g := &p.sync; g.open {
		ev, err := event.Decode(m.data)
		if err != nil {
			// No reader sees it: as if it were not there.
			return erasable(nil, m)
		}
		on := g.continues(ev)
		switch {
		case m.gone && on && len(p.held) == 0 && ev.Rev <= g.rev:
		case m.gone:
			p.held = append(p.held, m)
			g.hold(ev, on)
			return nil
		case g.ends(ev):
			out, p.held, *g = p.held, nil, group{}
		case g.held == effectEnds:
			p.held, *g = nil, group{} // they keep this one out of the group
		default:
			if g.held == effectRaises && on && ev.Rev >= g.raises {
				out = p.held
			}
			if on {
				g.rev = max(g.rev, ev.Rev)
			}
			// What is held and stays has raised it.
			g.rev = max(g.rev, g.raises)
			p.held, g.held, g.raises = nil, 0, ""
		}
	}
	if m.head.Kind == event.KindSync {
		if ev, err := event.Decode(m.data); err == nil {
			p.sync = group{open: true, did: ev.DID, rev: ev.Rev, highest: p.floors[ev.DID], time: ev.Source.Time}
		}
	}
	return erasable(out, m)
}

// hold takes note of a message that is held.
func (g *group) hold(ev *event.Event, on bool) {
	switch {
	case on:
		g.held, g.raises = max(g.held, effectRaises), max(g.raises, ev.Rev)
	case g.ends(ev):
		g.held = effectEnds
	default:
		g.held = max(g.held, effectMayEnd)
	}
}

func erasable(out []message, m message) []message {
	if m.gone {
		out = append(out, m)
	}
	return out
}
