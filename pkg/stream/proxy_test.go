package stream_test

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/natstest"
)

// frame is one frame of the NATS protocol, with its payload, if any.
type frame struct {
	verb, subject string
	raw           []byte
}

// stores reports whether the frame makes the server store something in the stream of events: a
// single message, or the commit of a batch.
func (f frame) stores() bool {
	s := string(f.raw)
	return strings.HasPrefix(f.subject, "posts.") &&
		(strings.Contains(s, "Nats-Batch-Commit") || !strings.Contains(s, "Nats-Batch-Id"))
}

// verdict is what happens to a frame from the client.
type verdict int

const (
	pass      verdict = iota
	lose              // it never arrives
	cut               // the connection breaks before it arrives
	loseReply         // it arrives, but the server's next message does not
	cutReply          // it arrives, and the connection breaks when the server answers
)

// proxy sits between clients and a server, and asks judge what to do with each client frame. judge
// may block.
type proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	judge func(frame) verdict // guarded by mu
	conns map[net.Conn]struct{}
}

func newProxy(t testing.TB, s *natstest.TestServer) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: l, target: strings.TrimPrefix(s.URL(), "nats://"), conns: map[net.Conn]struct{}{}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cutAll()
		running.Wait()
	})
	return p
}

// onFrame replaces the judge.
func (p *proxy) onFrame(judge func(frame) verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.judge = judge
}

// once returns a judge that gives its verdict on the n-th matching frame and passes all others;
// fired is closed then.
func once(v verdict, n int, want func(frame) bool) (judge func(frame) verdict, fired <-chan struct{}) {
	var mu sync.Mutex
	done := make(chan struct{})
	return func(f frame) verdict {
		mu.Lock()
		defer mu.Unlock()
		if !want(f) {
			return pass
		}
		if n--; n != 0 {
			return pass
		}
		close(done)
		return v
	}, done
}

// cutAll breaks all current connections.
func (p *proxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) track(c net.Conn, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if on {
		p.conns[c] = struct{}{}
	} else {
		delete(p.conns, c)
	}
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return // the server is down, so the proxy is, too
	}
	defer server.Close()
	p.track(client, true)
	defer p.track(client, false)

	var mu sync.Mutex
	var reply verdict // on the server's next message; guarded by mu
	back := make(chan struct{})
	go func() {
		defer close(back)
		defer client.Close()
		defer server.Close()
		r := bufio.NewReader(server)
		for {
			f, err := readFrame(r)
			if err != nil {
				return
			}
			if f.verb == "MSG" || f.verb == "HMSG" {
				mu.Lock()
				v := reply
				reply = pass
				mu.Unlock()
				switch v {
				case loseReply:
					continue
				case cutReply:
					return
				}
			}
			if _, err := client.Write(f.raw); err != nil {
				return
			}
		}
	}()
	defer func() { <-back }()
	defer server.Close()
	r := bufio.NewReader(client)
	for {
		f, err := readFrame(r)
		if err != nil {
			return
		}
		p.mu.Lock()
		judge := p.judge
		p.mu.Unlock()
		v := pass
		if judge != nil {
			v = judge(f)
		}
		switch v {
		case lose:
			continue
		case cut:
			return
		case loseReply, cutReply:
			mu.Lock()
			reply = v
			mu.Unlock()
		}
		if _, err := server.Write(f.raw); err != nil {
			return
		}
	}
}

func readFrame(r *bufio.Reader) (frame, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return frame{}, err
	}
	fields := strings.Fields(string(line))
	if len(fields) == 0 {
		return frame{raw: line}, nil
	}
	f := frame{verb: strings.ToUpper(fields[0]), raw: line}
	switch f.verb {
	case "PUB", "HPUB", "MSG", "HMSG":
		f.subject = fields[1]
		size, err := strconv.Atoi(fields[len(fields)-1])
		if err != nil {
			return frame{}, err
		}
		payload := make([]byte, size+2) // including its line end
		if _, err := io.ReadFull(r, payload); err != nil {
			return frame{}, err
		}
		f.raw = append(line, payload...)
	}
	return f, nil
}

// jetStream connects through the proxy.
func (p *proxy) jetStream(t testing.TB, options ...nats.Option) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect("nats://"+p.listener.Addr().String(), append([]nats.Option{
		nats.MaxReconnects(-1), nats.ReconnectWait(10 * time.Millisecond), nats.ReconnectJitter(0, 0),
		nats.ReconnectBufSize(-1), nats.RetryOnFailedConnect(true),
	}, options...)...)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(time.Second))
	require.NoError(t, err)
	return js
}
