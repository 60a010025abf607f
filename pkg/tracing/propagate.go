package tracing

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// traceparent is the key of W3C's Trace Context.
const traceparent = "traceparent"

var traceContext propagation.TraceContext

// Traceparent returns a span's W3C traceparent, or "" if the span is not sampled.
func Traceparent(span trace.SpanContext) string {
	if !span.IsSampled() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	traceContext.Inject(trace.ContextWithSpanContext(context.Background(), span), carrier)
	return carrier[traceparent]
}

// Parent parses a traceparent. An invalid one gives an invalid context.
func Parent(s string) trace.SpanContext {
	if s == "" {
		return trace.SpanContext{}
	}
	return trace.SpanContextFromContext(traceContext.Extract(context.Background(), propagation.MapCarrier{traceparent: s}))
}

// Links returns links to the sampled spans among those in the traceparents, or none. It allocates
// nothing if there is no such span.
func Links(traceparents func(yield func(string) bool)) []trace.Link {
	var links []trace.Link
	for s := range traceparents {
		if s == "" {
			continue
		}
		if span := Parent(s); span.IsSampled() {
			links = append(links, trace.Link{SpanContext: span})
		}
	}
	return links
}

// Extract returns ctx with the trace that a caller's request is part of.
func Extract(ctx context.Context, carrier propagation.TextMapCarrier) context.Context {
	return traceContext.Extract(ctx, carrier)
}
