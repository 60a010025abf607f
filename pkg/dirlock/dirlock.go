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

// HeldError says that another process, or another part of this one, holds the
// directory. Trying again helps only once the holder is gone.
type HeldError struct {
	// Dir is the directory as given to Acquire.
	Dir string
	// PID is the holder's process id, or 0 where the file does not tell.
	PID int
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("directory %s is in use by another process", e.Dir)
	}
	return fmt.Sprintf("directory %s is in use by process %d", e.Dir, e.PID)
}

// Acquire locks dir, which must exist and be writable, without waiting. It returns a *HeldError
// when the directory is taken, also by this process. Close releases it, twice is harmless; the file
// stays, since removing it would let two processes lock two different files of that name.
func Acquire(dir string) (*flock.Flock, error) {
	lock := flock.New(filepath.Join(dir, "lock"))
	switch held, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("lock %s: %w", lock.Path(), err)
	case !held:
		return nil, &HeldError{Dir: dir, PID: holder(lock.Path())}
	}
	// The id is only for people: a crash between the lock and the write leaves an older id in the
	// file, and the lock holds all the same.
	if err := writeHolder(lock.Path()); err != nil {
		_ = lock.Close() // the first error says what is wrong
		return nil, fmt.Errorf("write the process id to %s: %w", lock.Path(), err)
	}
	return lock, nil
}

// writeHolder writes this process's id over the last one in one write, so that no reader sees half of it.
func writeHolder(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%-20d\n", os.Getpid())
	return errors.Join(err, file.Close())
}

// holder reads a process id, 0 where the file does not tell.
func holder(path string) int {
	text, _ := os.ReadFile(path)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}
