// Package dirlock keeps two processes out of one directory.
//
// The lock is an advisory flock(2) on a file named "lock" inside the directory.
// The kernel drops it with the process that holds it, however that process
// ends, so a lock never has to be broken by hand and the file may stay behind.
// The file holds the holder's process id, for the error that the second
// process shows; the id itself guards nothing.
//
// Acquire never waits. It protects processes of one machine from each other;
// network file systems that do not implement flock are outside its promise.
package dirlock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// fileName is the lock file's name inside the locked directory.
const fileName = "lock"

// maxPIDBytes bounds what is read of a lock file: a decimal process id.
const maxPIDBytes = 32

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

// Lock is a held directory. It is not for copying.
type Lock struct {
	file *os.File // nil once released
}

// Acquire locks dir, which must exist and be writable. It returns a *HeldError
// when the directory is taken, also by this process.
func Acquire(dir string) (*Lock, error) {
	path := filepath.Join(dir, fileName)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock file: %w", err)
	}
	if err := flock(file, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &HeldError{Dir: dir, PID: readPID(file)}
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// The id is only for people: a crash between the lock and the write leaves
	// an older id in the file, and the lock holds all the same.
	if err := writePID(file); err != nil {
		file.Close()
		return nil, fmt.Errorf("write the process id to %s: %w", path, err)
	}
	return &Lock{file: file}, nil
}

// Release gives the directory free. Releasing twice, or a nil lock, is harmless.
// The file stays: removing it would let two processes lock two different files
// of the same name.
func (l *Lock) Release() error {
	if l == nil || l.file == nil {
		return nil
	}
	file := l.file
	l.file = nil
	// Unlocked before it is closed: a child that this process is starting at
	// this moment has a copy of the descriptor, which would keep the lock.
	if err := errors.Join(flock(file, syscall.LOCK_UN), file.Close()); err != nil {
		return fmt.Errorf("release the lock file: %w", err)
	}
	return nil
}

func flock(file *os.File, how int) error {
	for {
		err := syscall.Flock(int(file.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func readPID(file *os.File) int {
	text, err := io.ReadAll(io.LimitReader(file, maxPIDBytes))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

func writePID(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}
