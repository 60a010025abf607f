// Package userinfo keeps what may be secret in a URL out of errors, logs and help.
package userinfo

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// What a URL has before its @ is a name and a password, and no error, log line or
// help text may show any of it, however broken the URL is. So errors of a URL that
// was not accepted quote nothing of it but what Strip leaves, and a URL is
// not accepted where readers of URLs disagree on where its password ends: what one
// takes for the password's end another takes for a host, and names it.

// secretStands for what is left out.
const secretStands = "xxxxx"

// ErrUnclear is returned for a URL whose password would be read as part of something
// else.
var ErrUnclear = errors.New("a name or password in the URL has a character that ends it: write each of : / @ % ? # in it as % and two digits (%3A %2F %40 %25 %3F %23)")

// Ends are the characters that end the authority of any URL but Postgres's.
const Ends = "/?#"

// Check returns ErrUnclear for a URL in which it is not clear where the
// user-info ends. ends are the characters of which the first ends a URL's authority.
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

// Strip returns a URL, or a list of them, without all that may be secret: what is between
// the first :// and the last @, and parameters that may be passwords. ok is false where not
// even that is sure to leave nothing secret.
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
	// plainHosts are hosts and ports, of which none is a password without its @.
	plainHosts = regexp.MustCompile(`^[\w.,-]*(:\d+)?(,[\w.-]+(:\d+)?)*(/|$)`)
)

// lenient decodes what can be decoded.
func lenient(s string) string {
	if t, err := url.PathUnescape(s); err == nil {
		return t
	}
	return s
}

// Redact returns a text, such as an argument or an error that quotes one, without the
// URL that begins in it.
func Redact(text string) string {
	before, _, found := strings.Cut(text, "://")
	if !found {
		return text
	}
	return before + "://" + secretStands
}
