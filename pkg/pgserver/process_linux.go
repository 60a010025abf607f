package pgserver

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

func setParentDeathSignal(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }

// commandLine gives a process's arguments, nil where there is no such process
// or it has ended and waits to be reaped.
func commandLine(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil || len(text) == 0 {
		return nil, err
	}
	var args []string
	for arg := range bytes.SplitSeq(bytes.TrimSuffix(text, []byte{0}), []byte{0}) {
		args = append(args, string(arg))
	}
	return args, nil
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

// processesIn lists the processes whose working directory is dir, as far as the
// system lets us see.
func processesIn(dir string) []int {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil { // only for a bad pattern
		return nil
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(filepath.Base(entry))
		if err == nil && worksIn(pid, dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}
