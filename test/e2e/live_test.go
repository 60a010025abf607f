package e2e_test

import (
	"encoding/json"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/test/process"
)

// liveTime is how long the public network is read. #art is posted several times in that period.
const liveTime = 30 * time.Second

// TestLive runs the all-in-one program on the public network and must find a post with #art. `make
// test-live` runs it.
func TestLive(t *testing.T) {
	if os.Getenv("TEST_LIVE") == "" {
		t.Skip("reads the public network: run make test-live")
	}
	api := freeAddr(t)
	p := begin(t, "tagstream", nil, "TAGSTREAM_DATA_DIR="+t.TempDir(), "TAGSTREAM_API_LISTEN="+api,
		"TAGSTREAM_OPS_LISTEN="+freeAddr(t), "TAGSTREAM_JETSTREAM_START=-1m")
	url := "http://" + api
	awaitAnswer(t, url+"/v1/status")
	poll.Until(t, liveTime, func() (bool, string) {
		_, body := process.Fetch(url + "/v1/posts?tags=art&limit=1")
		var page struct {
			Posts []struct {
				URI  string
				Tags []string
			}
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || len(page.Posts) == 0 {
			_, status := process.Fetch(url + "/v1/status")
			return false, "no #art post yet: " + status
		}
		require.Contains(t, page.Posts[0].Tags, "art")
		t.Logf("found %s", page.Posts[0].URI)
		return true, ""
	})
	require.Zero(t, p.end(syscall.SIGTERM))
}
