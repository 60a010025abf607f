package httpapi

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSearchSkeleton: every part of a search becomes a filter of a list, the same in q and as a
// parameter.
func TestSearchSkeleton(t *testing.T) {
	t.Parallel()
	day := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	for _, all := range []string{
		"q=" + url.QueryEscape("#Art $BTC * from:did:plc:a lang:en since:2026-01-02 until:2026-01-03T00:00:00Z"),
		"q=*&tag=art&tag=%24btc&author=did:plc:a&lang=en&since=2026-01-02T00:00:00Z&until=2026-01-03&sort=top&whatever=1",
		"q=" + url.QueryEscape("#art lang:en from:did:plc:a") + "&tag=$BTC&author=did:plc:a&lang=en&since=2026-01-02&until=2026-01-03",
	} {
		_, list, err := parseSearch(all)
		require.NoError(t, err, all)
		require.Equal(t, []string{"$btc", "art"}, list.query.All, all)
		require.Empty(t, list.query.Tags)
		require.Equal(t, []string{"did:plc:a"}, list.query.Authors)
		require.Equal(t, []string{"en"}, list.query.Langs)
		require.Equal(t, day, list.query.Since)
		require.Equal(t, day.AddDate(0, 0, 1), list.query.Until)
	}

	s := serve(t, fakeIndex{})
	for all, want := range map[string]string{
		"":                       "BadQueryString", // no tags
		"q=*":                    "BadQueryString",
		"q=art":                  "BadQueryString",
		"q=%23art+free":          "BadQueryString",
		"q=%23":                  "BadQueryString",
		"q=%23art+from:me":       "BadQueryString",
		"q=%23art+from:a.test":   "BadQueryString",
		"q=%23art+since:soon":    "BadQueryString",
		"q=%23art+lang:*":        "BadQueryString",
		"q=%23art&author=a.test": "BadQueryString",
		"q=%23art&mentions=x":    "BadQueryString",
		"author=did:plc:a":       "BadQueryString",

		"q=%23art+from:did:plc:a&author=did:plc:b": "BadQueryString",
		"q=%23art&domain=x":                        "BadQueryString",
		"q=%23art&url=x":                           "BadQueryString",
		"q=%23art+lang:ja&lang=en":                 "BadQueryString",
		"tag=art&sort=best":                        "InvalidRequest",
		"tag=art&limit=101":                        "InvalidRequest",
		"tag=art&cursor=x":                         "InvalidRequest",
		"q=%23art&q=%23ink":                        "InvalidRequest",
	} {
		a := s.get(t, "/xrpc/app.bsky.unspecced.searchPostsSkeleton?"+all)
		require.Equal(t, http.StatusBadRequest, a.status, all)
		var e struct{ Error, Message string }
		a.json(t, &e)
		require.Equal(t, want, e.Error, all)
		require.NotEmpty(t, e.Message)
	}
}
