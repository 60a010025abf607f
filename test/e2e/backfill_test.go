package e2e_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/model"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/simnet"
)

// backfill fills a past window.
func (b *ingestBench) backfill(ctx context.Context, host *simnet.Jetstream, from, until time.Time) (ingest.BackfillSummary, error) {
	b.t.Helper()
	return b.backfillFrom(ctx, []string{host.URL()}, from, until)
}

func (b *ingestBench) backfillFrom(ctx context.Context, hosts []string, from, until time.Time) (ingest.BackfillSummary, error) {
	b.t.Helper()
	cfg := ingest.Config{Hosts: hosts}
	ingestPatience(&cfg)
	logger := slog.New(slog.NewTextHandler(testWriter{b.t, "backfill: "}, nil))
	return ingest.RunBackfill(ctx, ingest.BackfillConfig{
		Ingest: cfg, From: from.UTC().Format(time.RFC3339Nano), For: until.Sub(from).String(),
	}, ingest.JobDeps{NATS: b.nats.Conn(b.t), Progress: progress{logger}, Patience: ingestWait})
}

type progress struct{ logger *slog.Logger }

func (progress) At(uint64, uint64) {}
func (p progress) Say(step string) { p.logger.Info(step) }

// liveFromTip starts ingest at the tip and returns when it reads, with a time after which it misses
// nothing.
func (b *ingestBench) liveFromTip(host *simnet.Jetstream) *ingestRun {
	b.t.Helper()
	run := b.ingest(ingest.Config{Hosts: []string{host.URL()}})
	// The tip becomes known with the next event.
	did := b.account()
	poll.Until(b.t, ingestWait, func() (bool, string) {
		b.create(did, "something", "tip")
		why := run.idle(ingest.ComponentFirehose)
		return why == "", "not ready: " + why
	})
	return run
}

// resumeAt returns the position after which a writer would resume.
func (b *ingestBench) resumeAt() event.Position {
	b.t.Helper()
	all := b.all()
	return all[len(all)-1].ResumeAt()
}

// TestBackfillAfterLateStart compares all answers of the API with the fold of the network's whole
// log, after a backfill of the time before ingest started.
func TestBackfillAfterLateStart(t *testing.T) {
	t.Parallel()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with: go test ./test/e2e -run '^%s$' -pipeline.seed=%d", t.Name(), *pipelineSeed)
		}
	})
	b, host := newIngest(t, 40)
	x, url := b.newIndex()
	x.indexer(200)
	from := time.Now()
	require.NoError(t, simnet.Traffic{Count: 1500, Seed: *pipelineSeed}.Run(b.ctx, b.net))
	require.NoError(t, b.net.Await(b.ctx, host))

	live := b.liveFromTip(host)
	until := time.Now()
	require.NoError(t, simnet.Traffic{Count: 800, Seed: *pipelineSeed + 1}.Run(b.ctx, b.net))
	b.settle(host, url)

	traffic := make(chan error, 1)
	go func() { // during the backfill
		traffic <- simnet.Traffic{Count: 200, Seed: *pipelineSeed + 2, Rate: 200, TagsOnly: true}.Run(b.ctx, b.net)
	}()
	summary, err := b.backfill(b.ctx, host, from, until)
	require.NoError(t, err)
	t.Logf("%+v", summary)
	require.True(t, summary.Complete)
	require.NotZero(t, summary.Published[event.KindCreate])
	require.NoError(t, <-traffic)
	b.settle(host, url)
	want, err := model.FromNetwork(asSeen(b.net.Log(), b.events(), until))
	require.NoError(t, err)
	model.CheckHTTP(t, url, want)

	// Repeating it changes nothing.
	again, err := b.backfill(b.ctx, host, from, until)
	require.NoError(t, err)
	require.Equal(t, summary.Read, again.Read)
	st, err := stream.GetState(b.ctx, b.js)
	require.NoError(t, err)
	x.await(url, st.Last)
	model.CheckHTTP(t, url, want)
	var status struct{ IndexedThrough time.Time }
	getJSON(t, url+"/v1/status", &status)
	require.Equal(t, b.resumeAt().NetworkTime(), status.IndexedThrough.UTC(), "the time must be that of the live reader")

	// The live reader continues where it was.
	before := b.resumeAt()
	live.halt()
	run := b.ingest(ingest.Config{Hosts: []string{host.URL()}})
	b.settle(host, url)
	require.Less(t, run.counter("events_read_total", "create"), 10.0, "it must not start over")
	require.GreaterOrEqual(t, b.resumeAt().Seq, before.Seq)
	for _, entry := range b.log() {
		require.NotEqual(t, "switched", entry.What, "%+v", entry)
	}
}

