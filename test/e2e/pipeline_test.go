package e2e_test

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/model"
	"github.com/tagstream/tagstream/test/simnet"
)

var pipelineSeed = flag.Uint64("pipeline.seed", 1, "the seed of TestPipeline's traffic")

// TestPipeline drives the whole pipeline, from the real Jetstream server to
// HTTP, with traffic on the simulated network: a backlog that is in the archive
// when ingest starts, then live events with every edge among them, with both
// services restarted in between. At the end everything that the API answers,
// each post, count and page of each tag in both directions, is compared with
// the fold of what the network emitted.
func TestPipeline(t *testing.T) {
	t.Parallel()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with: go test ./test/e2e -run '^TestPipeline$' -pipeline.seed=%d", *pipelineSeed)
		}
	})
	b := newIngestBench(t, 40)
	// Posts alone: an archive has no trace of accounts that were hidden before.
	traffic := simnet.Traffic{Count: 500, Seed: *pipelineSeed, TagsOnly: true}
	require.NoError(t, traffic.Run(b.ctx, b.net))
	host := b.host()
	x := newIndexBench(t, b.nats)
	url := x.api()
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
	want, err := model.FromNetwork(b.net.Log())
	require.NoError(t, err)
	model.CheckHTTP(t, url, want)
}

// settle returns when everything that the network has emitted so far can be
// asked for at url.
func (b *ingestBench) settle(host *simnet.Jetstream, url string) {
	b.t.Helper()
	require.NoError(b.t, b.net.Await(b.ctx, host))
	// The server orders the events of different accounts as it likes, but this
	// one comes after all that it has put out already.
	did, err := b.net.CreateAccount()
	require.NoError(b.t, err)
	p, err := b.net.CreatePost(did, "", simnet.NewPost(b.net.Now(), "the end", "settled"))
	require.NoError(b.t, err)
	awaitPost(b.t, url, p)
}

// awaitPost returns when the API at url shows a post.
func awaitPost(t *testing.T, url string, p simnet.Post) {
	t.Helper()
	poll.Until(t, ingestWait, func() (bool, string) {
		status, body := get(t, fmt.Sprintf("%s/v1/posts/%s/%s", url, p.DID, p.Rkey))
		return status == http.StatusOK, fmt.Sprint(status, " ", body)
	})
}

// get returns the status and the body of an answer; status 0 is no answer.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(body)
}
