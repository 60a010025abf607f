package firehose

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Start says where the very first start begins. The zero value is the tip.
type Start struct {
	// Archive means all sealed history, then live.
	Archive bool
	// Time is where to begin. Zero, without Archive, is the tip: the host's present time when first
	// connected.
	Time time.Time
}

// ErrNoStart is the error for a text that ParseStart cannot parse.
var ErrNoStart = errors.New("not tip, archive, an RFC 3339 time, a date such as 2026-08-31 or an age such as -2h or -3d")

// ParseStart parses "tip", "archive", an RFC 3339 time, a date (its midnight in UTC) or an age such
// as "-2h" or "-3d" (before now). A time after now is an error, since it is probably a mistake.
func ParseStart(s string, now time.Time) (Start, error) {
	switch s {
	case "", "tip":
		return Start{}, nil
	case "archive":
		return Start{Archive: true}, nil
	}
	t, ok := parseTime(s, now)
	if !ok {
		return Start{}, fmt.Errorf("%q is %w", s, ErrNoStart)
	}
	if t.After(now) {
		return Start{}, fmt.Errorf("%q is in the future", s)
	}
	if t.Before(time.Unix(0, 0)) {
		return Start{}, fmt.Errorf("%q is before 1970", s)
	}
	return Start{Time: t.UTC().Truncate(time.Microsecond)}, nil
}

func parseTime(s string, now time.Time) (time.Time, bool) {
	if age, isAge := strings.CutPrefix(s, "-"); isAge {
		d, ok := ParseLength(age)
		return now.Add(-d), ok
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// ParseLength parses a positive duration, such as "90m", which may be in days, such as "3d".
func ParseLength(s string) (time.Duration, bool) {
	const maxDays = 100 * 366
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		return time.Duration(n) * 24 * time.Hour, err == nil && n > 0 && n <= maxDays
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d > 0
}
