// Package process runs programs like an operator, for tests and measurements: it builds, starts,
// restarts, watches and stops them.
package process

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// stopLimit bounds the time of a requested stop.
	stopLimit = 30 * time.Second
	// handlerLimit bounds the time until a started program handles signals.
	handlerLimit = 2 * time.Second
	logTail      = 2000 // bytes
	// askLimit bounds one request to a program.
	askLimit = 10 * time.Second
)

// noLookUps disables programs' author look-ups, unless their Env says where to send them.
const noLookUps = "TAGSTREAM_PROFILES_URL=off"

// The programs' packages.
const (
	Ingest    = "github.com/tagstream/tagstream/services/ingest/cmd/ingest"
	Indexer   = "github.com/tagstream/tagstream/services/indexer/cmd/indexer"
	API       = "github.com/tagstream/tagstream/services/api/cmd/api"
	Tagstream = "github.com/tagstream/tagstream/services/standalone/cmd/tagstream"
	NATS      = "github.com/nats-io/nats-server/v2"
)

// Build builds programs into a folder, each named after the last element of its package's path.
func Build(ctx context.Context, dir string, packages ...string) error {
	args := append([]string{"build", "-o", dir + string(filepath.Separator)}, packages...)
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", strings.Join(packages, ", "), err, out)
	}
	return nil
}

// Under nohup this process ignores SIGHUP, and so would its children.
func init() {
	if signal.Ignored(syscall.SIGHUP) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
}

// Program is a program that runs as a process and can be restarted. Signal may be called from any
// goroutine.
type Program struct {
	Name string
	Path string
	Args []string
	Dir  string   // working directory; empty means the current one
	Env  []string // in addition to PATH, HOME and noLookUps
	Log  string   // the output file of all its runs
	Ops  string   // the address of its ops listener, "" if it has none

	mu  sync.Mutex
	run *run // the last run, nil before the first
}

// run is one run of a program. The program's mutex guards expected and killed: another goroutine
// may already have started the next run.
type run struct {
	cmd      *exec.Cmd
	began    time.Time
	done     chan struct{} // closed when the process has ended
	expected bool          // its end was requested
	killed   bool          // and it need not be clean
}

// ended reports whether the process has ended, and its exit code.
func (r *run) ended() (code int, ended bool) {
	select {
	case <-r.done:
		return r.cmd.ProcessState.ExitCode(), true
	default:
		return 0, false
	}
}

// last returns the last run.
func (p *Program) last() *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run
}

// Settings returns the environment variables for settings given without their prefix.
func Settings(settings map[string]string) []string {
	var env []string
	for key, value := range settings {
		env = append(env, "TAGSTREAM_"+key+"="+value)
	}
	return env
}

