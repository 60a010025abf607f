package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/model"
	"github.com/tagstream/tagstream/test/simnet"
)

func TestIngestPublishesRelevantEvents(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 3)
	run := b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive"})
	run.awaitReady()
	did := b.net.DIDs()[0]

	first := b.post("one", "Art", "photo")
	b.post("none")
	second := b.post("two", "art")
	reply := simnet.NewPost(b.net.Now(), "a reply", "art")
	reply["reply"] = map[string]any{"parent": map[string]any{"uri": first.URI, "cid": first.CID}}
	_, err := b.net.CreatePost(did, "", reply)
	require.NoError(t, err)
	b.update(first, "one again", "music")
	b.update(second, "no more")
	b.remove(first)
	b.setStatus(did, false, "takendown")
	b.setStatus(did, true, "")
	require.NoError(t, b.net.Await(b.ctx, host))

	events := b.awaitEvents(7)
	kinds := make([]event.Kind, len(events))
	for i, e := range events {
		kinds[i] = e.Kind
		require.Equal(t, did, e.DID)
		require.Equal(t, host.URL(), e.Source.Host)
	}
	require.Equal(t, []event.Kind{"create", "create", "update", "remove", "delete", "account", "account"}, kinds)
	require.Equal(t, []string{"art", "photo"}, events[0].Tags)
	require.Equal(t, first.CID, events[0].CID)
	require.Equal(t, first.Rev, events[0].Rev)
	require.Equal(t, []string{"music"}, events[2].Tags)
	require.Equal(t, "takendown", events[5].Status)
	require.True(t, events[6].Active)
	var record struct{ Text string }
	require.NoError(t, json.Unmarshal(events[2].Record, &record))
	require.Equal(t, "one again #music", record.Text)
	require.Equal(t, 1.0, run.counter("events_dropped_total", "reply"))
	require.Equal(t, 1.0, run.counter("events_dropped_total", "no_tags"))
}

// A late host stamps "active" later than another host stamps the take-down that followed. If the
// late host's event is read first, the take-down still counts.
//
// Invariant: statuses of an account are ordered by the upstream time and number of the event,
// whichever host delivers them and when. See also TestRules and TestFold.
func TestAccountStatusesOfLateHost(t *testing.T) {
	t.Parallel()
	b := newIngestBench(t, 2)
	late, other := b.host(), b.host()
	x, url := b.newIndex()
	x.indexer(100)
	did := b.net.DIDs()[0]
	shown := b.create(b.net.DIDs()[1], "shown", "art")
	p := b.post("taken down", "art")
	run := b.ingest(ingest.Config{Hosts: []string{late.URL()}, Start: "archive"})
	awaitPost(t, url, shown)
	awaitPost(t, url, p)

	seq := b.net.Seq()
	late.Relay().HoldAfter(seq)
	for _, status := range []string{"deactivated", "", "takendown"} {
		b.setStatus(did, status == "", status)
	}
	require.NoError(t, b.net.Await(b.ctx, other))
	late.Relay().HoldAfter(seq + 2)
	awaitStatuses := func(n int) (statuses []*event.Event) {
		poll.Until(t, ingestWait, func() (bool, string) {
			statuses = slices.DeleteFunc(b.events(), func(e *event.Event) bool { return e.Kind != event.KindAccount || e.DID != did })
			return len(statuses) > 0 && statuses[len(statuses)-1].Active == (n == 2) && len(statuses) >= n, fmt.Sprint(len(statuses))
		})
		return statuses
	}
	active := awaitStatuses(2)[1]
	run.halt()
	b.ingest(ingest.Config{Hosts: []string{other.URL()}, Start: "archive"})
	statuses := awaitStatuses(3)
	down := statuses[len(statuses)-1]
	require.Equal(t, "takendown", down.Status)
	require.True(t, down.Source.Time.Before(active.Source.Time), "their stamps must be in the other order")
	require.Equal(t, []uint64{uint64(seq) + 2, uint64(seq) + 3}, []uint64{active.Upstream.Seq, down.Upstream.Seq})

	last := b.create(b.net.DIDs()[1], "the end", "settled")
	awaitPost(t, url, last)
	b.check(url)
	late.Relay().HoldAfter(math.MaxInt64)
}

// The events after a #sync do not matter to the index, and the account continues. Ingest still
// reports in the stream where the replacements end, judging by the events that it reads.
func TestIngestReportsEndOfSync(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 2)
	b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive", Heartbeat: time.Hour})
	b.post("kept", "art")
	gone := b.post("gone", "art")
	b.awaitEvents(2)
	did := b.net.DIDs()[0]
	_, err := b.net.Diverge(did, simnet.Op{Action: simnet.Delete, Rkey: gone.Rkey})
	require.NoError(t, err)
	_, err = b.net.Sync(did)
	require.NoError(t, err)
	b.awaitEvents(4)
	b.create(b.net.DIDs()[1], "no tags")
	poll.Until(t, ingestWait, func() (bool, string) {
		var kinds []string
		for _, e := range b.all() {
			kinds = append(kinds, string(e.Kind)+string(e.Sync))
		}
		got := strings.Join(kinds, " ")
		return strings.HasSuffix(got, "syncopen create syncover"), got
	})
	all := b.all()
	require.Equal(t, all[len(all)-2].Source.Seq, all[len(all)-1].Source.Seq, "the position must be that of the last stored event")
	b.post("written after it", "art")
	b.awaitEvents(6)
	var kinds []string
	for _, e := range b.all() {
		kinds = append(kinds, string(e.Kind)+string(e.Sync))
	}
	require.Equal(t, "syncopen create syncover create", strings.Join(kinds[len(kinds)-4:], " "))
}

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
	proxy, url := proxied(t, late.URL())
	x, api := b.newIndex()
	x.indexer(100)
	b.ingest(ingest.Config{Hosts: []string{url, other.URL()}, Start: "archive"})
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
	proxy, url := proxied(t, relay.URL())
	proxy.Hold()
	binary, err := simnet.BuildJetstream(b.ctx, "")
	require.NoError(t, err)
	host, err := simnet.StartJetstream(b.ctx, simnet.JetstreamConfig{
		Binary: binary, DataDir: filepath.Join(t.TempDir(), "jetstream"), RelayURL: url,
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = host.Stop() })
	run := b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive"})
	poll.Until(t, ingestWait, func() (bool, string) {
		why := run.idle(ingest.ComponentFirehose)
		return strings.Contains(why, "503"), "not ready because of: " + why
	})
	proxy.Release()
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
