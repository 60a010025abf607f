package firehose

import (
	"time"

	"github.com/bluesky-social/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
)

// outline returns the part of an event that matters to a #sync. Anything that is not a create of
// some record or a #sync ends it, like a deletion; so does a #sync that no position can hold.
func outline(ev *jetstream.Event) *event.Event {
	o := &event.Event{Kind: event.KindDelete, DID: ev.DID}
	switch {
	case ev.Kind == jetstream.KindSync && ev.Sync != nil && event.ValidDID(ev.DID) && event.ValidRev(ev.Sync.Rev):
		o.Kind, o.Rev = event.KindSync, ev.Sync.Rev
	case ev.Kind == jetstream.KindCommit && ev.Commit != nil && ev.Commit.Operation == jetstream.OpCreate:
		o.Kind, o.Rev = event.KindCreate, ev.Commit.Rev
	}
	return o
}

// resync is a #sync of which replacements may be missing. Another host may have it earlier among
// the other events, and must deliver all of it again.
type resync struct {
	// made is the #sync's own time; zero means none.
	made time.Time
	// until is the clock at a start or a change of hosts within the #sync, zero if there was none.
	// Once reading passes it, the #sync has been delivered again.
	until time.Time
}

// observe takes the next event into account. open reports that a #sync is open after it.
func (s *resync) observe(ev *jetstream.Event, open bool, clock time.Time) {
	if !open {
		if s.until.IsZero() || clock.After(s.until) {
			*s = resync{}
		}
		return
	}
	made, ok := identityOf(ev).time()
	if ev.Sync != nil && ok && (s.made.IsZero() || s.until.IsZero() || made.Before(s.made)) {
		s.made = made
	}
}

// forgetSync leaves a #sync open for good: some of its replacements may be missing, and missing
// ones must not be taken for removed posts.
func (r *run) forgetSync() { r.sync, r.pos.Sync = event.OpenSync{}, event.OpenSync{} }
