// Command lab runs the pagination lab on this machine and writes its report; see package lab.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/tagstream/tagstream/test/lab"
	"github.com/tagstream/tagstream/test/report"
)

func main() { report.Main("lab", parse) }

func parse(args []string, stderr io.Writer) (func(context.Context) error, error) {
	cfg := lab.Default()
	flags := report.Flags("lab", "fills a private Postgres, pages through it in every way, and writes a report. Flags:", stderr)
	flags.IntVar(&cfg.Posts, "posts", cfg.Posts, "posts in the index")
	flags.IntVar(&cfg.Repeat, "repeat", cfg.Repeat, "how often each page is timed, at most")
	flags.DurationVar(&cfg.Budget, "budget", cfg.Budget, "how long timing one list by one way may take")
	flags.Uint64Var(&cfg.Seed, "seed", cfg.Seed, "seed of what is posted and how it changes")
	flags.StringVar(&cfg.Dir, "dir", "", "where to keep data while the run lasts (default: the system's temporary folder)")
	out := flags.String("out", "", "folder for the report; required")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *out == "":
		return nil, errors.New("-out is required")
	}
	cfg.Ties, cfg.Drift = min(cfg.Ties, cfg.Posts/10), min(cfg.Drift, cfg.Posts/10)
	cfg.Logger = slog.New(slog.NewTextHandler(stderr, nil))
	return func(ctx context.Context) error {
		r, err := lab.Run(ctx, cfg)
		if err != nil {
			return err
		}
		// The report includes missed bars.
		return errors.Join(append([]error{report.Save(filepath.Join(*out, "report.md"), r.Write)}, r.Missed...)...)
	}, nil
}
