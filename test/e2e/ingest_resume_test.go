package e2e_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/simnet"
)

func TestIngestStartsAtTipWithoutGap(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 1)
	for i := range 5 {
		b.post(fmt.Sprint("before ", i), "art")
	}
	require.NoError(t, b.net.Await(b.ctx, host))
	run := b.ingest(ingest.Config{Hosts: []string{host.URL()}})

	// The tip becomes known with the next event.
	var posted []string
	var mu sync.Mutex
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			p, err := b.net.CreatePost(b.net.DIDs()[0], "", simnet.NewPost(b.net.Now(), fmt.Sprint("during ", i), "art"))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			posted = append(posted, p.Rkey)
			mu.Unlock()
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	run.awaitReady()
	close(stop)
	<-stopped
	last := b.post("after", "art").Rkey
	posted = append(posted, last)
	poll.Until(t, ingestWait, func() (bool, string) {
		keys := ingestRkeys(b.events())
		return len(keys) > 0 && keys[len(keys)-1] == last, fmt.Sprint(keys)
	})
	keys := ingestRkeys(b.events())
	begin := slices.Index(posted, keys[0])
	require.GreaterOrEqual(t, begin, 0, "nothing from before the start must be read")
	require.Equal(t, posted[begin:], keys, "no event after the first one may be missing")
}

func TestIngestStartsAtTime(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 1)
	b.post("long before", "art")
	require.NoError(t, b.net.Await(b.ctx, host))
	start := time.Now()
	first := b.post("one", "art")
	second := b.post("two", "art")
	require.NoError(t, b.net.Await(b.ctx, host))
	b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: start.Format(time.RFC3339Nano)})
	require.Equal(t, []string{first.Rkey, second.Rkey}, ingestRkeys(b.awaitEvents(2)))
}

func TestIngestResumesExactly(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 1)
	cfg := ingest.Config{Hosts: []string{host.URL()}, Start: "archive"}
	var want []string
	for round := range 4 {
		run := b.ingest(cfg)
		for i := range 10 {
			want = append(want, b.post(fmt.Sprint(round, " ", i), "art").Rkey)
		}
		b.awaitEvents(len(want))
		run.halt()
		for i := range 5 {
			want = append(want, b.post(fmt.Sprint(round, " away ", i), "art").Rkey)
		}
		if round == 2 {
			// The server restarts and keeps its history.
			require.NoError(t, b.net.Await(b.ctx, host))
			require.NoError(t, host.Stop())
			require.NoError(t, host.Restart(b.ctx))
		}
	}
	b.ingest(cfg)
	require.Equal(t, want, ingestRkeys(b.awaitEvents(len(want))), "nothing may be lost, duplicated or out of order")
	for _, entry := range b.log() {
		require.NotEqual(t, "switched", entry.What, "%+v", entry)
	}
	all := b.all()
	for i := 1; i < len(all); i++ {
		require.GreaterOrEqual(t, all[i].Source.Seq, all[i-1].Source.Seq)
	}
}

// Ingest does not start at the tip if the stream was purged, or trimmed until it was empty, while
// ingest was stopped.
func TestIngestContinuesAfterPurge(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 1)
	for i := range 7 {
		b.post(fmt.Sprint("before ", i), "art")
	}
	cfg := ingest.Config{Hosts: []string{host.URL()}, Start: "archive"}
	run := b.ingest(cfg)
	b.awaitEvents(7)
	run.halt()
	s, err := b.js.Stream(b.ctx, stream.Posts)
	require.NoError(t, err)
	require.NoError(t, s.Purge(b.ctx))
	var want []string
	for i := range 3 {
		want = append(want, b.post(fmt.Sprint("away ", i), "art").Rkey)
	}
	require.NoError(t, b.net.Await(b.ctx, host))

	cfg.Start = "tip" // applies only to a first start
	again := b.ingest(cfg)
	require.Equal(t, want, ingestRkeys(b.awaitEvents(3)))
	require.Zero(t, again.counter("connections_total", "gap"))
}

func TestIngestSurvivesServerKill(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 1)
	run := b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive"})
	want := []string{b.post("one", "art").Rkey}
	b.awaitEvents(1)
	host.Kill()
	poll.Until(t, ingestWait, func() (bool, string) {
		return run.counter("client_errors_total") > 0, "no error yet"
	})
	require.NoError(t, host.Restart(b.ctx))
	want = append(want, b.post("two", "art").Rkey)
	// The server reads from the relay again what it had not flushed, perhaps with other numbers.
	// Then it is another history, and an overlap is correct.
	poll.Until(t, ingestWait, func() (bool, string) {
		got := ingestRkeys(b.events())
		return slices.Equal(slices.Compact(slices.Sorted(slices.Values(got))), slices.Sorted(slices.Values(want))), fmt.Sprint(got)
	})
	run.awaitReady()
}

