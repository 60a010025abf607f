package firehose

import (
	"math/rand/v2"
	"time"
)

// retries is how often a host that was being read is tried again before the
// next one has its turn: servers restart.
const retries = 4

// rotation decides which host has its turn. A host that was of use gets a few
// more tries; then all others have one, the preferred first; then there is a
// pause, longer each time, and a new round begins.
type rotation struct {
	timing Timing
	tried  []bool // in this round
	// current is the host of the last visit, and left how many tries it has.
	current int
	left    int
	retry   time.Duration // the next pause before one of these
	round   time.Duration // the next pause before a new round
}

// next returns the host to visit and how long to pause before.
func (r *rotation) next() (host int, pause time.Duration) {
	if r.left > 0 {
		r.left--
		pause = jitter(r.retry)
		r.retry = min(2*r.retry, r.timing.BackoffMax)
		return r.current, pause
	}
	for i, tried := range r.tried {
		if !tried {
			r.current = i
			return i, 0
		}
	}
	clear(r.tried)
	r.round = min(max(2*r.round, r.timing.BackoffMin), r.timing.BackoffMax)
	r.current = 0
	return 0, jitter(r.round)
}

// ended takes note of how the visit went: whether something was read, and
// whether the host was found to be away.
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

// jitter is d, half of it certain and half by chance: readers that lost the
// same host do not come back at once.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
