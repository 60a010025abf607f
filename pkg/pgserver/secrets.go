package pgserver

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// secret returns the stored password of a role, and creates it the first time. After a crash the
// file is complete or absent.
func secret(dir, role string) (string, error) {
	path := filepath.Join(dir, role)
	text, err := os.ReadFile(path)
	password := strings.TrimSpace(string(text))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		password = rand.Text() + rand.Text() // more than 256 bits, letters and digits
		err = writeFileSync(path, password+"\n")
	case err == nil && password == "":
		err = fmt.Errorf("the file %s is empty", path)
	}
	if err != nil {
		return "", fmt.Errorf("keep the password of role %s: %w", role, err)
	}
	return password, nil
}

// writeFileSync writes a file of mode 0600 through a temporary one, and returns once name and
// contents are on disk.
func writeFileSync(path, text string) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		os.Remove(file.Name())
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