func TestIngestDetectsWipedServer(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 1)
	cfg := ingest.Config{Hosts: []string{host.URL()}, Start: "archive"}
	run := b.ingest(cfg)
	for i := range 30 {
		b.post(fmt.Sprint("one ", i), "art")
	}
	b.awaitEvents(30)
	run.halt()

	// Another server at the same address, with another archive.
	require.NoError(t, host.Stop())
	b.replaceHost(host)

	b.ingest(cfg)
	last := b.post("two", "art").Rkey
	poll.Until(t, ingestWait, func() (bool, string) {
		keys := ingestRkeys(b.events())
		return slices.Contains(keys, last), fmt.Sprint(len(keys), " events")
	})
	for _, what := range []string{"switched", "gap"} {
		poll.Until(t, ingestWait, func() (bool, string) {
			return slices.ContainsFunc(b.log(), func(e stream.LogEntry) bool { return e.What == what }), fmt.Sprintf("%s: %+v", what, b.log())
		})
	}
}

func TestIngestFailsOverWithoutLoss(t *testing.T) {
	t.Parallel()
	b := newIngestBench(t, 1)
	first := b.host()
	b.post("only in one live tail", "other") // so that the sequence numbers differ
	second := b.host()
	run := b.ingest(ingest.Config{Hosts: []string{first.URL(), second.URL()}, Start: "archive"})
	var want []string
	for i := range 10 {
		want = append(want, b.post(fmt.Sprint("first ", i), "art").Rkey)
	}
	poll.Until(t, ingestWait, func() (bool, string) { return len(b.events()) >= 11, fmt.Sprint(len(b.events())) })
	require.NoError(t, first.Stop())
	for i := range 10 {
		want = append(want, b.post(fmt.Sprint("second ", i), "art").Rkey)
	}
	poll.Until(t, ingestWait, func() (bool, string) {
		keys := ingestRkeys(b.events())
		missing := slices.DeleteFunc(slices.Clone(want), func(k string) bool { return slices.Contains(keys, k) })
		return len(missing) == 0, fmt.Sprint("missing ", missing)
	})
	run.awaitReady()
	events := b.events()
	require.Equal(t, second.URL(), events[len(events)-1].Source.Host)
	require.True(t, slices.ContainsFunc(b.log(), func(e stream.LogEntry) bool { return e.What == "switched" && e.Host == second.URL() }))
}

func TestIngestStopsAtEndTime(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 1)
	p := b.post("one", "art")
	require.NoError(t, b.net.Await(b.ctx, host))
	run := b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "-1m", StopAfter: 61 * time.Second})
	run.wait()
	require.Equal(t, []string{p.Rkey}, ingestRkeys(b.events()))
	all := b.all()
	require.Equal(t, event.KindPosition, all[len(all)-1].Kind)
	entries := b.log()
	last := entries[len(entries)-1]
	require.Equal(t, "stopped", last.What)
	require.Contains(t, last.Detail, "kept 1, published 1")
	require.Equal(t, "started", entries[0].What)
}

func TestIngestSurvivesMissingStream(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 1)
	run := b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive"})
	want := []string{b.post("one", "art").Rkey}
	b.awaitEvents(1)
	b.nats.Shutdown()
	for i := range 20 {
		want = append(want, b.post(fmt.Sprint("away ", i), "art").Rkey)
	}
	poll.Until(t, ingestWait, func() (bool, string) {
		return run.idle(ingest.ComponentStream) != "", "not noticed"
	})
	b.nats.Restart(t)
	require.Equal(t, want, ingestRkeys(b.awaitEvents(len(want))))
	run.awaitReady()
}

func TestIngestToleratesMalformedRecords(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 1)
	var want []string
	for _, kind := range simnet.Malformations() {
		p, err := b.net.CreateMalformed(b.net.DIDs()[0], kind)
		require.NoError(t, err)
		want = append(want, p.Rkey)
	}
	require.NoError(t, b.net.Await(b.ctx, host))
	b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive"})
	events := b.awaitEvents(len(want))
	require.Equal(t, want, ingestRkeys(events))
	for i, e := range events {
		kind := simnet.Malformations()[i]
		if kind == simnet.ManyTags {
			require.Len(t, e.Tags, event.MaxTagsPerPost)
			continue
		}
		require.Contains(t, e.Tags, "art", kind)
	}
}

// Invariant: readers never see the gap of a #sync, and posts that the repository no longer held
// when it was fetched are gone, however often the #sync is repeated. See also TestRules.
func TestIngestForwardsSync(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 2)
	b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive"})
	kept := b.post("kept", "art")
	gone := b.post("gone", "art")
	b.awaitEvents(2)
	did := b.net.DIDs()[0]
	_, err := b.net.Diverge(did, simnet.Op{Action: simnet.Delete, Rkey: gone.Rkey})
	require.NoError(t, err)
	entry, err := b.net.Sync(did)
	require.NoError(t, err)
	events := b.awaitEvents(4)
	require.Equal(t, event.KindSync, events[2].Kind)
	require.Equal(t, entry.Rev, events[2].Rev)
	require.Equal(t, event.KindCreate, events[3].Kind)
	require.Equal(t, kept.Rkey, events[3].Rkey)
	require.Equal(t, entry.Rev, events[3].Rev)
}
