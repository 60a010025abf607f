// Package jobs runs backfills and reconciliations in the leading ingest, one at a time.
//
// Any program that reaches the stream can request a job (Ask). The request is stored next to the
// writer's position, where the leading ingest finds it and stores the job's progress and result:
//
//	Ask ──► asked ──► running ──► ended
//	            ▲         │
//	            └─────────┘ the lease is lost, or ingest stops
//
// So a job survives a restart, and the next leading ingest continues it. Each change names the
// revision of the record that it follows: of two simultaneous changes, one fails and reads the
// record again.
package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/stream"
)

// Kind is what a job does.
type Kind string

// The kinds.
const (
	Backfill  Kind = "backfill"
	Reconcile Kind = "reconcile"
)

// State is the state of a job.
type State string

// The states.
const (
	Asked    State = "asked"
	Running  State = "running"
	Stopping State = "stopping" // on request
	Ended    State = "ended"
)

// Job is the record of a job.
type Job struct {
	ID      string          `json:"id"`
	Kind    Kind            `json:"kind"`
	Request json.RawMessage `json:"request"`
	State   State           `json:"state"`
	Asked   time.Time       `json:"asked"`
	// Writer is the ingest that runs the job, Step the current step, and Done of Total the
	// progress.
	Writer string `json:"writer,omitempty"`
	Step   string `json:"step,omitempty"`
	Done   uint64 `json:"done,omitempty"`
	Total  uint64 `json:"total,omitempty"`
	// Summary says what the job did, and where it continues after a restart.
	Summary json.RawMessage `json:"summary,omitempty"`
	// Error says why the job is not complete; Code identifies an error that callers distinguish.
	Error string `json:"error,omitempty"`
	Code  string `json:"code,omitempty"`
}

// ErrStopped is the cause of ending a job that is no longer wanted.
var ErrStopped = errors.New("the job was stopped")

// Get returns the newest job and its revision; the zero Job if there never was one.
func Get(ctx context.Context, js jetstream.JetStream) (j Job, rev uint64, err error) {
	data, rev, err := stream.GetJob(ctx, js)
	if err != nil || len(data) == 0 {
		return Job{}, rev, err
	}
	if err := json.Unmarshal(data, &j); err != nil {
		return Job{}, rev, fmt.Errorf("read the job: %w", err)
	}
	return j, rev, nil
}

// change calls with on the stored job, stores the result unless with returns false, and returns the
// job. Of two simultaneous changes one fails, as does an attempt after one that took effect: then
// call change again. The error is ErrStopped if another job has replaced it, or the server's.
func change(ctx context.Context, js jetstream.JetStream, id string, with func(*Job) bool) (Job, error) {
	j, rev, err := Get(ctx, js)
	switch {
	case err != nil:
		return j, err
	case j.ID != id:
		return j, fmt.Errorf("%w: it was replaced", ErrStopped)
	case !with(&j):
		return j, nil
	}
	_, err = put(ctx, js, j, rev)
	return j, err
}

func put(ctx context.Context, js jetstream.JetStream, j Job, rev uint64) (uint64, error) {
	data, err := json.Marshal(j)
	if err != nil {
		return 0, fmt.Errorf("encode the job: %w", err)
	}
	return stream.PutJob(ctx, js, data, rev)
}
