package indexer

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/tagstream/tagstream/pkg/pause"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
	"github.com/tagstream/tagstream/services/indexer/internal/prune"
)

const (
	heartbeatEvery = 2 * time.Second
	// sizeEvery is how often the database's size is looked up.
	sizeEvery = time.Minute
	// pendingPause is how long pending work waits for messages between its steps.
	pendingPause = time.Millisecond
	// firstBatch is the size of a term's first batch. A bigger one may have cost the holder before
	// its lease.
	firstBatch = 500
)

// term is the work of an indexer while it holds the lease.
type term struct {
	*Indexer
	writer  *write.Writer
	applier *apply.Applier
	pruner  *prune.Pruner
}

// runTerm indexes from a checkpoint on for as long as the lease lasts.
func (x *Indexer) runTerm(ctx context.Context, w *write.Writer, cp store.Checkpoint) error {
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
	t := &term{Indexer: x, writer: w, applier: &apply.Applier{
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
	}}
	defer func() { x.batch = t.applier.Batch }()
	x.deny.changed() // a standby has not looked
	if err := t.applyConsent(ctx); err != nil {
		return err
	}
	t.pruner = prune.New(w, prune.Ages{Markers: x.cfg.MarkerAge, Changes: x.cfg.ChangesAge}, x.cfg.EraseWithin != EraseNever, x.metrics.pruned)
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
		err := t.applyStream(ctx, cp)
		var away *streamError
		if ctx.Err() != nil || !errors.As(err, &away) || fatal(err) {
			return err
		}
		// The stream is away, the lease is not: keep it.
		x.deps.Health.Set(HealthStream, away.err)
		if pause.For(ctx, retryMin+rand.N(2*retryMin)) != nil {
			return context.Cause(ctx)
		}
		if err := t.renewLease(ctx); err != nil {
			return err
		}
		if cp, err = t.checkpoint(ctx); err != nil {
			return err
		}
	}
}

// applyConsent hides accounts that have opted out and what the deny list names, as far as that has
// changed.
func (t *term) applyConsent(ctx context.Context) error {
	return t.applier.Consent(ctx, t.cfg.ShowOptedOut, t.deny.content)
}

// applyStream reads the stream after a checkpoint and applies it, until something fails. The other
// work under the lease is done between the batches.
func (t *term) applyStream(ctx context.Context, cp store.Checkpoint) error {
	r, err := t.openReader(ctx, cp)
	if err != nil {
		return &streamError{err}
	}
	defer r.Close()
	seq := cp.Seq
	renewed := time.Now()
	for {
		batch, err := t.nextBatch(ctx, r)
		if err != nil {
			return err
		}
		if len(batch) > 0 {
			begun := time.Now()
			if err := t.applier.Apply(ctx, batch); err != nil {
				return err
			}
			renewed = time.Now() // each transaction renews the lease
			t.metrics.batch.Observe(renewed.Sub(begun).Seconds())
			seq = batch[len(batch)-1].Seq
			t.metrics.checkpoint.Set(float64(seq))
		}
		if t.deny.changed() {
			if err := t.applyConsent(ctx); err != nil {
				return err
			}
			renewed = time.Now()
		}
		if t.writer.Pending() {
			if err := t.applier.DoPending(ctx); err != nil {
				return err
			}
			renewed = time.Now()
		}
		if time.Since(renewed) >= write.RenewEvery {
			if err := t.renewLease(ctx); err != nil {
				return err
			}
			renewed = time.Now()
		}
		if err := t.prune(ctx); err != nil {
			return err
		}
		// Only successful work shows that all is well: the absence of messages says nothing about
		// the stream.
		t.deps.Health.Set(HealthDatabase, nil)
		if len(batch) > 0 {
			t.deps.Health.Set(HealthStream, nil)
		}
		t.heartbeat(ctx, r, seq)
	}
}

func (t *term) openReader(ctx context.Context, cp store.Checkpoint) (*stream.Reader, error) {
	// No longer than the lease can go without a renewal.
	ctx, cancel := context.WithTimeout(ctx, write.RenewEvery)
	defer cancel()
	start := cp.Seq + 1
	if cp.Seq == 0 {
		// A new index starts with what the stream still has.
		st, err := stream.GetState(ctx, t.js)
		if err != nil {
			return nil, err
		}
		if start = st.First; start > 1 {
			t.log.Warn("the stream's beginning was trimmed; the new index starts without it", "first", start)
		}
	}
	if err := stream.CheckSource(ctx, t.js, cp.Seq, cp.Source); err != nil {
		return nil, err
	}
	return stream.OpenReader(ctx, t.js, start)
}

// nextBatch waits for messages, but no longer than the other work can wait. It may return none.
func (t *term) nextBatch(ctx context.Context, r *stream.Reader) ([]stream.Message, error) {
	patience := write.RenewEvery
	if t.deny.path != "" {
		patience = min(patience, denyEvery)
	}
	if t.writer.Pending() {
		patience = pendingPause
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	batch, err := r.Next(wait, min(t.applier.Batch, t.cfg.BatchSize), t.cfg.BatchWait)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil && !errors.Is(err, context.DeadlineExceeded):
		return nil, &streamError{err}
	}
	return batch, nil
}

func (t *term) renewLease(ctx context.Context) error {
	attempt, cancel := context.WithTimeout(ctx, write.RenewEvery)
	defer cancel()
	return t.writer.Renew(attempt)
}

func (t *term) checkpoint(ctx context.Context) (store.Checkpoint, error) {
	attempt, cancel := context.WithTimeout(ctx, write.RenewEvery)
	defer cancel()
	return t.writer.Checkpoint(attempt)
}

// prune does a piece of the pruning. Unless the lease is lost, it can wait.
func (t *term) prune(ctx context.Context) error {
	attempt, cancel := context.WithTimeout(ctx, write.RenewEvery)
	defer cancel()
	err := t.pruner.Step(attempt, time.Now())
	if err == nil || errors.Is(err, write.ErrLeaseLost) {
		return err
	}
	t.log.Warn("pruning failed; trying again", "err", err)
	return nil
}

// heartbeat records how far the stream reaches, for the API's status and for the lag, and the
// health of the stream. A failed one is left to the next.
func (t *term) heartbeat(ctx context.Context, r *stream.Reader, checkpoint uint64) {
	if time.Since(t.heart) < heartbeatEvery {
		return
	}
	attempt, cancel := context.WithTimeout(ctx, write.RenewEvery)
	defer cancel()
	t.heart = time.Now()
	st, err := stream.GetState(attempt, t.js)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		t.deps.Health.Set(HealthStream, err)
		return
	}
	// A stream that answers may still deliver nothing.
	t.deps.Health.Set(HealthStream, r.Trouble())
	t.metrics.lag.Set(float64(st.Last - min(st.Last, checkpoint)))
	size := time.Since(t.sized) >= sizeEvery
	databaseBytes, err := t.writer.Heartbeat(attempt, st.First, st.Last, st.Bytes, size)
	if err != nil {
		t.log.Debug("no heartbeat", "err", err)
		return
	}
	t.metrics.database.Set(float64(databaseBytes))
	if size {
		t.sized = time.Now()
	}
	letters, err := stream.GetDeadLettersState(attempt, t.js)
	if err != nil {
		t.log.Debug("no state of the dead letters", "err", err)
		return
	}
	t.metrics.letters(letters)
}
