package model

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ChangeKind is what a change on the network was.
type ChangeKind string

// The kinds of changes.
const (
	ChangeCreate  ChangeKind = "create"
	ChangeUpdate  ChangeKind = "update"
	ChangeDelete  ChangeKind = "delete"
	ChangeAccount ChangeKind = "account"
	ChangeSync    ChangeKind = "sync"
)

// Change is one thing that was done on the network, to a post or an account.
type Change struct {
	Kind ChangeKind
	DID  string
	Rev  string

	Rkey, CID string         // of a post
	Record    map[string]any // of a created or updated post: what encoding/json can write

	Active bool   // of an account
	Status string // of an account

	Repo []Change // of a sync: what the repository holds now, as creates

	// Time is the firehose's own time of the change. Where a test cannot know
	// it, NotBefore is set in its place; see FromUpstream.
	Time      time.Time
	NotBefore time.Time
}

// FromUpstream returns what the index must be once everything that was done on
// the network, in that order, has come through. Nothing here looks at revs or
// markers: upstream, the last change is the truth.
//
// A post whose changes have no Time stands provisionally where NotBefore would
// put it. CheckHTTP takes its true times from the API, after it has checked
// them against what is known.
func FromUpstream(changes []Change) *Index {
	x := New()
	for _, c := range changes {
		switch c.Kind {
		case ChangeCreate, ChangeUpdate:
			x.follow(c)
		case ChangeDelete:
			x.leave(c.DID, c.Rkey)
		case ChangeAccount:
			x.followAccount(c)
		case ChangeSync:
			x.followSync(c)
		default:
			panic(fmt.Sprintf("model: change of unknown kind %q", c.Kind))
		}
	}
	return x
}

func (x *Index) followAccount(c Change) {
	if c.Status == "throttled" || c.Status == "desynchronized" {
		return
	}
	x.account(c.DID).inactive = !c.Active
	if !c.Active && c.Status == "deleted" {
		for _, p := range x.posts {
			if p.DID == c.DID {
				x.drop(p)
			}
		}
	}
}

func (x *Index) followSync(c Change) {
	x.account(c.DID).synced = true
	holds := map[string]bool{}
	for _, post := range c.Repo {
		holds[post.Rkey] = true
	}
	for _, p := range x.posts {
		if p.DID == c.DID && !holds[p.Rkey] {
			x.drop(p)
		}
	}
	for _, post := range c.Repo {
		x.follow(post)
	}
}

func (x *Index) leave(did, rkey string) {
	uri := uriOf(did, rkey)
	x.mentioned[uri] = true
	if p, ok := x.posts[uri]; ok {
		x.drop(p)
	}
}

// follow takes over a created or updated post.
func (x *Index) follow(c Change) {
	record, err := json.Marshal(c.Record)
	if err == nil {
		c.Record = nil
		err = decodeJSON(record, &c.Record) // []string and the like become []any
	}
	if err != nil {
		panic(fmt.Sprintf("model: record of %s/%s: %v", c.DID, c.Rkey, err))
	}
	tags := recordTags(c.Record)
	if len(tags) == 0 || c.Record["reply"] != nil {
		x.leave(c.DID, c.Rkey)
		return
	}
	at := c.Time
	if at.IsZero() {
		at = c.NotBefore
	}
	uri := uriOf(c.DID, c.Rkey)
	x.mentioned[uri] = true
	p := &Post{
		URI: uri, DID: c.DID, Rkey: c.Rkey, Rev: c.Rev, CID: c.CID,
		Tags: tags, Langs: recordLangs(c.Record), Record: record,
		IndexedAt: time.UnixMicro(at.UnixMicro()).UTC(),
	}
	p.CreatedAt, _ = c.Record["createdAt"].(string)
	came := &entry{createdAt: p.CreatedAt, rev: p.Rev, notBefore: c.NotBefore, synced: x.account(c.DID).synced}
	if old, ok := x.posts[uri]; ok {
		p.Place, p.entry = old.Place, old.entry
		if p.entry.synced {
			x.lives[uri] = append(x.lives[uri], came)
		}
	} else {
		p.Place = x.freePlace(uri, sortMicros(p.CreatedAt, at))
		p.entry = came
	}
	p.timesUnknown = c.Time.IsZero()
	x.posts[uri] = p
	x.places[p.Place] = uri
}

