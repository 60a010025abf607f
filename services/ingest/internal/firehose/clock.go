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

// identity is what an event is on every host, unlike its number and its times.
type identity struct {
	did, rkey, rev string
	// told is an account event's own time, as its server gave it.
	told string
}

func identityOf(ev *jetstream.Event) identity {
	id := identity{did: ev.DID}
	switch {
	case ev.Commit != nil:
		id.rkey, id.rev = ev.Commit.Rkey, ev.Commit.Rev
	case ev.Account != nil:
		id.told = ev.Account.Time
	case ev.Sync != nil:
		id.rev = ev.Sync.Rev
	}
	return id
}

// markBytes make two events that a host gives one number to differ for sure.
const markBytes = 6

// mark is the identity in as few characters as tell it from another.
func (id identity) mark() string {
	var b []byte
	for _, s := range []string{id.did, id.rkey, id.rev, id.told} {
		b = append(append(b, s...), 0)
	}
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:markBytes])
}

// time is when the account's server made the event, by that server's clock.
func (id identity) time() (time.Time, bool) {
	if t, ok := event.RevTime(id.rev); ok {
		return t, true
	}
	t, err := time.Parse(time.RFC3339Nano, id.told)
	return t.UTC(), err == nil
}

const (
	// clockAccounts is how many accounts have a say in the clock, each by its last
	// event: fewer than half of them may lie, however far. The clock is behind
	// the newest event by half as many.
	clockAccounts = 9
	// clockAhead is how far the clock may be ahead of this machine's.
	clockAhead = 5 * time.Second
)

// clock is how far the network's own time had come in what was read: the median
// of the times that the last events' own servers gave them. Hosts have no part
// in it. It never goes back: what an earlier position covered stays covered.
type clock struct {
	at   time.Time
	seed maphash.Seed
	last []vote // the newest at the end
}

// vote is the time of an account's last event.
type vote struct {
	account uint64
	micros  int64
}

// newClock returns a clock that goes on from a position.
func newClock(from event.Position) *clock {
	c := &clock{seed: maphash.MakeSeed(), last: make([]vote, 0, clockAccounts+1)}
	c.advance(from.Clock)
	return c
}

// read takes in the next event and returns the clock.
func (c *clock) read(id identity) time.Time {
	t, ok := id.time()
	if !ok {
		return c.at
	}
	account := maphash.String(c.seed, id.did)
	c.last = slices.DeleteFunc(c.last, func(v vote) bool { return v.account == account })
	if c.last = append(c.last, vote{account, t.UnixMicro()}); len(c.last) > clockAccounts {
		c.last = append(c.last[:0], c.last[1:]...)
	}
	c.advance(median(c.last))
	return c.at
}

func (c *clock) advance(to time.Time) {
	if !to.After(c.at) {
		return
	}
	if limit := time.Now().Add(clockAhead).UTC().Truncate(time.Microsecond); to.After(limit) {
		to = limit
	}
	if to.After(c.at) {
		c.at = to
	}
}

// median is the middle one of the times, the earlier of two.
func median(votes []vote) time.Time {
	var sorted [clockAccounts]int64
	for i, v := range votes {
		sorted[i] = v.micros
	}
	s := sorted[:len(votes)]
	slices.Sort(s)
	return time.UnixMicro(s[(len(s)-1)/2]).UTC()
}
