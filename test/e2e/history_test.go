package e2e_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
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

// TestBackfillBeforeHistory backfills a window that one host has partly or not at all, and an older
// host completely.
func TestBackfillBeforeHistory(t *testing.T) {
	t.Parallel()
	b := newIngestBench(t, 2, natstest.Listen())
	older := b.host()
	b.post("before", "art")
	require.NoError(t, b.net.Await(b.ctx, older))
	from := time.Now()
	p := b.post("in the window", "art")
	require.NoError(t, b.net.Await(b.ctx, older))
	until := time.Now()
	younger := b.host()
	b.liveFromTip(older)
	require.NoError(t, b.net.Await(b.ctx, younger))

	before := "the window is before the host's history: that of " + younger.URL() + " begins at "
	stored := len(b.events())
	summary, err := b.backfill(b.ctx, younger, from, until)
	require.ErrorContains(t, err, before)
	require.False(t, summary.Complete, "%+v", summary)
	require.Contains(t, summary.Why, before)
	require.True(t, summary.HistoryBegins.After(until), "%+v", summary)
	require.Empty(t, summary.Published)
	require.NotContains(t, ingestRkeys(b.events()[stored:]), p.Rkey)
	begins := summary.HistoryBegins

	// The same with the built command.
	command := begin(t, "ingest", []string{"backfill", "--from", from.UTC().Format(time.RFC3339Nano), "--for", until.Sub(from).String()},
		"TAGSTREAM_NATS_URL="+b.nats.URL(), "TAGSTREAM_JETSTREAM_HOSTS="+younger.URL())
	require.Equal(t, 1, command.exit())
	var printed struct {
		Complete      *bool
		Why           string
		HistoryBegins time.Time
	}
	command.decode(&printed)
	require.False(t, *printed.Complete)
	require.Contains(t, printed.Why, before)
	require.Equal(t, begins, printed.HistoryBegins)

	// Only the older host has the window, in either order of the hosts.
	for _, hosts := range [][]string{{younger.URL(), older.URL()}, {older.URL(), younger.URL()}} {
		summary, err = b.backfillFrom(b.ctx, hosts, from, until)
		require.NoError(t, err)
		require.True(t, summary.Complete)
		require.Empty(t, summary.Why)
		require.Zero(t, summary.HistoryBegins)
		require.Equal(t, uint64(1), summary.Published[event.KindCreate], "%+v", summary)
		require.Equal(t, older.URL(), summary.First.Host)
	}
	require.Contains(t, ingestRkeys(b.events()[stored:]), p.Rkey)

	// A window before both histories is read from the host with the longest one.
	summary, err = b.backfillFrom(b.ctx, []string{younger.URL(), older.URL()}, from.Add(-time.Hour), until)
	require.NoError(t, err)
	require.True(t, summary.Complete)
	require.True(t, summary.HistoryBegins.Before(from), "%+v", summary)
	require.Equal(t, older.URL(), summary.First.Host)
}

// decode decodes the JSON object that a finished command printed.
func (p *program) decode(into any) {
	p.t.Helper()
	lines := strings.Split(p.Output(), "\n")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "{") && strings.Contains(l, `"complete":`) })
	require.GreaterOrEqual(p.t, i, 0, p.Output())
	require.NoError(p.t, json.Unmarshal([]byte(lines[i]), into), lines[i])
}

