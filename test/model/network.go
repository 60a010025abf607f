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

// FromNetwork returns the index after everything that a simulated network did has arrived; log is
// its complete log, oldest first (simnet.Network.Log). The firehose stamps events with its own
// times, and only a lower bound is known here. CheckHTTP adopts the true times from the API after
// checking them.
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
			order := &event.Upstream{Seq: uint64(i), Time: time.Unix(int64(i), 0)} // the order of the log
			apply(entry.Time, event.Event{Kind: event.KindAccount, DID: entry.DID, Active: entry.Active, Status: entry.Status, Upstream: order})
			continue
		case simnet.KindSync:
			if entry.Ops == nil {
				continue // the server already had this state
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

// postEvent converts an operation on a post to an event.
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

// profileEvent converts an operation on a profile to an event. Names of simulated accounts need no
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

// recordTags returns the tags of a record: first those of its facets, then its own. Values that
// break the lexicon are skipped.
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

// keptLangs returns the first twenty of a record's languages, without those that are empty, longer
// than 64 bytes or contain NUL.
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

// networkTimes holds what is known about the times of posts from a network's log.
type networkTimes struct {
	synced map[string]bool    // accounts with a #sync
	lives  map[string][]entry // by at-uri: other changes that may have brought a post into the index
	known  map[string]bool    // at-uris of posts whose times the API has shown
}

// entry is the change that brought a post into the index.
type entry struct {
	createdAt, rev string
	since          time.Time // lower bound of the firehose's time
	synced         bool      // arrived with or after a #sync of its account
}

func (n *networkTimes) entered(p, old *Post) {
	p.entered = entry{p.CreatedAt, p.Rev, p.IndexedAt, n.synced[p.DID]}
	if old == nil {
		return
	}
	if old.entered.synced {
		n.lives[p.URI] = append(n.lives[p.URI], p.entered)
	}
	p.entered = old.entered
}

func (n *networkTimes) removed(p *Post) {
	if n.synced[p.DID] {
		n.lives[p.URI] = append(n.lives[p.URI], p.entered)
	}
}

// SeveralHosts says that the changes came from hosts with unrelated times: an earlier change may
// have the later time.
func (x *Index) SeveralHosts() { x.severalHosts = true }

// adoptAuthor adopts what an API shows about a post's author if it was reported while the index did
// not know the account. It is not kept then, but upstream may have repeated it, after a change of
// hosts or a restart.
func (x *Index) adoptAuthor(did string, shown authorAnswer) {
	a := x.account(did)
	if x.network == nil {
		return
	}
	for _, f := range []struct {
		shown    *string
		reported string
		known    *string
	}{
		{shown.Handle, a.reported.Handle, &a.author.Handle},
		{shown.DisplayName, a.reported.DisplayName, &a.author.DisplayName},
		{shown.Avatar, a.reported.Avatar, &a.author.Avatar},
	} {
		if *f.known == "" && f.shown != nil && *f.shown == f.reported {
			*f.known = f.reported
		}
	}
}

// adopt gives a post the times that an API shows, if its own are not known. The error says why they
// cannot be right.
func (x *Index) adopt(p *Post, indexedAt, sortAt time.Time) error {
	if x.network == nil || x.network.known[p.URI] {
		return nil
	}
	if indexedAt.Before(p.IndexedAt) {
		return fmt.Errorf("indexedAt %v is before the change was made, %v", indexedAt, p.IndexedAt)
	}
	// The entry's time lies between the time of the change and the time of the stored version; the
	// two are equal for a post that was never edited.
	latest := indexedAt
	if x.severalHosts {
		latest = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) // one host may have reported a #sync late
	}
	within := func(e entry, since time.Time) bool {
		low, high := sortMicros(e.createdAt, since), sortMicros(e.createdAt, latest)
		return low <= sortAt.UnixMicro() && sortAt.UnixMicro() <= high
	}
	since := p.entered.since
	if p.entered.rev == p.Rev && !x.severalHosts {
		since = indexedAt
	}
	// A server fetches the repository for a #sync some time later, and skips records that it
	// already has. So a post may have left and returned unnoticed, with its former place, or with
	// that of a later edit.
	other := slices.ContainsFunc(x.network.lives[p.URI], func(e entry) bool { return within(e, e.since) })
	if !within(p.entered, since) && !other {
		return fmt.Errorf("sortAt %v is not that of the post's entry, createdAt %q, between %v and %v", sortAt, p.entered.createdAt, since, latest)
	}
	x.network.known[p.URI] = true
	p.IndexedAt, p.Place.Micros = indexedAt, sortAt.UnixMicro()
	return nil
}
