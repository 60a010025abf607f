package tracing

import (
	"log/slog"

	"github.com/go-logr/logr"
)

// complaints receives the errors of OpenTelemetry's library about its own variables. The library
// would print their values, and a URL or header there may hold a password, so only the topic is
// logged.
type complaints struct{ log *slog.Logger }

func (complaints) Init(logr.RuntimeInfo)            {}
func (complaints) Enabled(int) bool                 { return false }
func (complaints) Info(int, string, ...any)         {}
func (c complaints) WithValues(...any) logr.LogSink { return c }
func (c complaints) WithName(string) logr.LogSink   { return c }

func (c complaints) Error(_ error, what string, _ ...any) {
	c.log.Warn("OpenTelemetry cannot read one of the OTEL_EXPORTER_OTLP_… variables and ignores it", "failed", what)
}