// One of two hosts receives events from its relay long after the other, and stamps them with that
// time. A change of hosts in either direction loses nothing.
func TestFailOverWithLateHost(t *testing.T) {
	t.Parallel()
	const (
		margin = time.Second
		before = 30
		during = 400
		rate   = 80 // a second
	)
	for name, tt := range map[string]struct {
		lateFirst bool
		read      int64 // number of events that are read from the first host
	}{
		"from the late one": {lateFirst: true, read: 5},
		"to the late one":   {read: 250},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newIngestBench(t, 12)
			// Unsealed segments have no time index and are read completely.
			late, prompt := b.host(sealOften), b.host(sealOften)
			first, second := prompt, late
			if tt.lateFirst {
				first, second = late, prompt
			}
			cfg := ingest.Config{Hosts: []string{first.URL(), second.URL()}, Start: "archive"}
			cfg.Timing.Margin = margin
			cfg.Timing.Idle = ingestTestLimit // the host lags, but is not silent
			run := b.ingest(cfg)
			require.NoError(t, simnet.Traffic{Count: before, TagsOnly: true}.Run(b.ctx, b.net))
			seq := b.net.Seq()
			b.awaitOps(seq)
			require.NoError(t, b.net.Await(b.ctx, second))

			late.Relay().HoldAfter(seq)
			if !tt.lateFirst {
				prompt.Relay().HoldAfter(seq + tt.read)
			}
			require.NoError(t, simnet.Traffic{Count: during, Seed: 1, TagsOnly: true, Rate: rate}.Run(b.ctx, b.net))
			if tt.lateFirst {
				require.NoError(t, b.net.Await(b.ctx, prompt))
				late.Relay().HoldAfter(seq + tt.read)
			}
			b.awaitOps(seq + tt.read)
			events := b.events()
			last := events[len(events)-1]
			require.Equal(t, first.URL(), last.Source.Host)
			require.Len(t, events, before+int(tt.read), "no other events")
			if tt.lateFirst {
				made, ok := event.RevTime(last.Rev)
				require.True(t, ok)
				require.Greater(t, last.Source.Time.Sub(made), 2*margin, "by its stamps, reading would skip missing events")
			}
			require.NoError(t, first.Stop())
			second.Relay().HoldAfter(math.MaxInt64)
			b.post("after", "art")
			b.awaitOps(b.net.Seq())
			require.NotZero(t, run.counter("connections_total", "switched"))
			require.False(t, slices.ContainsFunc(b.log(), func(e stream.LogEntry) bool { return e.What == "gap" }), "%+v", b.log())
		})
	}
}

// awaitOps waits until the stream has all post events up to a sequence number of the network.
func (b *ingestBench) awaitOps(seq int64) {
	b.t.Helper()
	type op struct{ uri, rev string }
	poll.Until(b.t, ingestWait, func() (bool, string) {
		stored := map[op]bool{}
		for _, e := range b.events() {
			stored[op{e.URI(), e.Rev}] = true
		}
		var missing []int64
		for _, entry := range b.net.Log() {
			for _, o := range entry.Ops {
				if entry.Seq <= seq && !stored[op{o.URI, entry.Rev}] {
					missing = append(missing, entry.Seq)
				}
			}
		}
		return len(missing) == 0, fmt.Sprint("missing of ", seq, ": ", missing)
	})
}

const importToken = "a token of tests"

// TestImportedTimesAndFailOver: the second of two hosts shows a day of 2023 for two posts. When the
// first host stops, an edit of one of them and a #sync of the account arrive from the second with
// that time.
func TestImportedTimesAndFailOver(t *testing.T) {
	t.Parallel()
	b := newIngestBench(t, 1)
	first, second := b.host(), b.host("--timestamp-import-token", importToken)
	x, url := b.newIndex()
	x.indexer(100)
	b.ingest(ingest.Config{Hosts: []string{first.URL(), second.URL()}, Start: "archive"})
	edited, kept := b.post("edited", "art"), b.post("kept", "art")
	for _, p := range []simnet.Post{edited, kept} {
		awaitPost(t, url, p)
	}
	require.NoError(t, b.net.Await(b.ctx, second))
	report, err := second.ImportTimes(b.ctx, importToken, time.Date(2023, 3, 4, 5, 6, 7, 0, time.UTC), edited.URI, kept.URI)
	require.NoError(t, err)
	require.Contains(t, report, `"rowsMutated":2,`)

	before := readFreshness(t, url).IndexedThrough
	require.NoError(t, first.Stop())
	b.update(edited, "an edit", "photo")
	_, err = b.net.Sync(edited.DID)
	require.NoError(t, err)
	after := b.post("after", "art")
	awaitPost(t, url, after)
	require.NoError(t, b.net.Await(b.ctx, second))

	shown, _ := page(t, url+"/v1/posts?tags=art&tags=photo")
	require.ElementsMatch(t, []string{edited.URI, kept.URI, after.URI}, shown)
	_, body := process.Fetch(fmt.Sprintf("%s/v1/posts/%s/%s", url, edited.DID, edited.Rkey))
	require.Contains(t, body, "an edit")
	require.True(t, readFreshness(t, url).IndexedThrough.After(*before), "the index must not go back")

	// Even if the time of the last event read changes, it is still the same event.
	require.True(t, slices.ContainsFunc(b.log(), func(e stream.LogEntry) bool { return e.What == "switched" && e.Host == second.URL() }))
	require.False(t, slices.ContainsFunc(b.log(), func(e stream.LogEntry) bool { return e.What == "gap" }))
}
