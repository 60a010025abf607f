package decode

import (
	"strings"
	"time"

	"github.com/bluesky-social/jetstream"
	"github.com/jcalabro/atmos/cbor"

	"github.com/tagstream/tagstream/pkg/event"
)

// profile takes an author's profile from a commit. A malformed field costs only that field. A
// profile that cannot be read at all is dropped, so that earlier values stay, above all an opt-out.
func profile(out *event.Event, c *jetstream.Commit) DropReason {
	switch {
	case c.Rkey != event.ProfileRkey:
		return BadRkey
	case !event.ValidRev(c.Rev):
		return BadRev
	}
	out.Kind, out.Rev, out.Profile = event.KindAuthor, strings.Clone(c.Rev), &event.Profile{}
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
		out.Profile.OptedOut = out.Profile.OptedOut || label["val"] == event.NoUnauthenticated
	}
	return Kept
}

// blob returns the CID of a blob, also in its oldest form, or "".
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

// handle takes the handle from an identity event. An event without a handle says nothing about it;
// an invalid handle means that there is none. If the event's own time is unusable, the host's
// replaces it.
func handle(out *event.Event, id *jetstream.Identity, seen time.Time) DropReason {
	if id.Handle == "" {
		return NoHandle
	}
	at := seen
	if up := upstream(id.Time, id.Seq, seen); up != nil {
		at = up.Time
	}
	out.Kind, out.Handle = event.KindAuthor, &event.Handle{Name: strings.Clone(event.NormalizeHandle(id.Handle)), Time: at.UTC()}
	return Kept
}
