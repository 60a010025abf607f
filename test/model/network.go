package model

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jcalabro/atmos/cbor"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/test/simnet"
)

// FromNetwork returns what the index must be once all that a simulated network did has come
// through; log is all of it, oldest first (simnet.Network.Log). The firehose gives events its own
// times, of which only the earliest is known here. CheckHTTP takes the true ones from the API,
// after it has checked them against what is known.
func FromNetwork(log []simnet.Entry) (*Index, error) {
	x := New()
	x.network = &networkTimes{synced: map[string]bool{}, lives: map[string][]entry{}, known: map[string]bool{}}
	apply := func(at time.Time, e event.Event) {
		e.Source.Time = at
		x.ApplyEvent(1, &e)
	}
	for i, entry := range log {
		switch entry.Kind {
		case simnet.KindCommit:
		case simnet.KindAccount:
			order := &event.Upstream{Seq: uint64(i), Time: time.Unix(int64(i), 0)} // that of the log
			apply(entry.Time, event.Event{Kind: event.KindAccount, DID: entry.DID, Active: entry.Active, Status: entry.Status, Upstream: order})
			continue
		case simnet.KindSync:
			if entry.Ops == nil {
				continue // the server knew this state already
			}
			x.network.synced[entry.DID] = true
			apply(entry.Time, event.Event{Kind: event.KindSync, DID: entry.DID, Rev: entry.Rev, Sync: event.SyncOpen})
		case simnet.KindIdentity:
			at := entry.Time.Truncate(time.Millisecond) // as the frame has it
			apply(entry.Time, event.Event{Kind: event.KindAuthor, DID: entry.DID, Handle: &event.Handle{Name: entry.Handle, Time: at}})
			continue
		default:
			return nil, fmt.Errorf("entry %d is of unknown kind %q", entry.Seq, entry.Kind)
		}
		for _, op := range entry.Ops {
			var e event.Event
			var err error
			switch op.Collection {
			case simnet.PostCollection:
				e, err = postEvent(entry, op)
			case simnet.ProfileCollection:
				e, err = profileEvent(entry, op)
			default:
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", op.URI, err)
			}
			apply(entry.Time, e)
		}
		if entry.Kind == simnet.KindSync {
			apply(entry.Time, event.Event{Kind: event.KindSync, DID: entry.DID, Rev: entry.Rev, Sync: event.SyncOver})
		}
	}
	return x, nil
}

// postEvent is what an operation on a post comes to.
func postEvent(entry simnet.Entry, op simnet.OpResult) (event.Event, error) {
	e := event.Event{Kind: event.KindDelete, DID: entry.DID, Rkey: op.Rkey, Rev: entry.Rev, CID: op.CID}
	switch op.Action {
	case simnet.Delete:
		return e, nil
	case simnet.Create, simnet.Update:
	default:
		return e, fmt.Errorf("unknown action %q", op.Action)
	}
	value, err := cbor.Unmarshal(op.Record)
	if err != nil {
		return e, err
	}
	if e.Record, err = cbor.ToJSON(value); err != nil {
		return e, err
	}
	var record map[string]any
	if err := json.Unmarshal(e.Record, &record); err != nil {
		return e, err
	}
	e.Tags, e.Langs = recordTags(record), keptLangs(texts(record, "langs"))
	e.CreatedAt, _ = record["createdAt"].(string)
	switch {
	case len(e.Tags) == 0 || record["reply"] != nil:
		e.Kind = event.KindRemove
	case op.Action == simnet.Create:
		e.Kind = event.KindCreate
	default:
		e.Kind = event.KindUpdate
	}
	return e, nil
}

// profileEvent is what an operation on a profile comes to. Names of simulated people need no
// cleaning.
func profileEvent(entry simnet.Entry, op simnet.OpResult) (event.Event, error) {
	e := event.Event{Kind: event.KindAuthor, DID: entry.DID, Rev: entry.Rev, Profile: &event.Profile{}}
	if op.Action == simnet.Delete {
		return e, nil
	}
	value, err := cbor.Unmarshal(op.Record)
	if err != nil {
		return e, err
	}
	record, _ := value.(map[string]any)
	e.Profile.DisplayName, _ = record["displayName"].(string)
	labels, _ := record["labels"].(map[string]any)
	values, _ := labels["values"].([]any)
	for _, v := range values {
		label, _ := v.(map[string]any)
		e.Profile.OptedOut = e.Profile.OptedOut || label["val"] == "!no-unauthenticated"
	}
	return e, nil
}

