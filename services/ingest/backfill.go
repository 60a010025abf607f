package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/ingest/internal/backfill"
	"github.com/tagstream/tagstream/services/ingest/internal/firehose"
	"github.com/tagstream/tagstream/services/ingest/internal/jobs"
)

// BackfillConfig is what an operator chooses about filling in the past.
type BackfillConfig struct {
	// Of Ingest the Hosts are used; all else is as the ingest that runs has it.
	Ingest Config
	// From is where the window begins: an RFC 3339 time, a date or an age such
	// as "-3d".
	From string
	// For is how long it is, such as "90m" or "2d"; a window that is not over
	// yet ends now.
	For string
	// Patience is how long to wait for an ingest that runs; 0 means 10 minutes.
	Patience time.Duration
}

// BackfillDeps are what a backfill needs of its program.
type BackfillDeps struct {
	NATS *nats.Conn
	// Domain is the JetStream domain that the streams are in; "" is the server's own.
	Domain   string
	Logger   *slog.Logger
	Progress Progress
}

// BackfillSummary is what a backfill did.
type BackfillSummary = backfill.Summary

// Validate checks the configuration. The error is a *service.ConfigError that
// names the variable or the flag.
func (c BackfillConfig) Validate() error {
	_, err := c.resolve(time.Now())
	return err
}

// resolve checks the configuration. The error is a *service.ConfigError.
func (c BackfillConfig) resolve(now time.Time) (backfill.Config, error) {
	bad := func(flag string, err error) (backfill.Config, error) {
		return backfill.Config{}, &service.ConfigError{Variable: flag, Err: err}
	}
	// What these two say is for the reader of the present.
	ingest := c.Ingest
	ingest.Start, ingest.StopAfter = "", 0
	fh, err := ingest.resolve(now)
	if err != nil {
		return backfill.Config{}, err
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
	return backfill.Config{Firehose: fh, From: start.Time, Until: until}, nil
}

// request is what is asked of the ingest that runs.
func (c BackfillConfig) request() (backfillRequest, error) {
	resolved, err := c.resolve(time.Now())
	return backfillRequest{resolved.From, resolved.Until, resolved.Firehose.Hosts}, err
}

// Progress hears how far a job is.
type Progress = jobs.Progress

// RunBackfill has the ingest that runs publish what qualified in a window of the past, beside
// what it reads live. The summary says what was done, also beside an error. It ends with ctx, and
// the job with it; where this program dies, the job goes on. Running it twice changes nothing in
// the index.
func RunBackfill(ctx context.Context, cfg BackfillConfig, deps BackfillDeps) (BackfillSummary, error) {
	asked, err := cfg.request()
	if err != nil {
		return BackfillSummary{}, err
	}
	js, err := stream.JetStream(deps.NATS, deps.Domain)
	if err != nil {
		return BackfillSummary{}, fmt.Errorf("use the NATS connection: %w", err)
	}
	sum := BackfillSummary{From: asked.From, Until: asked.Until}
	a := jobs.Asker{JS: js, Progress: deps.Progress, Patience: cfg.Patience, Codes: jobErrors}
	err = a.Ask(ctx, jobs.Backfill, asked, &sum)
	if err != nil && sum.Why == "" {
		sum.Why = err.Error()
	}
	return sum, err
}

func total[K comparable](counts map[K]uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}
