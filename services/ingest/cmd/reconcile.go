package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/ingest"
)

// Reconcile repairs a gap and prints what it did: a table on a terminal, else a JSON object.
type Reconcile struct {
	Host     string `placeholder:"URL" help:"compare with the archive of the host at this URL; default: the host that is read now"`
	MaxShare string `placeholder:"SHARE" default:"5%" help:"publish nothing if more than this SHARE of all posts would be removed"`
	DryRun   bool   `help:"only report what would be removed"`
	service.Jetstream
	NATS service.NATS `embed:""`
	service.Log
}

// Run reconciles.
func (r *Reconcile) Run(ctx context.Context, p *service.Process) error {
	logger := r.Logger(p.Stderr)
	cfg := ingest.ReconcileConfig{Ingest: ingest.Config{Hosts: r.Hosts, APIKeyFile: r.APIKeyFile}, Host: r.Host, MaxShare: r.MaxShare, DryRun: r.DryRun}
	if err := cfg.Validate(); err != nil {
		return err
	}
	nc, err := r.NATS.Dial(ctx, p)
	if err != nil {
		return err
	}
	defer nc.Close()
	bar := obs.NewBar(os.Stderr, logger, "reconciling", "posts")
	summary, err := ingest.RunReconcile(ctx, cfg, ingest.JobDeps{NATS: nc, Domain: r.NATS.Domain, Progress: bar})
	bar.Close()
	err = errors.Join(err, printReconciled(p, summary))
	if errors.Is(err, ingest.ErrTooManyRemovals) {
		return fmt.Errorf("%w; if that is right, run it again with a larger --max-share", err)
	}
	return err
}

func printReconciled(p *service.Process, s ingest.ReconcileSummary) error {
	return printSummary(p, s, func(row func(name string, value any)) {
		row("archive of", s.Host)
		row("visible posts", s.Posts)
		row("accounts with posts", s.Accounts)
		row("of these in the archive", s.Archived)
		row("left alone: unsure", s.Unsure)
		row("deleted", s.Deleted)
		row("without tags now", s.Unqualified)
		row("share", fmt.Sprintf("%.2f%%", 100*s.Share))
		row("removals published", s.Published)
		row("took", time.Duration(s.Took*float64(time.Second)).Round(time.Millisecond))
		row("complete", complete(s.Complete, s.Why))
	})
}
