package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/ingest/internal/backfill"
	"github.com/tagstream/tagstream/services/ingest/internal/firehose"
	"github.com/tagstream/tagstream/services/ingest/internal/forward"
	"github.com/tagstream/tagstream/services/ingest/internal/jobs"
	"github.com/tagstream/tagstream/services/ingest/internal/reconcile"
)

// ErrNoWriter is returned by RunBackfill and RunReconcile where no ingest that runs took the job.
var ErrNoWriter = jobs.ErrNoWriter

// jobErrors are the errors of jobs that callers know.
var jobErrors = map[string]error{
	"too_many_removals": reconcile.ErrTooMany,
	"too_much_changed":  backfill.ErrTooMuch,
	"before_history":    backfill.ErrBeforeHistory,
	"stopped":           jobs.ErrStopped,
}

// backfillRequest and reconcileRequest are what is asked for. Hosts are addresses without
// anything secret; keys are those of the ingest that runs.
type backfillRequest struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
	Hosts []string  `json:"hosts"`
}

type reconcileRequest struct {
	Host     string        `json:"host,omitempty"`
	MaxShare float64       `json:"maxShare"`
	DryRun   bool          `json:"dryRun,omitempty"`
	Margin   time.Duration `json:"margin,omitempty"`
}

// runJobs does what is asked for while this program leads.
func (s *Service) runJobs(ctx context.Context, to *forward.Past) {
	r := jobs.Runner{JS: s.js, ID: s.id, Logger: s.logger, Codes: jobErrors}
	r.Run(ctx, func(ctx context.Context, j jobs.Job, run *jobs.Run) (any, error) {
		var detail string
		summary, err := s.doJob(ctx, j, run, to, &detail)
		switch {
		case err == nil:
			detail = "complete: " + detail
		case ctx.Err() != nil && !errors.Is(err, jobs.ErrStopped):
			detail = "interrupted: the next ingest that leads goes on with it"
		default:
			detail = fmt.Sprintf("not complete: %s: %v", detail, err)
		}
		s.log.put(stream.LogEntry{What: string(j.Kind), Detail: detail})
		return summary, err
	})
}

// doJob does one job. detail is a sentence about what it did, or is to do.
func (s *Service) doJob(ctx context.Context, j jobs.Job, run *jobs.Run, to *forward.Past, detail *string) (any, error) {
	fh := s.firehose
	switch j.Kind {
	case jobs.Backfill:
		var q backfillRequest
		if err := json.Unmarshal(j.Request, &q); err != nil {
			return nil, fmt.Errorf("read the request: %w", err)
		}
		fh.Hosts = q.Hosts
		cfg := backfill.Config{Firehose: fh, From: q.From, Until: q.Until}
		if len(j.Summary) > 0 {
			cfg.Before = &backfill.Summary{}
			if err := json.Unmarshal(j.Summary, cfg.Before); err != nil {
				return nil, fmt.Errorf("read how far it was: %w", err)
			}
		}
		window := fmt.Sprintf("%s to %s", q.From.Format(time.RFC3339), q.Until.Format(time.RFC3339))
		s.log.put(stream.LogEntry{What: string(j.Kind), Detail: "begins: " + window})
		sum, err := backfill.New(cfg, to, run, s.logger, func(n firehose.Notice) {
			if !n.Repeated && n.Kind == firehose.Skipped {
				s.log.put(stream.LogEntry{What: string(n.Kind), Host: n.Host, Position: n.Position, Detail: "backfill: " + n.Detail})
			}
		}).Run(ctx)
		*detail = fmt.Sprintf("%s, read %d, published %d, left out %d gone since", window, sum.Read, total(sum.Published), sum.Gone)
		return sum, err
	case jobs.Reconcile:
		var q reconcileRequest
		if err := json.Unmarshal(j.Request, &q); err != nil {
			return nil, fmt.Errorf("read the request: %w", err)
		}
		fh.Hosts = nil
		if q.Host != "" {
			fh.Hosts = []string{q.Host}
		}
		cfg := reconcile.Config{Firehose: fh, MaxShare: q.MaxShare, DryRun: q.DryRun, Margin: q.Margin}
		sum, err := reconcile.New(cfg, s.js, to, run, s.logger).Run(ctx)
		*detail = fmt.Sprintf("of %d posts %d are deleted and %d do not qualify any more; published %d removals", sum.Posts, sum.Deleted, sum.Unqualified, sum.Published)
		if q.DryRun {
			*detail = "dry run: " + *detail
		}
		return sum, err
	}
	return nil, fmt.Errorf("no program of this version does a %q", j.Kind)
}
