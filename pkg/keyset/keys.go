package keyset

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// MinSecret is the least length of a key's secret, in bytes.
const MinSecret = 32

// maxKeysFile is the largest keys file that is read, in bytes.
const maxKeysFile = 1 << 16

const idLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

// Key signs tokens. Printing or logging it shows its id only.
type Key struct {
	id     string
	secret []byte
}

// NewKey returns a key. The id is 1 to 32 letters, digits, dots, dashes or
// underscores; the secret at least [MinSecret] random bytes.
func NewKey(id string, secret []byte) (Key, error) {
	if id == "" || len(id) > 32 || strings.TrimLeft(id, idLetters) != "" {
		return Key{}, errors.New("a key's id must be 1 to 32 letters, digits, '.', '-' or '_'")
	}
	if len(secret) < MinSecret {
		return Key{}, fmt.Errorf("secret of key %q has %d bytes: at least %d are needed", id, len(secret), MinSecret)
	}
	return Key{id: id, secret: bytes.Clone(secret)}, nil
}

// ID returns the key's id.
func (k Key) ID() string { return k.id }

// String returns the key's id; the secret is never shown.
func (k Key) String() string { return "key " + k.id }

// GoString is String, so that %#v shows no secret either.
func (k Key) GoString() string { return k.String() }

// LogValue returns the key's id.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.id) }

func (k Key) tag() keyTag {
	sum := sha256.Sum256([]byte(k.id))
	return keyTag(sum[:len(keyTag{})])
}

func checkKeys(keys []Key) error {
	if len(keys) == 0 {
		return errors.New("no keys: at least one is needed to sign tokens")
	}
	tags := make(map[keyTag]string, len(keys))
	secrets := make(map[string]string, len(keys))
	for _, k := range keys {
		if len(k.secret) < MinSecret {
			return fmt.Errorf("key %q has no secret of at least %d bytes", k.id, MinSecret)
		}
		switch other, taken := tags[k.tag()]; {
		case taken && other == k.id:
			return fmt.Errorf("key id %q is used twice", k.id)
		case taken:
			return fmt.Errorf("key ids %q and %q cannot be told apart in tokens: rename one", other, k.id)
		}
		if other, taken := secrets[string(k.secret)]; taken {
			return fmt.Errorf("keys %q and %q have the same secret", other, k.id)
		}
		tags[k.tag()], secrets[string(k.secret)] = k.id, k.id
	}
	return nil
}

// ParseKeys reads keys from the text of a keys file. Each line is
//
//	id:secret
//
// with the secret in hex or in base64 (either alphabet, with or without padding; a secret that is
// valid hex is hex). Blank lines and lines that start with # are skipped. The first key signs, all
// verify. To rotate keys, add the new key below the old one everywhere, then move it to the top
// everywhere, and remove the old one when its tokens may become invalid. Errors name the line and
// never show a secret.
func ParseKeys(text []byte) ([]Key, error) {
	var keys []Key
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, encoded, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("line %d: want id:secret", n)
		}
		secret, err := decodeSecret(strings.TrimSpace(encoded))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		key, err := NewKey(strings.TrimSpace(id), secret)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		keys = append(keys, key)
		if err := checkKeys(keys); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	if err := checkKeys(keys); err != nil {
		return nil, err
	}
	return keys, nil
}

func decodeSecret(s string) ([]byte, error) {
	if secret, err := hex.DecodeString(s); err == nil {
		return secret, nil
	}
	s = strings.TrimRight(s, "=")
	s = strings.NewReplacer("-", "+", "_", "/").Replace(s)
	secret, err := base64.RawStdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("the secret is neither hex nor base64") // err would quote it
	}
	return secret, nil
}

// LoadKeys reads a keys file; see [ParseKeys] for its format. It refuses a file that everyone can
// read or that others than its owner can write: anyone with a secret can make tokens. Errors name
// the file; the error for a missing file is [os.ErrNotExist].
func LoadKeys(path string) ([]Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open keys file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("inspect keys file: %w", err)
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return nil, fmt.Errorf("keys file %s is not a regular file", path)
	case mode.Perm()&0o027 != 0:
		return nil, fmt.Errorf("keys file %s has mode %04o, open to others: run chmod 600 %s", path, mode.Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeysFile+1))
	if err != nil {
		return nil, fmt.Errorf("read keys file: %w", err)
	}
	if len(text) > maxKeysFile {
		return nil, fmt.Errorf("keys file %s is longer than %d bytes", path, maxKeysFile)
	}
	keys, err := ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("keys file %s: %w", path, err)
	}
	return keys, nil
}

// CreateKeys writes a keys file with one new random key, readable by its owner only. The file
// appears whole or not at all, and is on disk when CreateKeys returns. An existing file is never
// changed: the error is then [os.ErrExist], and its keys can be loaded.
func CreateKeys(path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("create keys file %s: %w", path, err)
		}
	}()
	var id [3]byte
	var secret [MinSecret]byte
	rand.Read(id[:])     // never fails
	rand.Read(secret[:]) // never fails
	text := fmt.Sprintf("# Keys that sign page tokens, one id:secret a line. The first signs, all verify.\n"+
		"# Who has a secret can make tokens: keep this file private.\nk%x:%s\n",
		id, base64.RawURLEncoding.EncodeToString(secret[:]))

	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".keys-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	// A link, unlike a rename, does not replace a file that exists.
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
