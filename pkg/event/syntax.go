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

// ValidDID reports whether s has the syntax of an atproto DID
// (https://atproto.com/specs/did): it is what keeps NULs, spaces and slashes
// out of keys and at-uris, not a check that the DID exists.
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

// ValidRev reports whether s has the syntax of a TID
// (https://atproto.com/specs/tid), which every repository revision is. TIDs
// of the same length compare as bytes.
func ValidRev(s string) bool {
	if len(s) != revBytes || !strings.ContainsRune("234567abcdefghij", rune(s[0])) {
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
	// clockIDBits are the lowest bits of a TID: which of several clocks it is of.
	clockIDBits = 10
)

// RevAt is the first revision that a server can make at a time, which is not before 1970.
func RevAt(t time.Time) string {
	n := uint64(t.UnixMicro()) << clockIDBits
	var rev [revBytes]byte
	for i := range rev {
		rev[revBytes-1-i] = revDigits[n&31]
		n >>= 5
	}
	return string(rev[:])
}

// RevTime is the time that a revision is of: the first 53 bits of a TID are
// microseconds since 1970. It is the clock of the server that made the revision.
func RevTime(rev string) (time.Time, bool) {
	if !ValidRev(rev) {
		return time.Time{}, false
	}
	var n uint64
	for _, c := range []byte(rev) {
		n = n<<5 | uint64(strings.IndexByte(revDigits, c))
	}
	return time.UnixMicro(int64(n >> clockIDBits)).UTC(), true
}

// validLang keeps out what Postgres text cannot hold; whether the language
// exists is the reader's business.
func validLang(s string) bool {
	return s != "" && len(s) <= maxLangBytes && !strings.ContainsRune(s, 0) && utf8.ValidString(s)
}

// ValidCID keeps out what no multibase text has. That it is the record's hash
// is upstream's promise.
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

// MaxLangsPerPost is how many languages of a post are kept; the lexicon
// allows three.
const MaxLangsPerPost = 20

// Langs returns the languages that are kept of those a record declares: the
// first MaxLangsPerPost that can be stored, as written.
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

// MaxLangRanges is how many language ranges a post is found under.
const MaxLangRanges = 100

// NormalizeLang returns a basic language range of RFC 4647, section 2.1, in
// lower case, as posts are found under it. The range "*" is none of them: it asks
// for every language. ok is false for text of another form.
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

// LangRanges returns the ranges that match one of the languages by the basic
// filtering of RFC 4647, section 3.3.1: each language itself and what it begins
// with up to a hyphen, in lower case, without repeats, the first MaxLangRanges.
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
