package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/pause"
)

const (
	// lookEvery is how often the leading ingest looks for a job, and saveEvery how often it stores
	// the job's progress.
	lookEvery = time.Second
	saveEvery = time.Second
)

// Runner runs jobs for as long as an ingest leads.
type Runner struct {
	JS     jetstream.JetStream
	ID     string // of the ingest
	Logger *slog.Logger
	// Codes are the errors that callers distinguish, by the codes in records.
	Codes map[string]error
}

// Func runs a job. It stores its progress through r, and returns its summary even if there is an
// error.
type Func func(ctx context.Context, j Job, r *Run) (summary any, err error)

// Run looks for jobs and runs them until ctx ends. An unfinished job then stays as it is.
func (r *Runner) Run(ctx context.Context, do Func) {
	for pause.For(ctx, lookEvery) == nil {
		j, _, err := Get(ctx, r.JS)
		switch {
		case err != nil:
			r.Logger.Debug("could not look for a job", "err", err)
		case j.ID != "" && j.State != Ended:
			r.run(ctx, j, do)
		}
	}
}

func (r *Runner) run(ctx context.Context, j Job, do Func) {
	r.Logger.Info("job started", "kind", j.Kind, "job", j.ID, "continued", len(j.Summary) > 0)
	doing, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	run := &Run{job: j}
	run.job.State, run.job.Writer = Running, r.ID
	saving, end := context.WithCancel(doing)
	r.save(saving, run, stop) // it may have been stopped by now
	var saver sync.WaitGroup
	saver.Go(func() {
		for pause.For(saving, saveEvery) == nil {
			r.save(saving, run, stop)
		}
	})
	summary, err := do(doing, j, run)
	end()
	saver.Wait()
	if ctx.Err() != nil {
		r.Logger.Info("job interrupted: the next leading ingest continues it", "kind", j.Kind, "job", j.ID)
		return
	}
	r.conclude(ctx, run.job, summary, err)
}

// save stores a job's progress, and stops the job if it is no longer wanted.
func (r *Runner) save(ctx context.Context, run *Run, stop context.CancelCauseFunc) {
	run.mu.Lock()
	j := run.job
	run.mu.Unlock()
	now, err := change(ctx, r.JS, j.ID, func(now *Job) bool {
		wanted := now.State == Asked || now.State == Running
		if wanted {
			*now = j
		}
		return wanted
	})
	if errors.Is(err, ErrStopped) || now.State == Stopping || now.State == Ended {
		stop(ErrStopped)
	}
}

// conclude stores the result of a job; it retries until ctx ends.
func (r *Runner) conclude(ctx context.Context, j Job, summary any, err error) {
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
	r.Logger.Info("job ended", "kind", j.Kind, "job", j.ID, "err", err)
	for {
		_, err := change(ctx, r.JS, j.ID, func(now *Job) bool {
			open := now.State != Ended
			*now = j
			return open
		})
		if err == nil || errors.Is(err, ErrStopped) {
			return
		}
		r.Logger.Warn("could not store the result of a job; trying again", "job", j.ID, "err", err)
		if pause.For(ctx, saveEvery) != nil {
			return
		}
	}
}

// Run is a running job.
type Run struct {
	mu  sync.Mutex // guards what follows
	job Job
}

// At reports that done of total are done.
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

// Save says where to continue after a restart. Everything in the summary must be in the stream.
func (r *Run) Save(summary any) {
	data, err := json.Marshal(summary)
	if err != nil {
		return // it continues from the one before
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.job.Summary = data
}
