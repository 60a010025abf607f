package tracing

import (
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"
)

// sampler starts traces at a ratio, always continues the program's own traces, and joins foreign
// ones up to a number per second.
func sampler(ratio float64) sdktrace.Sampler {
	return sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio),
		sdktrace.WithRemoteParentSampled(limited{rate.NewLimiter(maxForeign, maxForeign)}))
}

// limited samples as often as its limiter allows.
type limited struct{ *rate.Limiter }

// ShouldSample implements sdktrace.Sampler.
func (l limited) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	res := sdktrace.SamplingResult{Decision: sdktrace.Drop, Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState()}
	if l.Allow() {
		res.Decision = sdktrace.RecordAndSample
	}
	return res
}

// Description implements sdktrace.Sampler.
func (limited) Description() string { return "Limited" }
