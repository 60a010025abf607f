package profiles

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// remembered is how many authors are remembered to have been asked for. Beyond it the oldest are
// forgotten, and asked for again.
const remembered = 1 << 18

// asked remembers who was asked for, when, and what was answered last, by hashes: about 70 bytes
// each.
type asked struct {
	seed  maphash.Seed
	limit int

	mu    sync.Mutex // guards what follows
	of    map[uint64]question
	order []entry // oldest first; one that of has no more, or later, means nothing
}

// question is the last one for an author.
type question struct {
	at   int64  // Unix nanoseconds
	said uint64 // the hash of what came of it and is in the stream, 0 for nothing
}

type entry struct {
	author uint64
	at     int64 // Unix nanoseconds
}

func newAsked(limit int) asked {
	return asked{seed: maphash.MakeSeed(), limit: limit, of: map[uint64]question{}}
}

// within reports whether the author was asked for less than askedFor ago.
func (a *asked) within(did string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.order) >= a.limit {
		if e := a.order[0]; a.of[e.author].at == e.at {
			delete(a.of, e.author)
		}
		a.order = a.order[1:]
	}
	q, known := a.of[maphash.String(a.seed, did)]
	return known && q.at > now.Add(-askedFor).UnixNano()
}

// put notes that the author is asked for now.
func (a *asked) put(did string, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := entry{maphash.String(a.seed, did), now.UnixNano()}
	a.of[e.author] = question{e.at, a.of[e.author].said}
	a.order = append(a.order, e)
}

// forget lets authors be asked for again.
func (a *asked) forget(dids ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, did := range dids {
		delete(a.of, maphash.String(a.seed, did))
	}
}

// repeats reports whether an answer says what the author's last one said, which is in the stream.
// One that takes something away never does: what came since may have given it.
func (a *asked) repeats(ev *event.Event) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.of[maphash.String(a.seed, ev.DID)]
	return q.said != 0 && q.said == a.hash(ev)
}

// stored notes that an answer is in the stream.
func (a *asked) stored(ev *event.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	author := maphash.String(a.seed, ev.DID)
	if q, known := a.of[author]; known {
		q.said = a.hash(ev)
		a.of[author] = q
	}
}

// hash is of what an answer says, 0 where that takes something away.
func (a *asked) hash(ev *event.Event) uint64 {
	if ev.Profile == nil || ev.Profile.OptedOut || ev.Handle == nil || ev.Handle.Name == "" {
		return 0
	}
	return maphash.String(a.seed, ev.Profile.DisplayName+"\x00"+ev.Profile.Avatar+"\x00"+ev.Handle.Name)
}
