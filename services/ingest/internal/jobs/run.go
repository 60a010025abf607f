package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// lookEvery is how often an ingest that leads looks for a job, and keepEvery how often it
	// stores how far one is.
	lookEvery = time.Second
	keepEvery = time.Second
)

// Runner runs jobs for as long as an ingest leads.
type Runner struct {
	JS     jetstream.JetStream
	ID     string // of the ingest
	Logger *slog.Logger
	// Codes are the errors that callers know, by the codes that records have of them.
	Codes map[string]error
}

// Func does a job. It stores how far it is through r, and returns its summary beside an error.
type Func func(ctx context.Context, j Job, r *Run) (summary any, err error)

// Run looks for jobs and does them until ctx ends. What is under way then stays as it is.
func (r *Runner) Run(ctx context.Context, do Func) {
	for sleep(ctx, lookEvery) == nil {
		j, rev, err := Get(ctx, r.JS)
		switch {
		case err != nil:
			r.Logger.Debug("could not look for a job", "err", err)
		case j.ID != "" && j.State != Ended:
			r.run(ctx, j, rev, do)
		}
	}
}

func (r *Runner) run(ctx context.Context, j Job, rev uint64, do Func) {
	doing, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	run := &Run{job: j, rev: rev}
	if j.State == Stopping {
		stop(ErrStopped)
	}
	run.job.State, run.job.Writer = Running, r.ID
	r.Logger.Info("a job begins", "kind", j.Kind, "job", j.ID, "goes_on", len(j.Summary) > 0)
	var keeping sync.WaitGroup
	kept, end := context.WithCancel(doing)
	r.keep(kept, run, stop) // who asked may have stopped it meanwhile
	keeping.Go(func() {
		for sleep(kept, keepEvery) == nil {
			r.keep(kept, run, stop)
		}
	})
	summary, err := do(doing, j, run)
	end()
	keeping.Wait()
	if ctx.Err() != nil {
		r.Logger.Info("a job stops: the next ingest that leads goes on with it", "kind", j.Kind, "job", j.ID)
		return
	}
	r.conclude(ctx, run, summary, err)
}

// keep stores how far a job is.
func (r *Runner) keep(ctx context.Context, run *Run, stop context.CancelCauseFunc) {
	run.mu.Lock()
	j, rev := run.job, run.rev
	run.mu.Unlock()
	rev, err := put(ctx, r.JS, j, rev)
	if err != nil {
		// Who asked has changed it, or an attempt that failed took effect.
		now, at, getErr := Get(ctx, r.JS)
		switch {
		case getErr != nil:
			return
		case now.ID != j.ID || now.State == Stopping || now.State == Ended:
			stop(ErrStopped)
		}
		rev = at
	}
	run.mu.Lock()
	run.rev = rev
	run.mu.Unlock()
}

// conclude stores what came of a job, as long as ctx lasts.
func (r *Runner) conclude(ctx context.Context, run *Run, summary any, err error) {
	j := run.job
	j.State = Ended
	if err != nil {
		j.Error = err.Error()
		for code, known := range r.Codes {
			if errors.Is(err, known) {
				j.Code = code
			}
		}
	}
	if data, encodeErr := json.Marshal(summary); encodeErr == nil {
		j.Summary = data
	}
	r.Logger.Info("a job ends", "kind", j.Kind, "job", j.ID, "err", err)
	for {
		now, rev, getErr := Get(ctx, r.JS)
		if getErr == nil && (now.ID != j.ID || now.State == Ended) {
			return
		}
		if getErr == nil {
			if _, getErr = put(ctx, r.JS, j, rev); getErr == nil {
				return
			}
		}
		r.Logger.Warn("could not store what came of a job: trying again", "job", j.ID, "err", getErr)
		if sleep(ctx, keepEvery) != nil {
			return
		}
	}
}

// Run is a job under way.
type Run struct {
	mu  sync.Mutex // guards what follows
	job Job
	rev uint64
}

// At says that done of total is done.
func (r *Run) At(done, total uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.job.Done, r.job.Total = done, total
}

// Say announces a step.
func (r *Run) Say(step string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.job.Step = step
}

// Keep says from where to go on after a restart. All that the summary says must be stored.
func (r *Run) Keep(summary any) {
	data, err := json.Marshal(summary)
	if err != nil {
		return // it begins at the last one again
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.job.Summary = data
}
