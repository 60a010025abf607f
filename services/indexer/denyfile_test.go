package indexer

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

func TestParseDeny(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]apply.Deny{
		"":                                     {},
		"# nothing\n":                          {},
		"accounts: []\n":                       {},
		"tags:\n":                              {},
		"accounts: [did:plc:a]\ntags: [art]\n": {Accounts: []string{"did:plc:a"}, Tags: []string{"art"}},
		"accounts:\n- did:web:a.example # spam\n- 'did:plc:b'\n":    {Accounts: []string{"did:web:a.example", "did:plc:b"}},
		"tags:\n  - Art\n  - '#Photo'\n  - 2024\n  - \"did:x y\"\n": {Tags: []string{"art", "photo", "2024", "did:x y"}},
	} {
		got, err := parseDeny([]byte(text))
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for text, says := range map[string]string{
		"accounts: [alice.example]":   "line 1: \"alice.example\" is not a DID",
		"accounts:\n- did:plc:a\n- x": "line 3",
		"accounts: did:plc:a":         "line 1",
		"accounts: [{a: b}]":          "line 1",
		"tags:\n- #art":               "line 2: not a tag",
		"tags: ['  ']":                "line 1: not a tag",
		"tags: [[a]]":                 "line 1: not a tag",
		"tag: [art]":                  "line 1",
		"did:plc:a":                   "line 1",
		"tags: [" + strings.Repeat("a,", 1001) + "]": "more than",
	} {
		_, err := parseDeny([]byte(text))
		require.ErrorContains(t, err, says, text)
	}
}

// A changed file is read again. A file that is bad, too big or missing is refused, and the previous
// lists stay.
func TestDenyFile(t *testing.T) {
	t.Parallel()
	path, log := filepath.Join(t.TempDir(), "deny.yaml"), slog.New(slog.DiscardHandler)
	_, err := openDenyFile(path, log)
	var bad *service.ConfigError
	require.ErrorAs(t, err, &bad)
	require.Equal(t, "TAGSTREAM_DENY_FILE", bad.Variable)
	none, err := openDenyFile("", log)
	require.NoError(t, err)
	require.False(t, none.changed())

	write := func(text string) {
		// Written next to it and renamed, like by an editor.
		require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(path+".new", path))
	}
	write("tags: [art]")
	f, err := openDenyFile(path, log)
	require.NoError(t, err)
	once := func() bool { f.checked = time.Time{}; return f.changed() }
	look := func() bool {
		require.False(t, once(), "it must not read a file that may be half written")
		return once()
	}
	require.False(t, look())
	require.Equal(t, []string{"art"}, f.content.Tags)
	write("tags: [ink]")
	require.False(t, f.changed(), "it must not check all the time")
	require.True(t, look())
	require.Equal(t, []string{"ink"}, f.content.Tags)
	for _, text := range []string{"tags: [ink", "accounts: [x]", "tags: [a]\n---\ntags: [b]", strings.Repeat("#", maxDenyFile+1)} {
		write(text)
		require.False(t, look())
		require.NotEmpty(t, f.logged)
		require.Equal(t, []string{"ink"}, f.content.Tags)
	}
	require.NoError(t, os.Remove(path))
	require.False(t, look())
	require.Equal(t, []string{"ink"}, f.content.Tags)
	write("")
	require.True(t, look())
	require.Equal(t, apply.Deny{}, f.content)

	// As if the program had not checked for long.
	write("tags: [late]")
	require.NoError(t, os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)))
	require.True(t, once())
	require.Equal(t, []string{"late"}, f.content.Tags)
}
