package decode

import (
	"github.com/bluesky-social/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
)

// Syncs follows the #syncs of a host through all of its events. Most of these are
// dropped, so that what is kept does not show where the replacements end: a position
// has to say so (event.SyncOver). The zero value begins where no #sync is under way.
type Syncs struct{ run event.SyncRun }

// MidwaySyncs begins where one may be under way.
func MidwaySyncs() Syncs { return Syncs{event.MidwayRun()} }

// Open reports whether replacements may follow what was passed last.
func (s *Syncs) Open() bool { return s.run.Open() }

// Pass passes an event, whatever becomes of it. It reports whether that is one of
// the replacements.
func (s *Syncs) Pass(ev *jetstream.Event) (replaces bool) {
	o := outline(ev)
	replaces = o.Kind == event.KindCreate && s.run.Continues(o)
	s.run = s.run.After(o)
	return replaces
}

// outline is an event as far as a #sync is concerned. What is no create of any record
// and no #sync ends it, as a deletion does.
func outline(ev *jetstream.Event) *event.Event {
	o := &event.Event{Kind: event.KindDelete, DID: ev.DID}
	switch {
	case ev.Kind == jetstream.KindSync && ev.Sync != nil && event.ValidRev(ev.Sync.Rev):
		o.Kind, o.Rev = event.KindSync, ev.Sync.Rev
	case ev.Kind == jetstream.KindCommit && ev.Commit != nil && ev.Commit.Operation == jetstream.OpCreate:
		o.Kind, o.Rev = event.KindCreate, ev.Commit.Rev
	}
	return o
}
