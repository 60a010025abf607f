package backfill

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLateHistories asks hosts in turn, like a reader, until one is used. A host that has the whole
// window would not be reported.
func TestLateHistories(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	from, until := begin, begin.Add(6*hour)
	for name, tt := range map[string]struct {
		histories map[string]time.Duration // their beginnings, relative to from
		asked     []string
		used      string // the last host asked, if one is used
		begins    time.Duration
	}{
		"the only one has a part":    {map[string]time.Duration{"a": hour}, []string{"a"}, "a", hour},
		"the only one has nothing":   {map[string]time.Duration{"a": 6 * hour}, []string{"a"}, "", 6 * hour},
		"another may have it":        {map[string]time.Duration{"a": hour, "b": 0}, []string{"a"}, "", 0},
		"the first has more":         {map[string]time.Duration{"a": hour, "b": 2 * hour}, []string{"a", "b", "a"}, "a", hour},
		"the second has more":        {map[string]time.Duration{"a": 2 * hour, "b": hour}, []string{"a", "b", "a", "b"}, "b", hour},
		"the second alone has any":   {map[string]time.Duration{"a": 7 * hour, "b": hour}, []string{"a", "b", "a", "b"}, "b", hour},
		"none has any":               {map[string]time.Duration{"a": 7 * hour, "b": 8 * hour}, []string{"a", "b", "a"}, "", 7 * hour},
		"the second does not answer": {map[string]time.Duration{"a": hour, "b": 0}, []string{"a", "a"}, "a", hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hosts := make([]string, len(tt.histories))
			b := New(Config{Request: Request{From: from, Until: until, Hosts: hosts}}, nil, nil, slog.New(slog.DiscardHandler), nil)
			for range 2 { // each reading starts over
				late := map[string]time.Time{}
				var ended error
				for i, host := range tt.asked {
					require.NoError(t, ended)
					err := b.lateHistory(late, host, from.Add(tt.histories[host]), func(cause error) { ended = cause })
					if i < len(tt.asked)-1 || tt.used == "" && tt.begins == 0 {
						require.ErrorIs(t, err, errLater)
						continue
					}
					if tt.used == "" {
						require.ErrorIs(t, err, ErrBeforeHistory)
						require.ErrorIs(t, ended, ErrBeforeHistory)
						require.ErrorContains(t, err, "that of "+host+" begins at 2026-08-31T")
					} else {
						require.NoError(t, errors.Join(err, ended))
						require.Equal(t, tt.used, host)
					}
				}
				if tt.begins == 0 {
					require.Zero(t, b.summary.HistoryBegins)
				} else {
					require.Equal(t, from.Add(tt.begins), b.summary.HistoryBegins)
				}
			}
		})
	}
}
