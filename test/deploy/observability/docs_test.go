package observability_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/metrics.md")

const docsHead = `# Metrics

Generated from the programs' registries by ` + "`make generate-metrics`" + `; do not edit. Each program
serves its metrics under ` + "`/metrics`" + ` on the ops listener (` + "`TAGSTREAM_OPS_LISTEN`" + `), with those of the
Go runtime and the process; ` + "`bin/tagstream`" + ` serves all of them. Names in ` + "`_total`" + ` are counters,
histograms say so, the others are gauges. Every series exists from the start, at zero, and labels
have no other values than these. Times are Unix seconds: ` + "`time() - x`" + ` grows while a program hangs.
`

// TestDocs compares docs/metrics.md with what the programs serve.
func TestDocs(t *testing.T) {
	t.Parallel()
	all := programs(t)
	var b strings.Builder
	b.WriteString(docsHead)
	for _, program := range []string{"ingest", "indexer", "api"} {
		fmt.Fprintf(&b, "\n## %s\n\n", program)
		described := map[string]bool{}
		for _, f := range families(t, all[program]) {
			values := map[string]map[string]bool{}
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if values[l.GetName()] == nil {
						values[l.GetName()] = map[string]bool{}
					}
					values[l.GetName()][l.GetValue()] = true
				}
			}
			var labels []string
			for _, name := range slices.Sorted(maps.Keys(values)) {
				// A long list is complete only at the first metric that has it.
				text := name + ": " + strings.Join(slices.Sorted(maps.Keys(values[name])), ", ")
				if described[text] {
					text = name + ": as above"
				}
				described[name+": "+strings.Join(slices.Sorted(maps.Keys(values[name])), ", ")] = true
				labels = append(labels, text)
			}
			if f.GetName() == "tagstream_build_info" {
				labels = []string{"version"}
			}
			help := f.GetHelp()
			if f.GetType() == dto.MetricType_HISTOGRAM {
				help += " Histogram."
			}
			suffix := ""
			if len(labels) > 0 {
				suffix = " (" + strings.Join(labels, "; ") + ")"
			}
			fmt.Fprintf(&b, "- `%s`%s: %s\n", f.GetName(), suffix, help)
		}
	}
	path := filepath.Join(root, "docs", "metrics.md")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
	}
	have, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, b.String(), string(have), "run make generate-metrics")
}
