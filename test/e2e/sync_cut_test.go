package e2e_test

import (
	"fmt"
	"math"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/model"
	"github.com/tagstream/tagstream/test/simnet"
)

// A late host fetches the repository for a #sync long after the account has moved to later
// revisions, and stops in the middle of it. The replacements that it did not deliver still exist:
// the other host delivers them, at older revisions.
//
// Invariant: only a complete #sync removes anything, or makes events up to the revision of its
// replacements be ignored.
func TestTruncatedSync(t *testing.T) {
	t.Parallel()
	const posts, rate = 300, 60_000
	b := newIngestBench(t, 2)
	did := b.net.DIDs()[0]
	for range posts / 2 {
		_, err := b.net.Commit(did, simnet.Op{Action: simnet.Create, Record: simnet.NewPost(b.net.Now(), "before", "art")},
			simnet.Op{Action: simnet.Create, Record: simnet.NewPost(b.net.Now(), "too", "photo")})
		require.NoError(t, err)
	}
	late, other := b.host(), b.host()
	u, err := url.Parse(late.URL())
	require.NoError(t, err)
	var log fault.Log
	proxy := fault.New(t, fault.Raw, u.Host, &log)
	x, api := b.newIndex()
	x.indexer(100)
	b.ingest(ingest.Config{Hosts: []string{"http://" + proxy.Addr(), other.URL()}, Start: "archive"})
	awaitPost(t, api, b.post("the last before", "art"))

	late.Relay().HoldAfter(b.net.Seq())
	sync, err := b.net.Sync(did, simnet.Op{Action: simnet.Create, Record: simnet.NewPost(b.net.Now(), "in no commit", "art")})
	require.NoError(t, err)
	require.NoError(t, b.net.Await(b.ctx, other))
	between, head := b.post("behind the #sync", "art"), b.post("the newest", "art")
	require.NoError(t, b.net.Await(b.ctx, other))

	proxy.Slow(rate)
	late.Relay().HoldAfter(sync.Seq)
	poll.Until(t, ingestWait, func() (bool, string) {
		came := 0
		for _, e := range b.events() {
			require.NotEqual(t, between.Rkey, e.Rkey, "the host must stop before the end")
			if e.Kind == event.KindCreate && e.Rev == head.Rev {
				came++
			}
		}
		return came > 0, fmt.Sprintf("%d replacements", came)
	})
	proxy.Refuse(true)
	require.Positive(t, proxy.Break(fault.Cut))

	last := b.create(b.net.DIDs()[1], "the end", "settled")
	awaitPost(t, api, last)
	want, err := model.FromNetwork(b.net.Log())
	require.NoError(t, err)
	want.SeveralHosts()
	model.CheckHTTP(t, api, want)
	late.Relay().HoldAfter(math.MaxInt64)
}
