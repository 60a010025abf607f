package site

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rivo/uniseg"
)

// Count formats a number with commas between the thousands.
func Count(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Time is a formatted time.
type Time struct {
	// Machine is RFC 3339, Full a date with the time, Short how long ago it was.
	Machine, Full, Short string
}

// At formats a time relative to now.
func At(t, now time.Time) Time {
	t = t.UTC()
	return Time{t.Format("2006-01-02T15:04:05.000000Z"), t.Format("2 January 2006, 15:04:05 UTC"), short(t, now)}
}

func short(t, now time.Time) string {
	switch ago := now.Sub(t); {
	case ago < 0:
		return "now"
	case ago < time.Minute:
		return strconv.Itoa(int(ago.Seconds())) + "s"
	case ago < time.Hour:
		return strconv.Itoa(int(ago.Minutes())) + "m"
	case ago < 24*time.Hour:
		return strconv.Itoa(int(ago.Hours())) + "h"
	case ago < 7*24*time.Hour:
		return strconv.Itoa(int(ago.Hours()/24)) + "d"
	case t.Year() == now.UTC().Year():
		return t.Format("2 Jan")
	}
	return t.Format("2 Jan 2006")
}

// Span formats a duration in words, in its largest unit.
func Span(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := int64(d / u.unit); n >= 2 || n == 1 && d < 2*u.unit && u.unit != time.Second {
			return Count(n) + " " + plural(n, u.name)
		}
	}
	return "1 second"
}

func plural(n int64, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// TagURL returns the URL of a tag's page. A tag that a browser or a proxy would change within a
// path goes into the query.
func TagURL(root, tag string) string {
	if strings.ContainsAny(tag, `/\%`) || tag == "." || tag == ".." {
		return root + "tag?tag=" + url.QueryEscape(tag)
	}
	return root + "tag/" + url.PathEscape(tag)
}

// cutText cuts a text to whole graphemes within max bytes, and reports whether it was longer.
func cutText(s string, max int) (string, bool) {
	if len(s) <= max {
		return s, false
	}
	end := 0
	for g := uniseg.NewGraphemes(s[:max]); g.Next(); {
		if _, to := g.Positions(); to < max {
			end = to
		}
	}
	if end == 0 { // one grapheme that is longer
		end = max
	}
	return strings.ToValidUTF8(s[:end], ""), true
}
