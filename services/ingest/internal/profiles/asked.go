package profiles

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// maxRemembered is how many authors are remembered. Beyond that the oldest are forgotten, and asked
// for again.
const maxRemembered = 1 << 18

// asked remembers who was asked for, when, and what was answered last, by hashes: about 70 bytes
// each.
type asked struct {
	seed  maphash.Seed
	limit int

	mu       sync.Mutex // guards what follows
	byAuthor map[uint64]question
	order    []entry // oldest first; an entry whose time is not that in byAuthor is outdated
}

// question is the last question about an author.
type question struct {
	at   int64  // Unix nanoseconds
	said uint64 // the hash of the last answer that is in the stream, 0 if there is none
}

type entry struct {
	author uint64
	at     int64 // Unix nanoseconds
}

func newAsked(limit int) asked {
	return asked{seed: maphash.MakeSeed(), limit: limit, byAuthor: map[uint64]question{}}
}

// recently reports whether the author was asked for less than askAgainAfter ago. It forgets what is
// over the limit.
func (a *asked) recently(did string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.order) >= a.limit {
		if e := a.order[0]; a.byAuthor[e.author].at == e.at {
			delete(a.byAuthor, e.author)
		}
		a.order = a.order[1:]
	}
	q, known := a.byAuthor[maphash.String(a.seed, did)]
	return known && q.at > now.Add(-askAgainAfter).UnixNano()
}

// note records that the author is asked for now.
func (a *asked) note(did string, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := entry{maphash.String(a.seed, did), now.UnixNano()}
	a.byAuthor[e.author] = question{e.at, a.byAuthor[e.author].said}
	a.order = append(a.order, e)
}

// forget lets authors be asked for again.
func (a *asked) forget(dids ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, did := range dids {
		delete(a.byAuthor, maphash.String(a.seed, did))
	}
}

// repeats reports whether an answer says what the author's last one said, which is in the stream.
// An answer that takes something away never does: an event in between may have given it back.
func (a *asked) repeats(ev *event.Event) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.byAuthor[maphash.String(a.seed, ev.DID)]
	return q.said != 0 && q.said == a.hash(ev)
}

// stored records that an answer is in the stream.
func (a *asked) stored(ev *event.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	author := maphash.String(a.seed, ev.DID)
	if q, known := a.byAuthor[author]; known {
		q.said = a.hash(ev)
		a.byAuthor[author] = q
	}
}

// hash returns a hash of what an answer says, or 0 if it takes something away.
func (a *asked) hash(ev *event.Event) uint64 {
	if ev.Profile == nil || ev.Profile.OptedOut || ev.Handle == nil || ev.Handle.Name == "" {
		return 0
	}
	return maphash.String(a.seed, ev.Profile.DisplayName+"\x00"+ev.Profile.Avatar+"\x00"+ev.Handle.Name)
}
