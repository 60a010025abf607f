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

// serverProcesses lists the processes of a server of our cluster: those with its name that work in
// its directory, as Postgres does and a person's shell may, and the one that Start has just
// started.
func serverProcesses(clusterDir string) (found []serverProcess, err error) {
	entries, err := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		pid, err := strconv.Atoi(filepath.Base(entry))
		if err != nil {
			continue
		}
		// Take the handle before the check, so that it stands for the process that was checked,
		// even if the id is reused.
		process, err := os.FindProcess(pid)
		if err != nil {
			continue // gone
		}
		args, err := commandLine(pid)
		is, first := isServer(args[0])
		// A process without a name is exiting.
		if err == nil && (is || args[0] == "") && (slices.Contains(args, dirSetting+"="+clusterDir) || worksIn(pid, clusterDir)) {
			found = append(found, serverProcess{process, first})
			continue
		}
		process.Release()
	}
	return found, err
}

// commandLine returns a process's arguments, at least one: "" for a zombie.
func commandLine(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	var args []string
	for arg := range bytes.SplitSeq(bytes.TrimSuffix(text, []byte{0}), []byte{0}) {
		args = append(args, string(arg))
	}
	return args, err
}

// worksIn reports whether the process's working directory is dir. It is false if the system does
// not let us see it.
func worksIn(pid int, dir string) bool {
	cwd, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return false
	}
	info, err := os.Stat(dir)
	return err == nil && os.SameFile(cwd, info)
}

// removeStalePID removes the process id file of a server without processes. Postgres would refuse
// to start while any process of its user has that id, or if the file is empty.
func (s *Server) removeStalePID(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the orphan did
	}
	s.log.Info("the database was not shut down cleanly last time")
	return err
}
