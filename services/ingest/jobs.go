package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/ingest/internal/backfill"
	"github.com/tagstream/tagstream/services/ingest/internal/forward"
	"github.com/tagstream/tagstream/services/ingest/internal/jobs"
	"github.com/tagstream/tagstream/services/ingest/internal/reconcile"
)

// ErrNoWriter is returned by RunBackfill and RunReconcile if no running ingest took the job.
var ErrNoWriter = jobs.ErrNoWriter

// jobErrors are the errors of jobs that callers distinguish.
var jobErrors = map[string]error{
	"too_many_removals": reconcile.ErrTooMany,
	"too_much_changed":  backfill.ErrTooMuch,
	"before_history":    backfill.ErrBeforeHistory,
	"stopped":           jobs.ErrStopped,
}

// JobDeps are what a job needs from the program that requests it.
type JobDeps struct {
	NATS *nats.Conn
	// Domain is the JetStream domain of the streams; "" is the server's own.
	Domain   string
	Progress obs.Progress
	// Patience is how long to wait for a running ingest; 0 means 10 minutes.
	Patience time.Duration
}

// ask makes the running ingest run a job and waits for its end. summary is set even if there is an
// error. The job ends with ctx; if this program dies, the job continues.
func (d JobDeps) ask(ctx context.Context, kind jobs.Kind, request, summary any) error {
	js, err := stream.JetStream(d.NATS, d.Domain)
	if err != nil {
		return fmt.Errorf("use the NATS connection: %w", err)
	}
	a := jobs.Asker{JS: js, Progress: d.Progress, Patience: d.Patience, Codes: jobErrors}
	return a.Ask(ctx, kind, request, summary)
}

// runJobs runs jobs while this program leads.
func (s *Service) runJobs(ctx context.Context, to *forward.SideWriter) {
	r := jobs.Runner{JS: s.js, ID: s.id, Logger: s.logger, Codes: jobErrors}
	r.Run(ctx, func(ctx context.Context, j jobs.Job, run *jobs.Run) (summary any, err error) {
		var detail string // a sentence about what the job did, or is to do
		switch j.Kind {
		case jobs.Backfill:
			summary, detail, err = s.backfill(ctx, j, run, to)
		case jobs.Reconcile:
			summary, detail, err = s.reconcile(ctx, j, run, to)
		default:
			err = fmt.Errorf("this version cannot run the job %q", j.Kind)
		}
		switch {
		case err == nil:
			detail = "complete: " + detail
		case ctx.Err() != nil && !errors.Is(err, jobs.ErrStopped):
			detail = "interrupted: the next leading ingest continues it"
		default:
			detail = fmt.Sprintf("not complete: %s: %v", detail, err)
		}
		s.log.put(stream.LogEntry{What: string(j.Kind), Detail: detail})
		return summary, err
	})
}

// readJob decodes part of a job's record.
func readJob(what string, data json.RawMessage, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s of the job: %w", what, err)
	}
	return nil
}
