// Package indexer is the service that folds the stream into the index. It holds a lease in the
// database, reads the stream in order from the checkpoint, and applies batches of messages, each in
// one transaction with the checkpoint and the epoch of the lease.
//
// It loses and repeats nothing: checkpoint and rows are one write, and a message that is read twice
// changes nothing the second time. While a server is down, it waits.
package indexer

import (
	"cmp"
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
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
	"github.com/tagstream/tagstream/services/indexer/internal/prune"
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
	heartbeatEvery = 2 * time.Second
	acquireTimeout = 30 * time.Second
	// sizeEvery is how often the database's size is looked up.
	sizeEvery = time.Minute
	// sweepPause is how long a sweep waits for messages between its steps.
	sweepPause = time.Millisecond
	// firstBatch is the size of a term's first batch. A bigger one may have cost the holder before
	// its lease.
	firstBatch = 500
	retryMin   = 100 * time.Millisecond
	retryMax   = 5 * time.Second
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
		func(cp store.Checkpoint) error { return x.index(ctx, w, cp) })
}

// index indexes from a checkpoint on for as long as the lease lasts.
func (x *Indexer) index(ctx context.Context, w *write.Writer, cp store.Checkpoint) error {
	x.metrics.leader.Set(1)
	x.metrics.checkpoint.Set(float64(cp.Seq))
	if !cp.Source.Time.IsZero() {
		x.metrics.reached(cp.Source)
	}
	x.log.Info("indexing", "from", cp.Seq+1)
	defer func() {
		x.metrics.leader.Set(0)
		x.metrics.lag.Set(0)
	}()
	a := &apply.Applier{
		Writer: w, Logger: x.log, BigAccount: x.cfg.BigAccount, Tracer: x.deps.Tracer,
		PutDeadLetter: func(ctx context.Context, d stream.DeadLetter) error {
			if err := stream.PutDeadLetter(ctx, x.js, d); err != nil {
				return &streamError{err}
			}
			return nil
		},
		OnDeadLetter: x.metrics.deadLetter,
		OnApplied:    x.metrics.applied,
		Batch:        min(cmp.Or(x.batch, firstBatch), firstBatch),
	}
	defer func() { x.batch = a.Batch }()
	x.deny.changed() // a standby has not looked
	if err := a.Consent(ctx, x.cfg.ShowOptedOut, x.deny.now); err != nil {
		return err
	}
	p := prune.New(w, prune.Ages{Markers: x.cfg.MarkerAge, Changes: x.cfg.ChangesAge}, x.cfg.EraseWithin != EraseNever, x.metrics.pruned)
	if x.cfg.EraseWithin == EraseNever {
		if err := w.KeepNoPayloads(ctx); err != nil {
			return err
		}
	}
	stopErasing, err := x.erase(ctx)
	if err != nil {
		return err
	}
	defer stopErasing()
	for {
		err := x.follow(ctx, w, a, p, cp)
		var away *streamError
		if ctx.Err() != nil || !errors.As(err, &away) || fatal(err) {
			return err
		}
		// The stream is away, the lease is not: keep it.
		x.deps.Health.Set(HealthStream, away.err)
		if pause.For(ctx, retryMin+rand.N(2*retryMin)) != nil {
			return context.Cause(ctx)
		}
		if err := x.renew(ctx, w); err != nil {
			return err
		}
		if cp, err = x.checkpoint(ctx, w); err != nil {
			return err
		}
	}
}

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

