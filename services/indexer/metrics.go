package indexer

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
	"github.com/tagstream/tagstream/services/indexer/internal/erase"
	"github.com/tagstream/tagstream/services/indexer/internal/prune"
)

const metricsPrefix = "tagstream_indexer_"

// metrics are the series of the indexer. All label values are known at start.
type metrics struct {
	events         *prometheus.CounterVec // by kind
	deadLetters    *prometheus.CounterVec // by reason
	waiting        prometheus.Gauge
	waitingBytes   prometheus.Gauge
	waitingLimit   prometheus.Gauge
	batch          prometheus.Histogram
	checkpoint     prometheus.Gauge
	lag            prometheus.Gauge
	lastEvent      prometheus.Gauge
	leader         prometheus.Gauge
	database       prometheus.Gauge
	prunedRows     *prometheus.CounterVec // by table
	erasedPayloads *prometheus.CounterVec // by kind
	erasePass      prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, eraseWithin time.Duration) *metrics {
	auto := promauto.With(r)
	vec := func(name, help, label string, values []string) *prometheus.CounterVec {
		v := auto.NewCounterVec(prometheus.CounterOpts{Name: metricsPrefix + name, Help: help}, []string{label})
		for _, value := range values {
			v.WithLabelValues(value)
		}
		return v
	}
	gauge := func(name, help string) prometheus.Gauge {
		return auto.NewGauge(prometheus.GaugeOpts{Name: metricsPrefix + name, Help: help})
	}
	m := &metrics{
		events:       vec("events_total", "Events applied, by kind.", "kind", names(event.Kinds)),
		deadLetters:  vec("dead_letters_total", "Messages that could not be applied, by reason.", "reason", names(apply.Reasons)),
		waiting:      gauge("dead_letters_waiting", "Stored dead letters."),
		waitingBytes: gauge("dead_letters_waiting_bytes", "Disk used by dead letters."),
		waitingLimit: gauge("dead_letters_limit_bytes", "Disk limit of dead letters, at which the indexer stops."),
		batch: auto.NewHistogram(prometheus.HistogramOpts{
			Name: metricsPrefix + "batch_duration_seconds", Help: "Time to apply a batch.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}),
		checkpoint:     gauge("checkpoint_sequence", "Stream sequence of the last message applied."),
		lag:            gauge("lag_messages", "Messages not applied yet; 0 on a standby."),
		lastEvent:      gauge("last_event_timestamp_seconds", "Network clock at the last event applied."),
		leader:         gauge("leader", "1 while this instance holds the lease."),
		database:       gauge("database_bytes", "Database size with indexes, refreshed every minute."),
		prunedRows:     vec("pruned_rows_total", "Rows pruned, by table.", "table", prune.Tables),
		erasedPayloads: vec("erased_payloads_total", "Payloads of removed posts erased, by kind.", "kind", erase.Kinds),
		erasePass:      gauge("erase_pass_timestamp_seconds", "Start of the last complete erase pass; 0 on a standby and before the first."),
	}
	within := gauge("erase_within_seconds", "Configured time from removal to erasure; 0: never.")
	within.Set(max(0, eraseWithin).Seconds())
	return m
}

func names[T ~string](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}

func (m *metrics) applied(ev *event.Event) {
	m.events.WithLabelValues(string(ev.Kind)).Inc()
	m.reached(ev.ResumeAt())
}

func (m *metrics) reached(p event.Position) {
	m.lastEvent.Set(float64(p.NetworkTime().UnixMicro()) / 1e6)
}

func (m *metrics) deadLetter(r apply.Reason) { m.deadLetters.WithLabelValues(string(r)).Inc() }

func (m *metrics) letters(s stream.DeadLettersState) {
	m.waiting.Set(float64(s.Count))
	m.waitingBytes.Set(float64(s.Bytes))
	m.waitingLimit.Set(float64(s.MaxBytes))
}

func (m *metrics) pruned(table string, rows int64) {
	m.prunedRows.WithLabelValues(table).Add(float64(rows))
}
