package report

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

const (
	exitFailure = 1
	exitConfig  = 2
)

// Main is the main function of a command. parse reads the command line; what it returns does the
// work. An error of the work is a failure, one of parse a mistake of the caller.
func Main(name string, parse func(args []string, stderr io.Writer) (func(context.Context) error, error)) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := exitConfig
	work, err := parse(os.Args[1:], os.Stderr)
	if err == nil {
		code, err = exitFailure, work(ctx)
	}
	stop()
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	_, _ = fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	os.Exit(code)
}

// Flags returns the command's flags, whose help begins with what it does.
func Flags(name, about string, stderr io.Writer) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		_, _ = fmt.Fprintln(stderr, name+" "+about)
		flags.PrintDefaults()
	}
	return flags
}

// Save writes a report to a file, "" for standard output, when it is complete.
func Save(path string, write func(io.Writer) error) error {
	var text bytes.Buffer
	if err := write(&text); err != nil {
		return err
	}
	if path == "" {
		_, err := text.WriteTo(os.Stdout)
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the report's folder: %w", err)
	}
	if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
