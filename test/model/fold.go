package model

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// Post is one post of the index.
type Post struct {
	URI, DID, Rkey string
	Rev, CID       string
	Tags           []string // normalized, in the record's order
	Shown          []string // those that are not denied
	Langs          []string // as declared
	CreatedAt      string   // the record's own, empty where that is no string
	Record         []byte   // JSON
	IndexedAt      time.Time
	Place          Place  // from when the post entered the index
	Seq            uint64 // of the message that made this version
	Hidden         bool   // its account is not active, opted out or denied: readers do not see the post
	Author         Author // as the account's is

	entered entry
}

// SortAt is the time by which the post is ordered.
func (p *Post) SortAt() time.Time { return p.Place.SortAt() }

// Index is the folded state of a history; New makes one.
type Index struct {
	posts    map[string]*Post    // by at-uri, also hidden ones and those that a sync made stale
	markers  map[string]string   // at-uri of a removed post -> rev
	accounts map[string]*account // by DID
	sync     *pendingSync        // set between a sync event and the end of its repository

	mentioned   map[string]bool // at-uris of all post events that came
	deadLetters int
	complaints  []string
	deniedDIDs  []string
	deniedTags  []string
	hash        func(uri string) uint64 // hashOf; tests make collisions with another

	network      *networkTimes // of FromNetwork alone
	severalHosts bool
}

// Author is what the index knows of who wrote a post, "" where nothing.
type Author struct {
	Handle, DisplayName, Avatar string
}

type account struct {
	known    bool // something came of it that is kept
	inactive bool
	optedOut bool
	author   Author
	told     Author       // what was told of it last, known or not
	rev      string       // that its profile is of
	named    time.Time    // that its handle is of
	deleted  bool         // the last account event that applied was a deletion
	last     *event.Event // the account event that its status comes from, as it was told last
	floor    string       // the highest rev that the account's erased posts had
	syncRev  string       // below it nothing of the account is taken any more
}

// pendingSync is a sync event whose repository is still coming.
type pendingSync struct {
	did  string
	rev  string    // that the sync event was about
	repo string    // of the repository that came behind it; empty until its first record
	time time.Time // of the sync event, by which old position messages are judged
}

// New returns the index of the empty history.
func New() *Index {
	return &Index{
		posts: map[string]*Post{}, markers: map[string]string{}, accounts: map[string]*account{},
		mentioned: map[string]bool{}, hash: hashOf,
	}
}

// Fold folds messages of the stream, from its first one on.
func Fold(messages [][]byte) *Index {
	x := New()
	for i, m := range messages {
		x.Apply(uint64(i+1), m)
	}
	return x
}

// Apply folds one message of the stream into the index. One that event.Decode refuses is
// counted, and otherwise as if it had never come.
func (x *Index) Apply(seq uint64, data []byte) {
	e, err := event.Decode(data)
	if err != nil {
		x.deadLetters++
		return
	}
	var stored struct{ Tags []string } // as they were written: Decode applies today's rule
	if err := json.Unmarshal(data, &stored); err != nil {
		panic(fmt.Sprintf("model: message %d: %v", seq, err))
	}
	e.Tags = stored.Tags
	x.ApplyEvent(seq, e)
}

// ApplyEvent folds one event, which event.Decode would accept, into the index.
func (x *Index) ApplyEvent(seq uint64, e *event.Event) {
	if e.Kind == event.KindRemove || e.Kind == event.KindDelete {
		x.remove(e) // also a post that the sync before it made stale, so that its marker stays
	}
	x.endSync(e)
	switch e.Kind {
	case event.KindCreate, event.KindUpdate:
		x.put(seq, e)
	case event.KindAccount:
		x.applyAccount(e)
	case event.KindSync:
		x.sync = nil
		if e.Sync == event.SyncOpen {
			return // its end comes, or it changes nothing
		}
		x.account(e.DID).known = true
		x.account(e.DID).syncRev = max(x.account(e.DID).syncRev, e.Rev)
		if e.Sync == event.SyncOver {
			x.dropBelow(e.DID, e.Rev)
			x.account(e.DID).noProfile(e.Rev)
		} else {
			x.sync = &pendingSync{did: e.DID, rev: e.Rev, time: e.Source.Time}
		}
	case event.KindAuthor:
		x.applyAuthor(e)
	case event.KindRemove, event.KindDelete, event.KindPosition:
	default:
		panic(fmt.Sprintf("model: event of unknown kind %q", e.Kind))
	}
}

// isNews: per post the newest rev wins, over the stored version, the marker of a removed post,
// and what is known of the account as a whole.
func (x *Index) isNews(uri string, e *event.Event) bool {
	a := x.account(e.DID)
	if e.Rev <= a.floor || e.Rev < a.syncRev {
		return false
	}
	if p := x.posts[uri]; p != nil && e.Rev <= p.Rev {
		return false
	}
	return e.Rev > x.markers[uri]
}

