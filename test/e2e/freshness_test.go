package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/simnet"
)

// beyondRepeats exceeds the time for which repeated positions alone could pass for a quiet network.
const beyondRepeats = 17 // seconds

// freshStatus has the freshness fields of /v1/status.
type freshStatus struct {
	IndexedThrough, SilentSince *time.Time
	Lag                         struct{ Seconds *float64 }
}

func readFreshness(t *testing.T, url string) freshStatus {
	t.Helper()
	var s freshStatus
	getJSON(t, url+"/v1/status", &s)
	return s
}

// TestHostWithoutRelay cuts the relay from the host that ingest reads. That host still answers but
// is silent, while another host has new events.
func TestHostWithoutRelay(t *testing.T) {
	t.Parallel()
	b := newIngestBench(t, 1)
	first, second := b.host(), b.host()
	x, url := b.newIndex()
	run := b.ingest(ingest.Config{Hosts: []string{first.URL(), second.URL()}, Start: "archive"})
	x.indexer(100)
	awaitPost(t, url, b.post("before", "art"))
	require.Zero(t, run.counter("connections_total", "switched"))

	first.Relay().Close()
	awaitPost(t, url, b.post("after", "art"))
	require.Equal(t, 1.0, run.counter("connections_total", "silent"))
	require.Equal(t, 1.0, run.counter("connections_total", "switched"))
	run.awaitReady()
	poll.Until(t, ingestWait, func() (bool, string) {
		for _, e := range b.log() {
			if e.What == "silent" && e.Host == first.URL() {
				return true, ""
			}
		}
		return false, "the ingest log does not say why the host was left"
	})

	// Ingest stays with the other host.
	for i := range 5 {
		awaitPost(t, url, b.post(fmt.Sprint("later ", i), "art"))
	}
	require.Equal(t, 1.0, run.counter("connections_total", "switched"))
	require.Less(t, *readFreshness(t, url).Lag.Seconds, 10.0)
}

// The only host falls silent. Ingest repeats its position, but the index never claims to be fresher
// than the last event.
func TestReportedLagIsCorrect(t *testing.T) {
	t.Parallel()
	for name, silence := range map[string]func(host *simnet.Jetstream) (end func() error, err error){
		"the host lost its relay": func(host *simnet.Jetstream) (func() error, error) {
			host.Relay().Close()
			return nil, nil
		},
		"the host hangs": func(host *simnet.Jetstream) (func() error, error) { return host.Resume, host.Hang() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, host := newIngest(t, 1)
			x, url := b.newIndex()
			run := b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive"})
			x.indexer(100)
			run.awaitReady()
			awaitPost(t, url, b.post("one", "art"))
			awaitPost(t, url, b.post("two", "art"))
			last := b.net.Now() // no event is newer
			through := readFreshness(t, url).IndexedThrough
			require.WithinDuration(t, last, *through, ingestWait)

			end, err := silence(host)
			require.NoError(t, err)
			if end != nil {
				defer func() { _ = end() }()
			}
			poll.Until(t, ingestWait, func() (bool, string) {
				truth := time.Since(last).Seconds()
				s := readFreshness(t, url)
				require.GreaterOrEqual(t, *s.Lag.Seconds, truth, "the index must not claim to be fresher than it is")
				require.Equal(t, through, s.IndexedThrough, "no event has arrived since")
				if s.SilentSince != nil {
					require.Equal(t, through, s.SilentSince)
				}
				return truth > beyondRepeats && s.SilentSince != nil, fmt.Sprintf("%.1f s of silence, said to be since %v", truth, s.SilentSince)
			})
			require.Greater(t, run.counter("events_published_total", "position"), 1.0, "the position must be repeated")
			if end == nil {
				return
			}
			require.NoError(t, end())
			awaitPost(t, url, b.post("three", "art"))
			s := readFreshness(t, url)
			require.Nil(t, s.SilentSince)
			require.Less(t, *s.Lag.Seconds, ingestWait.Seconds())
		})
	}
}
