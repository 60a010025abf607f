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

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/metrics.md anew")

const docsHead = `# Metrics

Made from the programs' registries by ` + "`make generate-metrics`" + `; do not edit. Each program shows these under ` + "`/metrics`" + ` on its operators' listener
(` + "`TAGSTREAM_OPS_LISTEN`" + `), ` + "`bin/tagstream`" + ` all of them, and those of the Go runtime and the process (` + "`go_`, `process_`" + `). Every series is there from
the start, at zero, and a label has no other values than these. Times are Unix seconds, so ` + "`time() - x`" + ` is an age that grows also when a program is stuck.
With ` + "`TAGSTREAM_TRACES_URL`" + ` set each program also has ` + "`tagstream_traces_spans_total`" + ` ([traces](operations.md#traces)).
`

// TestDocs compares docs/metrics.md with what the programs show.
func TestDocs(t *testing.T) {
	t.Parallel()
	all := programs(t)
	var b strings.Builder
	b.WriteString(docsHead)
	for _, program := range []string{"ingest", "indexer", "api"} {
		fmt.Fprintf(&b, "\n## %s\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n", program)
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
				labels = append(labels, fmt.Sprintf("`%s`: %s", name, strings.Join(slices.Sorted(maps.Keys(values[name])), ", ")))
			}
			if f.GetName() == "tagstream_build_info" {
				labels = []string{"`version`"}
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, "; "), f.GetHelp())
		}
	}
	path := filepath.Join(root, "docs", "metrics.md")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
	}
	have, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, b.String(), string(have), "make generate-metrics writes it anew")
}
