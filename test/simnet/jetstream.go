package simnet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tagstream/tagstream/test/process"
)

const (
	// readyPoll is the pause between two probes of a starting server.
	readyPoll = 20 * time.Millisecond
	// probeTimeout bounds one probe.
	probeTimeout = 2 * time.Second
	// stopTimeout bounds the stop of a server, which is then killed; the server gives its clients
	// drainTimeout.
	stopTimeout  = 15 * time.Second
	drainTimeout = 2 * time.Second
	// maxLogLines is how many of the newest lines of a server's log are kept.
	maxLogLines = 10_000
	// maxLogLine bounds one line of it, in bytes.
	maxLogLine = 1 << 20

	subscribePath = "/xrpc/network.bsky.jetstream.subscribeEvents"
)

// ErrNotRunning means that a server's process has ended.
var ErrNotRunning = errors.New("server is not running")

// JetstreamConfig describes a real server.
type JetstreamConfig struct {
	Binary   string // from BuildJetstream
	DataDir  string // made by the server; it survives Stop, Kill and Restart
	Addr     string // host:port; empty or port 0 means a free loopback port, which restarts keep
	RelayURL string // Relay.URL
	PLCURL   string // empty means RelayURL
	Args     []string
	// Logger receives the server's lines at their own levels; nil discards them. Log keeps them in any case.
	Logger *slog.Logger
}

// Jetstream is a real server as a child process. Its methods are safe for concurrent use, Restart excepted.
type Jetstream struct {
	cfg   JetstreamConfig
	relay *Relay // set by Network.StartJetstream
	from  int64  // the network's sequence when the server was first attached

	mu      sync.Mutex
	process *os.Process
	exited  chan struct{} // closed when the process has ended
	exitErr error
	lines   []string
	watch   *watch
}

// StartJetstream starts a server on its own relay of the network and returns when it answers and
// follows the relay, so that it misses nothing emitted from then on. RelayURL and PLCURL are filled
// in. The server is stopped when ctx ends.
func (n *Network) StartJetstream(ctx context.Context, cfg JetstreamConfig) (*Jetstream, error) {
	relay, err := n.Listen(ctx)
	if err != nil {
		return nil, err
	}
	cfg.RelayURL = relay.URL()
	j, err := StartJetstream(ctx, cfg)
	if err != nil {
		relay.Close()
		return nil, err
	}
	j.relay = relay
	if err := j.WaitAttached(ctx); err != nil {
		j.Kill()
		relay.Close()
		return nil, err
	}
	j.from = n.Seq()
	return j, nil
}

// StartJetstream starts a server and returns at once; WaitReady waits until it answers. It is stopped when ctx ends.
func StartJetstream(ctx context.Context, cfg JetstreamConfig) (*Jetstream, error) {
	if cfg.Addr == "" || strings.HasSuffix(cfg.Addr, ":0") {
		addr, err := process.FreeAddr()
		if err != nil {
			return nil, err
		}
		cfg.Addr = addr
	}
	if cfg.PLCURL == "" {
		cfg.PLCURL = cfg.RelayURL
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	j := &Jetstream{cfg: cfg}
	if err := j.start(); err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = j.Stop() })
	return j, nil
}

// URL returns the server's base address.
func (j *Jetstream) URL() string { return "http://" + j.cfg.Addr }

// Relay returns the relay that the server follows; nil if the caller set the addresses.
func (j *Jetstream) Relay() *Relay { return j.relay }

// DataDir returns the server's folder.
func (j *Jetstream) DataDir() string { return j.cfg.DataDir }

// start runs the binary.
func (j *Jetstream) start() error {
	args := append([]string{"--log-format=json", "serve", "--addr", j.cfg.Addr, "--data-dir", j.cfg.DataDir, "--relay-url", j.cfg.RelayURL,
		"--plc-url", j.cfg.PLCURL, "--client-drain-timeout", drainTimeout.String()}, j.cfg.Args...)
	cmd := exec.Command(j.cfg.Binary, args...)
	cmd.SysProcAttr = process.ChildAttributes()
	// The server refuses unknown variables with its prefix, and reads tracing settings from the
	// environment.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "JETSTREAM_") || strings.HasPrefix(v, "OTEL_") })
	output, err := cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("open log of server %s: %w", j.cfg.Addr, err)
	}
	exited, started := make(chan struct{}), make(chan error, 1)
	go func() {
		// On Linux the child is killed when the thread that started it ends, so keep this thread
		// until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("start server %s: %w", j.cfg.Binary, err)
			return
		}
		j.mu.Lock()
		j.process, j.exited, j.exitErr = cmd.Process, exited, nil
		j.mu.Unlock()
		started <- nil
		j.readLog(output)
		err := cmd.Wait()
		j.mu.Lock()
		j.exitErr = err
		j.mu.Unlock()
		close(exited)
	}()
	return <-started
}

