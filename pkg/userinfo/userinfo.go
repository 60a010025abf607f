// Package userinfo keeps secrets in URLs out of errors, logs and help texts.
package userinfo

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// The part of a URL before its @ is a name and a password, and no error, log line or help text may
// show any of it, however malformed the URL is. So errors about rejected URLs quote only what Strip
// returns, and a URL is rejected if parsers disagree on where its password ends: what one parser
// takes for the password another takes for a host, and prints it.

// secretStands for what is left out.
const secretStands = "xxxxx"

// ErrUnclear is returned for a URL whose password some parsers would read as another part of it.
var ErrUnclear = errors.New("a name or password in the URL has a character that ends it: write each of : / @ % ? # in it as % and two digits (%3A %2F %40 %25 %3F %23)")

// Ends are the characters that end the authority of any URL but Postgres's.
const Ends = "/?#"

// Check returns ErrUnclear if it is not clear where the URL's user-info ends. The first of the
// characters in ends terminates the URL's authority.
func Check(raw, ends string) error {
	_, rest, _ := strings.Cut(raw, "://")
	authority := rest
	if i := strings.IndexAny(rest, ends); i >= 0 {
		authority = rest[:i]
	}
	if n := strings.Count(rest, "@"); n > 1 || n != strings.Count(authority, "@") {
		return ErrUnclear
	}
	return nil
}

// Strip returns a URL, or a list of them, without anything that may be secret: the text between the
// first :// and the last @, and parameters that may be passwords. ok is false if even that may
// leave a secret.
func Strip(raw string) (rest string, ok bool) {
	scheme, rest, found := strings.Cut(raw, "://")
	if !found || !plainScheme.MatchString(scheme) {
		return "", false
	}
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		rest = rest[at+1:]
	} else if !plainHosts.MatchString(rest) {
		return "", false
	}
	if saysPass(rest) {
		before, query, _ := strings.Cut(rest, "?")
		params := slices.DeleteFunc(strings.Split(query, "&"), saysPass)
		if rest = before + "?" + strings.Join(params, "&"); saysPass(rest) {
			return "", false
		}
	}
	return scheme + "://" + rest, true
}

func saysPass(s string) bool { return strings.Contains(strings.ToLower(lenient(s)), "pass") }

var (
	plainScheme = regexp.MustCompile(`^[a-z]+$`)
	// plainHosts matches hosts and ports that cannot be a password without its @.
	plainHosts = regexp.MustCompile(`^[\w.,-]*(:\d+)?(,[\w.-]+(:\d+)?)*(/|$)`)
)

// lenient decodes as much as can be decoded.
func lenient(s string) string {
	if t, err := url.PathUnescape(s); err == nil {
		return t
	}
	return s
}

// Redact returns a text, such as an argument or an error that quotes one, without the URL that
// starts in it.
func Redact(text string) string {
	before, _, found := strings.Cut(text, "://")
	if !found {
		return text
	}
	return before + "://" + secretStands
}
