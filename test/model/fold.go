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
	Shown          []string // Tags without denied ones
	Langs          []string // as declared
	CreatedAt      string   // the record's, empty if it is not a string
	Record         []byte   // JSON
	IndexedAt      time.Time
	Place          Place  // fixed when the post entered the index
	Seq            uint64 // of the message with this version
	Hidden         bool   // its account is inactive, opted out or denied: readers do not see the post
	Author         Author // the account's

	entered entry
}

// SortAt is the time by which the post is ordered.
func (p *Post) SortAt() time.Time { return p.Place.SortAt() }

// Index is the folded state of a history; New makes one.
type Index struct {
	posts    map[string]*Post    // by at-uri, including hidden and stale ones
	markers  map[string]string   // at-uri of a removed post -> rev
	accounts map[string]*account // by DID
	sync     *pendingSync        // set between a sync event and the end of its repository

	mentioned   map[string]bool // at-uris of all post events
	deadLetters int
	complaints  []string
	deniedDIDs  []string
	deniedTags  []string
	hash        func(uri string) uint64 // hashOf; replaced by tests that need collisions

	network      *networkTimes // set only by FromNetwork
	severalHosts bool
}

// Author is what the index knows about the author of a post; "" is unknown.
type Author struct {
	Handle, DisplayName, Avatar string
}

type account struct {
	known    bool // the index keeps something about it
	inactive bool
	optedOut bool
	author   Author
	reported Author       // the last reported values, even while it is not known
	rev      string       // of its profile
	named    time.Time    // of its handle
	deleted  bool         // the last account event that changed the status was a deletion
	last     *event.Event // the account event with its status, as last reported
	floor    string       // the highest rev that the account's erased posts had
	syncRev  string       // events of the account below it are ignored
}

