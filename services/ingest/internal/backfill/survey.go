package backfill

import (
	"errors"
	"fmt"
	"hash/maphash"

	"github.com/tagstream/tagstream/pkg/event"
)

// ErrTooMuch is returned where so much of the window is gone since that it
// cannot be kept in mind. Shorter windows, one after the other, do the same.
var ErrTooMuch = errors.New("too much of the window changed since: choose a shorter one")

// maxChanges is how many changes a survey remembers, of some 50 bytes each.
const maxChanges = 1_000_000

// survey is what happened to the window's posts and accounts since.
type survey struct {
	seed maphash.Seed
	// posts and accounts that the window has: accounts with a post or a status.
	posts, accounts *bloom
	// removed has the newest revision that took a post out, by the post's
	// hash. Two posts with one hash would be taken for each other; of ten
	// million with a million removals that happens once in a million windows.
	removed map[uint64]rev
	// latest is an account's last status.
	latest map[uint64]event.StatusOrder
	// erased is where an account was deleted, the last time.
	erased map[string]event.Position
	// hidden is an account's last status where that hides it.
	hidden map[string]*event.Event
	// replaced are accounts whose repository was, the last time, and coming is the
	// one whose replacements come, nil where they do not count.
	replaced map[string]*replacement
	coming   *replacement
	kept     int // posts in all of them
	limit    int // maxChanges
}

// rev is a revision in as little space as it needs.
type rev [13]byte

// replacement is a #sync.
type replacement struct {
	rev string
	// kept are the posts that the repository still had.
	kept map[uint64]struct{}
}

func newSurvey() *survey {
	return &survey{
		seed: maphash.MakeSeed(), posts: newBloom(), accounts: newBloom(), removed: map[uint64]rev{},
		latest: map[uint64]event.StatusOrder{}, erased: map[string]event.Position{}, hidden: map[string]*event.Event{}, replaced: map[string]*replacement{},
		limit: maxChanges,
	}
}

func (s *survey) key(ev *event.Event) uint64 { return maphash.String(s.seed, ev.URI()) }

// note adds an event, in upstream order; inside says that it is of the
// window, and replaces that it is one of the replacements behind the last #sync. The
// error is ErrTooMuch.
func (s *survey) note(ev *event.Event, inside, replaces bool) error {
	switch ev.Kind {
	case event.KindCreate, event.KindUpdate:
		if inside {
			s.posts.add(ev.URI())
			s.accounts.add(ev.DID)
		}
		if replaces && s.coming != nil {
			s.coming.kept[s.key(ev)] = struct{}{}
			s.kept++
		}
	case event.KindRemove, event.KindDelete:
		if s.posts.has(ev.URI()) {
			var r rev
			copy(r[:], ev.Rev)
			if k := s.key(ev); string(r[:]) > s.removedAt(k) {
				s.removed[k] = r
			}
		}
	case event.KindAccount:
		s.status(ev, inside)
	case event.KindSync:
		s.coming = nil
		if r := s.replaced[ev.DID]; s.accounts.has(ev.DID) && (r == nil || r.rev < ev.Rev) {
			s.coming = &replacement{ev.Rev, map[uint64]struct{}{}}
			s.replaced[ev.DID] = s.coming
		}
	case event.KindPosition, event.KindAuthor:
	}
	if n := len(s.removed) + len(s.latest) + len(s.erased) + len(s.hidden) + len(s.replaced) + s.kept; n > s.limit {
		return fmt.Errorf("%w (%d)", ErrTooMuch, n)
	}
	return nil
}

func (s *survey) removedAt(k uint64) string {
	r, ok := s.removed[k]
	if !ok {
		return ""
	}
	return string(r[:])
}

func (s *survey) status(ev *event.Event, inside bool) {
	if !ev.ChangesStatus() {
		return
	}
	if inside {
		s.accounts.add(ev.DID)
	} else if !s.accounts.has(ev.DID) {
		return
	}
	account := maphash.String(s.seed, ev.DID)
	at := s.latest[account]
	newer, _ := at.Follow(ev.StatusOrder())
	s.latest[account] = at
	if !newer {
		return
	}
	delete(s.hidden, ev.DID)
	switch {
	case ev.Active:
	case ev.Erases():
		s.erased[ev.DID] = ev.Source
	default:
		s.hidden[ev.DID] = ev
	}
}

// outdated reports whether an account has a newer status. To hide or to erase
// one that came back before the live events began would be for good: they do
// not tell.
func (s *survey) outdated(ev *event.Event) bool {
	return ev.Kind == event.KindAccount && s.latest[maphash.String(s.seed, ev.DID)].After(ev.StatusOrder())
}

// gone reports whether the record that a create or an update brings is surely
// no more: a post that was taken out since, an account that was erased.
func (s *survey) gone(ev *event.Event) bool {
	if ev.Kind != event.KindCreate && ev.Kind != event.KindUpdate {
		return false
	}
	k := s.key(ev)
	if ev.Rev < s.removedAt(k) || before(ev.Source, s.erased[ev.DID]) {
		return true
	}
	r := s.replaced[ev.DID]
	if r == nil || ev.Rev >= r.rev {
		return false
	}
	_, kept := r.kept[k]
	return !kept
}

// before reports whether a comes before b: on one host by their numbers.
func before(a, b event.Position) bool {
	if a.Host == b.Host {
		return a.Seq < b.Seq
	}
	return a.NetworkTime().Before(b.NetworkTime())
}

// concerns reports whether an event behind the window is about what it has.
func (s *survey) concerns(ev *event.Event) bool {
	if ev.IsPost() {
		return s.posts.has(ev.URI())
	}
	return ev.Kind != event.KindPosition && s.accounts.has(ev.DID)
}
