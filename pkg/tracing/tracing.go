package tracing

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/tagstream/tagstream/pkg/userinfo"
)

const (
	// maxWaiting is the most ended spans that wait for the collector, including the batch being
	// sent.
	maxWaiting = 2048
	// batchEvery is how long a span waits for more spans to be sent with it.
	batchEvery = 2 * time.Second
	// exportTimeout bounds the delivery of one batch, including retries.
	exportTimeout = 10 * time.Second
	// stopTimeout bounds how long Stop waits for the last spans.
	stopTimeout = 3 * time.Second
	// maxForeign is the most traces per second that are joined although another program started
	// them: the API's callers choose what is sampled, and an indexer that catches up meets many at
	// once.
	maxForeign = 100

	// defaultPath is the usual path for traces in OTLP over HTTP.
	defaultPath = "/v1/traces"
)

// Config says what is traced, and where traces are sent.
type Config struct {
	// Endpoint is the collector's URL for traces; "" means off.
	Endpoint string
	// Ratio is the share of events and of requests that start a trace, 0 to 1. Whatever continues a
	// sampled trace is always included.
	Ratio float64
	// Service names the program to the collector, Version is its version.
	Service, Version string
}

// CheckEndpoint returns a collector's URL with its path, which may be omitted. The error quotes
// nothing of the URL.
func CheckEndpoint(s string) (string, error) {
	if err := userinfo.Check(s, userinfo.Ends); err != nil {
		return "", err
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", errors.New("must be a URL such as http://collector:4318/v1/traces")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" { // a query is not sent
		return "", errors.New("must hold no password and no query: use OTEL_EXPORTER_OTLP_HEADERS")
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = defaultPath
	}
	return u.String(), nil
}

// Tracing records spans and sends them. A nil *Tracing is off.
type Tracing struct {
	provider *sdktrace.TracerProvider
	logger   *slog.Logger
}

// Start starts to send spans, and registers the metrics for that. Without an endpoint it returns
// nil. Details of the exporter (headers, certificates, compression) and of the resource come from
// OpenTelemetry's own variables, OTEL_EXPORTER_OTLP_* and OTEL_RESOURCE_ATTRIBUTES; an invalid one
// is an error.
func Start(ctx context.Context, cfg Config, logger *slog.Logger, registry prometheus.Registerer) (*Tracing, error) {
	if cfg.Endpoint == "" {
		return nil, nil //nolint:nilnil // nil is off, as documented
	}
	otel.SetLogger(logr.New(complaints{logger}))
	version, _, _ := strings.Cut(cfg.Version, " ")
	res, err := resource.New(ctx,
		resource.WithAttributes(semconv.ServiceName(cfg.Service), semconv.ServiceVersion(version), semconv.ServiceInstanceID(rand.Text())),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describe the program to the collector: %w", err)
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(cfg.Endpoint), otlptracehttp.WithTimeout(exportTimeout))
	if err != nil {
		return nil, fmt.Errorf("export traces to %s: %w", cfg.Endpoint, err)
	}
	q := newQueue(exporter, logger, registry)
	q.SpanProcessor = sdktrace.NewBatchSpanProcessor(q.exporter(),
		sdktrace.WithMaxQueueSize(maxWaiting), sdktrace.WithBatchTimeout(batchEvery), sdktrace.WithExportTimeout(exportTimeout))
	logger.Info("tracing", "endpoint", cfg.Endpoint, "ratio", cfg.Ratio)
	return &Tracing{logger: logger, provider: sdktrace.NewTracerProvider(
		sdktrace.WithResource(res), sdktrace.WithSpanProcessor(q), sdktrace.WithSampler(sampler(cfg.Ratio)),
	)}, nil
}

// Tracer returns the tracer of a part of the program, nil if tracing is off.
func (t *Tracing) Tracer(part string) trace.Tracer {
	if t == nil {
		return nil
	}
	return t.provider.Tracer("github.com/tagstream/tagstream/" + part)
}

// Stop sends waiting spans, for a few seconds at most, and ends.
func (t *Tracing) Stop() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.logger.Warn("the last spans did not reach the collector", "err", err)
	}
}
