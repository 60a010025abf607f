package firehose

import (
	"math/rand/v2"
	"time"
)

// retries is how often a host that was being read is retried before the next one: servers restart.
const retries = 4

// rotation decides which host is next. A host that delivered events is retried a few times; then
// each other host is tried once, the preferred one first; then a new round begins after a growing
// pause. Hosts that were left because they were silent come last in each round.
type rotation struct {
	timing Timing
	tried  []bool // in this round
	// silent are hosts that delivered nothing new while others had something; doubted are those
	// that an earlier run left for an unknown reason. They are not visited until they show
	// something newer than was read.
	silent, doubted []bool
	// wanted is a host that has something newer and is next, -1 if there is none.
	wanted int
	// current is the host of the last visit, and left its remaining tries.
	current int
	left    int
	retry   time.Duration // the next pause before one of these
	round   time.Duration // the next pause before a new round
}

func newRotation(hosts int, timing Timing) rotation {
	return rotation{timing: timing, tried: make([]bool, hosts), silent: make([]bool, hosts), doubted: make([]bool, hosts), wanted: -1}
}

// doubt marks the hosts that are preferred to last, on which an earlier run ended; below 0 means
// none.
func (r *rotation) doubt(last int) {
	for i := range last {
		r.doubted[i] = true
	}
}

// mustAsk reports whether a host must be asked for something newer before it is visited; answered
// records the answer, and returns it.
func (r *rotation) mustAsk(host int) bool { return r.silent[host] || r.doubted[host] }

func (r *rotation) answered(host int, newer bool) bool {
	r.silent[host], r.doubted[host] = !newer, false
	return newer
}

// next returns the host to visit and the pause before that.
func (r *rotation) next() (host int, pause time.Duration) {
	switch {
	case r.wanted >= 0:
		r.current, r.wanted = r.wanted, -1
	case r.left > 0:
		r.left--
		pause = jitter(r.retry)
		r.retry = min(2*r.retry, r.timing.BackoffMax)
	case !r.pick():
		clear(r.tried)
		r.round = min(max(2*r.round, r.timing.BackoffMin), r.timing.BackoffMax)
		pause = jitter(r.round)
		r.pick()
	}
	return r.current, pause
}

// pick makes the first untried host of this round the current one.
func (r *rotation) pick() bool {
	for _, silent := range []bool{false, true} {
		for i, tried := range r.tried {
			if !tried && r.silent[i] == silent {
				r.current = i
				return true
			}
		}
	}
	return false
}

// ended records the result of a visit: whether something was read, and whether the host was away.
func (r *rotation) ended(useful, away bool) {
	if useful {
		clear(r.tried)
		r.left, r.retry, r.round = retries, r.timing.BackoffMin, 0
	}
	if away {
		r.left = 0
	}
	if r.left == 0 {
		r.tried[r.current] = true
	}
}

// fellSilent records that the visit ended because another host has something newer.
func (r *rotation) fellSilent(other int) {
	r.silent[r.current], r.silent[other] = true, false
	r.left, r.wanted = 0, other
	r.tried[r.current] = true
}

// jitter returns half of d plus a random part of the other half, so that readers that lost the same
// host do not return at the same time.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
