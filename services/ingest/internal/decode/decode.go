// Package decode turns one event of the firehose into one event of the stream, or into the reason
// why it is dropped.
//
// It is pure and total: no input makes it panic, and every event it returns passes
// [event.Event.Validate]. It is tolerant: a bad field of a record costs that field, a malformed
// facet or tag costs that tag, never the post. Only events without a usable key (DID, record key,
// revision or position) or unreadable ones are dropped. An update is never dropped: if it no longer
// qualifies, for whatever reason, it becomes a removal.
package decode

import (
	"strings"
	"time"

	"github.com/bluesky-social/jetstream"
	"github.com/jcalabro/atmos/cbor"

	"github.com/tagstream/tagstream/pkg/event"
)

// Decoder decodes events. It has no state and may be shared; only MaxPayload must be set.
type Decoder struct {
	// MaxPayload is the longest encoded event that the stream accepts, in bytes.
	MaxPayload int
}

// Result is the outcome of one event.
type Result struct {
	// Event is the event for the stream, nil if Drop is not Kept. It shares no memory with the
	// input.
	Event *event.Event
	Drop  DropReason
	// TagsDropped counts the dropped tags of a kept post: malformed, empty, too long, or over the
	// limit per post.
	TagsDropped int
	// TimeRefused reports that a kept account event has no usable upstream time, so the host's time
	// orders it.
	TimeRefused bool
}

func drop(why DropReason) Result { return Result{Drop: why} }

// Decode decodes ev, the event at pos. ev needs its record as CBOR (jetstream.WithRawRecords).
func (d Decoder) Decode(ev *jetstream.Event, pos event.Position) Result {
	if !pos.Valid() {
		return drop(BadPosition)
	}
	if ev.Kind == jetstream.KindCommit && ev.Commit != nil && ev.Commit.Collection != event.ProfileCollection {
		return d.commit(ev, &pos)
	}
	out := &event.Event{V: event.Version, Source: pos, DID: strings.Clone(ev.DID)}
	switch {
	case ev.Kind == jetstream.KindCommit && ev.Commit != nil:
		if why := profile(out, ev.Commit); why != Kept {
			return drop(why)
		}
	case ev.Kind == jetstream.KindIdentity && ev.Identity != nil:
		if why := handle(out, ev.Identity, pos.Time); why != Kept {
			return drop(why)
		}
	case ev.Kind == jetstream.KindAccount && ev.Account != nil:
		out.Kind = event.KindAccount
		out.Active = ev.Account.Active
		out.Status = strings.Clone(ev.Account.Status)
		out.Upstream = upstream(ev.Account.Time, ev.Account.Seq, pos.Time)
	case ev.Kind == jetstream.KindSync && ev.Sync != nil:
		out.Kind, out.Sync = event.KindSync, event.SyncOpen
		out.Rev = strings.Clone(ev.Sync.Rev)
		if !event.ValidRev(out.Rev) {
			return drop(BadRev)
		}
	default:
		return drop(OtherKind)
	}
	if !event.ValidDID(out.DID) {
		return drop(BadDID)
	}
	return Result{Event: out, TimeRefused: out.Kind == event.KindAccount && out.Upstream == nil}
}

// maxAhead is how far an account event's own time may be ahead of the time when the host saw it.
// The two come from the clocks of different servers; hosts refuse revisions that are further ahead.
// Without a limit, one status could outlast all later ones.
const maxAhead = 5 * time.Minute

// upstream returns the own place upstream of an account or identity event, or nil if it is unusable.
// seen is when the host saw the event: times of such events are not imported.
func upstream(own string, seq int64, seen time.Time) *event.Upstream {
	t, ok := event.ParseTime(own)
	if !ok || seq < 0 || t.Before(time.Unix(0, 0)) || t.After(seen.Add(maxAhead)) {
		return nil
	}
	return &event.Upstream{Seq: uint64(seq), Time: t.UTC().Truncate(time.Microsecond)}
}

