package cmd

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/keyset"
)

func runProgram(t testing.TB, args []string, environ ...string) (exit int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	exit = Program().Run(t.Context(), args, environ, &stdout, &stderr)
	return exit, stdout.String(), stderr.String()
}

// Invariant: bad configuration gives one line that names the variable, and exit code 2, and nothing
// is started. test/e2e checks the same for all programs.
func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := filepath.Join(dir, "keys")
	require.NoError(t, keyset.CreateKeys(good))
	open := filepath.Join(dir, "open")
	require.NoError(t, os.WriteFile(open, []byte("x"), 0o644))
	const database = "TAGSTREAM_DATABASE_URL=postgres://db.example/tagstream"
	keys := "TAGSTREAM_CURSOR_KEYS_FILE=" + good
	for _, c := range []struct {
		name    string
		args    []string
		environ []string
		want    []string
	}{
		{"no keys", nil, []string{database}, []string{"TAGSTREAM_CURSOR_KEYS_FILE", "api keys --out"}},
		{"a missing keys file", nil, []string{database, "TAGSTREAM_CURSOR_KEYS_FILE=" + filepath.Join(dir, "none")}, []string{"TAGSTREAM_CURSOR_KEYS_FILE", "api keys --out"}},
		{"keys readable by everyone", nil, []string{database, "TAGSTREAM_CURSOR_KEYS_FILE=" + open}, []string{"TAGSTREAM_CURSOR_KEYS_FILE", "chmod"}},
		{"no database", nil, []string{keys}, []string{"TAGSTREAM_DATABASE_URL"}},
		{"bad database", nil, []string{keys, "TAGSTREAM_DATABASE_URL=postgres://%"}, []string{"TAGSTREAM_DATABASE_URL"}},
		{"bad address", []string{"--api-listen=nowhere"}, []string{keys, database}, []string{"TAGSTREAM_API_LISTEN"}},
		{"bad ops address", []string{"--ops-listen=nowhere"}, []string{keys, database}, []string{"TAGSTREAM_OPS_LISTEN"}},
		{"bad level", []string{"--log-level=loud"}, []string{keys, database}, []string{"TAGSTREAM_LOG", "loud"}},
		{"misspelt variable", nil, []string{keys, database, "TAGSTREAM_API_LISTN=x"}, []string{"TAGSTREAM_API_LISTN"}},
		{"feeds without a file", []string{"feeds", "check"}, nil, []string{"TAGSTREAM_FEEDS_FILE"}},
		{"feeds without a URL", []string{"feeds", "record", "art", "--feeds-file=" + good}, nil, []string{"TAGSTREAM_PUBLIC_URL"}},
		{"a bad feeds file", []string{"feeds", "check", "--feeds-file=" + good, "--public-url=https://tags.example"}, nil, []string{"TAGSTREAM_FEEDS_FILE", good}},
		{"keys without --out", []string{"keys"}, nil, []string{"--out"}},
		{"keys that exist", []string{"keys", "--out", good}, nil, []string{"--out: " + good + " already exists"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			exit, _, errs := runProgram(t, c.args, c.environ...)
			require.Equal(t, 2, exit, errs)
			require.Equal(t, 1, strings.Count(errs, "\n"), errs)
			for _, want := range c.want {
				require.Contains(t, errs, want)
			}
		})
	}
}

func TestKeysCommand(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys")
	exit, _, errs := runProgram(t, []string{"keys", "--out", path})
	require.Zero(t, exit, errs)
	keys, err := keyset.LoadKeys(path)
	require.NoError(t, err)
	require.Len(t, keys, 1)
}
