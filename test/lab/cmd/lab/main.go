// Command lab runs the pagination lab on this machine and writes its report; see package lab.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/tagstream/tagstream/test/lab"
)

const (
	exitFailure = 1
	exitConfig  = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stderr)) }

// run is main with its exit code as a value.
func run(args []string, stderr io.Writer) int {
	cfg, out, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "lab:", err)
		return exitConfig
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, cfg, out); err != nil {
		_, _ = fmt.Fprintln(stderr, "lab:", err)
		return exitFailure
	}
	return 0
}

func parse(args []string, stderr io.Writer) (cfg lab.Config, out string, err error) {
	cfg = lab.Default()
	flags := flag.NewFlagSet("lab", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		_, _ = fmt.Fprintln(stderr, "lab fills a private Postgres, pages through it in every way, and writes a report. Flags:")
		flags.PrintDefaults()
	}
	flags.IntVar(&cfg.Posts, "posts", cfg.Posts, "posts in the index")
	flags.IntVar(&cfg.Repeat, "repeat", cfg.Repeat, "how often each page is timed, at most")
	flags.DurationVar(&cfg.Budget, "budget", cfg.Budget, "how long timing one list by one way may take")
	flags.Uint64Var(&cfg.Seed, "seed", cfg.Seed, "seed of what is posted and how it changes")
	flags.StringVar(&cfg.Dir, "dir", "", "where to keep data while the run lasts (default: the system's temporary folder)")
	flags.StringVar(&out, "out", "", "folder for the report; required")
	if err := flags.Parse(args); err != nil {
		return cfg, "", err
	}
	switch {
	case flags.NArg() > 0:
		return cfg, "", fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case out == "":
		return cfg, "", errors.New("-out is required")
	}
	cfg.Ties, cfg.Drift = min(cfg.Ties, cfg.Posts/10), min(cfg.Drift, cfg.Posts/10)
	cfg.Logger = slog.New(slog.NewTextHandler(stderr, nil))
	return cfg, out, nil
}

// measure runs and writes the report, which includes missed bars. It writes the file only when the
// report is complete.
func measure(ctx context.Context, cfg lab.Config, out string) error {
	r, err := lab.Run(ctx, cfg)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := r.Write(&text); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("make the report's folder: %w", err)
	}
	if err := os.WriteFile(filepath.Join(out, "report.md"), text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return errors.Join(r.Missed...)
}
