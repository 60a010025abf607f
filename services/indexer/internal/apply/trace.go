package apply

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/tracing"
)

func untraced(error) {}

// trace starts the span of a batch with traced messages; end ends it. A batch has many messages:
// its span is in the trace of the first traced one, and is linked to all of them.
func (a *Applier) trace(ctx context.Context, messages []stream.Message) (_ context.Context, end func(error)) {
	if a.Tracer == nil {
		return ctx, untraced
	}
	links := tracing.Links(func(yield func(string) bool) {
		for i := range messages {
			if !yield(messages[i].Traceparent) {
				return
			}
		}
	})
	if len(links) == 0 {
		return ctx, untraced
	}
	ctx = trace.ContextWithRemoteSpanContext(ctx, links[0].SpanContext)
	ctx, span := a.Tracer.Start(ctx, "process "+stream.Posts, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links...), trace.WithAttributes(
		semconv.MessagingSystemKey.String("nats"), semconv.MessagingDestinationName(stream.Posts), semconv.MessagingOperationTypeProcess,
		semconv.MessagingOperationName("process"), semconv.MessagingBatchMessageCount(len(messages)),
		attribute.Int64("tagstream.stream.first_seq", int64(messages[0].Seq)),
		attribute.Int64("tagstream.stream.last_seq", int64(messages[len(messages)-1].Seq))))
	return ctx, func(err error) { endSpan(span, err) }
}

// traceTransaction starts the span of the batch's transaction, if the batch is traced.
func (a *Applier) traceTransaction(ctx context.Context) (_ context.Context, end func(error)) {
	if a.Tracer == nil || !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, untraced
	}
	ctx, span := a.Tracer.Start(ctx, "transaction", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		semconv.DBSystemNamePostgreSQL, semconv.DBQuerySummary("transaction")))
	return ctx, func(err error) { endSpan(span, err) }
}

// traceChanges adds the written changes to the transaction's span.
func traceChanges(ctx context.Context, events int, c write.Changes) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(attribute.Int("tagstream.events", events), attribute.Int("tagstream.rows.posts", len(c.Posts)),
		attribute.Int("tagstream.rows.accounts", len(c.Accounts)), attribute.Int("tagstream.rows.removed_posts", len(c.Removed)))
}

// endSpan ends a span. It records only the kind of an error: its text may contain a DID.
func endSpan(span trace.Span, err error) {
	if err != nil {
		kind := "_OTHER"
		if write.Rejected(err) {
			kind = string(ReasonRejected)
		}
		span.SetStatus(codes.Error, "")
		span.SetAttributes(semconv.ErrorTypeKey.String(kind))
	}
	span.End()
}
