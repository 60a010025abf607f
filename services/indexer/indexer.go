// Package indexer is the service that folds the stream into the index. It holds a lease in the
// database, reads the stream in order from the checkpoint, and applies batches of messages, each in
// one transaction with the checkpoint and the epoch of the lease.
//
// It loses and repeats nothing: checkpoint and rows are one write, and a message that is read twice
// changes nothing the second time. While a server is down, it waits.
package indexer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/pause"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
)

// Deps are what the indexer receives from its program.
type Deps struct {
	NATS *nats.Conn
	// Domain is the JetStream domain of the streams; "" is the server's own.
	Domain   string
	Logger   *slog.Logger
	Registry prometheus.Registerer
	Health   *obs.Health
	// ID is unique to this run of the program; it names the lease's holder.
	ID string
	// Tracer traces the processing of traced events; nil traces nothing.
	Tracer trace.Tracer
}

// The components of Health that the indexer reports on.
const (
	HealthDatabase = "indexer.database"
	HealthStream   = "indexer.stream"
)

const (
	acquireTimeout = 30 * time.Second
	retryMin       = 100 * time.Millisecond
	retryMax       = 5 * time.Second
)

// Indexer is the service. Make one with New, run it once.
type Indexer struct {
	cfg     Config
	deny    *denyFile
	deps    Deps
	log     *slog.Logger
	js      jetstream.JetStream
	metrics *metrics
	heart   time.Time // last heartbeat tried
	sized   time.Time // last look at the database's size
	batch   int       // the size of batches at the end of the last term, 0 before the first
}

// New checks the config and returns an indexer that has not started anything.
func New(cfg Config, deps Deps) (*Indexer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	js, err := stream.JetStream(deps.NATS, deps.Domain)
	if err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	log := deps.Logger.With("service", "indexer")
	deny, err := openDenyFile(cfg.DenyFile, log)
	if err != nil {
		return nil, err
	}
	return &Indexer{
		cfg: cfg, deps: deps, js: js, deny: deny, log: log,
		metrics: newMetrics(deps.Registry, cfg.EraseWithin),
	}, nil
}

// Run indexes until ctx ends, and then returns nil. Any other return is a state that waiting cannot
// fix (docs/operations.md says what to do).
func (x *Indexer) Run(ctx context.Context) error {
	w, err := write.Open(ctx, x.cfg.Database, x.deps.ID)
	if err != nil {
		return err
	}
	defer w.Close()
	delay := retryMin
	for {
		start := time.Now()
		err := x.lead(ctx, w)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // stopped as asked
		}
		if errors.Is(err, write.ErrOutdated) {
			return fmt.Errorf("%w: upgrade it, or restore the database from before the migration", err)
		}
		if errors.Is(err, store.ErrUnfit) {
			return err
		}
		if fatal(err) {
			return fmt.Errorf("%w. The stream was lost, replaced, restored from an older copy, or trimmed. "+
				"Restore it, or run `indexer rebuild` once ingest has caught up: see docs/operations.md", err)
		}
		// lead got far enough to lose something: start again at once.
		if time.Since(start) > retryMax {
			delay = retryMin
		}
		if !errors.Is(err, write.ErrLeaseLost) {
			x.deps.Health.Set(component(err), err)
		} else {
			x.log.Warn("lost the lease, standing by")
		}
		if pause.For(ctx, delay/2+rand.N(delay)) != nil {
			return nil
		}
		delay = min(2*delay, retryMax)
	}
}

// fatal reports whether err is a state of the stream that only an operator can change.
func fatal(err error) bool {
	return errors.Is(err, stream.ErrTrimmed) || errors.Is(err, stream.ErrBehind) || errors.Is(err, stream.ErrReplaced)
}

// streamError marks an error of the stream's side, for the health report.
type streamError struct{ err error }

func (e *streamError) Error() string { return e.err.Error() }
func (e *streamError) Unwrap() error { return e.err }

func component(err error) string {
	var s *streamError
	if errors.As(err, &s) {
		return HealthStream
	}
	return HealthDatabase
}

// lead waits for the lease and indexes for as long as it lasts.
func (x *Indexer) lead(ctx context.Context, w *write.Writer) error {
	// Only if this role may, so that one command starts a small deployment.
	if err := store.EnsureMigrated(ctx, x.cfg.Database, x.log); err != nil {
		return err
	}
	return w.Lead(ctx, func(ctx context.Context) (store.Checkpoint, error) { return x.acquire(ctx, w) },
		func(cp store.Checkpoint) error { return x.runTerm(ctx, w, cp) })
}

// acquire waits until the lease is free, and takes it.
func (x *Indexer) acquire(ctx context.Context, w *write.Writer) (store.Checkpoint, error) {
	waiting := false
	for {
		attempt, cancel := context.WithTimeout(ctx, acquireTimeout)
		cp, err := w.Acquire(attempt)
		cancel()
		if !errors.Is(err, write.ErrLeaseHeld) {
			return cp, err
		}
		x.deps.Health.Set(HealthDatabase, nil)
		x.deps.Health.Set(HealthStream, x.reachStream(ctx))
		if !waiting {
			x.log.Info("another indexer has the lease, standing by")
			waiting = true
		}
		if pause.For(ctx, write.RenewEvery/2+rand.N(write.RenewEvery/2)) != nil {
			return cp, context.Cause(ctx)
		}
	}
}

// reachStream reports whether a standby could read the stream.
func (x *Indexer) reachStream(ctx context.Context) error {
	attempt, cancel := context.WithTimeout(ctx, write.RenewEvery)
	defer cancel()
	_, err := stream.GetState(attempt, x.js)
	return err
}
