package e2e_test

import (
	"flag"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/simnet"
)

var pipelineSeed = flag.Uint64("pipeline.seed", 1, "the seed of TestPipeline's traffic")

// TestPipeline drives the whole pipeline, from the real Jetstream server to HTTP, with traffic on
// the simulated network: a backlog that is in the archive when ingest starts, then live events with
// every edge case, with both services restarted in between. At the end all answers of the API, each
// post, count and page of each tag in both directions, are compared with the fold of what the
// network emitted.
func TestPipeline(t *testing.T) {
	t.Parallel()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with: go test ./test/e2e -run '^TestPipeline$' -pipeline.seed=%d", *pipelineSeed)
		}
	})
	b := newIngestBench(t, 40)
	// Only posts: an archive has no record of accounts that were hidden before.
	traffic := simnet.Traffic{Count: 500, Seed: *pipelineSeed, TagsOnly: true}
	require.NoError(t, traffic.Run(b.ctx, b.net))
	host := b.host()
	x, url := b.newIndex()
	edges := simnet.NewEdges(b.net, *pipelineSeed)

	for round := range 3 {
		in := b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive"})
		ix := x.indexer(200)
		if round > 0 {
			for slice := range uint64(50) {
				traffic = simnet.Traffic{Count: 30, Seed: *pipelineSeed<<16 + uint64(round)<<8 + slice}
				require.NoError(t, traffic.Run(b.ctx, b.net))
				for range 4 {
					require.NoError(t, edges.Act())
				}
			}
		}
		b.settle(host, url)
		in.halt()
		require.NoError(t, ix.stop())
	}
	b.check(url)
}

// settle returns when url serves everything that the network has emitted so far.
func (b *ingestBench) settle(host *simnet.Jetstream, url string) {
	b.t.Helper()
	require.NoError(b.t, b.net.Await(b.ctx, host))
	// The server orders the events of different accounts arbitrarily, but this one comes after
	// everything that it has delivered already.
	did := b.account()
	p := b.create(did, "the end", "settled")
	awaitPost(b.t, url, p)
}

// awaitPost returns when the API at url shows a post.
func awaitPost(t *testing.T, url string, p simnet.Post) {
	t.Helper()
	poll.Until(t, ingestWait, func() (bool, string) {
		status, body := process.Fetch(fmt.Sprintf("%s/v1/posts/%s/%s", url, p.DID, p.Rkey))
		return status == http.StatusOK, fmt.Sprint(status, " ", body)
	})
}

// An account whose profile opts out of logged-out readers disappears, through the real Jetstream
// server, from post, list, feed, counts and change feed. When the label is removed, it returns with
// its posts, name and handle.
func TestConsent(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 2)
	x, url := b.newIndex()
	b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive"})
	x.indexer(200)
	shy, open := b.net.DIDs()[0], b.net.DIDs()[1]
	create := func(did string) simnet.Post {
		return b.create(did, "seen", "consent")
	}
	kept, mine := create(open), create(shy)
	awaitPost(t, url, kept)
	awaitPost(t, url, mine)
	var changes changesPage
	getJSON(t, url+"/v1/changes?tags=consent", &changes)

	// Where the post must or must not be visible.
	places := []string{
		"/v1/posts?tags=consent", "/v1/posts?tags=consent&author=" + shy, "/v1/feeds/posts.atom?tags=consent",
		"/v1/feeds/posts.rss?tags=consent", "/v1/posts/" + mine.DID + "/" + mine.Rkey,
		"/xrpc/app.bsky.unspecced.searchPostsSkeleton?q=%23consent", "/tag/consent",
	}
	await := func(seen bool) {
		t.Helper()
		for _, place := range places {
			poll.Until(t, ingestWait, func() (bool, string) {
				_, body := process.Fetch(url + place)
				return strings.Contains(body, mine.Rkey) == seen, fmt.Sprintf("%s: want seen %v: %s", place, seen, body)
			})
		}
		poll.Until(t, ingestWait, func() (bool, string) {
			_, body := process.Fetch(url + "/v1/tags/consent")
			posts := 1
			if seen {
				posts = 2
			}
			return strings.Contains(body, fmt.Sprintf(`"posts":%d`, posts)), body
		})
	}
	change := func(record map[string]any) {
		t.Helper()
		_, err := b.net.SetProfile(shy, record)
		require.NoError(t, err)
	}
	await(true)
	change(simnet.NewProfile("Shy", false))
	await(false)
	_, body := process.Fetch(url + "/v1/changes?tags=consent&after=" + changes.Page.Next)
	require.Contains(t, body, `"op":"remove","uri":"`+mine.URI+`"`)
	require.NotContains(t, body, "Shy")
	later := create(shy)
	_, err := b.net.Rename(shy, "shy.example")
	require.NoError(t, err)
	awaitPost(t, url, create(open)) // earlier events are then in the index, too
	status, _ := process.Fetch(fmt.Sprintf("%s/v1/posts/%s/%s", url, later.DID, later.Rkey))
	require.Equal(t, http.StatusNotFound, status)

	change(simnet.NewProfile("Not shy", true))
	awaitPost(t, url, later)
	awaitPost(t, url, mine)
	_, body = process.Fetch(fmt.Sprintf("%s/v1/posts/%s/%s", url, mine.DID, mine.Rkey))
	require.Contains(t, body, `"author":{"did":"`+shy+`","handle":"shy.example","displayName":"Not shy","avatar":null}`)
	_, body = process.Fetch(url + "/v1/tags/consent")
	require.Contains(t, body, `"posts":4`)
	_, err = b.net.DeleteProfile(shy)
	require.NoError(t, err)
	poll.Until(t, ingestWait, func() (bool, string) {
		_, body := process.Fetch(fmt.Sprintf("%s/v1/posts/%s/%s", url, mine.DID, mine.Rkey))
		return strings.Contains(body, `"handle":"shy.example","displayName":null`), body
	})
}
