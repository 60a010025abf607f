package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tagstream/tagstream/pkg/obs"
)

// Logger returns the program's logger as the settings say, writing to w. A bad
// setting is recorded for Err; the logger works all the same.
func Logger(v *Values, w io.Writer) *slog.Logger {
	level := v.Choice("LOG_LEVEL", "debug", "info", "warn", "error")
	format := v.Choice("LOG_FORMAT", "text", "json")
	logger, err := obs.NewLogger(w, format, level)
	if err != nil { // recorded by Choice
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return logger
}

// Ops is what a service shows to its operators.
type Ops struct {
	Health   *obs.Health
	Registry prometheus.Gatherer
	// Extra serves the paths that are not obs.OpsHandler's; it may be nil.
	Extra http.Handler
}

// RunWithOps listens on OPS_LISTEN and then runs a service and its operators'
// listener side by side. When ctx ends the service is not ready any more, and
// the listener serves until run has returned, so that the operator sees all of
// the stop. The error is run's, that of listening, or both.
func RunWithOps(ctx context.Context, v *Values, ops Ops, run func(context.Context) error) error {
	address := v.Listen("OPS_LISTEN")
	if err := v.Err(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for operators (%sOPS_LISTEN): %w", Prefix, err)
	}
	defer context.AfterFunc(ctx, ops.Health.Stop)()
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	running, stopRunning := context.WithCancel(ctx)
	defer stopRunning()
	served, ran := make(chan error, 1), make(chan error, 1)
	go func() { served <- obs.RunOps(serving, listener, ops.Health, ops.Registry, ops.Extra) }()
	go func() { ran <- run(running) }()
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
