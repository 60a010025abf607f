package firehose

import (
	"crypto/sha256"
	"encoding/base64"
	"hash/maphash"
	"slices"
	"time"

	"github.com/bluesky-social/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
)

// identity is the part of an event that is the same on every host, unlike its number and its times.
type identity struct {
	did, rkey, rev string
	// accountTime and handleTime are the own times of account and identity events, as the account's
	// server gave them.
	accountTime, handleTime string
}

func identityOf(ev *jetstream.Event) identity {
	id := identity{did: ev.DID}
	switch {
	case ev.Commit != nil:
		id.rkey, id.rev = ev.Commit.Rkey, ev.Commit.Rev
	case ev.Account != nil:
		id.accountTime = ev.Account.Time
	case ev.Sync != nil:
		id.rev = ev.Sync.Rev
	case ev.Identity != nil:
		id.handleTime = ev.Identity.Time
	}
	return id
}

// markBytes is enough to distinguish two events to which a host gives the same number.
const markBytes = 6

// mark returns the identity in as few characters as distinguish it from another.
func (id identity) mark() string {
	b := make([]byte, 0, 128) // enough for nearly all, and not on the heap
	for _, s := range []string{id.did, id.rkey, id.rev, id.accountTime} {
		b = append(append(b, s...), 0)
	}
	b = append(b, id.handleTime...) // last, and without an end: marks of other events stay what they were
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:markBytes])
}

// time returns when the account's server made the event, by that server's clock. A server may claim
// any time; times before 1970 are rejected, because no position can hold them.
func (id identity) time() (time.Time, bool) {
	if t, ok := event.RevTime(id.rev); ok {
		return t, true
	}
	t, err := time.Parse(time.RFC3339Nano, id.accountTime+id.handleTime) // at most one is set
	return t.UTC(), err == nil && !t.Before(time.Unix(0, 0))
}

const (
	// clockAccounts is how many accounts vote on the clock, each with its last event: fewer than
	// half of them may lie, however much. The clock lags behind the newest event by half as many
	// events.
	clockAccounts = 9
	// minVotes is how many accounts it takes to move a known clock, or to tell where the bulk ends:
	// a single account may claim anything.
	minVotes = 2
	// clockAhead is how far the clock may be ahead of this machine's clock.
	clockAhead = 5 * time.Second
)

// clock is the network time that reading has reached: the median of the times that the servers of
// the last events gave them. Hosts have no influence on it. It never goes back: what an earlier
// position covered stays covered.
//
// A host's bulk is what the host downloaded when it was new. It is in no order and says nothing
// about what was read before, so the clock stands still in it.
type clock struct {
	accountTimes

	at    time.Time
	limit ceiling
	// need is how many accounts it takes to move the clock.
	need int
	// bulk reports that the events being read may be bulk, and since when.
	bulk  bool
	since time.Time
}

// newClock returns a clock that continues from a position. Only a position from before there were
// clocks says nothing about the bulk: its time replaces the clock.
func newClock(from event.Position) *clock {
	c := &clock{}
	c.advance(from.Clock)
	c.dropVotes()
	c.bulk, c.since = from.Seq == 0 || from.Mark != "" || !from.Clock.IsZero(), time.Now()
	return c
}

// beginBulk says that the next events may be bulk, and that everything up to t is covered there.
func (c *clock) beginBulk(t time.Time) {
	if t.After(time.Unix(0, 0)) { // otherwise nothing is covered
		c.advance(t)
	}
	c.dropVotes()
	c.bulk, c.since = true, time.Now()
}

// dropVotes begins the vote on the time again.
func (c *clock) dropVotes() {
	c.accountTimes, c.need = newAccountTimes(), minVotes
	if c.at.IsZero() {
		c.need = 1 // anything is better than none
	}
}

// read adds the next event and returns the clock. create reports that the event is a create.
func (c *clock) read(id identity, create bool) time.Time {
	if c.bulk && !create { // the bulk is creates alone
		c.dropVotes()
		c.bulk = false
	}
	if !c.add(id) {
		return c.at
	}
	at := c.median()
	if c.bulk && len(c.votes) >= minVotes && at.After(c.since) && !at.After(time.Now().Add(clockAhead)) {
		c.bulk = false // made since: a host takes subscribers only once it has its bulk
	}
	if !c.bulk && len(c.votes) >= c.need {
		c.advance(at)
	}
	return c.at
}

// inBulk reports whether a position is in the bulk of a host that is read from its beginning:
// nothing is covered yet.
func inBulk(p event.Position) bool { return p.Clock.IsZero() && p.Mark != "" }

func (c *clock) advance(to time.Time) {
	if to = c.limit.bound(to); to.After(c.at) {
		c.at = to
	}
}

// ceiling is how late a time may be: clockAhead from now. It lasts for one delivery, so that this
// machine's clock is read rarely, and may be set back.
type ceiling struct{ at time.Time }

// bound returns t, or the ceiling if t is after it.
func (c *ceiling) bound(t time.Time) time.Time {
	if t.After(c.at) {
		c.at = time.Now().Add(clockAhead).UTC().Truncate(time.Microsecond)
	}
	if t.After(c.at) {
		return c.at
	}
	return t
}

// accountTimes has the times of the last events of some accounts.
type accountTimes struct {
	seed  maphash.Seed
	votes []vote // the newest at the end
}

// vote is the time of an account's last event.
type vote struct {
	account uint64
	micros  int64
}

func newAccountTimes() accountTimes {
	return accountTimes{seed: maphash.MakeSeed(), votes: make([]vote, 0, clockAccounts+1)}
}

// has reports whether an account has a vote.
func (a *accountTimes) has(did string) bool {
	account := maphash.String(a.seed, did)
	return slices.ContainsFunc(a.votes, func(v vote) bool { return v.account == account })
}

// add adds an event, and reports whether it has a time.
func (a *accountTimes) add(id identity) bool {
	t, ok := id.time()
	if !ok {
		return false
	}
	account := maphash.String(a.seed, id.did)
	a.votes = slices.DeleteFunc(a.votes, func(v vote) bool { return v.account == account })
	if a.votes = append(a.votes, vote{account, t.UnixMicro()}); len(a.votes) > clockAccounts {
		a.votes = append(a.votes[:0], a.votes[1:]...)
	}
	return true
}

func (a *accountTimes) full() bool { return len(a.votes) == clockAccounts }

// median returns the middle one of the times, the earlier of two; zero if there are none.
func (a *accountTimes) median() time.Time {
	if len(a.votes) == 0 {
		return time.Time{}
	}
	var sorted [clockAccounts]int64
	for i, v := range a.votes {
		sorted[i] = v.micros
	}
	s := sorted[:len(a.votes)]
	slices.Sort(s)
	return time.UnixMicro(s[(len(s)-1)/2]).UTC()
}
