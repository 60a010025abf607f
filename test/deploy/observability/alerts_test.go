package observability_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/tagstream/tagstream/test/deploy/observability"
)

type rule struct {
	Alert, Record, Expr, For string
	Labels, Annotations      map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy", "prometheus", "alerts.yml"))
	require.NoError(t, err)
	var file struct{ Groups []struct{ Rules []rule } }
	require.NoError(t, yaml.Unmarshal(text, &file))
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

const runbooks = "https://github.com/tagstream/tagstream/blob/main/docs/operations.md#"

// TestAlerts compares the rules with the programs, the runbook and their tests.
func TestAlerts(t *testing.T) {
	t.Parallel()
	v := known(t)
	operations, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	require.NoError(t, err)
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| <a id=\"([a-z]+)\"></a>`([A-Za-z]+)` \\|").FindAllStringSubmatch(string(operations), -1) {
		require.Equal(t, m[1], strings.ToLower(m[2]), "the anchor of %s", m[2])
		documented[m[2]] = true
	}
	tested := ""
	files, err := filepath.Glob(filepath.Join(root, "deploy", "prometheus", "*_test.yml"))
	require.NoError(t, err)
	for _, f := range files {
		text, err := os.ReadFile(f)
		require.NoError(t, err)
		tested += string(text)
	}
	seen := map[string]bool{}
	for _, r := range rules(t) {
		v.check(t, "rule "+r.Alert+r.Record, r.Expr)
		if r.Alert == "" {
			continue
		}
		seen[r.Alert] = true
		require.Contains(t, []string{"critical", "warning"}, r.Labels["severity"], r.Alert)
		require.NotEmpty(t, r.Annotations["summary"], r.Alert)
		require.NotEmpty(t, r.Annotations["description"], r.Alert)
		require.Equal(t, runbooks+strings.ToLower(r.Alert), r.Annotations["runbook_url"])
		require.True(t, documented[r.Alert], "%s has no row in docs/operations.md", r.Alert)
		require.Contains(t, tested, `labels: '{alertname="`+r.Alert+`"}', value: `, "no test in which %s fires", r.Alert)
	}
	for name := range documented {
		require.True(t, seen[name], "docs/operations.md has a row for %s, which is not an alert", name)
	}
}

// promtool runs promtool in the folder of the rules.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("promtool is required here; Debian's package prometheus has it")
		}
		t.Skip("the rules are not checked: promtool is missing (Debian's package prometheus has it)")
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = filepath.Join(root, "deploy", "prometheus")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}

func TestPrometheusAcceptsConfiguration(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "config", "prometheus.yml")
}

func TestRules(t *testing.T) {
	t.Parallel()
	promtool(t, "test", "rules", "alerts_test.yml", "alerts_days_test.yml")
}

// TestPanelsParse parses every query of the dashboard with Prometheus' own parser, as rules.
func TestPanelsParse(t *testing.T) {
	t.Parallel()
	board, err := observability.Load(boardPath)
	require.NoError(t, err)
	var file struct {
		Groups []map[string]any `yaml:"groups"`
	}
	var all []map[string]string
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			all = append(all, map[string]string{"record": "panel", "expr": strings.ReplaceAll(target.Expr, "$__rate_interval", "1m")})
		}
	}
	file.Groups = []map[string]any{{"name": "panels", "rules": all}}
	text, err := yaml.Marshal(file)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "panels.yml")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	promtool(t, "check", "rules", "--lint=none", path)
}
