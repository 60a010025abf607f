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
	// maxSocketPath is the longest name of a Unix socket in bytes that every
	// system takes: 103 on macOS, 107 on Linux.
	maxSocketPath = 103
	// socketName is as long as the longest name that Postgres gives a socket.
	socketName = ".s.PGSQL.65535"
	// socketPrefix begins the name of each socket folder, and tells ours from
	// everything else when one is to be removed.
	socketPrefix = "tagstream-pg-"
)

// makeSocketDir makes a folder for the server's socket that only the account
// can enter. It lies in the temporary directory, whose path is short and whose
// file system takes sockets, and its name is kept in the file at record, so
// that the next start can remove what a killed process left.
func makeSocketDir(acct account, record string) (string, error) {
	if err := removeSocketDir(record); err != nil {
		return "", err
	}
	for _, base := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		base, err := filepath.Abs(base)
		if err != nil {
			continue
		}
		const randomDigits = 10 // as many as os.MkdirTemp appends, at most
		longest := filepath.Join(base, socketPrefix+strings.Repeat("0", randomDigits), socketName)
		if len(longest) > maxSocketPath || !acct.reaches(filepath.Join(base, socketPrefix)) {
			continue
		}
		dir, err := os.MkdirTemp(base, socketPrefix)
		if err != nil {
			continue
		}
		// Recorded before anything else, so that a crash here leaves no stray.
		if err := writeFileSync(record, dir+"\n"); err != nil {
			return "", errors.Join(fmt.Errorf("record the socket folder: %w", err), os.Remove(dir))
		}
		if err := acct.grant(dir); err != nil {
			return "", fmt.Errorf("give the socket folder to user id %d: %w", acct.uid, err)
		}
		return dir, nil
	}
	return "", fmt.Errorf("make a folder for the server's socket: none of %s, /tmp and /var/tmp is short (%d bytes with the socket) and open to user id %d: set TMPDIR", os.TempDir(), maxSocketPath, acct.uid)
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
