package firehose

import (
	"time"

	"github.com/bluesky-social/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
)

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

// resync is a #sync of which replacements may be missing. Another host may have it
// earlier among the other events, and has to give all of it again.
type resync struct {
	// made is the #sync's own time; zero is none.
	made time.Time
	// until is the clock at a start or a change of hosts within it; zero where there was
	// none. Once that is passed, the #sync has come again.
	until time.Time
}

func (s *resync) pass(ev *jetstream.Event, open bool, clock time.Time) {
	made, ok := identityOf(ev).time()
	switch {
	case ev.Sync != nil && ok && open:
		if s.made.IsZero() || s.until.IsZero() || made.Before(s.made) {
			s.made = made
		}
	case !open && (s.until.IsZero() || clock.After(s.until)):
		*s = resync{}
	}
}

// forgetSync leaves a #sync open for good: some of its replacements may be missing, and what
// did not come must not be taken for gone.
func (r *run) forgetSync() { r.sync, r.pos.Sync = event.OpenSync{}, event.OpenSync{} }
