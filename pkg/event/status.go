package event

import "time"

// Upstream is an account event's own place upstream of the hosts. It is the same on every host that
// reads the same relay, whatever the host's clock and lag.
type Upstream struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
}

// StatusOrder is the place of a status among the statuses of its account.
//
// One host delivers statuses in the order of the network, so its own numbers order them, even if a
// clock upstream goes back. Numbers of two hosts are not comparable: statuses from different hosts
// are ordered by upstream time, then by upstream number. The upstream number does not come first:
// it is the relay's, hosts may read different relays, whose numbers are far apart, and a relay may
// be replaced. A wrong order by number would be permanent; a wrong order by time lasts only while
// the clock is behind.
//
// Orders of three hosts need not be consistent, so a fold keeps one winner and takes statuses in
// the order of the stream. All folds of the stream then agree.
type StatusOrder struct {
	// Time is the upstream time or, if the event has no usable one, the host's.
	Time time.Time
	// Seq is the upstream number, 0 if there is none.
	Seq uint64
	// Host delivered the status as its event HostSeq. It is "" if unknown, as in rows that were
	// written before this was stored.
	Host    string
	HostSeq uint64
}

// StatusOrder returns the place of the event's status.
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
		// A host that was wiped starts its numbers again. Its new statuses are later upstream, by
		// time and by number; repeated ones are not.
		return o.HostSeq > last.HostSeq || later && (o.Seq > last.Seq || o.Seq == 0 || last.Seq == 0)
	}
	return later || o.Time.Equal(last.Time) && o.Seq > last.Seq
}

// same reports whether o and last are of one upstream event.
func (o StatusOrder) same(last StatusOrder) bool {
	return o.Time.Equal(last.Time) && o.Seq == last.Seq && (o.Seq != 0 || o.Host == last.Host && o.HostSeq == last.HostSeq)
}

// Advance moves o, the place of an account's last status, to a status at next. newer reports that
// next is now the account's status. again reports that next repeats the last status, possibly from
// another host; the numbers of that host count from then on. Otherwise next is older, and o does
// not change.
func (o *StatusOrder) Advance(next StatusOrder) (newer, again bool) {
	again = next.same(*o)
	newer = !again && next.After(*o)
	if newer || again {
		*o = next
	}
	return newer, again
}

// Statuses of com.atproto.sync.subscribeRepos#account with meanings of their own. Any other
// inactive status hides the account.
const (
	statusDeleted        = "deleted"
	statusThrottled      = "throttled"
	statusDesynchronized = "desynchronized"
)

// ChangesStatus reports whether an event can change an account's status. throttled and
// desynchronized describe the relay, not what the account wants to be seen.
func (e *Event) ChangesStatus() bool {
	return e.Kind == KindAccount && e.Status != statusThrottled && e.Status != statusDesynchronized
}

// Erases reports whether an event erases an account's posts.
func (e *Event) Erases() bool {
	return e.Kind == KindAccount && !e.Active && e.Status == statusDeleted
}
