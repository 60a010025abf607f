package erase

import (
	"github.com/tagstream/tagstream/pkg/event"
)

// group is a #sync whose replacements may be following, as in the fold: there
// the first event that is none of them ends it (event.SyncRun), and posts that did
// not come again are gone from then on. One that comes after that gets a new place.
type group struct {
	// with is what comes of all messages, and without what comes of those that stay
	// whatever becomes of the held ones.
	with, without event.SyncRun
	// rev is the revision of with, or the one that it had when it ended, and floor the
	// highest one that the #syncs say themselves.
	rev, floor string
	// held are the messages that may go if that makes no difference to what follows.
	held []message
}

// decide takes the stream's next message, and returns those that may be erased
// now. One that is gone may be erased if it does nothing to a #sync; what has ended
// one, or has fixed its revision, only when a message that stays does the same.
func (p *pass) decide(m message) []message {
	g := &p.sync
	ev, err := event.Decode(m.data)
	if err != nil {
		// No reader sees it: as if it were not there.
		return erasable(nil, m)
	}
	with, without := g.with.After(ev), g.without.After(ev)
	if m.gone {
		if with == g.with {
			return erasable(nil, m)
		}
		g.follow(with)
		g.held = append(g.held, m)
		return nil
	}
	var out []message
	switch {
	case !g.agree(ev):
		// What is held keeps it out of the #sync.
		without, g.held = with, nil
	case with == without:
		out, g.held = g.held, nil
		if g.rev > max(g.floor, g.without.Rev) && g.without.Open() && !g.without.Continues(ev) {
			// The #sync ends and takes away what is below its revision. Of what stays,
			// nothing fixes it but the first one that is held.
			out = out[1:]
		}
	}
	if ev.Kind == event.KindSync {
		if ev.DID != g.without.DID {
			g.floor = ""
		}
		g.floor = max(g.floor, ev.Rev)
	}
	g.follow(with)
	g.without = without
	return out
}

func (g *group) follow(with event.SyncRun) {
	if g.with = with; with.Open() {
		g.rev = with.Rev
	}
}

// agree reports whether a message that stays does the same without what is held.
// Where that has ended the #sync, a message of the account is another thing: without,
// what the #sync has taken away would still be there, and a create could be one of its
// replacements.
func (g *group) agree(ev *event.Event) bool {
	if !g.without.Open() {
		return true
	}
	if !g.with.Open() {
		return ev.DID != g.without.DID
	}
	return g.with.Continues(ev) == g.without.Continues(ev)
}

func erasable(out []message, m message) []message {
	if m.gone {
		out = append(out, m)
	}
	return out
}
