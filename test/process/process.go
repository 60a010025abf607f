// Package process runs programs as an operator does, for tests and measurements: it builds them,
// starts them again and again, watches and ends them.
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
	// stopLimit is how long a program may take to stop as asked.
	stopLimit = 30 * time.Second
	logTail   = 2000 // bytes
	// askLimit bounds one request to a program.
	askLimit = 10 * time.Second
)

// noLookUps keeps programs from asking the world for authors, unless their Env says where.
const noLookUps = "TAGSTREAM_PROFILES_URL=off"

// The programs' packages.
const (
	Ingest    = "github.com/tagstream/tagstream/services/ingest/cmd/ingest"
	Indexer   = "github.com/tagstream/tagstream/services/indexer/cmd/indexer"
	API       = "github.com/tagstream/tagstream/services/api/cmd/api"
	Tagstream = "github.com/tagstream/tagstream/services/standalone/cmd/tagstream"
	NATS      = "github.com/nats-io/nats-server/v2"
)

// Build builds programs into a folder, each under the last word of its package's path.
func Build(ctx context.Context, dir string, packages ...string) error {
	args := append([]string{"build", "-o", dir + string(filepath.Separator)}, packages...)
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", strings.Join(packages, ", "), err, out)
	}
	return nil
}

// Under nohup this process ignores SIGHUP, and its children would, too.
func init() {
	if signal.Ignored(syscall.SIGHUP) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
}

// Program is something that runs as a process, and may be started again and again. Signal may be
// called from any goroutine.
type Program struct {
	Name string
	Path string
	Args []string
	Dir  string   // where it runs; empty is here
	Env  []string // beside PATH, HOME and noLookUps
	Log  string   // the file that all its runs write to
	Ops  string   // the address of its ops listener, "" where it has none

	mu  sync.Mutex
	run *run // the last one, nil before the first
}

// run is one run of a program. What was asked of it is guarded by the program's mutex: another
// goroutine may have started the next run by then.
type run struct {
	cmd      *exec.Cmd
	done     chan struct{} // closed when the process has ended
	expected bool          // its end was asked for
	killed   bool          // and not a clean one
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

// Settings are the variables of settings that are given without their prefix.
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
		_, _ = fmt.Fprintf(log, "--- %v; started again %s\n", r.cmd.ProcessState, time.Now().UTC().Format(time.RFC3339Nano))
	}
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Dir, cmd.Env = p.Dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), noLookUps}, p.Env...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, ChildAttributes()
	done, started := make(chan struct{}), make(chan error, 1)
	go func() {
		defer log.Close()
		// A child is killed when the thread that started it ends: it stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.mu.Lock()
		p.run = &run{cmd: cmd, done: done}
		p.mu.Unlock()
		started <- nil
		_ = cmd.Wait() // its state says it all
		close(done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	return nil
}

// PID is the process's.
func (p *Program) PID() int { return p.last().cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Program) Done() <-chan struct{} { return p.last().done }

// Signal sends a signal; one that ends the program makes its end expected.
func (p *Program) Signal(sig syscall.Signal) { p.signal(p.last(), sig) }

func (p *Program) signal(r *run, sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sig != syscall.SIGSTOP && sig != syscall.SIGCONT {
		r.expected = true
	}
	r.killed = r.killed || sig == syscall.SIGKILL
	_ = r.cmd.Process.Signal(sig) // gone is what most of them want
}

// Kill ends the process as a crash does.
func (p *Program) Kill() { p.Signal(syscall.SIGKILL) }

// Ended reports whether the process has ended, and its exit code. One that was not started has.
func (p *Program) Ended() (code int, ended bool) {
	r := p.last()
	if r == nil {
		return 0, true
	}
	return r.ended()
}

// Alive is an error where the process has ended without being asked to.
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

// Terminate ends the program as an operator does. Its error is that of an end which was not clean,
// other than by a Kill at the same time.
func (p *Program) Terminate() error {
	if p == nil {
		return nil
	}
	r := p.last()
	if r == nil {
		return nil
	}
	_, ended := r.ended()
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
	if code != 0 && !r.killed && !(ended && r.expected) {
		return fmt.Errorf("%s ended with code %d: %s", p.Name, code, p.Tail())
	}
	return nil
}

// End ends the process for good, whatever its state.
func (p *Program) End() {
	if _, ended := p.Ended(); ended {
		return
	}
	p.Kill()
	<-p.Done()
}

// Output is all that the program has printed, in all its runs.
func (p *Program) Output() string {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Tail is the end of the output, for an error.
func (p *Program) Tail() string {
	text := []byte(p.Output())
	return string(bytes.TrimSpace(text[max(0, len(text)-logTail):]))
}

// Stacks writes what every goroutine of the program does beside its log.
func (p *Program) Stacks() {
	if _, ended := p.Ended(); ended || p.Ops == "" {
		return
	}
	_, text := Fetch("http://" + p.Ops + "/debug/pprof/goroutine?debug=2")
	_, metrics := Fetch("http://" + p.Ops + "/metrics")
	_ = os.WriteFile(p.Log+".stacks", []byte(text+"\n"+metrics), 0o644) // a help, and no more
}

// Ready reports whether the ops listener says that the program is ready, and what it says.
func (p *Program) Ready() (bool, string) {
	status, body := Fetch("http://" + p.Ops + "/readyz")
	return status == http.StatusOK, p.Name + ": " + strconv.Itoa(status) + " " + body
}

// PeakMemory is the most resident memory that the process ever had, in bytes: VmHWM of the kernel.
func (p *Program) PeakMemory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("read the memory of %s: %w", p.Name, err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read the memory of %s: %q: %w", p.Name, line, err)
			}
			return kb << 10, nil
		}
	}
	return 0, fmt.Errorf("read the memory of %s: it has no VmHWM", p.Name)
}

var asker = http.Client{Timeout: askLimit, Transport: &http.Transport{DisableKeepAlives: true}}

// Fetch returns an answer's status and body; status 0 is none.
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

// WriteDenyFile replaces an indexer's deny file by one that is an hour old: nobody is still writing
// it.
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

// DenyFile is the text of a deny file.
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

// FreeAddr is a loopback address that nothing listens on and that this process was not given
// before. It lies below the ports that systems give to outgoing connections, so that none takes it
// while its program is down.
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