// asSeen returns a network's log without versions of posts before the first one that the live
// reader saw: that one brought the post into the index and determined its key.
func asSeen(log []simnet.Entry, stored []*event.Event, began time.Time) []simnet.Entry {
	first := map[string]string{} // the revision, by post
	for _, e := range stored {
		if e.Resume == nil && (e.Kind == event.KindCreate || e.Kind == event.KindUpdate) && first[e.URI()] == "" {
			first[e.URI()] = e.Rev
		}
	}
	out := slices.Clone(log)
	for i, entry := range out {
		if entry.Ops != nil && entry.Time.Before(began) {
			out[i].Ops = slices.DeleteFunc(slices.Clone(entry.Ops), func(op simnet.OpResult) bool {
				return entry.Rev < first[op.URI]
			})
		}
	}
	return out
}

// TestBackfillFollowsLaterChanges backfills a window that ends before the live reader started. Some
// changes in between are known only to the host, others the reader saw without knowing the posts.
func TestBackfillFollowsLaterChanges(t *testing.T) {
	t.Parallel()
	t.Run("in the live window", func(t *testing.T) {
		t.Parallel()
		b := newIngestBench(t, 6)
		b.backfillAndFollow(b.host(), nil)
	})
	// The host has dropped what was replaced.
	t.Run("in the archive", func(t *testing.T) {
		t.Parallel()
		b := newIngestBench(t, 6)
		host := b.host(sealOften)
		b.backfillAndFollow(host, func() { b.awaitSealed(host) })
	})
}

// awaitSealed waits until everything that the network has emitted is in the archive.
func (b *ingestBench) awaitSealed(host *simnet.Jetstream) {
	b.t.Helper()
	require.NoError(b.t, b.net.Await(b.ctx, host))
	since := time.Now().UnixMicro()
	poll.Until(b.t, ingestWait, func() (bool, string) {
		b.post("something to seal", "seal")
		var page struct {
			Segments []struct{ MaxWitnessedAt int64 }
		}
		getJSON(b.t, host.URL()+"/xrpc/network.bsky.jetstream.listSegments?limit=1000", &page)
		n := len(page.Segments)
		return n > 0 && page.Segments[n-1].MaxWitnessedAt > since, fmt.Sprint(page)
	})
}

