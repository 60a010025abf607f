package tracing

import (
	"sync"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// sampler begins traces at a ratio, continues with its own, and joins those that
// others began up to a number a second.
func sampler(ratio float64) sdktrace.Sampler {
	return sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio),
		sdktrace.WithRemoteParentSampled(&perSecond{limit: maxForeign, now: time.Now}))
}

// perSecond samples up to a number of spans in each second.
type perSecond struct {
	limit int
	now   func() time.Time

	mu     sync.Mutex
	second int64
	taken  int
}

func (s *perSecond) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	res := sdktrace.SamplingResult{Decision: sdktrace.Drop, Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now().Unix(); now != s.second {
		s.second, s.taken = now, 0
	}
	if s.taken < s.limit {
		s.taken++
		res.Decision = sdktrace.RecordAndSample
	}
	return res
}

func (s *perSecond) Description() string { return "PerSecond" }