// entry is what is known of the change that brought a post into the index.
type entry struct {
	createdAt string
	rev       string
	notBefore time.Time // zero where its time is known
	synced    bool      // it came with or after a #sync of its account
}

// between is the range that sortAt is in, in microseconds, where the change came
// before the time of the version that is stored.
func (e *entry) between(stored time.Time) (low, high int64) {
	return sortMicros(e.createdAt, e.notBefore), sortMicros(e.createdAt, stored)
}

// SeveralHosts says that the changes came by hosts whose times have nothing to do
// with each other: what came first may have the later time.
func (x *Index) SeveralHosts() { x.severalHosts = true }

// endOfTime is later than any host's time.
var endOfTime = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// adopt gives a post the times that an API shows for it, where its own are not
// known, or says why they cannot be right.
func (x *Index) adopt(uri string, indexedAt, sortAt time.Time) error {
	p := x.posts[uri]
	if p.timesUnknown {
		if indexedAt.Before(p.IndexedAt) {
			return fmt.Errorf("indexedAt %v is before the change was made, %v", indexedAt, p.IndexedAt)
		}
		p.IndexedAt, p.timesUnknown = indexedAt, false
	}
	if p.entry == nil || p.entry.notBefore.IsZero() {
		return nil
	}
	// The entry's time lies between when the change was made and the time of
	// the version that is stored, and is the latter for a post never edited.
	latest := p.IndexedAt
	if x.severalHosts {
		latest = endOfTime // which also a #sync that one of them told late has moved
	}
	low, high := p.entry.between(latest)
	if p.entry.rev == p.Rev && !x.severalHosts {
		low = high
	}
	at := sortAt.UnixMicro()
	// A server fetches the repository behind a #sync when it gets to it, and leaves
	// out what it then holds already. So a post may have left and come again unseen,
	// and have the place of a former life, or come with a later edit's.
	other := slices.ContainsFunc(x.lives[uri], func(e *entry) bool {
		low, high := e.between(latest)
		return low <= at && at <= high
	})
	if (at < low || at > high) && !other {
		return fmt.Errorf("sortAt %v is not between %v and %v", sortAt, time.UnixMicro(low).UTC(), time.UnixMicro(high).UTC())
	}
	p.entry.notBefore = time.Time{}
	delete(x.places, p.Place)
	p.Place = x.freePlace(uri, at)
	x.places[p.Place] = uri
	return nil
}

// recordTags are the tags of a record: those of its facets, then its own.
// What is not of the lexicon's shape gives none.
func recordTags(record map[string]any) []string {
	var raw []string
	facets, _ := record["facets"].([]any)
	for _, f := range facets {
		facet, _ := f.(map[string]any)
		features, _ := facet["features"].([]any)
		for _, g := range features {
			feature, _ := g.(map[string]any)
			if tag, ok := feature["tag"].(string); ok && feature["$type"] == "app.bsky.richtext.facet#tag" {
				raw = append(raw, tag)
			}
		}
	}
	return normalTags(append(raw, recordTexts(record, "tags")...))
}

// recordLangs are the languages that the index keeps of a record.
func recordLangs(record map[string]any) []string { return keptLangs(recordTexts(record, "langs")) }

// keptLangs are the languages that the index keeps of those that a record
// declares, without what no language is: empty ones, those over 64 bytes or
// with a NUL, past twenty.
func keptLangs(raw []string) []string {
	var langs []string
	for _, lang := range raw {
		if lang != "" && len(lang) <= 64 && !strings.Contains(lang, "\x00") && len(langs) < 20 {
			langs = append(langs, lang)
		}
	}
	return langs
}

func recordTexts(record map[string]any, field string) []string {
	list, _ := record[field].([]any)
	var texts []string
	for _, item := range list {
		if s, ok := item.(string); ok {
			texts = append(texts, s)
		}
	}
	return texts
}
