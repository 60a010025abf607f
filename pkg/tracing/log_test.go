package tracing_test

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/tracing"
)

// TestComplaintsQuoteNothing sets OpenTelemetry's own variables to invalid values that contain
// passwords.
func TestComplaintsQuoteNothing(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:S3CR3T#@collector:4318")
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://user:S3CR3T@[collector")
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "S3CR3T,authorization=S3CR3T%zz,S3CR3T key=S3CR3T")
	var out bytes.Buffer
	traces, err := tracing.Start(t.Context(), tracing.Config{Endpoint: "http://127.0.0.1:1/v1/traces", Ratio: 1, Service: "test"},
		slog.New(slog.NewTextHandler(&out, nil)), prometheus.NewRegistry())
	require.NoError(t, err)
	traces.Stop()
	require.Contains(t, out.String(), "OpenTelemetry cannot read")
	require.NotContains(t, out.String(), "S3CR3T")
}
