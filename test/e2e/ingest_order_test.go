package e2e_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/simnet"
)

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
