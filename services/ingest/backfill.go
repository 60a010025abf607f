package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/ingest/internal/backfill"
	"github.com/tagstream/tagstream/services/ingest/internal/firehose"
	"github.com/tagstream/tagstream/services/ingest/internal/forward"
)

// BackfillConfig is what an operator chooses about filling in the past.
type BackfillConfig struct {
	// Ingest's Hosts, APIKeyFile and Timing are used.
	Ingest Config
	// From is where the window begins: an RFC 3339 time, a date or an age such
	// as "-3d".
	From string
	// For is how long it is, such as "90m" or "2d"; a window that is not over
	// yet ends now.
	For string
	// Patience is how long to wait for a running ingest; 0 means 10 minutes.
	Patience time.Duration
}

// BackfillDeps are what a backfill needs of its program.
type BackfillDeps struct {
	NATS *nats.Conn
	// Domain is the JetStream domain that the streams are in; "" is the server's own.
	Domain   string
	Logger   *slog.Logger
	Progress backfill.Progress
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

// RunBackfill publishes what qualified in a window of the past, through the
// ingest that runs, whose position it leaves alone. The summary says what was
// done, also beside an error. Running it twice changes nothing in the index.
func RunBackfill(ctx context.Context, cfg BackfillConfig, deps BackfillDeps) (BackfillSummary, error) {
	resolved, err := cfg.resolve(time.Now())
	if err != nil {
		return BackfillSummary{}, err
	}
	js, err := stream.JetStream(deps.NATS, deps.Domain)
	if err != nil {
		return BackfillSummary{}, fmt.Errorf("use the NATS connection: %w", err)
	}
	window := fmt.Sprintf("%s to %s", resolved.From.Format(time.RFC3339), resolved.Until.Format(time.RFC3339))
	putLog(ctx, js, deps.Logger, stream.LogEntry{What: logBackfill, Detail: "begins: " + window})
	guest := newGuest(deps.NATS, deps.Logger, cfg.Patience)
	summary, err := backfill.New(resolved, guest, deps.Progress, deps.Logger, func(n firehose.Notice) {
		if !n.Repeated && n.What == firehose.Skipped {
			putLog(ctx, js, deps.Logger, stream.LogEntry{What: string(n.What), Host: n.Host, Position: n.Position, Detail: "backfill: " + n.Detail})
		}
	}).Run(ctx)
	detail := "complete: "
	if err != nil {
		detail = "not complete: "
	}
	detail += fmt.Sprintf("%s, read %d, published %d, left out %d gone since", window, summary.Read, total(summary.Published), summary.Gone)
	if err != nil {
		detail += ": " + err.Error()
	}
	putLog(ctx, js, deps.Logger, stream.LogEntry{What: logBackfill, Host: summary.Last.Host, Position: summary.Last, Detail: detail})
	return summary, err
}

// Entries of the ingest log for the beginning and the end of the commands.
const (
	logBackfill  = "backfill"
	logReconcile = "reconcile"
)

// putLog stores an entry of the ingest log, if that is possible.
func putLog(ctx context.Context, js jetstream.JetStream, logger *slog.Logger, e stream.LogEntry) {
	e.At = time.Now().UTC()
	if err := stream.PutLog(context.WithoutCancel(ctx), js, e); err != nil {
		logger.Debug("an entry of the ingest log is lost", "what", e.What, "err", err)
	}
}

// newGuest returns a guest of the ingest that runs, which says what it waits
// for.
func newGuest(nc *nats.Conn, logger *slog.Logger, patience time.Duration) *forward.Guest {
	g := forward.NewGuest(nc, runID())
	g.Patience = patience
	g.OnWait = func(reason string) {
		if reason == "" {
			logger.Info("the ingest service takes events again")
		} else {
			logger.Warn("waiting for the ingest service", "reason", reason)
		}
	}
	return g
}

func total[K comparable](counts map[K]uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}
