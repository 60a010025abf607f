package event

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of the identifiers, from the atproto specifications of DIDs, record
// keys and TIDs.
const (
	maxDIDBytes  = 2048
	maxRkeyBytes = 512
	revBytes     = 13
	maxLangBytes = 64
	maxCIDBytes  = 256
)

// ValidDID reports whether s has the syntax of an atproto DID (https://atproto.com/specs/did). This
// keeps NULs, spaces and slashes out of keys and at-uris; it does not check that the DID exists.
func ValidDID(s string) bool {
	if len(s) > maxDIDBytes || !strings.HasPrefix(s, "did:") {
		return false
	}
	method, id, ok := strings.Cut(s[len("did:"):], ":")
	if !ok || method == "" || id == "" {
		return false
	}
	for _, c := range []byte(method) {
		if c < 'a' || c > 'z' {
			return false
		}
	}
	for _, c := range []byte(id) {
		if !isAlnum(c) && !strings.ContainsRune("._:%-", rune(c)) {
			return false
		}
	}
	last := id[len(id)-1]
	return last != ':' && last != '%'
}

// ValidRkey reports whether s has the syntax of a record key
// (https://atproto.com/specs/record-key). Keys need not be TIDs.
func ValidRkey(s string) bool {
	if s == "" || len(s) > maxRkeyBytes || s == "." || s == ".." {
		return false
	}
	for _, c := range []byte(s) {
		if !isAlnum(c) && !strings.ContainsRune("._:~-", rune(c)) {
			return false
		}
	}
	return true
}

// ValidRev reports whether s has the syntax of a TID (https://atproto.com/specs/tid), as every
// repository revision has. TIDs have one length and compare as bytes.
func ValidRev(s string) bool {
	if len(s) != revBytes || s[0] > 'j' { // its first bit is 0
		return false
	}
	for _, c := range []byte(s) {
		if (c < '2' || c > '7') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

const (
	revDigits = "234567abcdefghijklmnopqrstuvwxyz"
	// clockIDBits is the number of low bits of a TID that identify the clock which made it.
	clockIDBits = 10
)

// RevAt returns the first revision that a server can make at t, which must not be before 1970.
func RevAt(t time.Time) string {
	n := uint64(t.UnixMicro()) << clockIDBits
	var rev [revBytes]byte
	for i := range rev {
		rev[revBytes-1-i] = revDigits[n&31]
		n >>= 5
	}
	return string(rev[:])
}

// RevTime returns the time of a revision: the first 53 bits of a TID are microseconds since 1970,
// by the clock of the server that made it.
func RevTime(rev string) (time.Time, bool) {
	if !ValidRev(rev) {
		return time.Time{}, false
	}
	var n uint64
	for _, c := range []byte(rev) {
		digit := c - '2'
		if c >= 'a' {
			digit = c - 'a' + 6
		}
		n = n<<5 | uint64(digit)
	}
	return time.UnixMicro(int64(n >> clockIDBits)).UTC(), true
}

// validLang rejects what Postgres text cannot hold. It does not check that the language exists.
func validLang(s string) bool {
	return s != "" && len(s) <= maxLangBytes && !strings.ContainsRune(s, 0) && utf8.ValidString(s)
}

// ValidCID rejects what no multibase text contains. Upstream guarantees that the CID is the
// record's hash.
func ValidCID(s string) bool {
	if s == "" || len(s) > maxCIDBytes {
		return false
	}
	for _, c := range []byte(s) {
		if !isAlnum(c) && !strings.ContainsRune("+/=-_", rune(c)) {
			return false
		}
	}
	return true
}

// MaxLangsPerPost is how many languages of a post are stored; the lexicon allows three.
const MaxLangsPerPost = 20

// Langs returns the declared languages that are stored: the first MaxLangsPerPost valid ones, as
// written.
func Langs(raw []string) []string {
	var out []string
	for _, lang := range raw {
		if len(out) == MaxLangsPerPost {
			break
		}
		if validLang(lang) {
			out = append(out, lang)
		}
	}
	return out
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// MaxLangRanges is the most language ranges under which a post is listed.
const MaxLangRanges = 100

// NormalizeLang returns a basic language range (RFC 4647, section 2.1) in lower case, the form
// under which posts are listed. The range "*" is refused, since it means every language. ok is
// false for any other text.
func NormalizeLang(s string) (lang string, ok bool) {
	lang = lowerASCII(s)
	for i, part := range strings.Split(lang, "-") {
		if len(part) < 1 || len(part) > 8 {
			return "", false
		}
		for _, c := range []byte(part) {
			if !isAlnum(c) || i == 0 && c <= '9' {
				return "", false
			}
		}
	}
	return lang, true
}

// LangRanges returns the ranges that match one of the languages by basic filtering (RFC 4647,
// section 3.3.1): each language and each of its prefixes that end at a hyphen, in lower case,
// without repeats, the first MaxLangRanges.
func LangRanges(langs []string) []string {
	var out []string
	for _, lang := range langs {
		lang = lowerASCII(lang)
		for i := 0; i <= len(lang); i++ {
			if i < len(lang) && lang[i] != '-' {
				continue
			}
			if _, ok := NormalizeLang(lang[:i]); !ok || len(out) == MaxLangRanges {
				break
			}
			if !slices.Contains(out, lang[:i]) {
				out = append(out, lang[:i])
			}
		}
	}
	return out
}

func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