// recordTags are the tags of a record: those of its facets, then its own. What is not of the
// lexicon's shape gives none.
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
	return normalTags(append(raw, texts(record, "tags")...))
}

// keptLangs are the languages that the index keeps of those that a record declares: not empty
// ones, those over 64 bytes or with a NUL, and what is past twenty.
func keptLangs(raw []string) []string {
	langs := slices.DeleteFunc(slices.Clone(raw), func(lang string) bool {
		return lang == "" || len(lang) > 64 || strings.Contains(lang, "\x00")
	})
	return langs[:min(len(langs), 20)]
}

func texts(record map[string]any, field string) []string {
	var texts []string
	list, _ := record[field].([]any)
	for _, item := range list {
		if s, ok := item.(string); ok {
			texts = append(texts, s)
		}
	}
	return texts
}

// networkTimes is what is known of the times of posts whose events came from a network's log.
type networkTimes struct {
	synced map[string]bool    // accounts with a #sync
	lives  map[string][]entry // by at-uri: other ways in which a post may have come in
	known  map[string]bool    // at-uris of posts whose times the API has shown
}

// entry is the change that brought a post into the index.
type entry struct {
	createdAt, rev string
	since          time.Time // the firehose's time of it is not earlier
	synced         bool      // it came with or after a #sync of its account
}

func (n *networkTimes) came(p, old *Post) {
	p.entered = entry{p.CreatedAt, p.Rev, p.IndexedAt, n.synced[p.DID]}
	if old == nil {
		return
	}
	if old.entered.synced {
		n.lives[p.URI] = append(n.lives[p.URI], p.entered)
	}
	p.entered = old.entered
}

func (n *networkTimes) left(p *Post) {
	if n.synced[p.DID] {
		n.lives[p.URI] = append(n.lives[p.URI], p.entered)
	}
}

// SeveralHosts says that the changes came by hosts whose times have nothing to do with each
// other: what came first may have the later time.
func (x *Index) SeveralHosts() { x.severalHosts = true }

// adoptAuthor takes what an API shows of a post's author where the account was told it before
// anything was known of it. Of such an account nothing is kept, but upstream may have told it
// again, after a change of hosts or a restart.
func (x *Index) adoptAuthor(did string, shown authorAnswer) {
	a := x.account(did)
	if x.network == nil {
		return
	}
	for _, f := range []struct {
		shown *string
		told  string
		known *string
	}{
		{shown.Handle, a.told.Handle, &a.author.Handle},
		{shown.DisplayName, a.told.DisplayName, &a.author.DisplayName},
		{shown.Avatar, a.told.Avatar, &a.author.Avatar},
	} {
		if *f.known == "" && f.shown != nil && *f.shown == f.told {
			*f.known = f.told
		}
	}
}

// adopt gives a post the times that an API shows for it, where its own are not known, or says
// why they cannot be right.
func (x *Index) adopt(p *Post, indexedAt, sortAt time.Time) error {
	if x.network == nil || x.network.known[p.URI] {
		return nil
	}
	if indexedAt.Before(p.IndexedAt) {
		return fmt.Errorf("indexedAt %v is before the change was made, %v", indexedAt, p.IndexedAt)
	}
	// The entry's time lies between when the change was made and the time of the version that is
	// stored, and is the latter for a post that was never edited.
	latest := indexedAt
	if x.severalHosts {
		latest = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) // also where one of them told a #sync late
	}
	within := func(e entry, since time.Time) bool {
		low, high := sortMicros(e.createdAt, since), sortMicros(e.createdAt, latest)
		return low <= sortAt.UnixMicro() && sortAt.UnixMicro() <= high
	}
	since := p.entered.since
	if p.entered.rev == p.Rev && !x.severalHosts {
		since = indexedAt
	}
	// A server fetches the repository behind a #sync when it gets to it, and leaves out what it
	// holds already. So a post may have left and come again unseen, and have the place of a former
	// life, or come with a later edit's.
	other := slices.ContainsFunc(x.network.lives[p.URI], func(e entry) bool { return within(e, e.since) })
	if !within(p.entered, since) && !other {
		return fmt.Errorf("sortAt %v is not that of the post's entry, createdAt %q, between %v and %v", sortAt, p.entered.createdAt, since, latest)
	}
	x.network.known[p.URI] = true
	p.IndexedAt, p.Place.Micros = indexedAt, sortAt.UnixMicro()
	return nil
}
