package e2e_test

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/simnet"
)

// sealOften makes a server seal its segments constantly, and remove replaced and deleted records
// from them.
const sealOften = "--compaction-interval=300ms"

// on returns a bench on the same network with another NATS server.
func (b *ingestBench) on(server *natstest.TestServer) *ingestBench {
	return &ingestBench{t: b.t, ctx: b.ctx, net: b.net, nats: server, js: server.JetStream(b.t)}
}

// TestIngestResumesBelowLiveWindow resumes at a position that the host's websocket refuses as too
// old. The archive has the events after it.
func TestIngestResumesBelowLiveWindow(t *testing.T) {
	t.Parallel()
	b := newIngestBench(t, 3)
	for i := range 10 {
		b.post(fmt.Sprint("in the archive ", i), "art")
	}
	host := b.host("--cursor-lookback=1s", sealOften)
	cfg := ingest.Config{Hosts: []string{host.URL()}, Start: "archive"}
	b.ingest(cfg)
	b.post("in another segment", "art")
	all := b.awaitEvents(11)

	// Another stream ends in between.
	const read = 4
	other := b.on(natstest.Server(t))
	require.NoError(t, stream.Ensure(b.ctx, other.js, stream.Config{}))
	w, err := stream.OpenWriter(b.ctx, other.js, "test", nil)
	require.NoError(t, err)
	require.NoError(t, w.Append(b.ctx, all[:read]))
	poll.Until(t, ingestWait, func() (bool, string) {
		conn, resp, err := websocket.Dial(b.ctx, fmt.Sprintf("%s/xrpc/network.bsky.jetstream.subscribeEvents?cursor=%d", host.URL(), all[read-1].Source.Seq), nil)
		if err == nil {
			_ = conn.CloseNow()
			return false, "the cursor is not too old yet"
		}
		body, _ := io.ReadAll(resp.Body)
		return strings.Contains(string(body), "CursorTooOld"), string(body)
	})
	run := other.ingest(cfg)
	last := b.post("live", "art")
	want := append(ingestRkeys(all), last.Rkey)
	require.Equal(t, want, ingestRkeys(other.awaitEvents(12)), "nothing may be lost or duplicated")
	require.Zero(t, run.counter("connections_total", "switched"))
}

// TestIngestWaitsForBootstrappingHost starts ingest before the host has downloaded its first
// repository: until then the host answers 503.
func TestIngestWaitsForBootstrappingHost(t *testing.T) {
	t.Parallel()
	b := newIngestBench(t, 3)
	first := b.post("in the archive", "art")
	relay, err := b.net.Listen(b.ctx)
	require.NoError(t, err)
	t.Cleanup(relay.Close)
	proxy := newStallProxy(t, relay.URL())
	proxy.hold(true)
	binary, err := simnet.BuildJetstream(b.ctx, "")
	require.NoError(t, err)
	host, err := simnet.StartJetstream(b.ctx, simnet.JetstreamConfig{
		Binary: binary, DataDir: filepath.Join(t.TempDir(), "jetstream"), RelayURL: proxy.url(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = host.Stop() })
	run := b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive"})
	poll.Until(t, ingestWait, func() (bool, string) {
		run.mu.Lock()
		defer run.mu.Unlock()
		err := run.ready[ingest.ComponentFirehose]
		return err != nil && strings.Contains(err.Error(), "503"), fmt.Sprint("not ready because of: ", err)
	})
	proxy.hold(false)
	require.Equal(t, []string{first.Rkey}, ingestRkeys(b.awaitEvents(1)))
	run.awaitReady()
	poll.Until(t, ingestWait, func() (bool, string) { // the log is written concurrently
		said := 0
		for _, entry := range b.log() {
			if entry.What == "failed" && strings.Contains(entry.Detail, "bootstrap") {
				said++
			}
		}
		require.LessOrEqual(t, said, 1, "it must be logged once")
		return said == 1, "not in the log"
	})
}

// A post over the NATS server's limit is counted and dropped. An edit that makes a post too big
// removes it.
func TestIngestDropsOversizedPosts(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	b := newIngestBench(t, 1).on(natstest.Server(t, natstest.With(func(o *server.Options) { o.MaxPayload = limit })))
	host := b.host()
	run := b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive"})
	small := b.post("small", "art")
	b.post(strings.Repeat("big ", limit/4), "art")
	b.update(small, strings.Repeat("big ", limit/4), "art")
	last := b.post("last", "art")
	events := b.awaitEvents(3)
	require.Equal(t, []string{small.Rkey, small.Rkey, last.Rkey}, ingestRkeys(events))
	require.Equal(t, event.KindRemove, events[1].Kind)
	require.Equal(t, 1.0, run.counter("events_dropped_total", "too_big"))
}
