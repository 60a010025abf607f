package cmd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/ingest"
)

// Backfill fills a past window and prints what it did: a table on a terminal, else a JSON object.
type Backfill struct {
	From string `placeholder:"TIME" help:"the window begins at this TIME: RFC 3339, a date, or an age such as -3d"`
	For  string `placeholder:"LENGTH" help:"the window's LENGTH, such as 90m, 6h or 2d"`
	service.Jetstream
	NATS service.NATS `embed:""`
	service.Log
}

// Run fills the window.
func (b *Backfill) Run(ctx context.Context, p *service.Process) error {
	logger := b.Logger(p.Stderr)
	cfg := ingest.BackfillConfig{Ingest: ingest.Config{Hosts: b.Hosts, APIKeyFile: b.APIKeyFile}, From: b.From, For: b.For}
	if err := cfg.Validate(); err != nil {
		return err
	}
	nc, err := b.NATS.Dial(ctx, p)
	if err != nil {
		return err
	}
	defer nc.Close()
	bar := obs.NewBar(os.Stderr, logger, "filling in", "s of history")
	summary, err := ingest.RunBackfill(ctx, cfg, ingest.JobDeps{NATS: nc, Domain: b.NATS.Domain, Progress: bar})
	bar.Close()
	if err = errors.Join(err, printBackfill(p, summary)); err != nil {
		return fmt.Errorf("the window is not filled (it is safe to run this again): %w", err)
	}
	return nil
}

// printSummary prints a summary: as JSON, or as the rows that fill adds.
func printSummary(p *service.Process, summary any, fill func(row func(name string, value any))) error {
	table := p.Table()
	var err error
	if p.Terminal {
		fill(func(name string, value any) { err = errors.Join(err, table.Row(nil, name, value)) })
	} else {
		err = table.Row(summary)
	}
	return errors.Join(err, table.Close())
}

func printBackfill(p *service.Process, s ingest.BackfillSummary) error {
	return printSummary(p, s, func(row func(name string, value any)) {
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
	})
}

func complete(yes bool, why string) string {
	if yes {
		return "true"
	}
	return "false: " + why
}
