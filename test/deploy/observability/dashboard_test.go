package observability_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/test/deploy/observability"
)

var boardPath = filepath.Join(root, "deploy", "grafana", "dashboards", "tagstream.json")

// grafanas is Grafana's type of a dashboard.
type grafanas = dashboard.Dashboard //nolint:staticcheck // provisioning reads the first version of the format

// TestDashboardMatchesGrafana decodes the dashboard with Grafana's own types, which refuse unknown
// fields.
func TestDashboardMatchesGrafana(t *testing.T) {
	t.Parallel()
	types := cog.NewRuntime()
	types.RegisterPanelcfgVariant(stat.VariantConfig())
	types.RegisterPanelcfgVariant(timeseries.VariantConfig())
	types.RegisterDataqueryVariant(prometheus.VariantConfig())
	text, err := os.ReadFile(boardPath)
	require.NoError(t, err)
	require.Empty(t, strictly(t, text))
	misspelt := bytes.Replace(text, []byte(`"legendFormat"`), []byte(`"legend"`), 1)
	require.Len(t, strictly(t, misspelt), 1)

	var d grafanas
	require.NoError(t, json.Unmarshal(text, &d))
	require.NoError(t, d.Validate())
	for i, p := range d.Panels {
		require.True(t, p.Panel != nil || p.RowPanel != nil, "panel %d was read", i)
	}
}

// strictly returns the errors of Grafana's types. Their error is a list, and not nil even if it is
// empty.
func strictly(t *testing.T, text []byte) (problems cog.BuildErrors) {
	t.Helper()
	var d grafanas
	if err := d.UnmarshalJSONStrict(text); !errors.As(err, &problems) {
		require.NoError(t, err)
	}
	return problems
}

func TestDashboard(t *testing.T) {
	t.Parallel()
	board, err := observability.Load(boardPath)
	require.NoError(t, err)
	v := known(t)
	ids, cells := map[int]bool{}, map[[2]int]string{}
	var rows []string
	for _, p := range board.Panels {
		require.False(t, ids[p.ID], "panel %q has a duplicate id", p.Title)
		ids[p.ID] = true
		g := p.GridPos
		require.True(t, g.X >= 0 && g.X+g.W <= 24 && g.W > 0 && g.H > 0, p.Title)
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				require.Empty(t, cells[[2]int{x, y}], "panel %q overlaps another one", p.Title)
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		require.NotEmpty(t, p.Description, p.Title)
		require.NotEmpty(t, p.FieldConfig.Defaults.Unit, p.Title)
		require.NotEmpty(t, p.FieldConfig.Defaults.Thresholds.Steps, p.Title)
		require.NotEmpty(t, p.Targets, p.Title)
		for i, target := range p.Targets {
			v.check(t, fmt.Sprintf("panel %q, query %d", p.Title, i+1), target.Expr)
		}
	}
	require.Subset(t, rows, []string{"Freshness", "Lag", "Throughput", "Page latency by route", "Rows per page", "Dead letters and erasure", "Disk"})
}