// pendingSync is a sync event whose repository has not fully arrived.
type pendingSync struct {
	did  string
	rev  string    // in the sync event
	repo string    // of the repository that follows; empty until its first record
	time time.Time // of the sync event; position messages of older versions are compared with it
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

// Apply folds one message of the stream into the index. One that event.Decode refuses is counted
// and otherwise ignored.
func (x *Index) Apply(seq uint64, data []byte) {
	e, err := event.Decode(data)
	if err != nil {
		x.deadLetters++
		return
	}
	var stored struct{ Tags []string } // as stored: Decode applies the current rule
	if err := json.Unmarshal(data, &stored); err != nil {
		panic(fmt.Sprintf("model: message %d: %v", seq, err))
	}
	e.Tags = stored.Tags
	x.ApplyEvent(seq, e)
}

// ApplyEvent folds one event into the index. event.Decode must accept it.
func (x *Index) ApplyEvent(seq uint64, e *event.Event) {
	if e.Kind == event.KindRemove || e.Kind == event.KindDelete {
		x.remove(e) // before endSync, so that a stale post leaves a marker
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
			return // SyncOver follows, or the sync changes nothing
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

// isNews reports whether an event has a higher rev than the post's stored version or marker, and is
// not below the floors of the account.
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

// put inserts or replaces the post of a create or update. A post gets its place when it enters the
// index and keeps it until it leaves.
func (x *Index) put(seq uint64, e *event.Event) {
	uri := uriOf(e.DID, e.Rkey)
	x.mentioned[uri] = true
	if !x.isNews(uri, e) {
		return
	}
	if !slices.Equal(olderTags(e.Tags), e.Tags) { // tags in the current form pass this, too
		x.complaints = append(x.complaints, fmt.Sprintf("message %d has tags that are not normalized: %q", seq, e.Tags))
	}
	x.account(e.DID).known = true
	old := x.posts[uri]
	tags := normalTags(e.Tags) // whatever form they were stored in
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
		x.network.entered(p, old)
	}
	x.posts[uri] = p
	delete(x.markers, uri)
}

// remove removes the post of a remove or delete from the index. A post that the index never had
// leaves no marker.
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

// drop removes a post, which may be nil, from the index and frees its place.
func (x *Index) drop(p *Post) {
	if p == nil {
		return
	}
	if x.network != nil {
		x.network.removed(p)
	}
	delete(x.posts, p.URI)
}

// freePlace returns the place of a new post, or the next higher one that is free.
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

// applyAccount applies a change of an account's hosting status.
func (x *Index) applyAccount(e *event.Event) {
	if e.Status == "throttled" || e.Status == "desynchronized" {
		return
	}
	a := x.account(e.DID)
	deleted := !e.Active && e.Status == "deleted"
	switch how := compareStatuses(e, a.last); {
	case how == olderStatus:
		return
	case how == repeatedStatus && !(a.deleted && deleted):
		a.last = e // later events are compared with this report
		return
	}
	// A repeated deletion also erases what arrived since the first.
	a.known, a.last, a.inactive, a.deleted = true, e, !e.Active, deleted
	if deleted {
		x.erase(e.DID)
		a.author = Author{} // until a profile with a later rev, or a later handle
		if a.rev != "" && !a.optedOut {
			a.rev += " " // the profile's message is no longer needed; an opt-out remains
		}
		if !a.named.IsZero() {
			a.named = a.named.Add(time.Microsecond)
		}
	}
}

// applyAuthor applies a profile or a handle. The profile with the greatest rev and the handle with
// the latest time win. They are ignored for accounts about which the index keeps nothing, except
// for a profile that opts out, which is kept.
func (x *Index) applyAuthor(e *event.Event) {
	a := x.account(e.DID)
	if p := e.Profile; p != nil {
		a.reported.DisplayName, a.reported.Avatar = p.DisplayName, p.Avatar
	}
	if h := e.Handle; h != nil {
		a.reported.Handle = h.Name
	}
	if p := e.Profile; p != nil && e.Rev > a.rev && (a.known || p.OptedOut) {
		a.known, a.rev, a.optedOut = true, e.Rev, p.OptedOut
		a.author.DisplayName, a.author.Avatar = p.DisplayName, p.Avatar
	}
	if h := e.Handle; h != nil && a.known && h.Time.After(a.named) {
		a.author.Handle, a.named = h.Name, h.Time
	}
}

// IsCalled returns which of an event's profile and handle are current in the index.
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

// noProfile removes a profile older than a sync, unless it opts out.
func (a *account) noProfile(rev string) {
	if a.rev != "" && a.rev < rev && !a.optedOut {
		a.author.DisplayName, a.author.Avatar, a.rev = "", "", rev
	}
}

// Deny replaces the operator's deny list: accounts, which are hidden even if unknown, and tags in
// any form, which find no posts and are not shown on any.
func (x *Index) Deny(dids, tags []string) {
	x.deniedDIDs, x.deniedTags = dids, normalTags(tags)
}

// hidden reports whether the account is hidden from readers.
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

// comparison relates a status to the previous one.
type comparison int

const (
	olderStatus comparison = iota
	repeatedStatus
	newerStatus
)

// compareStatuses compares a status with the last one that applied. Of two from one host, the one
// with the greater host number is newer. A lower number is older, unless the host has lost its data
// and started over: then both the network's time and its number, if known, are greater. Statuses of
// different hosts are ordered by the network's time and number. Without a network time, the host's
// time is used.
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
		return repeatedStatus
	case oneHost && e.Source.Seq > last.Source.Seq:
		return newerStatus
	case t.Before(lastT), t.Equal(lastT) && (oneHost || n <= lastN):
		return olderStatus
	case oneHost && n != 0 && lastN != 0 && n <= lastN:
		return olderStatus
	}
	return newerStatus
}

// erase removes an account's posts and markers, and raises its floor.
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

// endSync removes the posts that a sync made stale, unless the next event still belongs to the
// sync. It leaves no markers: the sync's rev stops older events, and a late create at that rev must
// enter.
func (x *Index) endSync(next *event.Event) {
	s := x.sync
	if s == nil {
		return
	}
	if s.continuesWith(next) {
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

// dropBelow removes an account's posts below a rev.
func (x *Index) dropBelow(did, rev string) {
	for _, p := range x.posts {
		if p.DID == did && p.Rev < rev {
			x.drop(p)
		}
	}
}

// continuesWith reports whether a sync is still pending at an event. The records of the fetched
// repository arrive together, as creates, at one revision: that of the sync event or, if the
// account changed meanwhile, a later one. The first record shows which.
func (s *pendingSync) continuesWith(e *event.Event) bool {
	switch {
	case e.Kind == event.KindPosition && e.Sync == "": // positions of older versions do not say so
		return e.Source.Time.Equal(s.time)
	case e.Kind == event.KindPosition:
		return e.Sync == event.SyncOpen
	case e.Kind == event.KindAuthor && e.Source.Seq == 0: // ingest looked it up itself
		return true
	case e.DID != s.did:
		return false
	case e.Kind == event.KindAuthor: // a record of the repository that is not a post
		return true
	case e.Kind == event.KindSync: // repeated: another repository follows
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
