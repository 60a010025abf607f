// Package natstest gives tests a real NATS server with JetStream, inside the test process. For
// tests only.
//
// A server belongs to one test, keeps its streams in that test's temporary directory, syncs every
// write as in production, and by default opens no port: connections are made within the process. It
// stops with the test.
package natstest

import (
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// readyLimit bounds a start, recovery of the streams included.
	readyLimit = 30 * time.Second
	// reconnectWait is the pause between a client's attempts to reconnect: short, since tests
	// restart servers.
	reconnectWait = 20 * time.Millisecond
	// unlimited, as nats.MaxReconnects: a test's client never gives up.
	unlimited = -1
)

// Option changes how a server runs.
type Option func(*server.Options)

// Listen opens a free port on 127.0.0.1, which a restarted server keeps.
func Listen() Option {
	return func(o *server.Options) { o.DontListen = false }
}

// MaxStore limits what all streams together may store, in bytes.
func MaxStore(bytes int64) Option {
	return func(o *server.Options) { o.JetStreamMaxStore = bytes }
}

// With changes any other option of the server.
func With(change func(*server.Options)) Option { return change }

// TestServer is a NATS server of one test. Its methods are safe for concurrent
// use, and take the test for failures and clean-up.
type TestServer struct {
	options server.Options // as given to each server; the port is set by the first

	mu     sync.Mutex
	server *server.Server // guarded by mu; replaced by Restart
}

// Server starts a server and returns when it accepts connections.
func Server(t testing.TB, options ...Option) *TestServer {
	t.Helper()
	s := newServer(t, options...)
	s.start(t)
	// Registered after the directory's own clean-up, so it runs before that.
	t.Cleanup(s.Shutdown)
	return s
}

func newServer(t testing.TB, options ...Option) *TestServer {
	t.Helper()
	s := &TestServer{options: server.Options{
		ServerName: "natstest",
		JetStream:  true,
		StoreDir:   t.TempDir(),
		SyncAlways: true,
		DontListen: true,
		Host:       "127.0.0.1",
		Port:       server.RANDOM_PORT,
		NoSigs:     true,
		NoLog:      true,
	}}
	for _, option := range options {
		option(&s.options)
	}
	return s
}

func (s *TestServer) start(t testing.TB) {
	t.Helper()
	options := s.options // the server keeps and changes what it is given
	running, err := server.NewServer(&options)
	if err != nil {
		t.Fatalf("natstest: make the server: %v", err)
	}
	running.ConfigureLogger() // if With has set a log file and NoLog to false
	running.Start()
	if !running.ReadyForConnections(readyLimit) {
		running.Shutdown()
		t.Fatalf("natstest: the server is not ready within %v", readyLimit)
	}
	if !s.options.DontListen {
		s.options.Port = running.Addr().(*net.TCPAddr).Port
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server = running
}

func (s *TestServer) current() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server
}

// Shutdown stops the server and returns when it has ended. What was
// acknowledged is stored. Stopping twice is harmless.
func (s *TestServer) Shutdown() {
	running := s.current()
	if running == nil {
		return // it did not start
	}
	running.Shutdown()
	running.WaitForShutdown()
}

// Restart stops the server, if it runs, and starts one on the same streams and the same port.
// Connections of Conn reconnect automatically.
func (s *TestServer) Restart(t testing.TB) {
	t.Helper()
	s.Shutdown()
	s.start(t)
}

// Name is the server's own.
func (s *TestServer) Name() string { return s.options.ServerName }

// URL is where the server listens; empty without Listen.
func (s *TestServer) URL() string {
	if s.options.DontListen {
		return ""
	}
	return "nats://" + net.JoinHostPort(s.options.Host, strconv.Itoa(s.options.Port))
}

// InProcessConn makes a connection within the process, to the currently running server:
// nats.InProcessServer requires it.
func (s *TestServer) InProcessConn() (net.Conn, error) {
	return s.current().InProcessConn()
}

// Conn connects inside the process. The connection outlasts a restart, and is
// closed when the test ends.
func (s *TestServer) Conn(t testing.TB, options ...nats.Option) *nats.Conn {
	t.Helper()
	options = append([]nats.Option{
		nats.InProcessServer(s),
		nats.MaxReconnects(unlimited),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(0, 0),
	}, options...)
	conn, err := nats.Connect("", options...)
	if err != nil {
		t.Fatalf("natstest: connect: %v", err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// JetStream connects like Conn and returns the stream interface.
func (s *TestServer) JetStream(t testing.TB, options ...nats.Option) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(s.Conn(t, options...))
	if err != nil {
		t.Fatalf("natstest: open JetStream: %v", err)
	}
	return js
}
