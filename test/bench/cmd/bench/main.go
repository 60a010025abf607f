// Command bench measures the whole pipeline on this machine and writes a report; see package bench.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/tagstream/tagstream/test/bench"
)

const (
	exitFailure = 1
	exitConfig  = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main with its exit code as a value.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 && args[0] == "-peer" { // one of the run's peer processes
		if err := bench.Peer(ctx, args[1:], stdout); err != nil {
			_, _ = fmt.Fprintln(stderr, "bench:", err)
			return exitFailure
		}
		return 0
	}
	cfg, out, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "bench:", err)
		return exitConfig
	}
	if err := measure(ctx, cfg, out, stdout); err != nil {
		_, _ = fmt.Fprintln(stderr, "bench:", err)
		return exitFailure
	}
	return 0
}

// parse parses the command line: -quick selects the defaults, which other flags override.
func parse(args []string, stderr io.Writer) (cfg bench.Config, out string, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		_, _ = fmt.Fprintln(stderr, "bench measures the whole pipeline on this machine and writes a report. Flags (0 means the run's own):")
		flags.PrintDefaults()
	}
	quick := flags.Bool("quick", false, "less than two minutes, one round of each figure")
	parts := flags.String("parts", "", "what to measure, by commas: "+strings.Join(bench.Parts, ", ")+" (default: all)")
	events := flags.Int("events", 0, "events of the archive")
	rounds := flags.Int("rounds", 0, "how often each figure takes its turn")
	seed := flags.Uint64("seed", 1, "seed of what is posted")
	dir := flags.String("dir", "", "where to keep data while the run lasts (default: the system's temporary folder)")
	flags.StringVar(&out, "out", "", "file for the report (default: standard output)")
	if err := flags.Parse(args); err != nil {
		return cfg, "", err
	}
	if flags.NArg() > 0 {
		return cfg, "", fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	cfg = bench.Default()
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
	return cfg, out, nil
}

// measure runs and writes the report. It writes the file only when the report is complete.
func measure(ctx context.Context, cfg bench.Config, out string, stdout io.Writer) error {
	report, err := bench.Run(ctx, cfg)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := report.Write(&text); err != nil {
		return err
	}
	if out == "" {
		_, err = text.WriteTo(stdout)
	} else {
		err = os.WriteFile(out, text.Bytes(), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
