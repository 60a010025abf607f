package event

import (
	"cmp"
	"time"
)

// SyncState is what a message says of a #sync, which replaces an account's repository:
//
//   - SyncOpen begins one. Its replacements follow as creates, and then a message that ends it:
//     without that, nothing is removed.
//   - SyncOver ends it. Rev is that of its replacements: what the account had of before is gone.
//   - None begins one in an old message, behind which no message ends it.
//
// In a position it says whether an old #sync before it is over. Which events belong to a #sync is
// stated here, and decided by SyncRun.Continues:
//
//   - The replacements are the creates of the same account that follow it directly. The first
//     fixes their revision: that of the #sync or, if the account wrote more before its repository
//     was fetched, a later one. Only creates at exactly that revision belong to it.
//   - Another #sync of the account takes its place.
//   - A position says whether it is over. One of an older writer does not, and leaves it open if
//     it has the #sync's time.
//   - The account's profile is a part of its repository, and stands anywhere among them; so does
//     any author who was looked up.
//   - Any other event ends it.
//
// Times decide nothing else: they are for display, may be imported, and a host may stamp each event
// of a #sync with its own.
type SyncState string

// The states of a #sync.
const (
	SyncOver SyncState = "over"
	SyncOpen SyncState = "open"
)

// OpenSync is the #sync that is open at a position, as ingest follows it to write its end. The zero
// value is none.
type OpenSync struct {
	DID string `json:"did,omitempty"`
	// Rev is the #sync's own revision, and Fixed that of its replacements once there is one.
	Rev   string `json:"rev,omitempty"`
	Fixed string `json:"fixed,omitempty"`
}

// After is what is open behind an event of the host, also behind one that ingest drops.
func (s OpenSync) After(ev *Event) OpenSync {
	run := SyncRun{DID: s.DID, Rev: cmp.Or(s.Fixed, s.Rev), Fixed: s.Fixed != ""}
	switch {
	case ev.Kind == KindSync:
		return OpenSync{DID: ev.DID, Rev: ev.Rev}
	case !run.Continues(ev):
		return OpenSync{}
	case ev.Kind == KindCreate:
		s.Fixed = ev.Rev
	}
	return s
}

// Over is the message that ends the #sync that is open at a position.
func (p Position) Over() *Event {
	ev := &Event{V: Version, Kind: KindSync, DID: p.Sync.DID, Rev: cmp.Or(p.Sync.Fixed, p.Sync.Rev), Sync: SyncOver}
	p.Sync = OpenSync{}
	ev.Source = p
	return ev
}

// EndsBefore reports whether the #sync that is open at p is over before the event at next, the next
// one of the host.
func (p Position) EndsBefore(next Position) bool {
	return p.Sync.DID != "" && p.Sync.DID != next.Sync.DID
}

// SyncRun is a #sync in stored messages that do not say where it ends, and the replacements of it
// that came. The zero value is none.
type SyncRun struct {
	// DID is the account, "" where no #sync is open.
	DID string
	// Rev is the revision of the #sync or, once Fixed is set, of its replacements.
	Rev   string
	Fixed bool
	// Time is the #sync's.
	Time time.Time
}

// Open reports whether replacements may follow.
func (r SyncRun) Open() bool { return r.DID != "" }

// Continues reports whether an event leaves the #sync open.
func (r SyncRun) Continues(ev *Event) bool {
	if !r.Open() {
		return false
	}
	if ev.Kind == KindPosition {
		switch ev.Sync {
		case SyncOver:
			return false
		case SyncOpen:
			return true
		}
		return ev.Source.Time.Equal(r.Time)
	}
	if ev.LookedUp() {
		return true
	}
	if ev.DID != r.DID {
		return false
	}
	switch ev.Kind {
	case KindSync, KindAuthor:
		return true
	case KindCreate:
		return ev.Rev == r.Rev || !r.Fixed && ev.Rev > r.Rev
	}
	return false
}

// After is the run behind an event.
func (r SyncRun) After(ev *Event) SyncRun {
	switch {
	case ev.Kind == KindSync && ev.Sync == "":
		return SyncRun{DID: ev.DID, Rev: ev.Rev, Time: ev.Source.Time.UTC()}
	case ev.Kind == KindSync, !r.Continues(ev):
		return SyncRun{}
	case ev.Kind == KindCreate:
		return SyncRun{DID: ev.DID, Rev: ev.Rev, Fixed: true, Time: r.Time}
	}
	return r
}
