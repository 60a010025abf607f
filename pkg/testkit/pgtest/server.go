package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tagstream/tagstream/pkg/pgserver"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// processLimit bounds the wait until processes have stopped or ended.
const processLimit = 10 * time.Second

// Option changes how a PrivateServer runs.
type Option func(settings map[string]string)

// Setting sets a parameter of Postgres, such as "max_connections". For tests of
// durability, set "fsync", "full_page_writes" and "synchronous_commit" to "on".
func Setting(name, value string) Option {
	return func(settings map[string]string) { settings[name] = value }
}

// PrivateServer is a server of one test, which the test may stop, kill and pause. It always runs
// from binaries on this machine, listens on 127.0.0.1 and keeps its port, data and passwords over a
// restart. Its methods are for the test's own goroutine; they fail the test on errors.
type PrivateServer struct {
	// URL connects as the superuser to the database postgres, by TCP.
	URL string

	cluster *cluster
	config  pgserver.Config

	mu      sync.Mutex
	server  *pgserver.Server // guarded by mu; nil while stopped
	stopped []int            // guarded by mu; processes that Pause stopped
}

// Server starts a server for this test alone, and ends it with the test. It takes about 0.2 s; if a
// database is enough, use Database.
func Server(t testing.TB, options ...Option) *PrivateServer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), setupLimit)
	defer cancel()
	c, err := newCluster(ctx)
	if err != nil {
		unavailable(t, err)
	}
	settings := make(map[string]string)
	for _, option := range options {
		option(settings)
	}
	s := &PrivateServer{cluster: c, config: c.config(settings)}
	t.Cleanup(func() { s.close(t) })
	s.open(t)
	return s
}

// open starts the server for the first time, on a port that it keeps.
func (s *PrivateServer) open(t testing.TB) {
	t.Helper()
	s.config.TCPPort = pgserver.AnyPort
	s.Start(t)
	s.config.TCPPort = s.server.Port()
	s.URL = s.server.URL(pgserver.Superuser)
}

// Pool connects as the superuser. The pool is closed when the test ends.
func (s *PrivateServer) Pool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return Pool(t, s.URL)
}

// Start starts the server after Stop or Kill, on the same port and data, and returns when it
// accepts connections. It does nothing to a running one.
func (s *PrivateServer) Start(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), setupLimit)
	defer cancel()
	server, err := pgserver.Start(ctx, s.config)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	s.server = server
}

// Stop shuts the server down like an operator: connections are cut, and everything is written to
// disk. Stopping twice is harmless.
func (s *PrivateServer) Stop(t testing.TB) {
	t.Helper()
	s.Resume(t)
	if err := s.shutdown(); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
}

// Kill ends every process of the server with SIGKILL, like a crash.
func (s *PrivateServer) Kill(t testing.TB) {
	t.Helper()
	s.Pause(t) // so that no process escapes by being started now
	s.mu.Lock()
	pids := s.stopped
	s.stopped = nil
	s.mu.Unlock()
	signal(t, pids, syscall.SIGKILL)
	// Wait for the children too, which have no parent: while one lives, Postgres refuses to start
	// on the same data.
	poll.Until(t, processLimit, func() (bool, string) {
		for _, pid := range pids[min(1, len(pids)):] {
			if state, _, err := processState(pid); err == nil && state != 'Z' {
				return false, fmt.Sprintf("process %d is still there", pid)
			}
		}
		return true, ""
	})
	if err := s.shutdown(); err != nil { // gives back the lock and the socket
		t.Fatalf("pgtest: %v", err)
	}
}

// Restart stops the server, if it runs, and starts it.
func (s *PrivateServer) Restart(t testing.TB) {
	t.Helper()
	s.Stop(t)
	s.Start(t)
}

// Pause stops every process of the server in place: connections stay open and nothing answers, as
// with a frozen machine. Pausing twice is harmless. It needs Linux.
func (s *PrivateServer) Pause(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil || s.stopped != nil {
		return
	}
	// First the process that starts the others, then the existing ones. They have separate process
	// groups, so one signal does not reach all.
	parent := s.server.PID()
	signal(t, []int{parent}, syscall.SIGSTOP)
	s.stopped = []int{parent}
	poll.Until(t, processLimit, func() (bool, string) {
		state, _, err := processState(parent)
		return state == 'T', fmt.Sprintf("process %d has state %c: %v", parent, state, err)
	})
	children := childrenOf(t, parent)
	s.stopped = append(s.stopped, children...)
	signal(t, children, syscall.SIGSTOP)
}

// Resume continues a paused server. Resuming twice is harmless.
func (s *PrivateServer) Resume(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	signal(t, s.stopped, syscall.SIGCONT)
	s.stopped = nil
}

// shutdown stops the server. A killed one is not an error.
func (s *PrivateServer) shutdown() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
	defer cancel()
	err := s.server.Stop(ctx)
	s.server = nil
	return err
}

func (s *PrivateServer) close(t testing.TB) {
	s.Resume(t)
	if err := errors.Join(s.shutdown(), s.cluster.remove()); err != nil {
		t.Errorf("pgtest: %v", err)
	}
}

// signal sends a signal to each process; one that has ended is no failure.
func signal(t testing.TB, pids []int, sig syscall.Signal) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatalf("pgtest: send %v to process %d: %v", sig, pid, err)
		}
	}
}

// processState reads a process's state letter and parent from the system.
func processState(pid int) (state byte, parent int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The name before the state is in parentheses, and may hold anything.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 2 {
		return 0, 0, fmt.Errorf("process %d: unexpected status %q", pid, text)
	}
	parent, err = strconv.Atoi(string(fields[1]))
	return fields[0][0], parent, err
}

func childrenOf(t testing.TB, parent int) []int {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatalf("pgtest: list processes: %v", err)
	}
	var children []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(filepath.Base(entry))
		if err != nil {
			continue
		}
		// A process that ended since the listing has no state.
		if _, p, err := processState(pid); err == nil && p == parent {
			children = append(children, pid)
		}
	}
	return children
}

// withFast adds settings to those of every test server: nothing is synced to disk, since no test
// outlives the machine, and many tests connect at once.
func withFast(settings map[string]string) map[string]string {
	all := map[string]string{
		"fsync":              "off",
		"full_page_writes":   "off",
		"synchronous_commit": "off",
		"max_connections":    strconv.Itoa(sharedConns),
		"shared_buffers":     "64MB",
	}
	maps.Copy(all, settings)
	return all
}
