package event

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"
	"golang.org/x/text/unicode/norm"
)

// Limits of tags, after normalizing. The first two are those of the tag
// feature in the lexicon app.bsky.richtext.facet.
const (
	// MaxTagBytes is the longest tag in bytes of UTF-8.
	MaxTagBytes = 640
	// MaxTagGraphemes is the longest tag in grapheme clusters.
	MaxTagGraphemes = 64
	// MaxTagsPerPost is how many tags of one post are stored.
	MaxTagsPerPost = 100
)

// Reasons to refuse a tag, returned by NormalizeTag.
var (
	ErrTagEmpty   = errors.New("the tag is empty")
	ErrTagTooLong = errors.New("the tag is longer than 640 bytes or 64 graphemes")
	ErrTagNUL     = errors.New("the tag has a NUL character")
)

// NormalizeTag returns the form under which a tag is stored and looked up: Unicode NFKC,
// lower-cased rune by rune (no locale, accents stay), white space trimmed, leading '#' stripped,
// invisible characters dropped (see dropInvisible), NFC. A '#' that begins the keycap emoji
// (followed by U+FE0F or U+20E3) stays. Bytes that are not UTF-8 become U+FFFD.
//
// It is idempotent: NormalizeTag(NormalizeTag(x)) = NormalizeTag(x).
//
// The error is ErrTagEmpty, ErrTagTooLong or ErrTagNUL.
func NormalizeTag(raw string) (string, error) { return normalize(raw, dropInvisible) }

// wasNormal reports whether a tag is in the normal form of this program, or of programs up to
// October 2026, which kept invisible characters.
func wasNormal(tag string) bool {
	n, err := normalize(tag, func(s string) string { return s })
	return err == nil && n == tag
}

func normalize(raw string, drop func(string) string) (string, error) {
	if plain(raw) {
		return raw, nil
	}
	s := raw
	// One pass settles nearly every tag. A second is needed if a step makes room for an earlier one
	// ("# #art"), so repeat until nothing changes. Each pass after the first shortens or composes
	// the tag, so this ends. The bound only guards against a mistake here.
	for range 10 {
		next := normalizeOnce(s, drop)
		if next == s {
			break
		}
		s = next
	}
	switch {
	case s == "":
		return "", ErrTagEmpty
	case strings.ContainsRune(s, 0):
		return "", ErrTagNUL
	case len(s) > MaxTagBytes, len(s) > MaxTagGraphemes && uniseg.GraphemeClusterCount(s) > MaxTagGraphemes:
		return "", ErrTagTooLong
	}
	return s, nil
}

// plain reports whether a tag consists of lower-case ASCII letters and digits, which normalizing
// leaves unchanged.
func plain(tag string) bool {
	for i := range len(tag) {
		if c := tag[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return tag != "" && len(tag) <= MaxTagGraphemes
}

func normalizeOnce(s string, drop func(string) string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = norm.NFKC.String(s)
	s = strings.Map(unicode.ToLower, s)
	for {
		s = strings.TrimFunc(s, unicode.IsSpace)
		rest, ok := strings.CutPrefix(s, "#")
		if !ok {
			break
		}
		if r, _ := utf8.DecodeRuneInString(rest); r == emojiSelector || r == keycap {
			break
		}
		s = rest
	}
	return norm.NFC.String(drop(s))
}

// Tags returns the tags of a post: raw tags normalized, without those that NormalizeTag refuses,
// without repeats, in the order of first appearance, at most MaxTagsPerPost. dropped counts refused
// tags and those over the limit, not repeats.
func Tags(raw []string) (tags []string, dropped int) {
	seen := make(map[string]struct{}, len(raw))
	for _, r := range raw {
		tag, err := NormalizeTag(r)
		if err != nil {
			dropped++
			continue
		}
		if _, ok := seen[tag]; ok {
			continue
		}
		if len(tags) == MaxTagsPerPost {
			dropped++
			continue
		}
		seen[tag] = struct{}{}
		tags = append(tags, tag)
	}
	return tags, dropped
}
