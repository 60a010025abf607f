package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// dirSetting is a setting without effect that Start gives each server: on the command line it
	// shows which directory a process serves.
	dirSetting = "tagstream.dir"
	// orphanFastLimit and orphanKillLimit bound the wait for an orphan after the
	// request to shut down and after SIGKILL.
	orphanFastLimit = 60 * time.Second
	orphanKillLimit = 10 * time.Second
	// pollInterval is the interval for checking a process that is not our child, or a file that
	// Postgres writes.
	pollInterval = 5 * time.Millisecond
)

// serverProcess is a process that works on our cluster.
type serverProcess struct {
	*os.Process
	// first reports that it is the process that starts the others.
	first bool
}

// stopOrphan ends what a killed process left running on the cluster. The caller holds the
// directory's lock, so no live Server owns it. Ending it is simpler than adopting it, and as quick:
// its settings and socket are outdated, and it cannot become our child.
func (s *Server) stopOrphan(ctx context.Context) error {
	pidFile := filepath.Join(s.clusterDir, "postmaster.pid")
	if _, err := os.Stat(pidFile); errors.Is(err, fs.ErrNotExist) {
		return nil // it was shut down
	}
	asked := map[int]bool{}
	err := s.untilEnded(ctx, orphanFastLimit, func(p serverProcess, headless bool) {
		switch {
		case headless:
			// Processes of a server whose first one was killed exit on their own, but a busy one
			// notices late.
			_ = p.Signal(syscall.SIGKILL) // a failure is seen in the next round
		case p.first && !asked[p.Pid]:
			asked[p.Pid] = true
			s.log.Warn("stopping the database server that an ended process left running", "pid", p.Pid)
			_ = p.Signal(syscall.SIGINT)
			_ = p.Signal(syscall.SIGCONT) // a stopped process heeds nothing else
		}
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = s.untilEnded(ctx, orphanKillLimit, func(p serverProcess, _ bool) { _ = p.Signal(syscall.SIGKILL) })
	}
	if err != nil {
		return fmt.Errorf("end the database server that an ended process left running: %w", err)
	}
	return s.removeStalePID(pidFile)
}

// untilEnded passes every process of our server to do, repeatedly, until none is left. Headless
// reports that the first one is gone.
func (s *Server) untilEnded(ctx context.Context, limit time.Duration, do func(p serverProcess, headless bool)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return poll(ctx, func() (bool, error) {
		processes, err := serverProcesses(s.clusterDir)
		headless := true
		for _, p := range processes {
			headless = headless && !p.first
		}
		for _, p := range processes {
			do(p, headless)
			p.Release()
		}
		return len(processes) == 0, err
	})
}

// isServer reports whether a command line is that of a Postgres process, and whether it is the
// first one, or one that this has just started. Later those are called "postgres: <role>".
func isServer(command string) (is, first bool) {
	name := filepath.Base(command)
	first = name == "postgres" || name == "postmaster"
	return first || strings.HasPrefix(command, "postgres: "), first
}

// poll calls done at pollInterval until it returns true, fails, or ctx ends.
func poll(ctx context.Context, done func() (bool, error)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}
