package keyset_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/keyset"
)

// secretBytes has both characters in which the base64 alphabets differ.
var secretBytes = bytes.Repeat([]byte{0xfb, 0xff, 0x3e, 0x01}, 9)[:keyset.MinSecret]

func TestParseKeys(t *testing.T) {
	t.Parallel()
	want, err := keyset.NewKey("k1", secretBytes)
	require.NoError(t, err)
	other := hex.EncodeToString(bytes.Repeat([]byte{2}, 40))
	for name, text := range map[string]string{
		"hex":             "k1:" + hex.EncodeToString(secretBytes),
		"upper-case hex":  "k1:" + strings.ToUpper(hex.EncodeToString(secretBytes)),
		"base64":          "k1:" + base64.StdEncoding.EncodeToString(secretBytes),
		"unpadded base64": "k1:" + base64.RawStdEncoding.EncodeToString(secretBytes),
		"URL base64":      "k1:" + base64.URLEncoding.EncodeToString(secretBytes),
		"comments, space": "# signing keys\r\n\r\n \t k1 : " + hex.EncodeToString(secretBytes) + " \r\n  # old\r\nk0:" + other + "\r\n",
		"more keys":       "k1:" + hex.EncodeToString(secretBytes) + "\nk0:" + other,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys, err := keyset.ParseKeys([]byte(text))
			require.NoError(t, err)
			require.Equal(t, want, keys[0])
		})
	}
}

func TestParseKeysRefuses(t *testing.T) {
	t.Parallel()
	good := hex.EncodeToString(secretBytes)
	other := hex.EncodeToString(bytes.Repeat([]byte{2}, 40))
	for name, test := range map[string]struct{ text, want string }{
		"nothing":         {"", "no keys"},
		"only comments":   {"# k1:" + good + "\n\n", "no keys"},
		"no colon":        {"# keys\n" + good, "line 2: want id:secret"},
		"no id":           {":" + good, "line 1: a key's id must be"},
		"odd id":          {"k 1:" + good, "line 1: a key's id must be"},
		"long id":         {strings.Repeat("k", 33) + ":" + good, "line 1: a key's id must be"},
		"no secret":       {"k1:", `secret of key "k1" has 0 bytes`},
		"short secret":    {"k1:" + good[:62], `line 1: secret of key "k1" has 31 bytes: at least 32 are needed`},
		"neither":         {"k1:" + good + "!", "line 1: the secret is neither hex nor base64"},
		"id twice":        {"k1:" + good + "\nk1:" + other, `line 2: key id "k1" is used twice`},
		"secret twice":    {"k1:" + good + "\nk2:" + good, `line 2: keys "k1" and "k2" have the same secret`},
		"endless line":    {"k1:" + strings.Repeat("ab", 1<<17), "read keys"},
		"secret unquoted": {"k1:hunter2hunter2hunter2hunter2hunter2!\n", "neither"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := keyset.ParseKeys([]byte(test.text))
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "hunter2")
			require.NotContains(t, err.Error(), good[:8])
		})
	}
	_, err := keyset.NewCodec()
	require.ErrorContains(t, err, "no keys")
	_, err = keyset.NewCodec(keyset.Key{})
	require.ErrorContains(t, err, "has no secret")
}

func TestKeyShowsNoSecret(t *testing.T) {
	t.Parallel()
	k, err := keyset.NewKey("k1", []byte("hunter2-hunter2-hunter2-hunter2-hunter2"))
	require.NoError(t, err)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("loaded", "key", k, "keys", []keyset.Key{k})
	text, err := json.Marshal(k) //nolint:staticcheck // that it shows nothing is the point
	require.NoError(t, err)
	shown := fmt.Sprintf("%v %+v %#v %s %v %+v", k, k, k, k, []keyset.Key{k}, struct{ K keyset.Key }{k}) + log.String() + string(text)
	require.NotContains(t, shown, "hunter2")
	require.NotContains(t, shown, fmt.Sprint([]byte("hunter2"))[1:20])
	require.Contains(t, shown, "k1")
}

func TestCreateKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "cursor.keys")
	_, err := keyset.LoadKeys(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, path)

	require.NoError(t, keyset.CreateKeys(path))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode())
	first, err := keyset.LoadKeys(path)
	require.NoError(t, err)
	require.Len(t, first, 1)
	_, err = keyset.NewCodec(first...)
	require.NoError(t, err)

	require.ErrorIs(t, keyset.CreateKeys(path), fs.ErrExist)
	again, err := keyset.LoadKeys(path)
	require.NoError(t, err)
	require.Equal(t, first, again, "an existing file is left alone")

	second := filepath.Join(dir, "second.keys")
	require.NoError(t, keyset.CreateKeys(second))
	other, err := keyset.LoadKeys(second)
	require.NoError(t, err)
	require.NotEqual(t, first, other)

	require.ErrorIs(t, keyset.CreateKeys(filepath.Join(dir, "absent", "cursor.keys")), fs.ErrNotExist)
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, names, 2, "nothing else is left behind")
}

// If many callers create the file at the same time, one succeeds, and all can load its key.
func TestCreateKeysAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "cursor.keys")
	type result struct {
		id  string
		err error
	}
	results := make(chan result, 8)
	for range cap(results) {
		go func() {
			r := result{err: keyset.CreateKeys(path)}
			keys, err := keyset.LoadKeys(path)
			if err == nil {
				r.id = keys[0].ID()
			}
			results <- r
		}()
	}
	created, ids := 0, map[string]bool{}
	for range cap(results) {
		r := <-results
		if r.err == nil {
			created++
		} else {
			require.ErrorIs(t, r.err, fs.ErrExist)
		}
		ids[r.id] = true
	}
	require.Equal(t, 1, created)
	require.Len(t, ids, 1)
	require.NotContains(t, ids, "")
}

func TestLoadKeysRefusesOpenFiles(t *testing.T) {
	t.Parallel()
	text := []byte("k1:" + hex.EncodeToString(secretBytes) + "\n")
	for mode, want := range map[fs.FileMode]string{
		0o600: "",
		0o400: "",
		0o440: "", // a group may read: orchestrators mount secrets so
		0o640: "",
		0o644: "has mode 0644, open to others: run chmod 600",
		0o660: "has mode 0660, open to others: run chmod 600",
		0o604: "has mode 0604",
		0o602: "has mode 0602",
	} {
		t.Run(fmt.Sprintf("%04o", mode), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "cursor.keys")
			require.NoError(t, os.WriteFile(path, text, 0o600))
			require.NoError(t, os.Chmod(path, mode))
			_, err := keyset.LoadKeys(path)
			if want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, want)
			require.ErrorContains(t, err, path)
		})
	}
	t.Run("directory", func(t *testing.T) {
		t.Parallel()
		_, err := keyset.LoadKeys(t.TempDir())
		require.ErrorContains(t, err, "is not a regular file")
	})
	t.Run("too long", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "cursor.keys")
		require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte("# keys\n"), 1<<14), 0o600))
		_, err := keyset.LoadKeys(path)
		require.ErrorContains(t, err, "is longer than 65536 bytes")
	})
	t.Run("bad line", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "cursor.keys")
		require.NoError(t, os.WriteFile(path, []byte("nonsense\n"), 0o600))
		_, err := keyset.LoadKeys(path)
		require.ErrorContains(t, err, "keys file "+path+": line 1: want id:secret")
	})
}