func (d Decoder) commit(ev *jetstream.Event, pos *event.Position) Result {
	c := ev.Commit
	switch {
	case c.Collection != event.Collection:
		return drop(OtherCollection)
	case !event.ValidDID(ev.DID):
		return drop(BadDID)
	case !event.ValidRkey(c.Rkey):
		return drop(BadRkey)
	case !event.ValidRev(c.Rev):
		return drop(BadRev)
	}
	switch c.Operation {
	case jetstream.OpDelete:
		return Result{Event: change(event.KindDelete, ev, pos)}
	case jetstream.OpCreate:
		return d.post(event.KindCreate, ev, pos)
	case jetstream.OpUpdate:
		res := d.post(event.KindUpdate, ev, pos)
		if res.Drop != Kept {
			// The index may have an older version of the post: remove it.
			return Result{Event: change(event.KindRemove, ev, pos)}
		}
		return res
	}
	return drop(BadOperation)
}

// change returns an event about the post of a commit, without the post's own fields.
func change(kind event.Kind, ev *jetstream.Event, pos *event.Position) *event.Event {
	return &event.Event{
		V: event.Version, Kind: kind, Source: *pos,
		DID: strings.Clone(ev.DID), Rkey: strings.Clone(ev.Commit.Rkey), Rev: strings.Clone(ev.Commit.Rev),
	}
}

// post returns an event with the commit's record, or says why the post does not qualify.
func (d Decoder) post(kind event.Kind, ev *jetstream.Event, pos *event.Position) Result {
	raw := ev.Commit.RecordCBOR
	if why := glance(raw); why != Kept {
		return drop(why)
	}
	value, err := cbor.UnmarshalNoCopy(raw)
	if err != nil {
		return drop(BadRecord)
	}
	record, ok := value.(map[string]any)
	if !ok {
		return drop(BadRecord)
	}
	if record["reply"] != nil {
		return drop(Reply)
	}
	written, malformed := rawTags(record)
	tags, refused := event.Tags(written)
	if len(tags) == 0 {
		return drop(NoTags)
	}
	out := change(kind, ev, pos)
	out.Tags = cloneAll(tags)
	out.Langs = cloneAll(event.Langs(texts(record["langs"])))
	if createdAt, ok := record["createdAt"].(string); ok {
		out.CreatedAt = strings.Clone(createdAt)
	}
	if out.Record, err = recordJSON(record, len(raw)); err != nil {
		return drop(BadRecord)
	}
	out.Compact = true
	out.CID = strings.Clone(ev.Commit.CID)
	if out.CID == "" {
		// The archive has no CIDs: they are the hash of the record.
		out.CID = cbor.ComputeCID(cbor.CodecDagCBOR, raw).String()
	}
	if d.tooBig(out) {
		return drop(TooBig)
	}
	return Result{Event: out, TagsDropped: malformed + refused}
}

const (
	// escapeFactor is the most by which JSON lengthens a byte: \u0000.
	escapeFactor = 6
	// envelopeBytes is an upper limit for an event's field names and numbers.
	envelopeBytes = 1 << 10
)

// tooBig reports whether the encoded event is over the limit. For nearly all events that is clear
// without encoding them.
func (d Decoder) tooBig(e *event.Event) bool {
	n := len(e.Record) + len(e.DID) + len(e.Rkey) + len(e.CreatedAt) + len(e.CID) + len(e.Source.Host)
	for _, s := range e.Tags {
		n += len(s) + 1
	}
	for _, s := range e.Langs {
		n += len(s) + 1
	}
	if escapeFactor*n+envelopeBytes <= d.MaxPayload {
		return false
	}
	data, err := e.Encode()
	return err != nil || len(data) > d.MaxPayload
}

func cloneAll(ss []string) []string {
	for i, s := range ss {
		ss[i] = strings.Clone(s)
	}
	return ss
}
