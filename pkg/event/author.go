package event

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"
)

// Where an author's profile is in a repository.
const (
	ProfileCollection = "app.bsky.actor.profile"
	ProfileRkey       = "self"
)

// NoUnauthenticated is the self-label by which an author opts out of being shown to readers who are
// not logged in.
const NoUnauthenticated = "!no-unauthenticated"

// Limits of what is kept of an author: those of the lexicon app.bsky.actor.profile, and of the
// specification of handles.
const (
	MaxNameBytes     = 640
	MaxNameGraphemes = 64
	maxHandleBytes   = 253
	maxHandleLabel   = 63
)

// Profile is what is kept of an author's profile at a revision: the zero value of one that is
// gone. Nothing else of it is.
type Profile struct {
	DisplayName string `json:"displayName,omitempty"`
	// Avatar is the CID of the picture, "" for none.
	Avatar string `json:"avatar,omitempty"`
	// OptedOut says that the profile carries the self-label !no-unauthenticated: the author
	// is not to be shown to readers who are not logged in.
	OptedOut bool `json:"optedOut,omitempty"`
}

// Handle is an author's name in the network at a time, "" where it has none that is valid.
type Handle struct {
	Name string    `json:"name,omitempty"`
	Time time.Time `json:"time"`
}

// joiner reports whether a character is one of the formatting characters
// that a name may need: those that join letters or emoji, and the tags of flags.
func joiner(r rune) bool {
	return r == zwj || r == '\u200C' || r >= firstTagChar && r <= endOfTagChars
}

// DisplayName returns a display name as it is kept: without control characters and formatting
// characters, such as those that turn the direction of text around it; white space is one space
// between words; as much as MaxNameBytes and MaxNameGraphemes allow. It is "" where nothing of
// the name shows. It is idempotent, and for display only.
func DisplayName(raw string) string {
	s := strings.Map(func(r rune) rune {
		switch {
		case unicode.In(r, unicode.White_Space, unicode.Zl, unicode.Zp):
			return ' '
		case unicode.In(r, unicode.Cc, unicode.Cf) && !joiner(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(raw, "\uFFFD"))
	s = cutName(strings.Join(strings.Fields(s), " "))
	if strings.IndexFunc(s, func(r rune) bool { return r != ' ' && !invisible(r) }) < 0 {
		return ""
	}
	return s
}

// cutName cuts a name between two graphemes to what is kept.
func cutName(s string) string {
	if len(s) <= MaxNameGraphemes {
		return s
	}
	n, state := 0, -1
	for rest, i := s, 0; rest != ""; i++ {
		var cluster string
		cluster, rest, _, state = uniseg.FirstGraphemeClusterInString(rest, state)
		if i == MaxNameGraphemes || n+len(cluster) > MaxNameBytes {
			return strings.TrimSuffix(s[:n], " ")
		}
		n += len(cluster)
	}
	return s
}

// NormalizeHandle returns a handle (https://atproto.com/specs/handle) in lower case, or "" where
// it is none or says that there is none (handle.invalid).
func NormalizeHandle(raw string) string {
	s := lowerASCII(raw)
	if len(s) > maxHandleBytes || s == "handle.invalid" {
		return ""
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > maxHandleLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return ""
		}
		for _, c := range []byte(label) {
			if !isAlnum(c) && c != '-' {
				return ""
			}
		}
	}
	if last := labels[len(labels)-1]; len(labels) < 2 || last[0] < 'a' {
		return ""
	}
	return s
}

// normalizeAuthor brings what an older writer kept into today's form.
func (e *Event) normalizeAuthor() {
	if e.Profile != nil {
		e.Profile.DisplayName = DisplayName(e.Profile.DisplayName)
	}
	if e.Handle != nil {
		e.Handle.Name, e.Handle.Time = NormalizeHandle(e.Handle.Name), e.Handle.Time.UTC().Truncate(time.Microsecond)
	}
}

// badAuthor names the field of an author event that cannot be stored, "" where none is.
func (e *Event) badAuthor() string {
	p, h := e.Profile, e.Handle
	switch {
	case !ValidDID(e.DID):
		return "did"
	case p == nil && h == nil:
		return "profile"
	case p != nil && !ValidRev(e.Rev):
		return "rev"
	case p != nil && (len(p.DisplayName) > MaxNameBytes || !utf8.ValidString(p.DisplayName) || strings.ContainsRune(p.DisplayName, 0)):
		return "profile.displayName"
	case p != nil && p.Avatar != "" && !ValidCID(p.Avatar):
		return "profile.avatar"
	case h != nil && h.Name != "" && NormalizeHandle(h.Name) != h.Name:
		return "handle.name"
	case h != nil && !storable(h.Time):
		return "handle.time"
	}
	return ""
}
