package jobs

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/pause"
)

const (
	// pollEvery is the interval for reading a job's progress.
	pollEvery = 200 * time.Millisecond
	// beginPatience is how long a job waits for the leading ingest to take it.
	beginPatience = time.Minute
	// DefaultPatience is how long a job may make no progress, for example while no ingest leads.
	DefaultPatience = 10 * time.Minute
	// stopPatience is how long Stop waits for a job to end.
	stopPatience = 5 * time.Second
)

var (
	// ErrNoWriter is returned if no leading ingest did anything for the job.
	ErrNoWriter = errors.New("no ingest service took the job (is one running, with the same NATS server?)")
	// ErrBusy is returned if another job is running.
	ErrBusy = errors.New("another job is running")
)

// Asker requests jobs.
type Asker struct {
	JS       jetstream.JetStream
	Progress obs.Progress
	// Patience is how long a job may make no progress; 0 means DefaultPatience.
	Patience time.Duration
	// Codes are the errors that callers distinguish.
	Codes map[string]error
}

// Ask requests a job and waits for its end. If a job of the same kind and request is running, it
// waits for that one. If ctx ends, the job is stopped. summary is set to what the job did, even if
// there is an error: one of Codes, ErrNoWriter, ErrBusy, ctx's or the server's.
func (a *Asker) Ask(ctx context.Context, kind Kind, request, summary any) error {
	if a.Patience == 0 {
		a.Patience = DefaultPatience
	}
	j, rev, err := Begin(ctx, a.JS, kind, request)
	if err != nil {
		return err
	}
	j, err = a.await(ctx, j, rev)
	if len(j.Summary) > 0 {
		if err := json.Unmarshal(j.Summary, summary); err != nil {
			return fmt.Errorf("read the summary of the job: %w", err)
		}
	}
	return err
}

// Begin requests a job, and returns it and its revision, or the running job of the same kind and
// request. The error is ErrBusy if another job is running, or the server's.
func Begin(ctx context.Context, js jetstream.JetStream, kind Kind, request any) (Job, uint64, error) {
	data, err := json.Marshal(request)
	if err != nil {
		return Job{}, 0, fmt.Errorf("encode the request: %w", err)
	}
	j, rev, err := Get(ctx, js)
	switch {
	case err != nil:
		return Job{}, 0, err
	case j.ID != "" && j.State != Ended && j.Kind == kind && slices.Equal(j.Request, data):
		return j, rev, nil
	case j.ID != "" && j.State != Ended:
		return Job{}, 0, fmt.Errorf("%w: a %s, requested at %s; DELETE /jobs of ingest's TAGSTREAM_OPS_LISTEN stops it", ErrBusy, j.Kind, j.Asked.Format(time.RFC3339))
	}
	j = Job{ID: rand.Text()[:8], Kind: kind, Request: data, State: Asked, Asked: time.Now().UTC()}
	if rev, err = put(ctx, js, j, rev); err != nil {
		return Job{}, 0, fmt.Errorf("ask for a %s: %w", kind, err)
	}
	return j, rev, nil
}

// await waits for the end of a job, and returns its final record.
func (a *Asker) await(ctx context.Context, j Job, rev uint64) (Job, error) {
	step, moved := "", time.Now()
	for {
		if pause.For(ctx, pollEvery) != nil {
			return Stop(ctx, a.JS, j), context.Cause(ctx)
		}
		now, nowRev, trouble := Get(ctx, a.JS)
		if trouble == nil {
			if now.ID != j.ID {
				return j, fmt.Errorf("%w: it was replaced", ErrStopped)
			}
			if nowRev != rev {
				j, rev, moved = now, nowRev, time.Now()
			}
			if now.Step != step {
				step = now.Step
				a.Progress.Say(step)
			}
			a.Progress.At(now.Done, now.Total)
			if now.State == Ended {
				return now, a.errorOf(now)
			}
		}
		patience := a.Patience
		if j.State == Asked {
			patience = min(patience, beginPatience)
		}
		if time.Since(moved) > patience {
			return Stop(ctx, a.JS, j), errors.Join(fmt.Errorf("%w: waited %s", ErrNoWriter, patience), trouble)
		}
	}
}

// Stop stops a job, and waits for its end for up to stopPatience.
func Stop(ctx context.Context, js jetstream.JetStream, j Job) Job {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	for {
		now, err := change(ctx, js, j.ID, func(j *Job) bool {
			switch j.State {
			case Asked:
				j.State, j.Error = Ended, ErrStopped.Error()
			case Running:
				j.State = Stopping
			case Stopping, Ended:
				return false
			}
			return true
		})
		if err == nil && now.State == Ended || errors.Is(err, ErrStopped) {
			return now
		}
		if pause.For(ctx, pollEvery) != nil {
			return j
		}
	}
}

func (a *Asker) errorOf(j Job) error {
	if j.Error == "" {
		return nil
	}
	if known := a.Codes[j.Code]; known != nil {
		return &failed{j.Error, known}
	}
	return errors.New(j.Error)
}

// failed is an error of a job that callers distinguish.
type failed struct {
	text  string
	known error
}

func (f *failed) Error() string { return f.text }
func (f *failed) Unwrap() error { return f.known }
