package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/ingest"
)

// proxied opens a proxy in front of a server, and returns its URL.
func proxied(t *testing.T, url string) (*fault.Proxy, string) {
	t.Helper()
	p := fault.New(t, fault.Raw, strings.TrimPrefix(url, "http://"), &fault.Log{})
	return p, "http://" + p.Addr()
}

func TestIngestLeavesSilentHost(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 1)
	proxy, url := proxied(t, host.URL())
	run := b.ingest(ingest.Config{Hosts: []string{url}, Start: "archive"})
	want := []string{b.post("one", "art").Rkey}
	b.awaitEvents(1)
	proxy.Hold()
	want = append(want, b.post("two", "art").Rkey)
	poll.Until(t, ingestWait, func() (bool, string) {
		return run.counter("connections_total", "disconnected") > 0, "the silence is not noticed"
	})
	proxy.Release()
	require.Equal(t, want, ingestRkeys(b.awaitEvents(2)))
}

func TestIngestStaysConnectedOnQuietNetwork(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 1)
	cfg := ingest.Config{Hosts: []string{host.URL()}, Start: "archive"}
	cfg.Timing.Idle = 100 * time.Millisecond
	run := b.ingest(cfg)
	b.post("one", "art")
	b.awaitEvents(1)
	// Several positions and several checks of the watchdog pass.
	poll.Until(t, ingestWait, func() (bool, string) {
		n := run.counter("events_published_total", "position")
		return n >= 6, fmt.Sprint(n, " positions")
	})
	require.Zero(t, run.counter("connections_total", "disconnected"))
	require.Equal(t, 1.0, run.counter("connections_total", "connected"))
}

func TestIngestStandbyTakesOver(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 1)
	cfg := ingest.Config{Hosts: []string{host.URL()}, Start: "archive"}
	first := b.ingest(cfg)
	want := []string{b.post("one", "art").Rkey}
	b.awaitEvents(1)
	second := b.ingest(cfg)
	for i := range 5 {
		want = append(want, b.post(fmt.Sprint("with a standby ", i), "art").Rkey)
	}
	b.awaitEvents(len(want))
	require.Zero(t, second.counter("events_read_total"), "a standby must read nothing")
	first.halt()
	for i := range 5 {
		want = append(want, b.post(fmt.Sprint("taken over ", i), "art").Rkey)
	}
	require.Equal(t, want, ingestRkeys(b.awaitEvents(len(want))))
	second.awaitReady()
}
