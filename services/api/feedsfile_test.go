package api_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/api"
)

// TestFeedsFileReload: a changed feeds file is loaded. If it is invalid, the old feeds stay.
func TestFeedsFileReload(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	migrate(t, db.URL)
	path := filepath.Join(t.TempDir(), "feeds.yaml")
	declare := func(text string) {
		t.Helper()
		next := path + ".next"
		require.NoError(t, os.WriteFile(next, []byte(text), 0o600))
		require.NoError(t, os.Rename(next, path))
	}
	feed := func(rkey string) string {
		return "publisher: did:plc:abc\nfeeds: [{rkey: " + rkey + ", name: A, query: tags=a}]\n"
	}
	declare(feed("one"))
	r := start(t, db.URL, func(c *api.Config) { c.FeedsFile = path })
	shows := func(rkey string) {
		t.Helper()
		poll.Until(t, reachLimit, func() (bool, string) {
			status, body := r.get(t, "/xrpc/app.bsky.feed.describeFeedGenerator")
			return status == http.StatusOK && strings.Contains(body, "generator/"+rkey+`"`), body
		})
	}
	shows("one")
	require.Contains(t, r.log.String(), "AppViews cannot find the feeds", "there is no public URL")
	declare(feed("second"))
	shows("second")
	declare("publisher: invalid\n")
	poll.Until(t, reachLimit, func() (bool, string) {
		return strings.Contains(r.log.String(), "the feeds stay unchanged"), r.log.String()
	})
	shows("second")
	declare(feed("third1"))
	shows("third1")
}

func TestBadFeedsFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feeds.yaml")
	require.NoError(t, os.WriteFile(path, []byte("publisher: did:plc:abc\nfeeds:\n  - {rkey: a, name: A, query: tags=}\n"), 0o600))
	cfg := goodConfig(t)
	cfg.FeedsFile = path
	_, err := api.New(cfg, quietDeps())
	var bad *service.ConfigError
	require.ErrorAs(t, err, &bad)
	require.Equal(t, "TAGSTREAM_FEEDS_FILE", bad.Variable)
	require.ErrorContains(t, err, "line 3: query: ")

	require.NoError(t, os.WriteFile(path, []byte("publisher: did:plc:abc\nfeeds:\n  - {rkey: a, name: A, query: tags=a}\n"), 0o600))
	cfg.PublicURL = "https://example.com/tags"
	_, err = api.New(cfg, quietDeps())
	require.ErrorAs(t, err, &bad)
	require.Equal(t, "TAGSTREAM_PUBLIC_URL", bad.Variable)
}