// put brings the post of a create or update into the index, or replaces it. A post gets its
// place when it enters and keeps it while it stays.
func (x *Index) put(seq uint64, e *event.Event) {
	uri := uriOf(e.DID, e.Rkey)
	x.mentioned[uri] = true
	if !x.isNews(uri, e) {
		return
	}
	if !slices.Equal(olderTags(e.Tags), e.Tags) { // which holds for today's too
		x.complaints = append(x.complaints, fmt.Sprintf("message %d has tags that are not normalized: %q", seq, e.Tags))
	}
	x.account(e.DID).known = true
	old := x.posts[uri]
	tags := normalTags(e.Tags) // whatever the rule was when they were stored
	if len(tags) == 0 {
		x.drop(old)
		x.markers[uri] = e.Rev
		return
	}
	p := &Post{
		URI: uri, DID: e.DID, Rkey: e.Rkey, Rev: e.Rev, CID: e.CID, Tags: tags, Langs: slices.Clone(e.Langs),
		CreatedAt: e.CreatedAt, Record: slices.Clone(e.Record), IndexedAt: e.Source.Time.Truncate(time.Microsecond).UTC(), Seq: seq,
	}
	if old != nil {
		p.Place = old.Place
	} else {
		p.Place = x.freePlace(uri, sortMicros(e.CreatedAt, e.Source.Time))
	}
	if x.network != nil {
		x.network.came(p, old)
	}
	x.posts[uri] = p
	delete(x.markers, uri)
}

// remove takes the post of a remove or delete out of the index. One that the index never had
// leaves nothing behind.
func (x *Index) remove(e *event.Event) {
	uri := uriOf(e.DID, e.Rkey)
	x.mentioned[uri] = true
	if !x.isNews(uri, e) {
		return
	}
	if _, marked := x.markers[uri]; marked || x.posts[uri] != nil {
		x.markers[uri] = e.Rev
	}
	x.drop(x.posts[uri])
}

// drop takes a post out of the index, if there is one, and frees its place.
func (x *Index) drop(p *Post) {
	if p == nil {
		return
	}
	if x.network != nil {
		x.network.left(p)
	}
	delete(x.posts, p.URI)
}

// freePlace is the place of a post that enters, or the next one above that no other post has.
func (x *Index) freePlace(uri string, micros int64) Place {
	place := Place{Micros: micros, Hash: x.hash(uri)}
	for x.taken(place) {
		place.Hash++ // wraps within the microsecond
	}
	return place
}

func (x *Index) taken(place Place) bool {
	for _, p := range x.posts {
		if p.Place == place {
			return true
		}
	}
	return false
}

// applyAccount follows a change of an account's hosting status.
func (x *Index) applyAccount(e *event.Event) {
	if e.Status == "throttled" || e.Status == "desynchronized" {
		return
	}
	a := x.account(e.DID)
	deleted := !e.Active && e.Status == "deleted"
	switch how := compareStatuses(e, a.last); {
	case how == olderStatus:
		return
	case how == toldAgain && !(a.deleted && deleted):
		a.last = e // the next one is compared with it as it was told now
		return
	}
	// A deletion told again takes what came since with it.
	a.known, a.last, a.inactive, a.deleted = true, e, !e.Active, deleted
	if deleted {
		x.erase(e.DID)
		a.author = Author{} // until a profile of a later rev, or a later handle
		if a.rev != "" && !a.optedOut {
			a.rev += " " // what said it is of no use any more; who has opted out stays so
		}
		if !a.named.IsZero() {
			a.named = a.named.Add(time.Microsecond)
		}
	}
}

// applyAuthor takes a profile or a handle. Of the profiles the one of the greatest rev counts, of
// the handles that of the latest time. Of accounts of which nothing is kept they are not kept
// either, but for a profile that opts out: from then on the account is one of which something is.
func (x *Index) applyAuthor(e *event.Event) {
	a := x.account(e.DID)
	if p := e.Profile; p != nil {
		a.told.DisplayName, a.told.Avatar = p.DisplayName, p.Avatar
	}
	if h := e.Handle; h != nil {
		a.told.Handle = h.Name
	}
	if p := e.Profile; p != nil && e.Rev > a.rev && (a.known || p.OptedOut) {
		a.known, a.rev, a.optedOut = true, e.Rev, p.OptedOut
		a.author.DisplayName, a.author.Avatar = p.DisplayName, p.Avatar
	}
	if h := e.Handle; h != nil && a.known && h.Time.After(a.named) {
		a.author.Handle, a.named = h.Name, h.Time
	}
}

// IsCalled returns what the index has of the profile and the handle that an event tells.
func (x *Index) IsCalled(e *event.Event) (is []string) {
	a := x.account(e.DID)
	if !a.known || a.deleted {
		return nil
	}
	if e.Profile != nil && e.Rev == a.rev {
		is = append(is, "profile "+e.Rev+" of "+e.DID)
	}
	if e.Handle != nil && e.Handle.Time.Equal(a.named) {
		is = append(is, "handle "+e.Handle.Name+" of "+e.DID)
	}
	return is
}

