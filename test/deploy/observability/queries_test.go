package observability_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metricsql"
	"github.com/stretchr/testify/require"
)

const (
	root     = "../../.."
	patience = 20 * time.Second
)

// foreign are the metrics and labels of other programs in queries: of the exporters, the proxy,
// Prometheus itself and the Go runtime.
var foreign = map[string][]string{
	"up":                            nil,
	"ALERTS":                        {"alertstate"},
	"process_resident_memory_bytes": nil, "process_cpu_seconds_total": nil,
	"haproxy_backend_active_servers": {"proxy"},
	"node_filesystem_avail_bytes":    {"mountpoint"}, "node_filesystem_size_bytes": {"mountpoint"}, "node_filesystem_free_bytes": {"mountpoint"},
	"pg_stat_activity_count": {"state"}, "pg_settings_max_connections": nil, "pg_stat_replication_pg_wal_lsn_diff": nil,
	"prometheus_rule_evaluation_failures_total": nil,
	"mountpoint:disk_left:ratio":                {"mountpoint"}, // our rule
}

// vocabulary has every metric that queries may name, with its labels and their values; a label
// without values may have any.
type vocabulary map[string]map[string][]string

func known(t *testing.T) vocabulary {
	t.Helper()
	v := vocabulary{}
	add := func(metric, label, value string) {
		if v[metric] == nil {
			v[metric] = map[string][]string{"job": nil, "instance": nil}
		}
		if label != "" {
			v[metric][label] = append(v[metric][label], value)
		}
	}
	for _, r := range programs(t) {
		for _, f := range families(t, r) {
			for _, m := range f.GetMetric() {
				names := []string{f.GetName()}
				if m.GetHistogram() != nil {
					names = []string{f.GetName() + "_bucket", f.GetName() + "_sum", f.GetName() + "_count"}
				}
				for _, n := range names {
					add(n, "", "")
					for _, l := range m.GetLabel() {
						add(n, l.GetName(), l.GetValue())
					}
				}
				if m.GetHistogram() != nil {
					v[names[0]]["le"] = nil
				}
			}
		}
	}
	for metric, labels := range foreign {
		add(metric, "", "")
		for _, l := range labels {
			v[metric][l] = nil
		}
	}
	return v
}

// check fails if a query names an unknown metric, label or value of a label.
func (v vocabulary) check(t *testing.T, where, query string) {
	t.Helper()
	e, err := metricsql.Parse(strings.ReplaceAll(query, "$__rate_interval", "1m"))
	require.NoError(t, err, where)
	labels := map[string]bool{} // that some metric of the query has
	var grouped []string
	metricsql.VisitAll(e, func(e metricsql.Expr) {
		switch e := e.(type) {
		case *metricsql.MetricExpr:
			for _, filters := range e.LabelFilterss {
				require.Equal(t, "__name__", filters[0].Label, where)
				metric := filters[0].Value
				require.Contains(t, v, metric, "%s: no program has it", where)
				for l := range v[metric] {
					labels[l] = true
				}
				for _, f := range filters[1:] {
					values, ok := v[metric][f.Label]
					require.True(t, ok, "%s: %s has no label %s", where, metric, f.Label)
					if values == nil || strings.ContainsAny(f.Value, ".+*") {
						continue
					}
					for value := range strings.SplitSeq(f.Value, "|") {
						require.True(t, slices.Contains(values, value), "%s: %s is never %q in %s", where, f.Label, value, metric)
					}
				}
			}
		case *metricsql.ModifierExpr:
			grouped = append(grouped, e.Args...)
		}
	})
	for _, l := range grouped {
		require.True(t, labels[l], "%s: no metric there has the label %s", where, l)
	}
}

func TestCheckFindsErrors(t *testing.T) {
	t.Parallel()
	v := known(t)
	fails := func(query string) bool {
		var probe testing.T
		done := make(chan struct{})
		go func() { // FailNow ends the goroutine
			defer close(done)
			v.check(&probe, "here", query)
		}()
		<-done
		return probe.Failed()
	}
	require.False(t, fails(`sum by (kind) (rate(tagstream_ingest_events_read_total{kind="create"}[$__rate_interval]))`))
	for _, query := range []string{
		`sum(`, `tagstream_ingest_no_such_total`, `tagstream_ingest_connected{host="a"}`,
		`tagstream_ingest_connections_total{what="no such"}`, `sum by (reason) (tagstream_ingest_events_read_total)`,
	} {
		require.True(t, fails(query), query)
	}
}
