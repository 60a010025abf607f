//go:build unix && !linux

package pgserver

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// setParentDeathSignal does nothing: only Linux has such a signal. The next Start ends a server
// that was left behind.
func setParentDeathSignal(*syscall.SysProcAttr, syscall.Signal) {}

// serverProcesses returns the process in Postgres's own file, if ps shows that it is the first one
// of our server. ps splits arguments at spaces, so a directory with a space in its name is not
// recognized; Postgres's own lock then still protects it.
func serverProcesses(clusterDir string) ([]serverProcess, error) {
	text, err := os.ReadFile(filepath.Join(clusterDir, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return nil, nil //nolint:nilerr // Postgres says what is wrong with its file
	}
	out, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	args := append(strings.Fields(string(out)), "")
	if _, first := isServer(args[0]); err != nil || !first || !strings.Contains(string(out), dirSetting+"="+clusterDir+" ") {
		return nil, nil //nolint:nilerr // ps fails where there is no such process
	}
	process, err := os.FindProcess(pid)
	return []serverProcess{{process, true}}, err
}

// removeStalePID leaves the file alone: it names the shared memory by which Postgres recognizes
// processes of a killed server, which we cannot list here.
func (s *Server) removeStalePID(string) error { return nil }
