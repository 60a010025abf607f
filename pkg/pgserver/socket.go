package pgserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	// maxSocketDir is the longest path of a socket's folder, in bytes: every system accepts a
	// socket path of 103 bytes, and Postgres's longest name is /.s.PGSQL.65535.
	maxSocketDir = 103 - len("/.s.PGSQL.65535")
	// socketPrefix begins the name of each socket folder, so that only our folders are ever
	// removed.
	socketPrefix = "tagstream-pg-"
)

// makeSocketDir creates a folder for the server's socket that only the account can enter. It lies
// in a temporary directory, whose path is short and whose file system supports sockets. Its name is
// stored in the file at record, so that the next start can remove what a killed process left.
func makeSocketDir(acct account, record string) (string, error) {
	if err := removeSocketDir(record); err != nil {
		return "", err
	}
	bases := []string{"/tmp", "/var/tmp"}
	if !acct.switched { // another account may be unable to enter ours
		bases = append([]string{os.TempDir()}, bases...)
	}
	for _, base := range bases {
		dir, err := os.MkdirTemp(base, socketPrefix)
		if err != nil {
			continue
		}
		if !filepath.IsAbs(dir) || len(dir) > maxSocketDir {
			os.Remove(dir)
			continue
		}
		// Recorded first, so that a crash here leaves no stray folder.
		if err := writeFileSync(record, dir+"\n"); err != nil {
			return "", errors.Join(fmt.Errorf("record the socket folder: %w", err), os.Remove(dir))
		}
		if err := acct.grant(dir); err != nil {
			return "", fmt.Errorf("give the socket folder to user id %d: %w", acct.uid, err)
		}
		return dir, nil
	}
	return "", fmt.Errorf("make a folder for the server's socket: none of %s is writable and at most %d bytes long", strings.Join(bases, ", "), maxSocketDir)
}

// removeSocketDir removes the recorded socket folder, if there is one.
func removeSocketDir(record string) error {
	text, err := os.ReadFile(record)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the name of the last socket folder: %w", err)
	}
	dir := strings.TrimSpace(string(text))
	if filepath.IsAbs(dir) && strings.HasPrefix(filepath.Base(dir), socketPrefix) {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove the last socket folder: %w", err)
		}
	}
	return os.Remove(record)
}
