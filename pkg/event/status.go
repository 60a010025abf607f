package event

import "time"

// Upstream is where an account event stands upstream of the hosts, as the event
// itself says: the same on every host that reads the same relay, whatever a host's
// clock and lag.
type Upstream struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
}

// StatusOrder is where a status of an account stands among its others.
//
// What one host tells comes in the order of the network, so its own numbers order what
// it told, even where a clock upstream went back. Numbers of two hosts say nothing of each
// other: what different hosts told is ordered by upstream time, then upstream number.
// The upstream number does not come first: it is the relay's, hosts may read different
// relays, whose numbers are far apart, and a relay may be exchanged. A wrong order by
// number would hold for ever, a wrong one by time as long as the clock is behind.
//
// Orders of three hosts need not agree, so a fold keeps one winner and takes statuses in
// the order of the stream. Whatever folds the stream agrees that way.
type StatusOrder struct {
	// Time is the upstream time or, where the event has none that can be used, the host's.
	Time time.Time
	// Seq is the upstream number, 0 where there is none.
	Seq uint64
	// Host told the status, as its event HostSeq. "" is not known, as of rows of before
	// this was kept.
	Host    string
	HostSeq uint64
}

// StatusOrder returns where the status of an account event stands.
func (e *Event) StatusOrder() StatusOrder {
	o := StatusOrder{Time: e.Source.Time.UTC(), Host: e.Source.Host, HostSeq: e.Source.Seq}
	if e.Upstream != nil {
		o.Time, o.Seq = e.Upstream.Time.UTC(), e.Upstream.Seq
	}
	return o
}

// After reports whether a status at o is newer than one at last.
func (o StatusOrder) After(last StatusOrder) bool {
	later := o.Time.After(last.Time)
	if o.Host != "" && o.Host == last.Host {
		// A host that was wiped counts from the start again. What it tells from then on is
		// later upstream, by time and by number. What it only tells again is not.
		return o.HostSeq > last.HostSeq || later && (o.Seq > last.Seq || o.Seq == 0 || last.Seq == 0)
	}
	return later || o.Time.Equal(last.Time) && o.Seq > last.Seq
}

// same reports whether o and last are of one upstream event.
func (o StatusOrder) same(last StatusOrder) bool {
	return o.Time.Equal(last.Time) && o.Seq == last.Seq && (o.Seq != 0 || o.Host == last.Host && o.HostSeq == last.HostSeq)
}

// Follow moves o, where an account's last status stands, to a status at next. newer says
// that next is the account's status now. again says that it is the last one told again,
// maybe by another host: then the numbers of that one count from here on. Else next is
// older, and o stays.
func (o *StatusOrder) Follow(next StatusOrder) (newer, again bool) {
	again = next.same(*o)
	newer = !again && next.After(*o)
	if newer || again {
		*o = next
	}
	return newer, again
}

// Statuses of com.atproto.sync.subscribeRepos#account with meanings of their own;
// any other inactive one hides.
const (
	statusDeleted        = "deleted"
	statusThrottled      = "throttled"
	statusDesynchronized = "desynchronized"
)

// ChangesStatus reports whether an event can change an account's status: throttled
// and desynchronized are about the relay, not about what the account wants seen.
func (e *Event) ChangesStatus() bool {
	return e.Kind == KindAccount && e.Status != statusThrottled && e.Status != statusDesynchronized
}

// Erases reports whether an event takes an account's posts away.
func (e *Event) Erases() bool {
	return e.Kind == KindAccount && !e.Active && e.Status == statusDeleted
}
