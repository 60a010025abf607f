package indexer

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
	"github.com/tagstream/tagstream/services/indexer/internal/erase"
	"github.com/tagstream/tagstream/services/indexer/internal/prune"
)

type metrics struct {
	events      *prometheus.CounterVec
	deadLetters *prometheus.CounterVec
	batch       prometheus.Histogram
	checkpoint  prometheus.Gauge
	lag         prometheus.Gauge
	lastEvent   prometheus.Gauge
	leader      prometheus.Gauge
	prunedRows  *prometheus.CounterVec
	erased      *prometheus.CounterVec
	erasePass   prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tagstream_indexer_events_total", Help: "Events folded into the index, by kind."}, []string{"kind"}),
		deadLetters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tagstream_indexer_dead_letters_total", Help: "Messages that could not be applied, by reason."}, []string{"reason"}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tagstream_indexer_batch_seconds", Help: "Time to apply one batch in one transaction.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}),
		checkpoint: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tagstream_indexer_checkpoint_seq", Help: "Stream sequence of the last message folded in."}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tagstream_indexer_lag_messages", Help: "Messages of the stream that are not folded in yet."}),
		lastEvent: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tagstream_indexer_last_event_timestamp_seconds", Help: "Upstream time of the last event folded in."}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tagstream_indexer_leader", Help: "1 while this indexer has the lease."}),
		prunedRows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tagstream_indexer_pruned_rows_total", Help: "Rows deleted because nothing needs them any more, by table."}, []string{"table"}),
		erased: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tagstream_indexer_erased_total", Help: "Payloads of removed posts erased from the stream and the dead letters, by kind."}, []string{"kind"}),
		erasePass: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tagstream_indexer_erase_pass_timestamp_seconds", Help: "When the last complete pass of erasing began; 0 on a standby and before the first."}),
	}
	r.MustRegister(m.events, m.deadLetters, m.batch, m.checkpoint, m.lag, m.lastEvent, m.leader, m.prunedRows, m.erased, m.erasePass)
	for _, table := range prune.Tables {
		m.prunedRows.WithLabelValues(table)
	}
	for _, kind := range erase.Kinds {
		m.erased.WithLabelValues(kind)
	}
	for _, k := range event.Kinds {
		m.events.WithLabelValues(string(k))
	}
	for _, reason := range apply.Reasons {
		m.deadLetters.WithLabelValues(string(reason))
	}
	return m
}

func (m *metrics) applied(ev *event.Event) {
	m.events.WithLabelValues(string(ev.Kind)).Inc()
	m.lastEvent.Set(float64(ev.Checkpoint().Time.UnixMicro()) / 1e6)
}

func (m *metrics) deadLetter(r apply.Reason) { m.deadLetters.WithLabelValues(string(r)).Inc() }

func (m *metrics) pruned(table string, rows int64) {
	m.prunedRows.WithLabelValues(table).Add(float64(rows))
}