// noProfile: behind a sync an older profile is not there any more, but for one that opts out.
func (a *account) noProfile(rev string) {
	if a.rev != "" && a.rev < rev && !a.optedOut {
		a.author.DisplayName, a.author.Avatar, a.rev = "", "", rev
	}
}

// Deny sets what the operator denies in place of what was denied before: accounts, which are hidden
// whether known or not, and tags in any form, which find no posts and are shown of none.
func (x *Index) Deny(dids, tags []string) {
	x.deniedDIDs, x.deniedTags = dids, normalTags(tags)
}

// hidden reports whether readers see nothing of the account.
func (x *Index) hidden(did string) bool {
	a := x.account(did)
	return a.inactive || a.optedOut || slices.Contains(x.deniedDIDs, did)
}

// read returns a post as readers see it.
func (x *Index) read(p *Post) Post {
	c := *p
	c.Hidden, c.Author = x.hidden(p.DID), x.account(p.DID).author
	if c.Shown = p.Tags; len(x.deniedTags) > 0 {
		c.Shown = slices.DeleteFunc(slices.Clone(p.Tags), func(tag string) bool { return slices.Contains(x.deniedTags, tag) })
	}
	return c
}

// comparison is what one status is to another that came before it.
type comparison int

const (
	olderStatus comparison = iota
	toldAgain
	newerStatus
)

// compareStatuses says what a status is to the last one that counted. Of two by one host the one
// with the greater number of that host is newer. A lower number is the host's past, unless the
// host has lost its data and begun from the start: then both the time and the number that the
// network gave, as far as there is one, are greater. Statuses of two hosts go by the network's
// time and number. A time is the network's or, where it gave none, the host's.
func compareStatuses(e, last *event.Event) comparison {
	if last == nil {
		return newerStatus
	}
	when := func(e *event.Event) (time.Time, uint64) {
		if e.Upstream == nil {
			return e.Source.Time, 0
		}
		return e.Upstream.Time, e.Upstream.Seq
	}
	t, n := when(e)
	lastT, lastN := when(last)
	oneHost := e.Source.Host != "" && e.Source.Host == last.Source.Host
	atOnce := t.Equal(lastT) && n == lastN
	switch {
	case atOnce && n != 0, atOnce && e.Source.Host == last.Source.Host && e.Source.Seq == last.Source.Seq:
		return toldAgain
	case oneHost && e.Source.Seq > last.Source.Seq:
		return newerStatus
	case t.Before(lastT), t.Equal(lastT) && (oneHost || n <= lastN):
		return olderStatus
	case oneHost && n != 0 && lastN != 0 && n <= lastN:
		return olderStatus
	}
	return newerStatus
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

// endSync removes what a sync left stale, unless the next event still belongs to the sync. No
// markers stay: the sync's own rev keeps older events out, and a create at that rev that comes
// late must enter.
func (x *Index) endSync(next *event.Event) {
	s := x.sync
	if s == nil {
		return
	}
	if s.goesOn(next) {
		if next.Kind == event.KindCreate {
			s.repo = next.Rev
		}
		return
	}
	a := x.account(s.did)
	a.syncRev = max(a.syncRev, s.rev, s.repo)
	x.dropBelow(s.did, a.syncRev)
	x.sync = nil
}

// dropBelow removes an account's posts of before a rev.
func (x *Index) dropBelow(did, rev string) {
	for _, p := range x.posts {
		if p.DID == did && p.Rev < rev {
			x.drop(p)
		}
	}
}

// goesOn reports whether an event leaves a sync pending. The repository that was fetched for it
// is one state: its records come at once, as creates, at one revision. That is not before the one
// that the sync event told, and may be after it, since the account goes on while its host is
// asked. The first record tells which.
func (s *pendingSync) goesOn(e *event.Event) bool {
	switch {
	case e.Kind == event.KindPosition && e.Sync == "": // of before positions said so
		return e.Source.Time.Equal(s.time)
	case e.Kind == event.KindPosition:
		return e.Sync == event.SyncOpen
	case e.Kind == event.KindAuthor && e.Source.Seq == 0: // the writer's own question
		return true
	case e.DID != s.did:
		return false
	case e.Kind == event.KindAuthor: // a record of the repository, and none of the index
		return true
	case e.Kind == event.KindSync: // told again: another repository follows
		return true
	case e.Kind != event.KindCreate:
		return false
	case s.repo == "":
		return e.Rev >= s.rev
	}
	return e.Rev == s.repo
}

func (x *Index) account(did string) *account {
	if x.accounts[did] == nil {
		x.accounts[did] = &account{}
	}
	return x.accounts[did]
}

func uriOf(did, rkey string) string { return "at://" + did + "/app.bsky.feed.post/" + rkey }

func didOf(uri string) string { return strings.Split(uri, "/")[2] }
