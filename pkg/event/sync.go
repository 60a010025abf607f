package event

import "time"

// SyncState is what a position says of the #sync in the stream before it, if
// there is one.
type SyncState string

const (
	// SyncOver: all of its replacements have come.
	SyncOver SyncState = "over"
	// SyncOpen: the writer stopped or started where more of them may follow.
	SyncOpen SyncState = "open"
)

// SyncRun is a #sync and the replacements behind it, as far as they have come.
// It is the one place that says which events belong to a #sync:
//
//   - The replacements are the creates of the same account that follow it
//     directly. The first fixes their revision, which is the #sync's or, where the
//     account went on before its repository was fetched, a later one. Only creates
//     at exactly that revision go on.
//   - Another #sync of the account takes the place of this one.
//   - A position goes on with it or ends it, as it says. One of a writer that did
//     not say yet goes on with it if it has the #sync's time.
//   - Any other event ends it.
//
// Times decide nothing else: they are for display, may be imported, and a host may
// stamp each event of a #sync with its own. The zero value is no #sync.
type SyncRun struct {
	// DID is the account, "" where no #sync is open.
	DID string
	// Rev is the revision of the #sync or, once Fixed is set, of its replacements.
	Rev   string
	Fixed bool
	// Time is the #sync's.
	Time time.Time
	// midway says that what came before is not known.
	midway bool
}

// MidwayRun is what is known where events are followed from some place on: they
// may begin with replacements of a #sync before it.
func MidwayRun() SyncRun { return SyncRun{midway: true} }

// Open reports whether replacements may follow.
func (r SyncRun) Open() bool { return r.DID != "" || r.midway }

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
		return r.midway || ev.Source.Time.Equal(r.Time)
	}
	if r.midway {
		return ev.Kind == KindCreate
	}
	if ev.DID != r.DID {
		return false
	}
	switch ev.Kind {
	case KindSync:
		return true
	case KindCreate:
		return ev.Rev == r.Rev || !r.Fixed && ev.Rev > r.Rev
	}
	return false
}

// After is the run behind an event.
func (r SyncRun) After(ev *Event) SyncRun {
	switch {
	case ev.Kind == KindSync:
		return SyncRun{DID: ev.DID, Rev: ev.Rev, Time: ev.Source.Time.UTC()}
	case !r.Continues(ev):
		return SyncRun{}
	case ev.Kind == KindCreate:
		return SyncRun{DID: ev.DID, Rev: ev.Rev, Fixed: true, Time: r.Time}
	}
	return r
}
