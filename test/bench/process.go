package bench

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tagstream/tagstream/pkg/service"
)

const (
	readyLimit = 60 * time.Second
	readyPoll  = 20 * time.Millisecond
	// stopLimit is how long a service may take to stop before it is killed.
	stopLimit = 15 * time.Second
	// logTail is how much of a service's log an error carries, in bytes.
	logTail = 2000
)

// process is a service that runs as its own binary.
type process struct {
	name    string
	cmd     *exec.Cmd
	log     string        // path
	done    chan struct{} // closed when it has ended
	err     error         // set before done is closed
	stopped bool
}

// build makes the services' binaries in dir.
func build(ctx context.Context, dir string) error {
	const module = "github.com/tagstream/tagstream/services/"
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	for _, name := range []string{service.Ingest, service.Indexer, service.API} {
		args = append(args, module+name+"/cmd/"+name)
	}
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build the services: %w: %s", err, out)
	}
	return nil
}

// start runs a binary with settings given without their prefix. Settings of the caller's environment do not reach it.
func start(name, binary, dir string, args []string, settings map[string]string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(binary, args...), done: make(chan struct{})}
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, service.Prefix) })
	for key, value := range settings {
		p.cmd.Env = append(p.cmd.Env, service.Prefix+key+"="+value)
	}
	p.cmd.SysProcAttr = childAttributes()
	log, err := os.CreateTemp(dir, name+"-*.log")
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	p.log = log.Name()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	started := make(chan error, 1)
	go func() {
		defer log.Close()
		// A child is killed when the thread that started it ends, so this thread stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// stop ends the process as an operator does. A second call does nothing.
func (p *process) stop() error {
	if p == nil || p.stopped {
		return nil
	}
	p.stopped = true
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // one that has ended is found out below
	select {
	case <-p.done:
	case <-time.After(stopLimit):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	if p.err != nil {
		return fmt.Errorf("%s ended with %w: %s", p.name, p.err, p.tail())
	}
	return nil
}

// alive returns an error where the process has ended.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended by itself, %s: %s", p.name, p.cmd.ProcessState, p.tail())
	default:
		return nil
	}
}

func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text[max(0, len(text)-logTail):]))
}

// awaitReady waits until the ops listener at addr says that the service is ready.
func (p *process) awaitReady(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	err := until(ctx, readyPoll, func() (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
		if err != nil {
			return false, err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return false, p.alive() // not listening yet
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK, p.alive()
	})
	if err != nil {
		return fmt.Errorf("wait until %s is ready: %w: %s", p.name, err, p.tail())
	}
	return nil
}

// peakMemory is the most resident memory that the process ever had, in bytes: VmHWM of the kernel.
func (p *process) peakMemory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of %s: %w", p.name, err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read the memory of %s: %q: %w", p.name, line, err)
			}
			return kb << 10, nil
		}
	}
	return 0, fmt.Errorf("read the memory of %s: it has no VmHWM", p.name)
}

// until calls done every so often until it returns true or an error, or ctx ends.
func until(ctx context.Context, every time.Duration, done func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// freeAddr finds a loopback address that nobody listens on.
func freeAddr(ctx context.Context) (string, error) {
	var listen net.ListenConfig
	ln, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
