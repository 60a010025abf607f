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

// Deps are what a service is given by the program around it. Each service says
// which of them it needs.
type Deps struct {
	Logger *slog.Logger
	// Registry gets the metrics.
	Registry *prometheus.Registry
	Health   *obs.Health
	// Ops gets what the service has for operators beside obs.OpsHandler.
	Ops *http.ServeMux
	// Tracer traces; nil traces nothing.
	Tracer trace.Tracer
	// NATS reconnects for ever (NATSOptions). Domain is the JetStream domain that
	// the streams are in; "" is the server's own.
	NATS   *nats.Conn
	Domain string
}

// Logger returns the program's logger as the settings say, writing to w.
func (l Log) Logger(w io.Writer) *slog.Logger {
	logger, err := obs.NewLogger(w, l.Format, l.Level)
	if err != nil { // not parsed
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return logger
}

// Config is how a program traces.
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

// Shown are the settings of every program that runs until it is stopped.
type Shown struct {
	Ops    Ops    `embed:""`
	Traces Traces `embed:""`
	Log    Log    `embed:""`
}

// Serve listens on OPS_LISTEN and runs a service beside that, whose components
// these are. When ctx ends the service is not ready any more, and the listener
// serves until run has returned, so that the operator sees all of the stop. The
// error is run's, that of listening, or both.
func (s Shown) Serve(ctx context.Context, p *Process, components []string, run func(context.Context, Deps) error) error {
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
