package model

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// Post is one post of the index.
type Post struct {
	URI, DID, Rkey string
	Rev, CID       string
	Tags           []string // normalized, in the record's order
	Langs          []string // as declared
	CreatedAt      string   // the record's own, empty where that is no string
	Record         []byte   // JSON
	IndexedAt      time.Time
	// Place is the post's own since it entered the index.
	Place Place
	// Seq is the stream sequence number of the version that is stored.
	Seq uint64
	// Hidden says that its account is not active: readers do not see the post.
	Hidden bool

	// Of FromUpstream alone: IndexedAt is only when the change was made, and
	// what is known of how the post came in.
	timesUnknown bool
	entry        *entry
}

// SortAt is the time by which the post is ordered.
func (p *Post) SortAt() time.Time { return p.Place.SortAt() }

// Index is the folded state of a history. Its zero value is not usable; see New.
type Index struct {
	posts    map[string]*Post    // by at-uri, hidden and stale ones too
	places   map[Place]string    // at-uri of the post at each place
	markers  map[string]string   // at-uri of a removed post -> rev
	accounts map[string]*account // by DID
	sync     *pendingSync        // set between a sync event and the end of what belongs to it

	mentioned map[string]bool // at-uris of all post events that came
	// lives are, of FromUpstream alone, other ways in which posts may have come in; see adopt.
	lives        map[string][]*entry
	severalHosts bool
	deadLetters  int
	complaints   []string

	hash func(uri string) uint64 // hashOf; tests make collisions with another
}

type account struct {
	inactive bool
	// deleted says that the last account event that applied was a deletion.
	deleted bool
	// lastTime and lastSeq are of the last account event that applied: the network's,
	// or the host's where the event had none of the network's.
	lastTime time.Time
	lastSeq  uint64
	// floor is the highest rev that the account's erased posts had.
	floor string
	// syncRev is the rev of the account's last sync event.
	syncRev string
	// synced says, of FromUpstream alone, that there was one.
	synced bool
}

// pendingSync is a sync event, and how much of the repository has come since.
type pendingSync struct {
	did string
	// rev is the revision that the sync event was about, repo that of the repository
	// which came behind it, empty as long as no record of it has.
	rev, repo string
	// time is the sync event's, by which old position messages are judged.
	time time.Time
}

// New returns the index of the empty history.
func New() *Index {
	return &Index{
		posts:     map[string]*Post{},
		places:    map[Place]string{},
		markers:   map[string]string{},
		accounts:  map[string]*account{},
		mentioned: map[string]bool{},
		lives:     map[string][]*entry{},
		hash:      hashOf,
	}
}

// Apply folds one message of the stream into the index. One that event.Decode
// refuses is counted, and otherwise as if it had never come.
func (x *Index) Apply(seq uint64, data []byte) {
	e, err := event.Decode(data)
	if err != nil {
		x.deadLetters++
		return
	}
	if len(e.Tags) > 0 || e.Kind == event.KindCreate || e.Kind == event.KindUpdate {
		var stored struct{ Tags []string }
		if err := json.Unmarshal(data, &stored); err != nil {
			panic(fmt.Sprintf("model: message %d: %v", seq, err))
		}
		e.Tags = stored.Tags
	}
	x.ApplyEvent(seq, e)
}

// ApplyEvent folds one event, which event.Decode would accept, into the index.
func (x *Index) ApplyEvent(seq uint64, e *event.Event) {
	if e.Kind == event.KindRemove || e.Kind == event.KindDelete {
		x.remove(e) // of a stale post too, which therefore is still there
	}
	x.endSync(e)
	switch e.Kind {
	case event.KindCreate, event.KindUpdate:
		x.put(seq, e)
	case event.KindRemove, event.KindDelete:
	case event.KindAccount:
		x.applyAccount(e)
	case event.KindSync:
		x.applySync(e)
	case event.KindPosition:
	default:
		panic(fmt.Sprintf("model: event of unknown kind %q", e.Kind))
	}
}

// put brings the post of a create or update into the index, or replaces it.
func (x *Index) put(seq uint64, e *event.Event) {
	uri := uriOf(e.DID, e.Rkey)
	x.mentioned[uri] = true
	if !x.isNews(uri, e) {
		return
	}
	if !slices.Equal(olderTags(e.Tags), e.Tags) { // which holds for today's too
		x.complaints = append(x.complaints, fmt.Sprintf("message %d has tags that are not normalized: %q", seq, e.Tags))
	}
	old, had := x.posts[uri]
	tags := normalTags(e.Tags) // whatever the rule was when they were stored
	if len(tags) == 0 {
		if had {
			x.drop(old)
		}
		x.markers[uri] = e.Rev
		return
	}
	p := &Post{
		URI: uri, DID: e.DID, Rkey: e.Rkey, Rev: e.Rev, CID: e.CID,
		Tags: tags, Langs: slices.Clone(e.Langs),
		CreatedAt: e.CreatedAt, Record: slices.Clone(e.Record),
		IndexedAt: time.UnixMicro(e.Source.Time.UnixMicro()).UTC(),
		Seq:       seq,
	}
	if had {
		p.Place = old.Place
	} else {
		p.Place = x.freePlace(uri, sortMicros(e.CreatedAt, e.Source.Time))
	}
	x.posts[uri] = p
	x.places[p.Place] = uri
	delete(x.markers, uri)
}

