package e2e_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/ingest"
)

// stallProxy forwards TCP connections to a server until it is stalled: then it forwards nothing,
// and closes nothing.
type stallProxy struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	held    bool
	changed chan struct{} // closed and replaced when held changes
	conns   []net.Conn
}

func newStallProxy(t *testing.T, target string) *stallProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &stallProxy{listener: l, target: strings.TrimPrefix(target, "http://"), changed: make(chan struct{})}
	var running sync.WaitGroup
	running.Go(func() { p.accept(&running) })
	t.Cleanup(func() {
		_ = l.Close()
		p.hold(false)
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		running.Wait()
	})
	return p
}

func (p *stallProxy) url() string { return "http://" + p.listener.Addr().String() }

func (p *stallProxy) hold(held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = held
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *stallProxy) accept(running *sync.WaitGroup) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		running.Go(func() { p.pipe(server, client) })
		running.Go(func() { p.pipe(client, server) })
	}
}

func (p *stallProxy) pipe(dst, src net.Conn) {
	defer func() { _, _ = dst.Close(), src.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		for {
			p.mu.Lock()
			held, changed := p.held, p.changed
			p.mu.Unlock()
			if !held {
				break
			}
			<-changed
		}
		if _, werr := dst.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}

func TestIngestLeavesSilentHost(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 1)
	proxy := newStallProxy(t, host.URL())
	run := b.ingest(ingest.Config{Hosts: []string{proxy.url()}, Start: "archive"})
	want := []string{b.post("one", "art").Rkey}
	b.awaitEvents(1)
	proxy.hold(true)
	want = append(want, b.post("two", "art").Rkey)
	poll.Until(t, ingestWait, func() (bool, string) {
		return run.counter("connections_total", "disconnected") > 0, "the silence is not noticed"
	})
	proxy.hold(false)
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
