package pgserver

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// process is a running child. Its fields except done are set before done closes.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // why it ended; nil for exit status 0
}

// startProcess starts cmd so that the kernel signals it to shut down when this process dies.
//
// The kernel sends that signal when the parent *thread* ends, so the goroutine that starts the
// child locks its thread until the child is gone.
func startProcess(cmd *exec.Cmd) (*process, error) {
	setParentDeathSignal(cmd.SysProcAttr, syscall.SIGINT)
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// signal sends sig to the child; an ended child is not an error.
func (p *process) signal(sig os.Signal) {
	// The only failure is os.ErrProcessDone, which done reports better.
	_ = p.cmd.Process.Signal(sig)
}
