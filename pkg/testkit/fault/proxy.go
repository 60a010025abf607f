package fault

import (
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// Protocol is the protocol that a Proxy parses.
type Protocol int

// The protocols. With Raw no operation is recognized, and no Fault can be armed.
const (
	Raw Protocol = iota
	NATS
	Postgres
)

const (
	dialTimeout = 5 * time.Second
	chunk       = 32 << 10 // of a Raw connection, in bytes
)

// Proxy forwards connections to a server, and breaks them on command. Its methods are safe for
// concurrent use.
type Proxy struct {
	protocol Protocol
	listener net.Listener
	log      *Log
	running  sync.WaitGroup

	mu      sync.Mutex
	target  string
	closed  bool
	refuse  bool
	held    bool
	rate    int           // bytes a second; 0 is no bound
	changed chan struct{} // closed and replaced when held changes
	armed   []*Armed
	links   map[*link]struct{}
	sent    int64 // bytes of the server that were passed to clients
}

// New opens a proxy in front of the server at target (host:port), which need not be running yet. It
// is closed when the test ends.
func New(t testing.TB, protocol Protocol, target string, log *Log) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("fault: open a proxy before %s: %v", target, err)
	}
	p := &Proxy{protocol: protocol, target: target, listener: l, log: log, changed: make(chan struct{}), links: map[*link]struct{}{}}
	p.running.Go(p.accept)
	t.Cleanup(p.Close)
	return p
}

// Addr is where clients connect, host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Sent is the number of bytes from the server that were passed to clients so far.
func (p *Proxy) Sent() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

// Lead directs new connections to another server; existing ones stay.
func (p *Proxy) Lead(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Close ends the proxy and its connections. A second call does nothing.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Release()
	p.Break(Cut)
	p.running.Wait()
}

// Arm makes a fault wait for its operation. Faults that wait for the same operation fire one at a
// time, in the order in which they were armed.
func (p *Proxy) Arm(f Fault) *Armed {
	if p.protocol == Raw {
		panic("fault: a raw proxy knows no operations")
	}
	a := &Armed{proxy: p, fault: f, left: max(f.Nth, 1), fired: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = append(p.armed, a)
	return a
}

// rearm puts back a fault whose operation had no effect.
func (p *Proxy) rearm(a *Armed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a.left = 1
	p.armed = append(p.armed, a)
}

// judge returns the fault that fires on an operation, if any. answered says
// whether the server will answer it.
func (p *Proxy) judge(op Op, answered bool) *Armed {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, a := range p.armed {
		if a.fault.Form == TookEffect && !answered || !a.fault.Match(op) {
			continue
		}
		if a.left--; a.left == 0 {
			p.armed = slices.Delete(p.armed, i, i+1)
			return a
		}
	}
	return nil
}

// Break ends every current connection, and returns how many. With Torn each ends at the server's
// next frame, with half of it; Silent and Nothing do nothing.
func (p *Proxy) Break(how Break) int {
	p.mu.Lock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	for _, l := range links {
		switch how {
		case Cut, Reset:
			l.sever(how)
		case Torn:
			l.tear.Store(true)
		case Silent, Nothing:
		}
	}
	return len(links)
}

// Hold stops the flow in both directions: nothing arrives, nothing is closed.
func (p *Proxy) Hold() { p.setHeld(true) }

// Release resumes the flow.
func (p *Proxy) Release() { p.setHeld(false) }

func (p *Proxy) setHeld(held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = held
	close(p.changed)
	p.changed = make(chan struct{})
}

// Slow bounds the flow of each direction of each connection, in bytes a second;
// 0 lifts the bound.
func (p *Proxy) Slow(rate int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = rate
}

// Refuse closes every new connection at once, for as long as it is true.
func (p *Proxy) Refuse(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			p.running.Go(func() { p.serve(client) })
		}
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	p.mu.Lock()
	refuse, target := p.refuse, p.target
	p.mu.Unlock()
	if refuse {
		return
	}
	server, err := net.DialTimeout("tcp", target, dialTimeout)
	if err != nil {
		return // the server is down, so the proxy is, too
	}
	defer server.Close()
	l := &link{proxy: p, client: client, server: server, done: make(chan struct{})}
	p.mu.Lock()
	closed := p.closed
	p.links[l] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	}()
	if closed {
		return
	}
	var up, down func()
	switch p.protocol {
	case NATS:
		s := &natsLink{link: l, lost: map[string]*Armed{}}
		up, down = s.up, s.down
	case Postgres:
		s := &postgresLink{link: l, statements: map[string]string{}}
		up, down = s.up, s.down
	default:
		up, down = func() { l.copy(server, client) }, func() { l.copy(client, server) }
	}
	var both sync.WaitGroup
	both.Go(func() { defer l.sever(Cut); down() })
	both.Go(func() { defer l.sever(Cut); up() })
	both.Wait()
}
