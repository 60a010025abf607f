package ingest

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/tracing"
)

// traceEvent starts an event's trace, if it is sampled: a span from the event's delivery by the
// firehose until it is ready to publish, and the traceparent that it carries. The span does not
// identify the author (package tracing).
func (s *Service) traceEvent(ctx context.Context, ev *event.Event, received time.Time) {
	if s.tracer == nil {
		return
	}
	_, span := s.tracer.Start(ctx, "create "+stream.Posts, trace.WithNewRoot(), trace.WithTimestamp(received), trace.WithSpanKind(trace.SpanKindProducer))
	defer span.End()
	if !span.SpanContext().IsSampled() {
		return
	}
	span.SetAttributes(
		semconv.MessagingSystemKey.String("nats"), semconv.MessagingDestinationName(stream.Posts), semconv.MessagingOperationTypeCreate,
		semconv.MessagingOperationName("create"),
		attribute.String("tagstream.event.kind", string(ev.Kind)),
		attribute.String("tagstream.upstream.host", ev.Source.Host),
		attribute.Int64("tagstream.upstream.seq", int64(ev.Source.Seq)),
		attribute.String("tagstream.upstream.time", ev.Source.Time.Format(time.RFC3339Nano)))
	ev.Traceparent = tracing.Traceparent(span.SpanContext())
}

// traceAppend records that events are in the stream, and how long that took. One write covers many
// events: its span is in the trace of the first traced event, and is linked to all of them.
func (s *Service) traceAppend(events []*event.Event, took time.Duration) {
	if s.tracer == nil {
		return
	}
	links := tracing.Links(func(yield func(string) bool) {
		for _, ev := range events {
			if !yield(ev.Traceparent) {
				return
			}
		}
	})
	if len(links) == 0 {
		return
	}
	parent := trace.ContextWithSpanContext(context.Background(), links[0].SpanContext.WithRemote(false))
	_, span := s.tracer.Start(parent, "send "+stream.Posts, trace.WithTimestamp(time.Now().Add(-took)), trace.WithSpanKind(trace.SpanKindClient),
		trace.WithLinks(links...), trace.WithAttributes(
			semconv.MessagingSystemKey.String("nats"), semconv.MessagingDestinationName(stream.Posts), semconv.MessagingOperationTypeSend,
			semconv.MessagingOperationName("publish"), semconv.MessagingBatchMessageCount(len(events))))
	span.End()
}
