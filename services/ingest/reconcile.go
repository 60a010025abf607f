package ingest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/ingest/internal/forward"
	"github.com/tagstream/tagstream/services/ingest/internal/jobs"
	"github.com/tagstream/tagstream/services/ingest/internal/reconcile"
)

// DefaultMaxShare is the share of all visible posts that a reconciliation may remove unless the
// operator allows more.
const DefaultMaxShare = "5%"

// ReconcileConfig is an operator's request to repair a gap.
type ReconcileConfig struct {
	// Ingest is the configuration of the running ingest.
	Ingest Config
	// Host is the host whose archive is compared; "" is the one that is read now.
	Host string
	// MaxShare is the share of all visible posts that may be removed, such as "5%"; "" means
	// DefaultMaxShare.
	MaxShare string
	// DryRun publishes nothing.
	DryRun bool
	// Margin is for tests; 0 means reconcile.DefaultMargin.
	Margin time.Duration
}

// ReconcileSummary is what a reconciliation found and did.
type ReconcileSummary = reconcile.Summary

// ErrTooManyRemovals is returned by RunReconcile if more posts would be removed than MaxShare
// allows; nothing was published then. An operator must decide.
var ErrTooManyRemovals = reconcile.ErrTooMany

// Validate checks the configuration. The error is a *service.ConfigError that
// names the variable or the flag.
func (c ReconcileConfig) Validate() error {
	_, err := c.request()
	return err
}

// request returns the request for the running ingest. The error is a *service.ConfigError.
func (c ReconcileConfig) request() (q reconcile.Request, err error) {
	q.DryRun, q.Margin = c.DryRun, c.Margin
	c.Ingest.Start, c.Ingest.StopAfter = "", 0 // of the live reader
	if c.Host != "" {
		if c.Ingest.Hosts, err = baseURLs([]string{c.Host}); err != nil {
			return q, &service.ConfigError{Variable: "--host", Err: err}
		}
		q.Host = c.Ingest.Hosts[0]
	}
	if _, err := c.Ingest.resolve(time.Now()); err != nil {
		return q, err
	}
	if c.MaxShare == "" {
		c.MaxShare = DefaultMaxShare
	}
	percent, ok := strings.CutSuffix(c.MaxShare, "%")
	share, err := strconv.ParseFloat(percent, 64)
	if !ok || err != nil || !(share >= 0 && share <= 100) {
		return q, &service.ConfigError{Variable: "--max-share", Err: fmt.Errorf("%q is not a share such as 5%%", c.MaxShare)}
	}
	q.MaxShare = share / 100
	return q, nil
}

// RunReconcile makes the running ingest remove posts that were deleted while no host was read that
// knew of the deletion, judging by the archive of a host. The summary says what was found and done,
// even if there is an error. Running it twice changes nothing in the index.
func RunReconcile(ctx context.Context, cfg ReconcileConfig, deps JobDeps) (sum ReconcileSummary, err error) {
	asked, err := cfg.request()
	if err != nil {
		return sum, err
	}
	err = deps.ask(ctx, jobs.Reconcile, asked, &sum)
	if err != nil && sum.Why == "" {
		sum.Why = err.Error()
	}
	return sum, err
}

// reconcile runs a job. detail is a sentence about it.
func (s *Service) reconcile(ctx context.Context, j jobs.Job, run *jobs.Run, to *forward.SideWriter) (sum ReconcileSummary, detail string, err error) {
	cfg := reconcile.Config{Firehose: s.firehose}
	if err := readJob("the request", j.Request, &cfg.Request); err != nil {
		return sum, "", err
	}
	sum, err = reconcile.New(cfg, s.js, to, run, s.logger).Run(ctx)
	detail = fmt.Sprintf("of %d posts %d are deleted and %d do not qualify any more; published %d removals", sum.Posts, sum.Deleted, sum.Unqualified, sum.Published)
	if cfg.DryRun {
		detail = "dry run: " + detail
	}
	return sum, detail, err
}
