package e2e_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/simnet"
)

func (b *ingestBench) reconcile(cfg ingest.ReconcileConfig) (ingest.ReconcileSummary, error) {
	b.t.Helper()
	cfg.Ingest.Hosts = []string{"https://not.asked.example"}
	ingestPatience(&cfg.Ingest)
	// On this network the first live event arrives seconds after the downloads.
	cfg.Margin = time.Microsecond
	logger := slog.New(slog.NewTextHandler(testWriter{b.t, "reconcile: "}, nil))
	return ingest.RunReconcile(b.ctx, cfg, ingest.JobDeps{NATS: b.nats.Conn(b.t), Progress: progress{logger}, Patience: ingestWait})
}

// TestReconcileAfterGap wipes the only host. Its replacement knows the current records of accounts,
// but not what they deleted in between.
//
// Invariant: after a gap, reconcile removes only posts that a host's archive shows to be gone,
// through messages in the stream, and no more than a set share of them. See also
// TestHostWithShortHistory.
func TestReconcileAfterGap(t *testing.T) {
	t.Parallel()
	b := newIngestBench(t, 5, natstest.Listen())
	host := b.host()
	x, url := b.newIndex()
	x.indexer(200)
	run := b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive"})
	dids := b.net.DIDs()
	author, hidden, absent, silent := dids[0], dids[1], dids[2], dids[3]
	var kept []simnet.Post
	for i := range 30 {
		kept = append(kept, b.create(author, fmt.Sprint("kept ", i), "art"))
	}
	deleted, untagged, edited := b.create(author, "deleted", "art"), b.create(author, "untagged", "art"), b.create(author, "edited", "art")
	again := b.create(author, "again", "art")
	hiddenGone, absentGone, silentGone := b.create(hidden, "hidden", "art"), b.create(absent, "absent", "art"), b.create(silent, "silent", "art")
	b.setStatus(hidden, false, "takendown")
	b.settle(host, url)

	// The gap.
	require.NoError(t, host.Stop())
	b.remove(deleted)
	b.update(untagged, "untagged")
	b.update(edited, "edited", "photo")
	b.remove(again)
	_, err := b.net.CreatePost(author, again.Rkey, simnet.NewPost(b.net.Now(), "again", "art"))
	require.NoError(t, err)
	b.setStatus(hidden, true, "")
	b.remove(hiddenGone)
	b.create(hidden, "another of the hidden one", "art")
	b.remove(absentGone)
	b.setStatus(absent, false, "deactivated")
	b.remove(silentGone) // it has no posts left
	between := b.create(author, "between", "art")
	fresh := b.replaceHost(host)
	poll.Until(t, ingestWait, func() (bool, string) { return run.counter("connections_total", "gap") > 0, "no alarm" })
	after := b.create(author, "after", "art")
	b.remove(after)
	b.settle(fresh, url)

	visible := func(url string, p simnet.Post) bool {
		code, body := process.Fetch(fmt.Sprintf("%s/v1/posts/%s/%s", url, p.DID, p.Rkey))
		require.Contains(t, []int{http.StatusOK, http.StatusNotFound}, code, body)
		return code == http.StatusOK
	}
	stay := append(slices.Clone(kept), edited, again, between, absentGone, silentGone)
	for _, p := range append(slices.Clone(stay), deleted, untagged) {
		require.True(t, visible(url, p), "%s: no message removes it", p.URI)
	}

	// Nothing happens until an operator agrees.
	stored := len(b.events())
	found, err := b.reconcile(ingest.ReconcileConfig{DryRun: true, MaxShare: "100%"})
	require.NoError(t, err)
	require.Equal(t, fresh.URL(), found.Host, "it must use the host that ingest reads")
	require.Equal(t, []uint64{1, 1, 0, 0}, []uint64{found.Deleted, found.Unqualified, found.Unsure, found.Published}, "%+v", found)
	require.False(t, found.Complete)
	require.Equal(t, "a dry run publishes nothing", found.Why)
	found, err = b.reconcile(ingest.ReconcileConfig{MaxShare: "2%"})
	require.ErrorIs(t, err, ingest.ErrTooManyRemovals)
	require.False(t, found.Complete)
	require.Equal(t, err.Error(), found.Why)
	require.Equal(t, stored, len(b.events()))

	position := b.resumeAt()
	done, err := b.reconcile(ingest.ReconcileConfig{MaxShare: "10%"})
	require.NoError(t, err)
	require.Equal(t, uint64(2), done.Published)
	require.True(t, done.Complete)
	events := b.events()[stored:]
	require.Len(t, events, 2)
	for _, e := range events {
		require.Equal(t, map[string]event.Kind{deleted.Rkey: event.KindDelete, untagged.Rkey: event.KindRemove}[e.Rkey], e.Kind)
		require.GreaterOrEqual(t, e.ResumeAt().Seq, position.Seq)
	}
	// An index rebuilt from the stream shows the same.
	y := newIndexBench(t, b.nats)
	rebuilt := y.api()
	y.indexer(7)
	st, err := stream.GetState(b.ctx, b.js)
	require.NoError(t, err)
	x.await(url, st.Last)
	y.await(rebuilt, st.Last)
	for _, url := range []string{url, rebuilt} {
		for _, p := range stay {
			require.True(t, visible(url, p), p.URI)
		}
		for _, p := range []simnet.Post{deleted, untagged, after, hiddenGone} {
			require.False(t, visible(url, p), p.URI)
		}
	}
	// A second run has nothing to do.
	done, err = b.reconcile(ingest.ReconcileConfig{MaxShare: "0%"})
	require.NoError(t, err)
	require.Zero(t, done.Deleted+done.Unqualified, "%+v", done)
	// A dry run then has nothing to report.
	done, err = b.reconcile(ingest.ReconcileConfig{DryRun: true})
	require.NoError(t, err)
	require.True(t, done.Complete, "%+v", done)
	require.Empty(t, done.Why)
	command := begin(t, "ingest", []string{"reconcile", "--dry-run"}, "TAGSTREAM_NATS_URL="+b.nats.URL())
	require.Zero(t, command.exit())
	var printed map[string]any
	command.decode(&printed)
	// All events of this short-lived network are within the margin of a minute: the command
	// compares nothing, and says so.
	require.Equal(t, false, printed["complete"], printed)
	require.Contains(t, printed["why"], "nothing was compared")
	require.Equal(t, fresh.URL(), printed["host"])
}
