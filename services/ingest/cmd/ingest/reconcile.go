package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/ingest"
)

// reconcileFlags are the flags of the reconcile command.
type reconcileFlags struct {
	host, maxShare string
	dryRun         bool
}

func (r *reconcileFlags) add(fs *flag.FlagSet) {
	fs.StringVar(&r.host, "host", "", "compare with the archive of the host at this `URL`; default: the host that is read now")
	fs.StringVar(&r.maxShare, "max-share", ingest.DefaultMaxShare, "publish nothing where more than this `SHARE` of all posts would be removed")
	fs.BoolVar(&r.dryRun, "dry-run", false, "only say what would be removed")
}

// runReconcile mends a gap and prints what it did: a table on a terminal, else
// a JSON object.
func runReconcile(ctx context.Context, v *service.Values, flags reconcileFlags, out *os.File) error {
	logger := service.Logger(v, os.Stderr)
	cfg := ingest.ReconcileConfig{Ingest: ingest.ConfigFrom(v), Host: flags.host, MaxShare: flags.maxShare, DryRun: flags.dryRun}
	if err := v.Err(); err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	nc, err := connect(ctx, v)
	if err != nil {
		return err
	}
	defer nc.Close()
	bar := obs.NewBar(os.Stderr, logger, "reconciling", "posts")
	summary, err := ingest.RunReconcile(ctx, cfg, ingest.ReconcileDeps{NATS: nc, Domain: v.String("NATS_DOMAIN"), Logger: logger, Progress: bar})
	bar.Close()
	if isTerminal(out) {
		err = errors.Join(err, printReconciled(out, summary))
	} else {
		err = errors.Join(err, printJSON(out, summary))
	}
	if errors.Is(err, ingest.ErrTooManyRemovals) {
		return fmt.Errorf("%w; if that is right, run it again with a larger --max-share", err)
	}
	return err
}

func printReconciled(out io.Writer, s ingest.ReconcileSummary) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name string, value any) { fmt.Fprintf(w, "%s\t%v\n", name, value) }
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
	return w.Flush()
}
