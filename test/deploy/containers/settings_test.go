package containers_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// TestExampleSettings compares .env.example with docker-compose.yml: it must have each setting,
// with its default and a comment.
func TestExampleSettings(t *testing.T) {
	composed, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	require.NoError(t, err)
	example, err := os.ReadFile(filepath.Join(root, ".env.example"))
	require.NoError(t, err)

	shown := map[string]string{}
	explained := false
	for line := range strings.Lines(string(example)) {
		line = strings.TrimSuffix(line, "\n")
		name, value, found := strings.Cut(strings.TrimPrefix(line, "#"), "=")
		switch {
		case found && regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`).MatchString(name):
			require.True(t, explained, "%s: no comment says what it does", name)
			require.NotContains(t, shown, name)
			shown[name] = value
		default:
			explained = strings.HasPrefix(line, "# ") && !strings.HasPrefix(line, "# ---")
		}
	}
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`\$\{([A-Z0-9_]+)(?::-([^}]*))?\}`).FindAllStringSubmatch(string(composed), -1) {
		name, value := m[1], m[2]
		used[name] = true
		require.Contains(t, shown, name, "docker-compose.yml uses it")
		switch {
		case name == "VERSION": // deploy/stack asks git
		case strings.HasPrefix(value, "${"): // another setting's value
			require.Empty(t, shown[name], name)
		default:
			require.Equal(t, value, shown[name], name)
		}
	}
	for name := range shown {
		require.Contains(t, used, name, "docker-compose.yml does not use it")
	}
}

// Files that a program rereads while it runs are mounted in a read-only folder, at the path in the
// setting's example.
func TestSettingsFolder(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	require.NoError(t, err)
	var composed struct {
		Services map[string]struct {
			Environment map[string]string
			Volumes     []string
		}
	}
	require.NoError(t, yaml.Unmarshal(data, &composed))
	for service, setting := range map[string]string{"indexer": "TAGSTREAM_DENY_FILE", "api": "TAGSTREAM_FEEDS_FILE"} {
		s := composed.Services[service]
		require.Equal(t, "${"+setting+":-}", s.Environment[setting])
		require.Equal(t, []string{"${SETTINGS_DIR:-./data/settings}:/settings:ro"}, s.Volumes)
	}
}
