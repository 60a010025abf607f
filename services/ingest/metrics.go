package ingest

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/services/ingest/internal/decode"
	"github.com/tagstream/tagstream/services/ingest/internal/firehose"
	"github.com/tagstream/tagstream/services/ingest/internal/profiles"
)

const metricsPrefix = "tagstream_ingest_"

// Kinds of upstream events, as counted when read.
const (
	readCreate   = "create"
	readUpdate   = "update"
	readDelete   = "delete"
	readProfile  = "profile"
	readIdentity = "identity"
	readAccount  = "account"
	readSync     = "sync"
	readOther    = "other"
)

var readKinds = []string{readCreate, readUpdate, readDelete, readProfile, readIdentity, readAccount, readSync, readOther}

// metrics are the series of ingest. All label values are known at start.
type metrics struct {
	read         *prometheus.CounterVec // by kind
	dropped      *prometheus.CounterVec // by reason
	published    *prometheus.CounterVec // by kind
	backfilled   prometheus.Counter
	tagsDropped  prometheus.Counter
	timesRefused prometheus.Counter
	connections  *prometheus.CounterVec // by what happened
	clientErrors prometheus.Counter
	connected    prometheus.Gauge
	upstreamSeq  prometheus.Gauge
	eventTime    prometheus.Gauge
	receivedTime prometheus.Gauge
	appendTime   prometheus.Histogram
	batchEvents  prometheus.Histogram
	retries      prometheus.Counter
	fenced       prometheus.Counter
	full         prometheus.Gauge
	lease        prometheus.Gauge
	streamFirst  prometheus.Gauge
	streamLast   prometheus.Gauge
	streamBytes  prometheus.Gauge
	streamMax    prometheus.Gauge
	streamMaxAge prometheus.Gauge
	storage      prometheus.Gauge
	storageMax   prometheus.Gauge
	logDropped   prometheus.Counter
	authors      *prometheus.CounterVec // looked up, by fate
	lookUps      *prometheus.CounterVec // by outcome
}

// Author and Request implement profiles.Observer.
func (m *metrics) Author(fate profiles.Fate, n int) {
	m.authors.WithLabelValues(string(fate)).Add(float64(n))
}

func (m *metrics) Request(outcome profiles.Outcome) {
	m.lookUps.WithLabelValues(string(outcome)).Inc()
}

func newMetrics(r prometheus.Registerer) *metrics {
	auto := promauto.With(r)
	vec := func(name, help, label string, values []string) *prometheus.CounterVec {
		v := auto.NewCounterVec(prometheus.CounterOpts{Name: metricsPrefix + name, Help: help}, []string{label})
		for _, value := range values {
			v.WithLabelValues(value)
		}
		return v
	}
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: metricsPrefix + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return auto.NewGauge(prometheus.GaugeOpts{Name: metricsPrefix + name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return auto.NewHistogram(prometheus.HistogramOpts{Name: metricsPrefix + name, Help: help, Buckets: buckets})
	}
	return &metrics{
		read:         vec("events_read_total", "Upstream events read, by kind.", "kind", readKinds),
		dropped:      vec("events_dropped_total", "Upstream events not published, by reason.", "reason", names(decode.DropReasons)),
		published:    vec("events_published_total", "Events acknowledged by the stream, by kind.", "kind", names(event.Kinds)),
		backfilled:   counter("events_backfilled_total", "Events published by backfill."),
		tagsDropped:  counter("tags_dropped_total", "Malformed, oversize or excess tags of published posts."),
		timesRefused: counter("account_times_refused_total", "Account events without a usable upstream time, ordered by host time instead."),
		connections:  vec("connections_total", "Connection events of Jetstream hosts.", "what", names(firehose.NoticeKinds)),
		clientErrors: counter("client_errors_total", "Errors from which the Jetstream client recovered."),
		connected:    gauge("connected", "1 while connected to a Jetstream host."),
		upstreamSeq:  gauge("upstream_sequence", "Host sequence of the last event read."),
		eventTime:    gauge("upstream_event_timestamp_seconds", "Network clock at the last event read."),
		receivedTime: gauge("last_received_timestamp_seconds", "Time of the last read."),
		appendTime:   histogram("append_duration_seconds", "Time until a batch is acknowledged.", prometheus.ExponentialBuckets(0.0005, 2, 14)),
		batchEvents:  histogram("batch_events", "Events in a batch.", prometheus.ExponentialBuckets(1, 4, 6)),
		retries:      counter("append_retries_total", "Retried appends."),
		fenced:       counter("fenced_total", "Appends refused because another writer had written."),
		full:         gauge("stream_full", "1 while the stream has no room; reading waits."),
		lease:        gauge("lease_held", "1 while this instance holds the lease."),
		streamFirst:  gauge("stream_first_sequence", "Sequence of the stream's first message."),
		streamLast:   gauge("stream_last_sequence", "Sequence of the stream's last message."),
		streamBytes:  gauge("stream_bytes", "Size of the stream on disk."),
		streamMax:    gauge("stream_limit_bytes", "Size beyond which the stream is trimmed; 0: never."),
		streamMaxAge: gauge("stream_limit_age_seconds", "Age beyond which messages are trimmed; 0: never."),
		storage:      gauge("storage_bytes", "Disk used by all streams of the NATS account."),
		storageMax:   gauge("storage_limit_bytes", "The account's disk limit; 0: none."),
		logDropped:   counter("log_entries_dropped_total", "Ingest log entries that could not be stored."),
		authors:      vec("authors_total", "Authors to look up, by fate.", "fate", names(profiles.Fates)),
		lookUps:      vec("author_requests_total", "Requests for authors, by outcome.", "outcome", names(profiles.Outcomes)),
	}
}

func names[T ~string](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}

func set(g prometheus.Gauge, on bool) {
	if on {
		g.Set(1)
	} else {
		g.Set(0)
	}
}
