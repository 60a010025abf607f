package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/ingest"
)

// backfillFlags are the flags of the backfill command.
type backfillFlags struct{ from, length string }

func (b *backfillFlags) add(fs *flag.FlagSet) {
	fs.StringVar(&b.from, "from", "", "the window begins at this `TIME`: RFC 3339, a date, or an age such as -3d")
	fs.StringVar(&b.length, "for", "", "the window's `LENGTH`, such as 90m, 6h or 2d")
}

// runBackfill fills in the past and prints what it did: a table on a terminal,
// else a JSON object.
func runBackfill(ctx context.Context, v *service.Values, window backfillFlags, out *os.File) error {
	logger := service.Logger(v, os.Stderr)
	cfg := ingest.BackfillConfig{Ingest: ingest.ConfigFrom(v), From: window.from, For: window.length}
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
	bar := obs.NewBar(os.Stderr, logger, "filling in", "s of history")
	summary, err := ingest.RunBackfill(ctx, cfg, ingest.BackfillDeps{NATS: nc, Domain: v.String("NATS_DOMAIN"), Logger: logger, Progress: bar})
	bar.Close()
	if isTerminal(out) {
		err = errors.Join(err, printSummary(out, summary))
	} else {
		err = errors.Join(err, printJSON(out, summary))
	}
	if err != nil {
		return fmt.Errorf("the window is not filled in (running this again is safe): %w", err)
	}
	return nil
}

func printJSON(out io.Writer, s any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return enc.Encode(s)
}

func printSummary(out io.Writer, s ingest.BackfillSummary) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name string, value any) { fmt.Fprintf(w, "%s\t%v\n", name, value) }
	row("window", s.From.Format(time.RFC3339)+" to "+s.Until.Format(time.RFC3339))
	switch {
	case s.First.IsZero():
		row("covered", "nothing: the host has no such events then")
	default:
		row("covered", fmt.Sprintf("%s to %s, from %s", s.First.NetworkTime().Format(time.RFC3339), s.Last.NetworkTime().Format(time.RFC3339), s.Last.Host))
	}
	row("events read", s.Read)
	for _, kind := range event.Kinds {
		if n := s.Published[kind]; n > 0 {
			row("published: "+string(kind), n)
		}
	}
	row("left out: gone since", s.Gone)
	for _, why := range slices.Sorted(maps.Keys(s.Dropped)) {
		row("dropped: "+string(why), s.Dropped[why])
	}
	for _, kind := range event.Kinds {
		if n := s.Since[kind]; n > 0 {
			row("since then: "+string(kind), n)
		}
	}
	row("took", time.Duration(s.Took*float64(time.Second)).Round(time.Millisecond))
	if !s.HistoryBegins.IsZero() {
		row("the host's history begins", s.HistoryBegins.Format(time.RFC3339))
	}
	row("complete", complete(s.Complete, s.Why))
	return w.Flush()
}

func complete(yes bool, why string) string {
	if yes {
		return "true"
	}
	return "false: " + why
}
