package pgserver

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

func setParentDeathSignal(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }

// serverProcesses lists the processes of a server of our cluster: those called so that work in its
// directory, as Postgres does and a person's shell may, and the one that Start has just started.
func serverProcesses(clusterDir string) (found []serverProcess, err error) {
	entries, err := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		pid, err := strconv.Atoi(filepath.Base(entry))
		if err != nil {
			continue
		}
		// The handle is taken before the check, so that the process it stands for is the one that
		// was checked, even if the id is used again meanwhile.
		process, err := os.FindProcess(pid)
		if err != nil {
			continue // gone
		}
		args, err := commandLine(pid)
		is, first := isServer(args[0])
		// One without a name is on its way out.
		if err == nil && (is || args[0] == "") && (slices.Contains(args, dirSetting+"="+clusterDir) || worksIn(pid, clusterDir)) {
			found = append(found, serverProcess{process, first})
			continue
		}
		process.Release()
	}
	return found, err
}

// commandLine gives a process's arguments, at least one: "" where it has ended and waits to be
// reaped.
func commandLine(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	var args []string
	for arg := range bytes.SplitSeq(bytes.TrimSuffix(text, []byte{0}), []byte{0}) {
		args = append(args, string(arg))
	}
	return args, err
}

// worksIn says whether the process's working directory is dir. It is false also
// where the system does not let us see it.
func worksIn(pid int, dir string) bool {
	cwd, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return false
	}
	info, err := os.Stat(dir)
	return err == nil && os.SameFile(cwd, info)
}

// removeStalePID removes the process id file of a server that has no process any more. Postgres
// would refuse to start while any process of its user has that id, or where the file is empty.
func (s *Server) removeStalePID(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the orphan did
	}
	s.log.Info("the database was not shut down cleanly last time")
	return err
}
