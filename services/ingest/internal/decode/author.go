package decode

import (
	"strings"
	"time"

	"github.com/bluesky-social/jetstream"
	"github.com/jcalabro/atmos/cbor"

	"github.com/tagstream/tagstream/pkg/event"
)

// noUnauthenticated is the label by which an author opts out of being shown to readers who are
// not logged in.
const noUnauthenticated = "!no-unauthenticated"

// Author returns what a profile commit or an identity event says of an author, or why it says
// nothing. A field of a profile that is malformed costs that field. A profile that cannot be read
// as a whole is dropped, so that what was known before stands, opting out above all.
func (d Decoder) Author(ev *jetstream.Event, pos event.Position) Result {
	if probe := (event.Event{V: event.Version, Kind: event.KindPosition, Source: pos}); probe.Validate() != nil {
		return drop(BadPosition)
	}
	out := &event.Event{V: event.Version, Kind: event.KindAuthor, Source: pos, DID: strings.Clone(ev.DID)}
	var why DropReason
	switch {
	case ev.Kind == jetstream.KindCommit && ev.Commit != nil:
		why = profile(out, ev.Commit)
	case ev.Kind == jetstream.KindIdentity && ev.Identity != nil:
		why = handle(out, ev.Identity, pos.Time)
	default:
		why = OtherKind
	}
	if why == Kept && !event.ValidDID(out.DID) {
		why = BadDID
	}
	if why != Kept {
		return drop(why)
	}
	return Result{Event: out}
}

func profile(out *event.Event, c *jetstream.Commit) DropReason {
	switch {
	case c.Collection != event.ProfileCollection:
		return OtherCollection
	case c.Rkey != event.ProfileRkey:
		return BadRkey
	case !event.ValidRev(c.Rev):
		return BadRev
	}
	out.Rev, out.Profile = strings.Clone(c.Rev), &event.Profile{}
	switch c.Operation {
	case jetstream.OpDelete:
		return Kept
	case jetstream.OpCreate, jetstream.OpUpdate:
	default:
		return BadOperation
	}
	value, err := cbor.UnmarshalNoCopy(c.RecordCBOR)
	if err != nil {
		return BadRecord
	}
	record, ok := value.(map[string]any)
	if !ok {
		return BadRecord
	}
	if name, ok := record["displayName"].(string); ok {
		out.Profile.DisplayName = strings.Clone(event.DisplayName(name))
	}
	out.Profile.Avatar = blob(record["avatar"])
	labels, _ := record["labels"].(map[string]any)
	for _, item := range list(labels["values"]) {
		label, _ := item.(map[string]any)
		out.Profile.OptedOut = out.Profile.OptedOut || label["val"] == noUnauthenticated
	}
	return Kept
}

// blob is the CID of a blob, also in its oldest form, or "".
func blob(v any) string {
	b, _ := v.(map[string]any)
	var cid string
	switch ref := b["ref"].(type) {
	case cbor.CID:
		cid = ref.String()
	case nil:
		cid, _ = b["cid"].(string)
	}
	if !event.ValidCID(cid) {
		return ""
	}
	return strings.Clone(cid)
}

// handle takes the handle of an identity event. One without a handle says nothing of it; one whose
// handle is not valid says that there is none. Where the event's own time is of no use, the host's
// stands in for it.
func handle(out *event.Event, id *jetstream.Identity, seen time.Time) DropReason {
	if id.Handle == "" {
		return OtherKind
	}
	at := seen
	if up := upstream(&jetstream.Account{Time: id.Time, Seq: id.Seq}, seen); up != nil {
		at = up.Time
	}
	out.Handle = &event.Handle{Name: strings.Clone(event.NormalizeHandle(id.Handle)), Time: at.UTC()}
	return Kept
}
