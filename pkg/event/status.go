package event

import "time"

// Upstream is where an account event stands upstream of the hosts, as the event
// itself says: the same on every host, whatever a host's clock and lag.
type Upstream struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
}

// StatusOrder is where a status of an account stands among its others. It is the
// one order of them: by the event's own upstream time and sequence number or,
// where it has none that can be used, by those that the host gave it.
type StatusOrder struct {
	Time time.Time
	Seq  uint64
}

// StatusOrder returns where the status of an account event stands.
func (e *Event) StatusOrder() StatusOrder {
	if e.Upstream != nil {
		return StatusOrder{e.Upstream.Time.UTC(), e.Upstream.Seq}
	}
	return StatusOrder{e.Source.Time.UTC(), e.Source.Seq}
}

// After reports whether a status at o is newer than one at other.
func (o StatusOrder) After(other StatusOrder) bool {
	c := o.Time.Compare(other.Time)
	return c > 0 || c == 0 && o.Seq > other.Seq
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
