//go:build unix && !linux

package pgserver

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// setParentDeathSignal does nothing: only Linux has such a signal. A server
// left behind is ended by the next Start.
func setParentDeathSignal(*syscall.SysProcAttr, syscall.Signal) {}

// commandLine gives a process's arguments as ps prints them, nil where there is
// no such process. An argument with a space comes apart, so a directory with a
// space in its name is not recognized; Postgres's own lock then still holds.
func commandLine(pid int) ([]string, error) {
	text, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, nil
	}
	return strings.Fields(string(text)), err
}

func worksIn(int, string) bool { return false }

func processesIn(string) []int { return nil }
