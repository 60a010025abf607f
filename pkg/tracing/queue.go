package tracing

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// queue limits and counts the spans in front of a batch processor, which would drop them uncounted.
type queue struct {
	sdktrace.SpanProcessor
	collector sdktrace.SpanExporter
	logger    *slog.Logger
	waiting   atomic.Int64
	// failing reports that the last batch was not delivered.
	failing atomic.Bool

	exported, failed, dropped prometheus.Counter
}

func newQueue(collector sdktrace.SpanExporter, logger *slog.Logger, registry prometheus.Registerer) *queue {
	spans := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tagstream_traces_spans_total",
		Help: "Spans by result: exported, failed (refused by the collector) or dropped (queue full)."}, []string{"result"})
	registry.MustRegister(spans)
	return &queue{
		collector: collector, logger: logger,
		exported: spans.WithLabelValues("exported"), failed: spans.WithLabelValues("failed"), dropped: spans.WithLabelValues("dropped"),
	}
}

// OnEnd queues a span that has ended, and never waits.
func (q *queue) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	if q.waiting.Add(1) > maxWaiting {
		q.waiting.Add(-1)
		q.dropped.Inc()
		return
	}
	q.SpanProcessor.OnEnd(s)
}

// exporter returns the exporter for the batch processor behind the queue.
func (q *queue) exporter() sdktrace.SpanExporter { return queueExporter{q} }

type queueExporter struct{ q *queue }

// ExportSpans sends a batch. A failure is counted, and logged once until a batch is delivered
// again; there is no other place to report it.
func (e queueExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	q := e.q
	err := q.collector.ExportSpans(ctx, spans)
	q.waiting.Add(-int64(len(spans)))
	if err != nil {
		q.failed.Add(float64(len(spans)))
		if !q.failing.Swap(true) {
			q.logger.Warn("the collector rejects spans; they are lost, nothing else is affected", "err", err)
		}
		return nil
	}
	q.exported.Add(float64(len(spans)))
	if q.failing.Swap(false) {
		q.logger.Info("the collector accepts spans again")
	}
	return nil
}

func (e queueExporter) Shutdown(ctx context.Context) error { return e.q.collector.Shutdown(ctx) }
