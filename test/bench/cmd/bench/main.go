// Command bench measures the whole pipeline on this machine and writes a report; see package bench.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/tagstream/tagstream/test/bench"
	"github.com/tagstream/tagstream/test/report"
)

func main() { report.Main("bench", parse) }

// parse parses the command line: -quick selects the defaults, which other flags override.
func parse(args []string, stderr io.Writer) (func(context.Context) error, error) {
	if len(args) > 0 && args[0] == "-peer" { // one of the run's peer processes
		return func(ctx context.Context) error { return bench.Peer(ctx, args[1:], os.Stdout) }, nil
	}
	flags := report.Flags("bench", "measures the whole pipeline on this machine and writes a report. Flags (0 means the run's own):", stderr)
	quick := flags.Bool("quick", false, "less than two minutes, one round of each figure")
	parts := flags.String("parts", "", "what to measure, by commas: "+strings.Join(bench.Parts, ", ")+" (default: all)")
	events := flags.Int("events", 0, "events of the archive")
	rounds := flags.Int("rounds", 0, "how often each figure takes its turn")
	seed := flags.Uint64("seed", 1, "seed of what is posted")
	dir := flags.String("dir", "", "where to keep data while the run lasts (default: the system's temporary folder)")
	out := flags.String("out", "", "file for the report (default: standard output)")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	cfg := bench.Default()
	if *quick {
		cfg = bench.Quick()
	}
	if *parts != "" {
		cfg.Parts = strings.Split(*parts, ",")
	}
	if *events != 0 {
		cfg.Events = *events
	}
	if *rounds != 0 {
		cfg.Rounds = *rounds
	}
	cfg.Seed, cfg.Dir, cfg.Progress = *seed, *dir, stderr
	return func(ctx context.Context) error {
		r, err := bench.Run(ctx, cfg)
		if err != nil {
			return err
		}
		return report.Save(*out, r.Write)
	}, nil
}
