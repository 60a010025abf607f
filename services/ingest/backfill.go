package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/ingest/internal/backfill"
	"github.com/tagstream/tagstream/services/ingest/internal/firehose"
	"github.com/tagstream/tagstream/services/ingest/internal/forward"
	"github.com/tagstream/tagstream/services/ingest/internal/jobs"
)

// BackfillConfig is an operator's request to fill a past window.
type BackfillConfig struct {
	// Only Hosts of Ingest are used; everything else is as configured in the running ingest.
	Ingest Config
	// From is the start of the window: an RFC 3339 time, a date, or an age such as "-3d".
	From string
	// For is the window's length, such as "90m" or "2d". A window that reaches into the future ends
	// now.
	For string
}

// BackfillSummary is what a backfill did.
type BackfillSummary = backfill.Summary

// Validate checks the configuration. The error is a *service.ConfigError that names the variable or
// the flag.
func (c BackfillConfig) Validate() error {
	_, err := c.request(time.Now())
	return err
}

// request returns the request for the running ingest. The error is a *service.ConfigError.
func (c BackfillConfig) request(now time.Time) (backfill.Request, error) {
	bad := func(flag string, err error) (backfill.Request, error) {
		return backfill.Request{}, &service.ConfigError{Variable: flag, Err: err}
	}
	c.Ingest.Start, c.Ingest.StopAfter = "", 0 // of the live reader
	fh, err := c.Ingest.resolve(now)
	if err != nil {
		return backfill.Request{}, err
	}
	start, err := firehose.ParseStart(c.From, now)
	if err == nil && start.Time.IsZero() || errors.Is(err, firehose.ErrNoStart) {
		err = errors.New("must be an RFC 3339 time, a date such as 2026-08-31 or an age such as -2h or -3d")
	}
	if err != nil {
		return bad("--from", err)
	}
	length, ok := firehose.ParseLength(c.For)
	if !ok {
		return bad("--for", fmt.Errorf("%q is not a length of time such as 90m, 6h or 2d", c.For))
	}
	until := start.Time.Add(length).Truncate(time.Microsecond)
	if now = now.UTC().Truncate(time.Microsecond); until.After(now) {
		until = now
	}
	return backfill.Request{From: start.Time, Until: until, Hosts: fh.Hosts}, nil
}

// RunBackfill makes the running ingest publish what qualified in a past window, in addition to its
// live reading. The summary says what was done, even if there is an error. Running it twice changes
// nothing in the index.
func RunBackfill(ctx context.Context, cfg BackfillConfig, deps JobDeps) (BackfillSummary, error) {
	asked, err := cfg.request(time.Now())
	if err != nil {
		return BackfillSummary{}, err
	}
	sum := BackfillSummary{From: asked.From, Until: asked.Until}
	err = deps.ask(ctx, jobs.Backfill, asked, &sum)
	if err != nil && sum.Why == "" {
		sum.Why = err.Error()
	}
	return sum, err
}

// backfill runs a job. detail is a sentence about it.
func (s *Service) backfill(ctx context.Context, j jobs.Job, run *jobs.Run, to *forward.SideWriter) (sum BackfillSummary, detail string, err error) {
	cfg := backfill.Config{Firehose: s.firehose}
	if err := readJob("the request", j.Request, &cfg.Request); err != nil {
		return sum, "", err
	}
	if len(j.Summary) > 0 {
		cfg.Before = &backfill.Summary{}
		if err := readJob("the progress", j.Summary, cfg.Before); err != nil {
			return sum, "", err
		}
	}
	window := fmt.Sprintf("%s to %s", cfg.From.Format(time.RFC3339), cfg.Until.Format(time.RFC3339))
	s.log.put(stream.LogEntry{What: string(j.Kind), Detail: "begins: " + window})
	sum, err = backfill.New(cfg, to, run, s.logger, func(n firehose.Notice) {
		if !n.Repeated && n.Kind == firehose.Skipped {
			s.log.put(stream.LogEntry{What: string(n.Kind), Host: n.Host, Position: n.Position, Detail: "backfill: " + n.Detail})
		}
	}).Run(ctx)
	var published uint64
	for _, n := range sum.Published {
		published += n
	}
	return sum, fmt.Sprintf("%s, read %d, published %d, left out %d gone since", window, sum.Read, published, sum.Gone), err
}