// follow reads the stream after cp and applies it, until something fails.
func (x *Indexer) follow(ctx context.Context, w *write.Writer, a *apply.Applier, p *prune.Pruner, cp store.Checkpoint) error {
	r, err := x.openReader(ctx, cp)
	if err != nil {
		return &streamError{err}
	}
	defer r.Close()
	seq := cp.Seq
	renewed := time.Now()
	for {
		patience := write.RenewEvery
		if x.deny.path != "" {
			patience = min(patience, denyEvery)
		}
		if w.Sweeping() {
			patience = sweepPause
		}
		wait, cancel := context.WithTimeout(ctx, patience)
		batch, err := r.Next(wait, min(a.Batch, x.cfg.BatchSize), x.cfg.BatchWait)
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return &streamError{err}
		}
		if len(batch) > 0 {
			begun := time.Now()
			if err := a.Apply(ctx, batch); err != nil {
				return err
			}
			renewed = time.Now()
			x.metrics.batch.Observe(time.Since(begun).Seconds())
			seq = batch[len(batch)-1].Seq
			x.metrics.checkpoint.Set(float64(seq))
		}
		if x.deny.changed() {
			if err := a.Consent(ctx, x.cfg.ShowOptedOut, x.deny.now); err != nil {
				return err
			}
			renewed = time.Now()
		}
		if w.Sweeping() {
			if err := a.Sweep(ctx); err != nil {
				return err
			}
			renewed = time.Now()
		}
		if time.Since(renewed) >= write.RenewEvery {
			if err := x.renew(ctx, w); err != nil {
				return err
			}
			renewed = time.Now()
		}
		if err := x.prune(ctx, p); err != nil {
			return err
		}
		// Only successful work shows that all is well: the absence of messages says nothing about
		// the stream.
		x.deps.Health.Set(HealthDatabase, nil)
		if len(batch) > 0 {
			x.deps.Health.Set(HealthStream, nil)
		}
		x.heartbeat(ctx, w, r, seq)
	}
}

// reachStream reports whether a standby could read the stream.
func (x *Indexer) reachStream(ctx context.Context) error {
	attempt, cancel := context.WithTimeout(ctx, write.RenewEvery)
	defer cancel()
	_, err := stream.GetState(attempt, x.js)
	return err
}

func (x *Indexer) openReader(ctx context.Context, cp store.Checkpoint) (*stream.Reader, error) {
	// No longer than the lease can go without a renewal.
	ctx, cancel := context.WithTimeout(ctx, write.RenewEvery)
	defer cancel()
	start := cp.Seq + 1
	if cp.Seq == 0 {
		// A new index starts with what the stream still has.
		st, err := stream.GetState(ctx, x.js)
		if err != nil {
			return nil, err
		}
		if start = st.First; start > 1 {
			x.log.Warn("the stream's beginning was trimmed; the new index starts without it", "first", start)
		}
	}
	if err := stream.CheckSource(ctx, x.js, cp.Seq, cp.Source); err != nil {
		return nil, err
	}
	return stream.OpenReader(ctx, x.js, start)
}

func (x *Indexer) renew(ctx context.Context, w *write.Writer) error {
	attempt, cancel := context.WithTimeout(ctx, write.RenewEvery)
	defer cancel()
	return w.Renew(attempt)
}

func (x *Indexer) checkpoint(ctx context.Context, w *write.Writer) (store.Checkpoint, error) {
	attempt, cancel := context.WithTimeout(ctx, write.RenewEvery)
	defer cancel()
	return w.Checkpoint(attempt)
}

// prune does a piece of the pruning. Unless the lease is lost, it can wait.
func (x *Indexer) prune(ctx context.Context, p *prune.Pruner) error {
	attempt, cancel := context.WithTimeout(ctx, write.RenewEvery)
	defer cancel()
	err := p.Step(attempt, time.Now())
	if err == nil || errors.Is(err, write.ErrLeaseLost) {
		return err
	}
	x.log.Warn("pruning failed; trying again", "err", err)
	return nil
}

// heartbeat records how far the stream reaches, for the API's status and for the lag, and the
// health of the stream. A failed one is left to the next.
func (x *Indexer) heartbeat(ctx context.Context, w *write.Writer, r *stream.Reader, checkpoint uint64) {
	if time.Since(x.heart) < heartbeatEvery {
		return
	}
	attempt, cancel := context.WithTimeout(ctx, write.RenewEvery)
	defer cancel()
	x.heart = time.Now()
	st, err := stream.GetState(attempt, x.js)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		x.deps.Health.Set(HealthStream, err)
		return
	}
	// A stream that answers may still deliver nothing.
	x.deps.Health.Set(HealthStream, r.Trouble())
	x.metrics.lag.Set(float64(st.Last - min(st.Last, checkpoint)))
	size := time.Since(x.sized) >= sizeEvery
	databaseBytes, err := w.Heartbeat(attempt, st.First, st.Last, st.Bytes, size)
	if err != nil {
		x.log.Debug("no heartbeat", "err", err)
		return
	}
	x.metrics.database.Set(float64(databaseBytes))
	if size {
		x.sized = time.Now()
	}
	letters, err := stream.GetDeadLettersState(attempt, x.js)
	if err != nil {
		x.log.Debug("no state of the dead letters", "err", err)
		return
	}
	x.metrics.letters(letters)
}
