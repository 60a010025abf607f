package pgserver

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// passwordBytes is the strength of a generated password: 256 bits.
const passwordBytes = 32

// readSecret gives the stored password of a role, or fs.ErrNotExist.
func readSecret(dir, role string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, role))
	if err != nil {
		return "", err
	}
	password := strings.TrimSpace(string(text))
	if password == "" {
		return "", fmt.Errorf("the password file %s is empty", filepath.Join(dir, role))
	}
	return password, nil
}

// secret gives the stored password of a role, and makes one the first time.
// After a crash the file is whole or absent.
func secret(dir, role string) (string, error) {
	password, err := readSecret(dir, role)
	if !errors.Is(err, fs.ErrNotExist) {
		return password, err
	}
	random := make([]byte, passwordBytes)
	rand.Read(random) // never fails, says its documentation
	password = hex.EncodeToString(random)
	if err := writeFileSync(filepath.Join(dir, role), password+"\n"); err != nil {
		return "", fmt.Errorf("store the password of role %s: %w", role, err)
	}
	return password, nil
}

// writeFileSync writes a file of mode 0600 by way of a temporary one, and
// returns once name and contents are on disk.
func writeFileSync(path, text string) (err error) {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(file.Name())
		}
	}()
	_, err = file.WriteString(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