// readLog stores and forwards the server's lines until its output ends.
func (j *Jetstream) readLog(output io.Reader) {
	scanner := bufio.NewScanner(output)
	scanner.Buffer(nil, maxLogLine)
	for scanner.Scan() {
		line := scanner.Text()
		j.mu.Lock()
		if len(j.lines) >= 2*maxLogLines {
			j.lines = slices.Clone(j.lines[len(j.lines)-maxLogLines:])
		}
		j.lines = append(j.lines, line)
		j.mu.Unlock()
		j.cfg.Logger.Log(context.Background(), lineLevel(line), "jetstream", "addr", j.cfg.Addr, "line", line)
	}
	_, _ = io.Copy(io.Discard, output) // a line beyond the limit must not block the server
}

// lineLevel returns the level of a JSON log line. Any other line, such as one of a panic, counts as
// an error.
func lineLevel(line string) slog.Level {
	var fields struct{ Level slog.Level }
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		return slog.LevelError
	}
	return fields.Level
}

// Log returns the newest log lines of all the server's runs.
func (j *Jetstream) Log() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

// Warnings returns the lines of Log at warning level and above: failed verifications, dropped events, panics.
func (j *Jetstream) Warnings() []string {
	return slices.DeleteFunc(j.Log(), func(line string) bool { return lineLevel(line) < slog.LevelWarn })
}

// WaitReady returns once the server accepts subscribers. Its first download of all repositories is
// then complete and readable.
func (j *Jetstream) WaitReady(ctx context.Context) error {
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		if j.answers(ctx) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-j.Exited():
			return fmt.Errorf("wait for server %s: %w: %w", j.cfg.Addr, ErrNotRunning, j.lastError())
		case <-ctx.Done():
			return fmt.Errorf("wait for server %s: %w", j.cfg.Addr, ctx.Err())
		}
	}
}

// answers requests a subscription without the upgrade to a websocket: the server refuses it with
// 503 until it is ready, and with another status afterwards.
func (j *Jetstream) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, j.URL()+subscribePath, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode != http.StatusServiceUnavailable
}

// WaitAttached is WaitReady, but also waits until the server follows its relay. A server without a
// stored relay cursor misses everything emitted before that.
func (j *Jetstream) WaitAttached(ctx context.Context) error {
	if err := j.WaitReady(ctx); err != nil {
		return err
	}
	if j.relay == nil {
		return nil
	}
	return j.relay.WaitAttached(ctx)
}

// Stop ends the server with SIGTERM and returns its exit error, nil after a clean stop. A server
// that hangs is killed. Stopping a server that has ended does nothing.
func (j *Jetstream) Stop() error {
	if err := j.signal(syscall.SIGTERM); err != nil {
		return nil
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-j.Exited():
	case <-timer.C:
		j.Kill()
		return fmt.Errorf("stop server %s: still running after %s, killed", j.cfg.Addr, stopTimeout)
	}
	if err := j.lastError(); err != nil {
		return fmt.Errorf("stop server %s: %w", j.cfg.Addr, err)
	}
	return nil
}

// Kill ends the server with SIGKILL and returns when it has ended. The server loses what it had not
// flushed (it flushes blocks of 4,096 events, and everything at a clean stop), reads that from the
// relay again after a restart, and reuses the sequence numbers for other events. A server killed
// before its first flush has no relay cursor and starts at the relay's newest frame: a test that
// must not lose events first stops and restarts it once.
func (j *Jetstream) Kill() {
	_ = j.signal(syscall.SIGKILL)
	<-j.Exited()
}

// Hang suspends the server's process (SIGSTOP): its connections stay open, but it does not answer.
// Resume lets it continue.
func (j *Jetstream) Hang() error { return j.signal(syscall.SIGSTOP) }

// Resume lets a suspended server continue.
func (j *Jetstream) Resume() error { return j.signal(syscall.SIGCONT) }

// Restart restarts an ended server with the same address and folder, and waits like WaitAttached.
func (j *Jetstream) Restart(ctx context.Context) error {
	select {
	case <-j.Exited():
	default:
		return fmt.Errorf("restart server %s: it is running", j.cfg.Addr)
	}
	j.mu.Lock()
	j.watch = nil // sequence numbers that were not flushed are reused
	j.mu.Unlock()
	if err := j.start(); err != nil {
		return err
	}
	return j.WaitAttached(ctx)
}

// signal sends a signal to the running process, or returns os.ErrProcessDone.
func (j *Jetstream) signal(sig os.Signal) error {
	j.mu.Lock()
	running := j.process
	j.mu.Unlock()
	return running.Signal(sig)
}

// Exited returns a channel that is closed when the current process ends.
func (j *Jetstream) Exited() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.exited
}

// lastError returns the exit error of the ended process.
func (j *Jetstream) lastError() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.exitErr
}