// Start runs the program.
func (p *Program) Start() error {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", p.Name, err)
	}
	if r := p.last(); r != nil {
		_, _ = fmt.Fprintf(log, "--- %v; restarted %s\n", r.cmd.ProcessState, time.Now().UTC().Format(time.RFC3339Nano))
	}
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Dir, cmd.Env = p.Dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), noLookUps}, p.Env...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, ChildAttributes()
	done, started := make(chan struct{}), make(chan error, 1)
	go func() {
		defer log.Close()
		// A child is killed when the thread that started it ends, so keep the thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.mu.Lock()
		p.run = &run{cmd: cmd, began: time.Now(), done: done}
		p.mu.Unlock()
		started <- nil
		_ = cmd.Wait() // its state has everything
		close(done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	return nil
}

// PID returns the process's id.
func (p *Program) PID() int { return p.last().cmd.Process.Pid }

// Done returns a channel that is closed when the process has ended.
func (p *Program) Done() <-chan struct{} { return p.last().done }

// Signal sends a signal. After a signal that ends the program, its end is expected.
func (p *Program) Signal(sig syscall.Signal) { p.signal(p.last(), sig) }

func (p *Program) signal(r *run, sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sig != syscall.SIGSTOP && sig != syscall.SIGCONT {
		r.expected = true
	}
	r.killed = r.killed || sig == syscall.SIGKILL
	_ = r.cmd.Process.Signal(sig) // if it has ended, most signals have had their effect
}

// Kill ends the process like a crash.
func (p *Program) Kill() { p.Signal(syscall.SIGKILL) }

// Ended reports whether the process has ended, and its exit code. A process that was not started
// counts as ended.
func (p *Program) Ended() (code int, ended bool) {
	r := p.last()
	if r == nil {
		return 0, true
	}
	return r.ended()
}

// Alive returns an error if the process has ended unexpectedly.
func (p *Program) Alive() error {
	r := p.last()
	if r == nil {
		return nil
	}
	code, ended := r.ended()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !ended || r.expected {
		return nil
	}
	return fmt.Errorf("%s ended unexpectedly with code %d: %s", p.Name, code, p.Tail())
}

// Terminate ends the program like an operator. The error says that the end was not clean, unless a
// concurrent Kill caused it, or the program had just started and did not handle the signal yet.
func (p *Program) Terminate() error {
	if p == nil {
		return nil
	}
	r := p.last()
	if r == nil {
		return nil
	}
	_, ended := r.ended()
	young := time.Since(r.began) < handlerLimit
	if !ended {
		p.signal(r, syscall.SIGCONT)
		p.signal(r, syscall.SIGTERM)
		select {
		case <-r.done:
		case <-time.After(stopLimit):
			p.signal(r, syscall.SIGQUIT) // for its stacks
			<-r.done
			return fmt.Errorf("%s does not stop within %v: %s", p.Name, stopLimit, p.Tail())
		}
	}
	code, _ := r.ended()
	p.mu.Lock()
	defer p.mu.Unlock()
	status, ok := r.cmd.ProcessState.Sys().(syscall.WaitStatus)
	early := young && ok && status.Signaled() && status.Signal() == syscall.SIGTERM
	if code != 0 && !r.killed && !early && !(ended && r.expected) {
		return fmt.Errorf("%s ended with code %d: %s", p.Name, code, p.Tail())
	}
	return nil
}

// End ends the process in any state.
func (p *Program) End() {
	if _, ended := p.Ended(); ended {
		return
	}
	p.Kill()
	<-p.Done()
}

// Output returns everything that the program has printed, in all its runs.
func (p *Program) Output() string {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Tail returns the end of the output, for an error.
func (p *Program) Tail() string {
	text := []byte(p.Output())
	return string(bytes.TrimSpace(text[max(0, len(text)-logTail):]))
}

// Stacks writes the stacks of all the program's goroutines next to its log.
func (p *Program) Stacks() {
	if _, ended := p.Ended(); ended || p.Ops == "" {
		return
	}
	_, text := Fetch("http://" + p.Ops + "/debug/pprof/goroutine?debug=2")
	_, metrics := Fetch("http://" + p.Ops + "/metrics")
	_ = os.WriteFile(p.Log+".stacks", []byte(text+"\n"+metrics), 0o644) // best effort
}

// Ready reports whether the program is ready according to its ops listener, and the listener's
// answer.
func (p *Program) Ready() (bool, string) {
	status, body := Fetch("http://" + p.Ops + "/readyz")
	return status == http.StatusOK, p.Name + ": " + strconv.Itoa(status) + " " + body
}

// PeakMemory returns the peak resident memory of the process, in bytes.
func (p *Program) PeakMemory() (int64, error) { return p.memory("VmHWM:") }

// OwnMemory returns the resident memory of the process without file mappings, in bytes.
func (p *Program) OwnMemory() (int64, error) { return p.memory("RssAnon:") }

// memory returns one of the kernel's figures, in bytes.
func (p *Program) memory(figure string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("read the memory of %s: %w", p.Name, err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if value, ok := strings.CutPrefix(line, figure); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read the memory of %s: %q: %w", p.Name, line, err)
			}
			return kb << 10, nil
		}
	}
	return 0, fmt.Errorf("read the memory of %s: it has no %s", p.Name, figure)
}

// clockTick is the kernel's unit of CPU time, which is the same on every current Linux.
const clockTick = 10 * time.Millisecond

// CPU returns the CPU time of a process, including children that it waited for.
func CPU(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the times of process %d: %w", pid, err)
	}
	// The name, in parentheses, may contain anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int64
	for _, i := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the times of process %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

var asker = http.Client{Timeout: askLimit, Transport: &http.Transport{DisableKeepAlives: true}}

// Fetch returns an answer's status and body; status 0 means no answer.
func Fetch(url string) (int, string) {
	res, err := asker.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(body)
}

// WriteDenyFile replaces an indexer's deny file by one that is an hour old, so that it does not
// look half written.
func WriteDenyFile(path, text string) error {
	old := time.Now().Add(-time.Hour)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return err
	}
	if err := os.Chtimes(path+".new", old, old); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// DenyFile returns the text of a deny file.
func DenyFile(dids, tags []string) string {
	var b strings.Builder
	list := func(name string, of []string) {
		fmt.Fprintf(&b, "%s:\n", name)
		for _, one := range of {
			fmt.Fprintf(&b, "  - %+q\n", one) // YAML reads Go's escapes
		}
	}
	list("accounts", dids)
	list("tags", tags)
	return b.String()
}

// FreeAddr returns a free loopback address that it has not returned before. Its port is below the
// range of outgoing connections, so that none takes it while its program is down.
func FreeAddr() (string, error) {
	const first, last, attempts = 20000, 32000, 100
	given.Lock()
	defer given.Unlock()
	for range attempts {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(first+rand.IntN(last-first)))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		_ = l.Close()
		if !given.addrs[addr] {
			given.addrs[addr] = true
			return addr, nil
		}
	}
	return "", fmt.Errorf("no free port found between %d and %d", first, last)
}

var given = struct {
	sync.Mutex
	addrs map[string]bool
}{addrs: map[string]bool{}}
