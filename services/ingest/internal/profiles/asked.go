package profiles

import (
	"hash/maphash"
	"sync"
	"time"
)

// remembered is how many authors are remembered to have been asked for. Beyond it the oldest are
// forgotten, and asked for again.
const remembered = 1 << 18

// asked remembers whom was asked for within askedFor, by a hash: about 60 bytes each.
type asked struct {
	seed  maphash.Seed
	limit int

	mu    sync.Mutex // guards what follows
	at    map[uint64]int64
	order []entry // oldest first; one that at has no more, or later, means nothing
}

type entry struct {
	author uint64
	at     int64 // Unix nanoseconds
}

func newAsked(limit int) asked {
	return asked{seed: maphash.MakeSeed(), limit: limit, at: map[uint64]int64{}}
}

// within reports whether the author was asked for less than askedFor ago.
func (a *asked) within(did string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.order) > 0 && (len(a.order) >= a.limit || a.order[0].at <= now.Add(-askedFor).UnixNano()) {
		if e := a.order[0]; a.at[e.author] == e.at {
			delete(a.at, e.author)
		}
		a.order = a.order[1:]
	}
	_, known := a.at[maphash.String(a.seed, did)]
	return known
}

// put notes that the author is asked for now.
func (a *asked) put(did string, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := entry{maphash.String(a.seed, did), now.UnixNano()}
	a.at[e.author] = e.at
	a.order = append(a.order, e)
}

// forget lets authors be asked for again.
func (a *asked) forget(dids ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, did := range dids {
		delete(a.at, maphash.String(a.seed, did))
	}
}
