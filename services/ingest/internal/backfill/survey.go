package backfill

import (
	"errors"
	"fmt"
	"hash/maphash"

	"github.com/tagstream/tagstream/pkg/event"
)

// ErrTooMuch is returned if more changed since than fits into memory. Several shorter windows
// achieve the same.
var ErrTooMuch = errors.New("too much of the window changed since: choose a shorter one")

// maxChanges is how many changes a survey remembers, about 50 bytes each.
const maxChanges = 1_000_000

// survey has the later changes of the window's posts and accounts.
type survey struct {
	seed maphash.Seed
	// posts and accounts are those of the window: accounts with a post or a status in it.
	posts, accounts *bloom
	// removed has the newest revision that removed a post, by the post's hash. Two posts with the
	// same hash would be confused; with ten million posts and a million removals that happens once
	// in a million windows.
	removed map[uint64]rev
	// latest is the last status of each account.
	latest map[uint64]event.StatusOrder
	// erased is the position of each account's last deletion.
	erased map[string]event.Position
	// hidden is the last status of each account that is hidden.
	hidden map[string]*event.Event
	// replaced has the last #sync of each account. coming is the one whose replacements are being
	// read, nil if they do not count.
	replaced map[string]*replacement
	coming   *replacement
	kept     int // posts in all of them
	limit    int // maxChanges
}

// rev is a revision in its most compact form.
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

// note adds an event, in upstream order. inside reports that it is in the window, and replaces that
// it is one of the replacements of the last #sync. The error is ErrTooMuch.
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
	newer, _ := at.Advance(ev.StatusOrder())
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

// outdated reports whether the account has a newer status. Hiding or erasing an account that
// returned before the live events began would be permanent, because no live event says that it
// returned.
func (s *survey) outdated(ev *event.Event) bool {
	return ev.Kind == event.KindAccount && s.latest[maphash.String(s.seed, ev.DID)].After(ev.StatusOrder())
}

// gone reports whether the record of a create or update is certainly gone: the post was removed
// since, or its account erased.
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

// before reports whether a comes before b; on one host by sequence numbers.
func before(a, b event.Position) bool {
	if a.Host == b.Host {
		return a.Seq < b.Seq
	}
	return a.NetworkTime().Before(b.NetworkTime())
}

// concerns reports whether an event after the window is about one of its posts or accounts.
func (s *survey) concerns(ev *event.Event) bool {
	if ev.IsPost() {
		return s.posts.has(ev.URI())
	}
	return ev.Kind != event.KindPosition && s.accounts.has(ev.DID)
}
