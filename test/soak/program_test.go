package soak_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tagstream/tagstream/test/simnet"
)

const (
	// stopLimit is how long a program may take to stop as asked.
	stopLimit = 30 * time.Second
	logTail   = 1500 // bytes
)

// binaries are the paths of everything that runs as a process.
type binaries struct {
	ingest, indexer, api, nats, jetstream string

	late func() (string, error) // a Jetstream server that stamps late, built where a run has one
}

// build builds them; they are gone with the test.
func build(t *testing.T) binaries {
	t.Helper()
	dir := t.TempDir()
	b := binaries{}
	const services = "github.com/tagstream/tagstream/services/"
	for pkg, path := range map[string]*string{
		services + "ingest/cmd/ingest":      &b.ingest,
		services + "indexer/cmd/indexer":    &b.indexer,
		services + "api/cmd/api":            &b.api,
		"github.com/nats-io/nats-server/v2": &b.nats,
	} {
		*path = filepath.Join(dir, filepath.Base(pkg))
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", *path, pkg).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v: %s", pkg, err, out)
		}
	}
	var err error
	if b.jetstream, err = simnet.BuildJetstream(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	b.late = sync.OnceValues(func() (string, error) { return simnet.BuildLateJetstream(t.Context(), "") })
	return b
}

// program is something that runs as a process, and may be started again and
// again. It is used from the run's goroutine, but kill also from others.
type program struct {
	name string
	path string
	args []string
	env  []string
	log  string // path; all runs of the program write to it
	ops  string // address of its ops listener, "" where it has none

	mu       sync.Mutex
	cmd      *exec.Cmd
	done     chan struct{} // closed when the process has ended
	expected bool          // its end was asked for
	paused   bool
}

// start runs the program.
func (p *program) start() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	fmt.Fprintf(log, "--- started %s\n", time.Now().UTC().Format(time.RFC3339Nano))
	cmd := exec.Command(p.path, p.args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, p.env...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, childAttributes()
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
		p.cmd, p.done, p.expected, p.paused = cmd, done, false, false
		p.mu.Unlock()
		started <- nil
		_ = cmd.Wait() // its state says it all
		fmt.Fprintf(log, "--- ended %s: %v\n", time.Now().UTC().Format(time.RFC3339Nano), cmd.ProcessState)
		close(done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	return nil
}

// signal sends a signal; one that ends the program makes its end expected.
func (p *program) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch sig {
	case syscall.SIGSTOP:
		p.paused = true
	case syscall.SIGCONT:
		p.paused = false
	default:
		p.expected = true
	}
	_ = p.cmd.Process.Signal(sig) // gone is what most of them want
}

func (p *program) kill() { p.signal(syscall.SIGKILL) }

// ended reports whether the process has ended, and its exit code.
func (p *program) ended() (code int, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0, true
	}
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), true
	default:
		return 0, false
	}
}

// surprise says how the process ended without being asked to, "" if it did not.
func (p *program) surprise() string {
	code, ended := p.ended()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !ended || p.expected || p.cmd == nil {
		return ""
	}
	return fmt.Sprintf("%s ended by itself with code %d: %s", p.name, code, p.tail())
}

// terminate ends the program as an operator does. Its error is that of an end
// which was not clean.
func (p *program) terminate() error {
	if p == nil {
		return nil
	}
	if _, ended := p.ended(); ended {
		return nil
	}
	p.signal(syscall.SIGCONT)
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopLimit):
		p.signal(syscall.SIGQUIT) // for its stacks
		<-p.done
		return fmt.Errorf("%s does not stop within %v: %s", p.name, stopLimit, p.tail())
	}
	if code, _ := p.ended(); code != 0 {
		return fmt.Errorf("%s was asked to stop and ended with code %d: %s", p.name, code, p.tail())
	}
	return nil
}

// end ends the process for good, whatever its state.
func (p *program) end() {
	if _, ended := p.ended(); ended {
		return
	}
	p.kill()
	<-p.done
}

// stacks writes what every goroutine of the program does beside its log.
func (p *program) stacks() {
	if _, ended := p.ended(); ended || p.ops == "" {
		return
	}
	_, text := fetch("http://" + p.ops + "/debug/pprof/goroutine?debug=2")
	_, metrics := fetch("http://" + p.ops + "/metrics")
	_ = os.WriteFile(p.log+".stacks", []byte(text+"\n"+metrics), 0o644) // a help, and no more
}

func (p *program) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text[max(0, len(text)-logTail):]))
}

// ready reports whether the ops listener says that the program is ready, and
// what it says.
func (p *program) ready() (bool, string) {
	status, body := fetch("http://" + p.ops + "/readyz")
	return status == http.StatusOK, p.name + ": " + strconv.Itoa(status) + " " + body
}

// askLimit bounds one request to a program.
const askLimit = 10 * time.Second

var asker = http.Client{Timeout: askLimit, Transport: &http.Transport{DisableKeepAlives: true}}

// fetch returns an answer's status and body; status 0 is none.
func fetch(url string) (int, string) {
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

// freeAddr is a loopback address that nobody listens on and no run was given
// before. It lies below the ports that systems give to outgoing connections, so
// that none takes it while its program is down.
func freeAddr() (string, error) {
	const first, last, attempts = 20000, 32000, 100
	given.Lock()
	defer given.Unlock()
	for range attempts {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(first+rand.IntN(last-first)))
		l, err := net.Listen("tcp", addr)
		if err != nil || given.addrs[addr] {
			continue
		}
		l.Close()
		given.addrs[addr] = true
		return addr, nil
	}
	return "", fmt.Errorf("no free port found between %d and %d", first, last)
}

var given = struct {
	sync.Mutex
	addrs map[string]bool
}{addrs: map[string]bool{}}
