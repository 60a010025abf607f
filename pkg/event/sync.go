package event

import (
	"cmp"
	"time"
)

// SyncState is what a message says about a #sync, which replaces an account's repository:
//
//   - SyncOpen begins a #sync. Its replacements follow as creates, then a message that ends it.
//     Without that message, nothing is removed.
//   - SyncOver ends it. Rev is that of its replacements: the account's older posts are gone.
//   - None begins a #sync in an old message; no message ends it.
//
// In a position it says whether an old #sync before it is over. The rules for which events belong
// to a #sync are stated here and implemented by SyncRun.Continues:
//
//   - The replacements are the creates of the same account that follow it directly. The first one
//     fixes their revision: that of the #sync or, if the account wrote more before its repository
//     was fetched, a later one. Only creates at exactly that revision belong to it.
//   - Another #sync of the account replaces it.
//   - A position says whether the #sync is over. A position of an older writer does not say, and
//     leaves it open if it has the #sync's time.
//   - The account's profile is part of its repository and may stand anywhere among the
//     replacements; so may any author look-up.
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

// OpenSync is the #sync that is open at a position. Ingest tracks it to write its end. The zero
// value means that no #sync is open.
type OpenSync struct {
	DID string `json:"did,omitempty"`
	// Rev is the #sync's own revision. Fixed is the revision of its replacements, once there is
	// one.
	Rev   string `json:"rev,omitempty"`
	Fixed string `json:"fixed,omitempty"`
}

// After returns what is open after an event of the host, including events that ingest drops.
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

// Over returns the message that ends the #sync that is open at the position.
func (p Position) Over() *Event {
	ev := &Event{V: Version, Kind: KindSync, DID: p.Sync.DID, Rev: cmp.Or(p.Sync.Fixed, p.Sync.Rev), Sync: SyncOver}
	p.Sync = OpenSync{}
	ev.Source = p
	return ev
}

// EndsBefore reports whether the #sync that is open at p ends before the event at next, the host's
// next event.
func (p Position) EndsBefore(next Position) bool {
	return p.Sync.DID != "" && p.Sync.DID != next.Sync.DID
}

// SyncRun is a #sync in stored messages that do not say where it ends, with the replacements read
// so far. The zero value means that no #sync is open.
type SyncRun struct {
	// DID is the account, "" if no #sync is open.
	DID string
	// Rev is the revision of the #sync or, once Fixed is set, of its replacements.
	Rev   string
	Fixed bool
	// Time is the time of the #sync.
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

// After returns the run after an event.
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
