package event

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"
)

// Where a repository keeps its author's profile.
const (
	ProfileCollection = "app.bsky.actor.profile"
	ProfileRkey       = "self"
)

// NoUnauthenticated is the self-label by which authors ask not to be shown to readers who are not
// logged in.
const NoUnauthenticated = "!no-unauthenticated"

// Limits of an author's stored fields: those of the lexicon app.bsky.actor.profile and of the
// handle specification.
const (
	MaxNameBytes     = 640
	MaxNameGraphemes = 64
	maxHandleBytes   = 253
	maxHandleLabel   = 63
)

// Profile is the stored part of an author's profile at a revision. The zero value stands for a
// deleted profile.
type Profile struct {
	DisplayName string `json:"displayName,omitempty"`
	// Avatar is the CID of the picture, "" if there is none.
	Avatar string `json:"avatar,omitempty"`
	// OptedOut reports the self-label !no-unauthenticated: the author must not be shown to readers
	// who are not logged in.
	OptedOut bool `json:"optedOut,omitempty"`
}

// Handle is an author's handle at a time. Name is "" if the author has no valid handle.
type Handle struct {
	Name string    `json:"name,omitempty"`
	Time time.Time `json:"time"`
}

// joiner reports whether a character is a formatting character that names may contain: those that
// join letters or emoji, and the tags of flags.
func joiner(r rune) bool {
	return r == zwj || r == '\u200C' || r >= firstTagChar && r <= endOfTagChars
}

// DisplayName returns a display name in its stored form: without control characters and formatting
// characters (which could, for example, reverse the text around the name), with white space reduced
// to single spaces between words, and cut to MaxNameBytes and MaxNameGraphemes. It is "" if no
// visible character remains. DisplayName is idempotent. The result is for display only.
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

// cutName cuts a name between two graphemes so that it fits the limits.
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

// NormalizeHandle returns a handle (https://atproto.com/specs/handle) in lower case, or "" if it is
// invalid or handle.invalid, which means that there is none.
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

// normalizeAuthor converts what an older writer stored to today's form.
func (e *Event) normalizeAuthor() {
	if e.Profile != nil {
		e.Profile.DisplayName = DisplayName(e.Profile.DisplayName)
	}
	if e.Handle != nil {
		e.Handle.Name, e.Handle.Time = NormalizeHandle(e.Handle.Name), e.Handle.Time.UTC().Truncate(time.Microsecond)
	}
}

// badAuthor names the field of an author event that cannot be stored, or returns "".
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
