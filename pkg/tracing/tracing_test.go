package tracing_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/tagstream/tagstream/pkg/testkit/otlptest"
	"github.com/tagstream/tagstream/pkg/tracing"
)

const patience = 20 * time.Second

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func start(t *testing.T, url string) (*tracing.Tracing, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewRegistry()
	tr, err := tracing.Start(t.Context(), tracing.Config{Endpoint: url, Ratio: 1, Service: "tagstream-test"}, quiet(), registry)
	require.NoError(t, err)
	return tr, registry
}

// count is the value of tagstream_traces_spans_total.
func count(t *testing.T, r *prometheus.Registry, result string) int {
	t.Helper()
	families, err := r.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == result {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	t.Fatalf("no series %s", result)
	return 0
}

func TestOff(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	off, err := tracing.Start(t.Context(), tracing.Config{}, quiet(), registry)
	require.NoError(t, err)
	require.Nil(t, off)
	require.Nil(t, off.Tracer("x"))
	off.Stop()
	families, err := registry.Gather()
	require.NoError(t, err)
	require.Empty(t, families)
}

func TestSpansGetToTheCollector(t *testing.T) {
	t.Parallel()
	c := otlptest.Start(t)
	tr, registry := start(t, c.URL)
	ctx, parent := tr.Tracer("a").Start(t.Context(), "parent")
	_, child := tr.Tracer("b").Start(ctx, "child")
	child.End()
	parent.End()
	require.Empty(t, c.Spans(), "they wait for others to go with")
	tr.Stop()
	spans := c.Spans()
	require.Len(t, spans, 2)
	require.Equal(t, "child", spans[0].Name)
	require.Equal(t, spans[1].ID, spans[0].ParentID)
	require.Equal(t, "tagstream-test", spans[0].Service)
	require.Equal(t, 2, count(t, registry, "exported"))
	require.Zero(t, count(t, registry, "failed")+count(t, registry, "dropped"))
}

// TestCollectorInTrouble: whatever the collector does, spans are made at full speed, only a bounded
// number waits, each is accounted for, and Stop ends.
//
// Invariant: a collector that is down, silent or refusing costs a bounded number of waiting spans
// and nothing else, and callers cannot have everything traced. See also TestUnresponsiveCollector
// and TestCallersAreLimited.
func TestCollectorInTrouble(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	require.NoError(t, err)
	t.Cleanup(func() { silent.Close() })
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(refusing.Close)
	for name, c := range map[string]struct {
		url    string
		answer bool // so that what waits gets an end before Stop gives up
	}{
		"away":     {"http://" + closed.Addr().String(), false},
		"silent":   {"http://" + silent.Addr().String(), false},
		"refusing": {refusing.URL, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr, registry := start(t, c.url+"/v1/traces")
			tracer := tr.Tracer("x")
			const spans = 20_000
			for range spans {
				_, span := tracer.Start(t.Context(), "span")
				span.End()
			}
			stopped := make(chan struct{})
			go func() { tr.Stop(); close(stopped) }()
			select {
			case <-stopped:
			case <-time.After(patience):
				t.Fatal("Stop waits for the collector")
			}
			require.Zero(t, count(t, registry, "exported"))
			if c.answer {
				require.Equal(t, spans, count(t, registry, "failed")+count(t, registry, "dropped"))
			} else {
				require.GreaterOrEqual(t, count(t, registry, "failed")+count(t, registry, "dropped"), spans/2)
			}
		})
	}
}

func TestTraceparent(t *testing.T) {
	t.Parallel()
	tr, _ := start(t, otlptest.Start(t).URL)
	t.Cleanup(tr.Stop)
	_, span := tr.Tracer("x").Start(t.Context(), "span")
	span.End()
	text := tracing.Traceparent(span.SpanContext())
	require.Len(t, text, 55)
	parent := tracing.Parent(text)
	require.Equal(t, span.SpanContext().TraceID(), parent.TraceID())
	require.Equal(t, span.SpanContext().SpanID(), parent.SpanID())
	require.True(t, parent.IsSampled())
	require.Empty(t, tracing.Traceparent(span.SpanContext().WithTraceFlags(0)), "what is not sampled travels with nothing")
	for _, bad := range []string{"", "x", "00-" + strings.Repeat("0", 32) + "-0000000000000000-01", text + "-x", strings.Repeat("a", 5000)} {
		require.False(t, tracing.Parent(bad).IsValid(), bad)
	}
	require.Len(t, tracing.Links(func(yield func(string) bool) { _ = yield("") && yield("x") && yield(text) }), 1)
}

// TestCallersAreLimited: callers decide what is sampled, up to a number per second; traces that no
// caller requested do not count.
func TestCallersAreLimited(t *testing.T) {
	t.Parallel()
	tr, _ := start(t, otlptest.Start(t).URL)
	t.Cleanup(tr.Stop)
	tracer := tr.Tracer("x")
	caller := tracing.Extract(t.Context(), propagation.MapCarrier{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
	unsampled := tracing.Extract(t.Context(), propagation.MapCarrier{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"})
	began, sampled := time.Now(), 0
	const requests = 10_000
	for range requests {
		if sampledUnder(tracer, caller) {
			sampled++
		}
	}
	seconds := int(time.Since(began).Seconds()) + 2
	require.Positive(t, sampled)
	require.LessOrEqual(t, sampled, 100*seconds)
	require.True(t, sampledUnder(tracer, t.Context()))
	require.False(t, sampledUnder(tracer, unsampled), "the caller says no")
}

func sampledUnder(tracer trace.Tracer, ctx context.Context) bool { //nolint:revive // as the test reads
	_, span := tracer.Start(ctx, "span")
	defer span.End()
	return span.SpanContext().IsSampled()
}

func TestOffAllocatesNothing(t *testing.T) {
	none := func(yield func(string) bool) {
		for range 1000 {
			if !yield("") {
				return
			}
		}
	}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if tracing.Links(none) != nil {
			panic("links to nothing")
		}
	}))
}
