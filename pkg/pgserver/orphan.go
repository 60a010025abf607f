package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// dirSetting is a setting of no effect that Start gives each server: it
	// shows on the command line whose server a process is.
	dirSetting = "tagstream.dir"
	// orphanFastLimit and orphanQuickLimit bound the wait for an orphan after
	// each request to stop, the second less polite than the first.
	orphanFastLimit  = 60 * time.Second
	orphanQuickLimit = 10 * time.Second
	// emptyLimit is how long a process id file may stay empty.
	emptyLimit = time.Second
	// pollInterval is how often a process that is not our child, or a file that
	// Postgres writes, is looked at.
	pollInterval = 5 * time.Millisecond
	// noProcess is a process id above every system's limit.
	noProcess = 1<<31 - 2
)

// stopOrphan ends the server that a dead process left running on the cluster,
// if there is one. The caller holds the directory's lock, so no live Server owns
// it. Ending it is simpler than taking it over, and as quick: its settings and
// socket belong to the past, and it cannot be our child again.
func (s *Server) stopOrphan(ctx context.Context) error {
	pidFile := filepath.Join(s.clusterDir, "postmaster.pid")
	pid, err := s.postmasterPID(ctx, pidFile)
	if err != nil || pid == 0 {
		return err
	}
	// The handle is taken before the check, so that the process it stands for
	// is the process that was checked, even if the id is used again meanwhile.
	process, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("look up process %d: %w", pid, err)
	}
	defer process.Release()
	ours, err := s.isOurServer(pid)
	if err != nil {
		return fmt.Errorf("look at process %d, named by %s: %w", pid, pidFile, err)
	}
	if ours {
		s.log.Warn("stopping the database server that an ended process left running", "pid", pid)
		err = s.endOrphan(ctx, process)
	} else {
		err = s.disownPID(pidFile, pid)
	}
	// An orphan that was shutting down may have removed the file by now.
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.endStragglers(ctx)
}

func (s *Server) endOrphan(ctx context.Context, process *os.Process) error {
	for _, step := range []struct {
		signal syscall.Signal
		limit  time.Duration
	}{
		{syscall.SIGINT, orphanFastLimit},
		{syscall.SIGQUIT, orphanQuickLimit},
		{syscall.SIGKILL, orphanQuickLimit},
	} {
		err := process.Signal(step.signal)
		if err == nil {
			// A stopped process heeds the signal only when it goes on.
			err = process.Signal(syscall.SIGCONT)
		}
		if errors.Is(err, os.ErrProcessDone) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("stop the orphaned server, process %d: %w", process.Pid, err)
		}
		stepCtx, cancel := context.WithTimeout(ctx, step.limit)
		err = poll(stepCtx, func() (bool, error) {
			ours, err := s.isOurServer(process.Pid)
			return !ours, err
		})
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the orphaned server, process %d: %w", process.Pid, ctx.Err())
		}
	}
	return fmt.Errorf("the orphaned server, process %d, does not end", process.Pid)
}

// endStragglers ends what is left of a server whose first process was killed:
// its other processes leave by themselves, but one that is busy notices late,
// and until then Postgres refuses to start on the same data.
func (s *Server) endStragglers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, orphanQuickLimit)
	defer cancel()
	err := poll(ctx, func() (bool, error) {
		left := 0
		for _, pid := range processesIn(s.clusterDir) {
			process, err := os.FindProcess(pid)
			if err != nil {
				continue // gone
			}
			// Who works in the cluster's directory under the server's name is
			// part of it; a person's shell is not. One without a name is on
			// its way out.
			args, err := commandLine(pid)
			switch {
			case err != nil || !worksIn(pid, s.clusterDir):
			case len(args) == 0:
				left++
			case strings.HasPrefix(args[0], "postgres: ") || isServerName(args[0]):
				left++
				_ = process.Signal(syscall.SIGKILL) // if it fails, it is there in the next round
			}
			process.Release()
		}
		return left == 0, nil
	})
	if err != nil {
		return fmt.Errorf("end what is left of a killed server: %w", err)
	}
	return nil
}

// isServerName says whether a command is the server's first process, or one
// that it has just started. Later those are called "postgres: <role>".
func isServerName(command string) bool {
	name := filepath.Base(command)
	return name == "postgres" || name == "postmaster"
}

// isOurServer says whether the process is a Postgres server of our cluster, by
// its command line, or, where it was started by hand, by its working directory.
func (s *Server) isOurServer(pid int) (bool, error) {
	args, err := commandLine(pid)
	if err != nil || len(args) == 0 || !isServerName(args[0]) {
		return false, err
	}
	return slices.Contains(args, dirSetting+"="+s.clusterDir) || worksIn(pid, s.clusterDir), nil
}

// disownPID makes a process id file whose process is not our server name none.
//
// Postgres would refuse to start while any process of its user has that id. It
// also checks the shared memory named there for processes that still use it, so
// the file itself stays.
func (s *Server) disownPID(pidFile string, pid int) error {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return fmt.Errorf("read the stale process id: %w", err)
	}
	_, rest, _ := strings.Cut(string(text), "\n")
	s.log.Info("the database was not shut down the last time", "pid", pid)
	// A crash in here leaves an empty file or a bad number; both are handled.
	file, err := os.OpenFile(pidFile, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return fmt.Errorf("correct the stale process id: %w", err)
	}
	_, err = fmt.Fprintf(file, "%d\n%s", noProcess, rest)
	return errors.Join(err, file.Close())
}

// postmasterPID reads the process id from Postgres's own file, 0 for no file.
//
// A server that just starts writes the file a moment after it has made it, so an
// empty one is given that moment. One that stays empty is what a crash of the
// machine left; Postgres would not start with it.
func (s *Server) postmasterPID(ctx context.Context, path string) (pid int, err error) {
	limited, cancel := context.WithTimeout(ctx, emptyLimit)
	defer cancel()
	err = poll(limited, func() (bool, error) {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		line, _, _ := strings.Cut(string(text), "\n")
		pid, err = strconv.Atoi(strings.TrimSpace(line))
		pid = max(pid, -pid) // negative in Postgres's single-user mode
		return err == nil && pid > 0, nil
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		s.log.Warn("removing the database's process id file, which holds no process id", "file", path)
		return 0, os.Remove(path)
	}
	return pid, err
}

// poll calls done at pollInterval until it says true, fails, or ctx ends.
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
