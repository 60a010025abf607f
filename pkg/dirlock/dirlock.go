// Package dirlock keeps two processes out of one directory, with an advisory lock on a file named
// "lock" inside it. The kernel drops the lock with the process that holds it, however that process
// ends, so a lock never has to be broken by hand and the file may stay behind. Network file systems
// without flock(2) are outside this promise.
package dirlock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
)

// HeldError means that another process, or another part of this one, holds the directory. Retrying
// helps only once the holder is gone.
type HeldError struct {
	// Dir is the directory as given to Acquire.
	Dir string
	// PID is the holder's process id, or 0 if the file does not say.
	PID int
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("directory %s is in use by another process", e.Dir)
	}
	return fmt.Sprintf("directory %s is in use by process %d", e.Dir, e.PID)
}

// Acquire locks dir, which must exist and be writable, without waiting. It returns a *HeldError if
// the directory is already locked, even by this process. Close releases the lock; closing twice is
// harmless. The file stays, since removing it would let two processes lock two different files of
// that name.
func Acquire(dir string) (*flock.Flock, error) {
	lock := flock.New(filepath.Join(dir, "lock"))
	switch held, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("lock %s: %w", lock.Path(), err)
	case !held:
		return nil, &HeldError{Dir: dir, PID: holder(lock.Path())}
	}
	// The id is only for people: a crash between the lock and the write leaves an older id in the
	// file, but the lock still holds.
	if err := writeHolder(lock.Path()); err != nil {
		_ = lock.Close() // the first error says what is wrong
		return nil, fmt.Errorf("write the process id to %s: %w", lock.Path(), err)
	}
	return lock, nil
}

// writeHolder replaces the previous id with this process's id in a single write, so that no reader
// sees half of it.
func writeHolder(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%-20d\n", os.Getpid())
	return errors.Join(err, file.Close())
}

// holder reads a process id, or returns 0 if the file has none.
func holder(path string) int {
	text, _ := os.ReadFile(path)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}
