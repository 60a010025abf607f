package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/tracing"
)

// Deps are what a service receives from its program. Each service documents which of them it needs.
type Deps struct {
	Logger *slog.Logger
	// Registry receives the service's metrics.
	Registry *prometheus.Registry
	Health   *obs.Health
	// Ops receives the service's handlers for operators, in addition to obs.OpsHandler.
	Ops *http.ServeMux
	// Tracer records traces; nil records none.
	Tracer trace.Tracer
	// NATS reconnects forever (NATSOptions). Domain is the JetStream domain of the streams; "" is
	// the server's own.
	NATS   *nats.Conn
	Domain string
}

// Logger returns the program's logger, writing to w.
func (l Log) Logger(w io.Writer) *slog.Logger {
	logger, err := obs.NewLogger(w, l.Format, l.Level)
	if err != nil { // not parsed
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return logger
}

// Config returns the tracing configuration of a program.
func (t Traces) Config(program string) (tracing.Config, error) {
	cfg := tracing.Config{Ratio: t.Ratio, Service: "tagstream-" + program, Version: Version()}
	if program == Standalone {
		cfg.Service = program
	}
	if t.URL == "" {
		return cfg, nil
	}
	endpoint, err := tracing.CheckEndpoint(t.URL)
	cfg.Endpoint = endpoint
	return cfg, Bad("TRACES_URL", err)
}

// Observability has the settings of every long-running program.
type Observability struct {
	Ops    Ops    `embed:""`
	Traces Traces `embed:""`
	Log    Log    `embed:""`
}

// Serve listens on OPS_LISTEN and runs a service with these components. When ctx ends, the service
// becomes unready, and the listener serves until run has returned, so that operators can watch the
// whole stop. The error is that of run, of listening, or both.
func (s Observability) Serve(ctx context.Context, p *Process, components []string, run func(context.Context, Deps) error) error {
	traces, err := s.Traces.Config(p.Program)
	if err != nil {
		return err
	}
	logger := s.Log.Logger(p.Stderr)
	health := obs.NewHealth(logger, components...)
	d := Deps{Logger: logger, Registry: obs.NewRegistry(health, Version()), Health: health, Ops: http.NewServeMux()}
	traced, err := tracing.Start(ctx, traces, logger, d.Registry)
	if err != nil {
		return err
	}
	defer traced.Stop()
	d.Tracer = traced.Tracer(p.Program)
	listener, err := net.Listen("tcp", s.Ops.Listen)
	if err != nil {
		return fmt.Errorf("listen for operators (%sOPS_LISTEN): %w", Prefix, err)
	}
	defer context.AfterFunc(ctx, health.Stop)()
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	running, stopRunning := context.WithCancel(ctx)
	defer stopRunning()
	served, ran := make(chan error, 1), make(chan error, 1)
	go func() { served <- obs.RunOps(serving, listener, health, d.Registry, d.Ops) }()
	go func() { ran <- run(running, d) }()
	select {
	case err := <-ran:
		stopServing()
		return errors.Join(err, <-served)
	case err := <-served:
		stopRunning()
		if stopped := <-ran; !errors.Is(stopped, context.Canceled) {
			err = errors.Join(err, stopped)
		}
		return err
	}
}