// drop takes a post out of the index and frees its place.
func (x *Index) drop(p *Post) {
	if p.entry != nil && x.account(p.DID).synced {
		x.lives[p.URI] = append(x.lives[p.URI], p.entry)
	}
	delete(x.places, p.Place)
	delete(x.posts, p.URI)
}

// remove takes the post of a remove or delete out of the index.
func (x *Index) remove(e *event.Event) {
	uri := uriOf(e.DID, e.Rkey)
	x.mentioned[uri] = true
	if !x.isNews(uri, e) {
		return
	}
	p, had := x.posts[uri]
	if had {
		x.drop(p)
	}
	if _, removedBefore := x.markers[uri]; had || removedBefore {
		x.markers[uri] = e.Rev
	}
}

// isNews reports whether a post event is newer than all that is known of the
// post and, as a whole, of its account.
func (x *Index) isNews(uri string, e *event.Event) bool {
	a := x.account(e.DID)
	if e.Rev <= a.floor || e.Rev < a.syncRev {
		return false
	}
	if p, ok := x.posts[uri]; ok && e.Rev <= p.Rev {
		return false
	}
	return e.Rev > x.markers[uri]
}

// freePlace is the place of a post that enters, or the next one above that no
// other post has.
func (x *Index) freePlace(uri string, micros int64) Place {
	place := Place{Micros: micros, Hash: x.hash(uri)}
	for x.places[place] != "" {
		place.Hash++ // wraps within the microsecond
	}
	return place
}

// applyAccount follows a change of an account's hosting status.
func (x *Index) applyAccount(e *event.Event) {
	if e.Status == "throttled" || e.Status == "desynchronized" {
		return
	}
	a := x.account(e.DID)
	t, seq := e.Source.Time, e.Source.Seq
	if own := e.Upstream; own != nil {
		t, seq = own.Time, own.Seq
	}
	deleted := !e.Active && e.Status == "deleted"
	if t.Equal(a.lastTime) && seq == a.lastSeq && a.deleted && deleted {
		x.erase(e.DID) // the same deletion, behind what came of the account once more
		return
	}
	if t.Before(a.lastTime) || t.Equal(a.lastTime) && seq <= a.lastSeq {
		return
	}
	a.lastTime, a.lastSeq = t, seq
	a.inactive, a.deleted = !e.Active, deleted
	if deleted {
		x.erase(e.DID)
	}
}

// erase forgets an account's posts and markers, but for the floor.
func (x *Index) erase(did string) {
	a := x.account(did)
	for _, p := range x.posts {
		if p.DID == did {
			a.floor = max(a.floor, p.Rev)
			x.drop(p)
		}
	}
	for uri, rev := range x.markers {
		if didOf(uri) == did {
			a.floor = max(a.floor, rev)
			delete(x.markers, uri)
		}
	}
}

// applySync makes the account's posts older than the sync stale.
func (x *Index) applySync(e *event.Event) {
	a := x.account(e.DID)
	a.syncRev = max(a.syncRev, e.Rev)
	x.sync = &pendingSync{did: e.DID, rev: e.Rev, time: e.Source.Time}
}

// endSync removes what a sync left stale, unless the next event still belongs
// to the sync. No markers stay: the sync's own rev keeps older events out, and
// a create at that rev that comes late must enter.
func (x *Index) endSync(next *event.Event) {
	s := x.sync
	if s == nil {
		return
	}
	if x.belongs(next, s) {
		if next.Kind == event.KindCreate {
			s.repo = next.Rev
		}
		return
	}
	a := x.account(s.did)
	a.syncRev = max(a.syncRev, s.rev, s.repo)
	for _, p := range x.posts {
		if p.DID == s.did && p.Rev < a.syncRev {
			x.drop(p)
		}
	}
	x.sync = nil
}

// belongs reports whether an event leaves a sync pending. A repository that was
// fetched for it is one state: all of its records come at once, as creates, at one
// revision. That is not before the one that the sync event told, but may be after it,
// since the account goes on while its host is asked. The first record tells which.
func (x *Index) belongs(e *event.Event, s *pendingSync) bool {
	switch e.Kind {
	case event.KindPosition:
		// The reader says whether it stopped in the midst of a repository. Before it
		// said so, it told a time that is the sync's where it may have.
		if e.Sync == "" {
			return e.Source.Time.Equal(s.time)
		}
		return e.Sync == "open"
	case event.KindSync:
		return e.DID == s.did // told again, and what follows is another repository
	case event.KindCreate:
		if s.repo == "" {
			return e.DID == s.did && e.Rev >= s.rev
		}
		return e.DID == s.did && e.Rev == s.repo
	default:
		return false
	}
}

func (x *Index) account(did string) *account {
	if x.accounts[did] == nil {
		x.accounts[did] = &account{}
	}
	return x.accounts[did]
}