// backfillAndFollow is the test on one host; archived, if not nil, is called when everything that
// the backfill must find has happened.
func (b *ingestBench) backfillAndFollow(host *simnet.Jetstream, archived func()) {
	t := b.t
	x, url := b.newIndex()
	x.indexer(200)
	dids := b.net.DIDs()
	author, hidden, erased, replaced, back := dids[0], dids[1], dids[2], dids[3], dids[4]
	settled := func() time.Time {
		require.NoError(t, b.net.Await(b.ctx, host))
		return time.Now()
	}
	early := b.create(author, "early", "art")
	from := settled()
	kept, edited, untagged := b.create(author, "kept", "art"), b.create(author, "edited", "art"), b.create(author, "untagged", "art")
	gone, goneLater := b.create(author, "gone", "art"), b.create(author, "gone later", "art")
	hiddenPost, erasedPost := b.create(hidden, "hidden", "art"), b.create(erased, "erased", "art")
	repoKept, repoGone := b.create(replaced, "kept by the sync", "art"), b.create(replaced, "gone by the sync", "art")
	b.setStatus(back, false, "deactivated")
	until := settled()

	b.update(edited, "edited", "photo")
	b.update(untagged, "untagged")
	b.remove(gone)
	b.setStatus(hidden, false, "takendown")
	b.setStatus(erased, false, "deleted")
	b.setStatus(erased, true, "")
	b.setStatus(back, true, "")
	_, err := b.net.Diverge(replaced, simnet.Op{Action: simnet.Delete, Rkey: repoGone.Rkey})
	require.NoError(t, err)
	_, err = b.net.Sync(replaced)
	require.NoError(t, err)
	between := b.create(author, "between", "art")
	settled()

	b.liveFromTip(host)
	b.remove(goneLater)
	backPost := b.create(back, "back", "art")
	b.settle(host, url)
	if archived != nil {
		archived()
	}

	summary, err := b.backfill(b.ctx, host, from, until)
	require.NoError(t, err)
	if archived == nil {
		require.Equal(t, uint64(5), summary.Gone, "%+v", summary)
	}
	created := map[string]bool{}
	for _, e := range b.events() {
		if e.Kind == event.KindCreate {
			created[e.Rkey] = true
		}
	}
	for _, p := range []simnet.Post{early, untagged, gone, goneLater, erasedPost, repoGone, between} {
		require.False(t, created[p.Rkey], "%s must never be visible", p.URI)
	}
	b.settle(host, url)
	visible := func(p simnet.Post) bool {
		code, body := process.Fetch(fmt.Sprintf("%s/v1/posts/%s/%s", url, p.DID, p.Rkey))
		require.Contains(t, []int{http.StatusOK, http.StatusNotFound}, code, body)
		return code == http.StatusOK
	}
	for _, p := range []simnet.Post{kept, edited, repoKept, backPost} {
		require.True(t, visible(p), p.URI)
	}
	for _, p := range []simnet.Post{early, untagged, gone, goneLater, hiddenPost, erasedPost, repoGone, between} {
		require.False(t, visible(p), p.URI)
	}
	_, body := process.Fetch(url + "/v1/posts?tags=photo")
	require.Contains(t, body, edited.Rkey)
	b.setStatus(hidden, true, "")
	b.settle(host, url)
	require.True(t, visible(hiddenPost), "it must be hidden, not removed")
}

// TestBackfillSurvivesWriterChanges stops the ingest that stores a backfill's events, so that
// another one takes over, and then stops the backfill itself.
func TestBackfillSurvivesWriterChanges(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 20)
	const posts = 6000
	from := time.Now()
	require.NoError(t, simnet.Traffic{Count: posts, TagsOnly: true}.Run(b.ctx, b.net))
	require.NoError(t, b.net.Await(b.ctx, host))
	first := b.liveFromTip(host)
	until := time.Now()
	second := b.ingest(ingest.Config{Hosts: []string{host.URL()}})

	ctx, interrupt := context.WithCancel(b.ctx)
	defer interrupt()
	done := make(chan error, 1)
	go func() {
		_, err := b.backfill(ctx, host, from, until)
		done <- err
	}()
	backfilled := func(run *ingestRun) float64 { return run.counter("events_backfilled_total") }
	poll.Until(t, ingestWait, func() (bool, string) { return backfilled(first) > 0, "nothing stored yet" })
	first.halt()
	poll.Until(t, ingestWait, func() (bool, string) { return backfilled(second) > 0, "the second stores nothing" })
	interrupt()
	require.ErrorIs(t, <-done, context.Canceled)

	summary, err := b.backfill(b.ctx, host, from, until)
	require.NoError(t, err)
	require.GreaterOrEqual(t, summary.Published[event.KindCreate], uint64(posts))
	last := b.post("last", "art")
	poll.Until(t, ingestWait, func() (bool, string) {
		events := b.events()
		return events[len(events)-1].Rkey == last.Rkey, "the live reader does not continue"
	})
	seen := map[string]bool{}
	var live []uint64
	for _, e := range b.all() {
		if e.Kind == event.KindCreate {
			seen[e.URI()] = true
		}
		if e.Resume == nil {
			live = append(live, e.Source.Seq)
		}
	}
	for _, entry := range b.net.Log() {
		for _, op := range entry.Ops {
			if entry.Time.Before(until) && !entry.Time.Before(from) {
				require.True(t, seen[op.URI], op.URI)
			}
		}
	}
	require.True(t, slices.IsSorted(live), "live events must stay in order")
}
