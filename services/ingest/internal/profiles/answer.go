package profiles

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// answer is a parsed answer: the events of requested authors, and counts of the others.
type answer struct {
	events                     []*event.Event
	absent, malformed, unasked int
}

// parse reads an answer about dids, which were asked for at that time. The error is a *requestError.
// A profile that cannot be used costs only that profile.
func parse(body []byte, dids []string, base string, at time.Time) (answer, error) {
	var out answer
	var raw struct {
		Profiles *[]json.RawMessage `json:"profiles"`
	}
	err := json.Unmarshal(body, &raw)
	if err == nil && raw.Profiles == nil {
		err = errors.New("it has no profiles")
	}
	if err != nil {
		return out, &requestError{outcome: Unreadable, err: err}
	}
	missing := make(map[string]bool, len(dids))
	for _, did := range dids {
		missing[did] = true
	}
	for _, item := range *raw.Profiles {
		var profile map[string]any
		_ = json.Unmarshal(item, &profile) // anything but an object has no DID
		did, known := profile["did"].(string)
		switch {
		case !known:
			out.malformed++
		case !missing[did]:
			out.unasked++
		default:
			delete(missing, did)
			if ev := author(did, profile, base, at.UTC().Truncate(time.Microsecond)); ev != nil {
				out.events = append(out.events, ev)
			} else {
				out.malformed++
			}
		}
	}
	out.absent = len(missing)
	return out, nil
}

// author returns the event for an author's profile, or nil if the profile does not say whether the
// author has opted out. Any other malformed field costs only that field.
func author(did string, profile map[string]any, base string, at time.Time) *event.Event {
	out := &event.Event{V: event.Version, Kind: event.KindAuthor, Source: event.Position{Host: base, Time: at}, DID: did}
	optedOut, ok := optedOut(did, profile["labels"])
	if !ok {
		return nil
	}
	name, _ := profile["displayName"].(string)
	out.Profile = &event.Profile{DisplayName: event.DisplayName(name), Avatar: avatar(did, profile["avatar"]), OptedOut: optedOut}
	out.Rev = event.RevAt(asOf(at, optedOut))
	if handle, ok := profile["handle"].(string); ok {
		name := event.NormalizeHandle(handle)
		out.Handle = &event.Handle{Name: name, Time: asOf(at, name == "")}
	}
	if out.Validate() != nil {
		return nil
	}
	return out
}

// asOf returns the time as of which an answer counts.
func asOf(at time.Time, takesAway bool) time.Time {
	if takesAway {
		return at
	}
	return at.Add(-appViewLag)
}

// optedOut reads the labels of a profile. Only those that its author set count. ok is false if the
// labels are malformed.
func optedOut(did string, labels any) (yes, ok bool) {
	if labels == nil {
		return false, true
	}
	list, ok := labels.([]any)
	if !ok {
		return false, false
	}
	for _, item := range list {
		label, _ := item.(map[string]any)
		src, isText := label["src"].(string)
		val, isValue := label["val"].(string)
		if !isText || !isValue {
			return false, false
		}
		yes = yes || src == did && val == event.NoUnauthenticated && label["neg"] != true
	}
	return yes, true
}

// avatar returns the CID at the end of a picture's URL, or "".
func avatar(did string, v any) string {
	raw, _ := v.(string)
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	_, cid, _ := strings.Cut(u.Path, "/"+did+"/")
	if cid, _, _ = strings.Cut(cid, "@"); !event.ValidCID(cid) || strings.Contains(cid, "/") {
		return ""
	}
	return cid
}
