package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/ingest/internal/jobs"
	"github.com/tagstream/tagstream/services/ingest/internal/reconcile"
)

// DefaultMaxShare is the share of all visible posts that a reconciliation
// removes without being told that more is right.
const DefaultMaxShare = "5%"

// ReconcileConfig is what an operator chooses about mending a gap.
type ReconcileConfig struct {
	// Ingest is as the ingest that runs has it.
	Ingest Config
	// Host is whose archive to compare with; "" is the one that is read now.
	Host string
	// MaxShare is the share of all visible posts that may be removed, such as
	// "5%"; "" means DefaultMaxShare.
	MaxShare string
	// DryRun publishes nothing.
	DryRun bool
	// Patience is how long to wait for a running ingest; 0 means 10 minutes.
	Patience time.Duration
	// Margin is for tests; 0 means reconcile.DefaultMargin.
	Margin time.Duration
}

// ReconcileDeps are what a reconciliation needs of its program.
type ReconcileDeps struct {
	NATS *nats.Conn
	// Domain is the JetStream domain that the streams are in; "" is the server's own.
	Domain   string
	Logger   *slog.Logger
	Progress Progress
}

// ReconcileSummary is what a reconciliation found and did.
type ReconcileSummary = reconcile.Summary

// ErrTooManyRemovals is returned by RunReconcile where more posts would go than
// MaxShare allows; nothing was published then. An operator decides.
var ErrTooManyRemovals = reconcile.ErrTooMany

// Validate checks the configuration. The error is a *service.ConfigError that
// names the variable or the flag.
func (c ReconcileConfig) Validate() error {
	_, err := c.resolve()
	return err
}

func (c ReconcileConfig) resolve() (reconcile.Config, error) {
	ingest := c.Ingest
	ingest.Start, ingest.StopAfter = "", 0
	if c.Host != "" {
		if _, err := baseURLs([]string{c.Host}); err != nil {
			return reconcile.Config{}, &service.ConfigError{Variable: "--host", Err: err}
		}
		ingest.Hosts = []string{c.Host}
	}
	fh, err := ingest.resolve(time.Now())
	if err != nil {
		return reconcile.Config{}, err
	}
	if c.Host == "" {
		fh.Hosts = nil
	}
	if c.MaxShare == "" {
		c.MaxShare = DefaultMaxShare
	}
	percent, ok := strings.CutSuffix(c.MaxShare, "%")
	share, err := strconv.ParseFloat(percent, 64)
	if !ok || err != nil || !(share >= 0 && share <= 100) {
		return reconcile.Config{}, &service.ConfigError{Variable: "--max-share", Err: fmt.Errorf("%q is not a share such as 5%%", c.MaxShare)}
	}
	return reconcile.Config{Firehose: fh, MaxShare: share / 100, DryRun: c.DryRun, Margin: c.Margin}, nil
}

// request is what is asked of the ingest that runs.
func (c ReconcileConfig) request() (reconcileRequest, error) {
	resolved, err := c.resolve()
	q := reconcileRequest{MaxShare: resolved.MaxShare, DryRun: c.DryRun, Margin: c.Margin}
	if len(resolved.Firehose.Hosts) > 0 {
		q.Host = resolved.Firehose.Hosts[0]
	}
	return q, err
}

// RunReconcile removes posts that were deleted while no host was read that
// knew of it, as the archive of a host shows, through the ingest that runs. The
// summary says what was found and done, also beside an error. Running it twice
// changes nothing in the index.
func RunReconcile(ctx context.Context, cfg ReconcileConfig, deps ReconcileDeps) (ReconcileSummary, error) {
	q, err := cfg.request()
	if err != nil {
		return ReconcileSummary{}, err
	}
	js, err := stream.JetStream(deps.NATS, deps.Domain)
	if err != nil {
		return ReconcileSummary{}, fmt.Errorf("use the NATS connection: %w", err)
	}
	var sum ReconcileSummary
	a := jobs.Asker{JS: js, Progress: deps.Progress, Patience: cfg.Patience, Codes: jobErrors}
	err = a.Ask(ctx, jobs.Reconcile, q, &sum)
	if err != nil && sum.Why == "" {
		sum.Why = err.Error()
	}
	return sum, err
}
