// Command upstream stands in for Bluesky: a simulated network with traffic, and the real Jetstream
// server that reads from it. It needs only loopback. The simulated network is in memory, so each
// start creates a new one, and the server's folder is emptied first.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tagstream/tagstream/test/simnet"
)

const (
	exitFailure = 1
	exitConfig  = 2
	// backlogAge is the age that the oldest post of the backlog claims.
	backlogAge = 72 * time.Hour
	// keptEntries is the number of entries of the network's log that are kept: it is not read here.
	keptEntries = -1
	// markerName is the file that marks a folder as made by this command, which may empty it.
	markerName = ".tagstream-upstream"
)

// config has the settings of the command line.
type config struct {
	rate     float64
	accounts int
	seed     uint64
	addr     string
	dataDir  string
	backlog  int
	binary   string
	verbose  bool
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is main with its exit code as a value.
func run(args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "upstream:", err)
		return exitConfig
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, cfg, stdout, stderr); err != nil {
		_, _ = fmt.Fprintln(stderr, "upstream:", err)
		return exitFailure
	}
	return 0
}

// parse reads and checks the command line.
func parse(args []string, stderr io.Writer) (config, error) {
	var cfg config
	flags := flag.NewFlagSet("upstream", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		_, _ = fmt.Fprintln(stderr, "upstream runs a simulated atproto network and the real Jetstream server on it.\n\nFlags:")
		flags.PrintDefaults()
	}
	flags.Float64Var(&cfg.rate, "rate", 20, "actions per second (posts, edits, deletions, account changes); 0 for none")
	flags.IntVar(&cfg.accounts, "accounts", 200, "accounts at the start")
	flags.Uint64Var(&cfg.seed, "seed", 1, "seed of keys, accounts and traffic")
	flags.StringVar(&cfg.addr, "addr", "127.0.0.1:6008", "address of the Jetstream server")
	flags.StringVar(&cfg.dataDir, "data-dir", "", "folder of the Jetstream server, emptied at the start (default: a temporary one)")
	flags.IntVar(&cfg.backlog, "backlog", 2000, "tagged posts that exist before the server starts, and so are in its archive")
	flags.StringVar(&cfg.binary, "jetstream", "", "binary of the Jetstream server (default: built from its Go module, once per machine)")
	flags.BoolVar(&cfg.verbose, "verbose", false, "print the Jetstream server's log too")
	if err := flags.Parse(args); err != nil {
		return config{}, err
	}
	_, _, addrErr := net.SplitHostPort(cfg.addr)
	switch {
	case flags.NArg() > 0:
		return config{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case cfg.rate < 0:
		return config{}, fmt.Errorf("--rate is %g, must not be negative", cfg.rate)
	case cfg.accounts < 1:
		return config{}, fmt.Errorf("--accounts is %d, must be at least 1", cfg.accounts)
	case cfg.backlog < 0:
		return config{}, fmt.Errorf("--backlog is %d, must not be negative", cfg.backlog)
	case addrErr != nil:
		return config{}, fmt.Errorf("--addr: %w", addrErr)
	}
	return cfg, nil
}

// serve runs network, server and traffic until ctx ends.
func serve(ctx context.Context, cfg config, stdout, stderr io.Writer) (err error) {
	level := slog.LevelInfo
	if cfg.verbose {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	dir, cleanup, err := prepareDir(cfg.dataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cleanup()) }()
	if cfg.binary == "" {
		logger.Info("looking for the Jetstream server; the first build takes up to a minute")
		if cfg.binary, err = simnet.BuildJetstream(ctx, ""); err != nil {
			return stoppedOr(ctx, err)
		}
	}
	network, err := simnet.New(simnet.Config{Seed: cfg.seed, Accounts: cfg.accounts, LogLimit: keptEntries, Logger: logger})
	if err != nil {
		return fmt.Errorf("make network: %w", err)
	}
	if err := simnet.Introduce(network, cfg.seed); err != nil {
		return fmt.Errorf("name accounts: %w", err)
	}
	if cfg.backlog > 0 {
		backlog := simnet.Traffic{Count: cfg.backlog, Seed: cfg.seed, MaxPosts: cfg.backlog, TagsOnly: true, Spread: backlogAge}
		if err := backlog.Run(ctx, network); err != nil {
			return fmt.Errorf("fill backlog: %w", err)
		}
	}
	// The server has its own context, so that it stops after the traffic and serve can wait for its
	// exit.
	serverCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	childLog := slog.New(slog.DiscardHandler)
	if cfg.verbose {
		childLog = logger
	}
	server, err := startServer(ctx, serverCtx, network, simnet.JetstreamConfig{Binary: cfg.binary, DataDir: dir, Addr: cfg.addr, Logger: childLog})
	if err != nil {
		return stoppedOr(ctx, err)
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	_, _ = fmt.Fprintf(stdout, "Jetstream ready at %s (%d accounts, %d posts in its archive, %g actions per second)\n", server.URL(), cfg.accounts, cfg.backlog, cfg.rate)
	_, _ = fmt.Fprintf(stdout, "Their profiles at %s\n", server.Relay().URL())

	trafficCtx, stopTraffic := context.WithCancel(ctx)
	defer stopTraffic()
	finished := make(chan error, 1)
	go func() {
		if cfg.rate == 0 {
			<-trafficCtx.Done()
			finished <- nil
			return
		}
		finished <- simnet.Traffic{Rate: cfg.rate, Seed: cfg.seed + 1}.Run(trafficCtx, network)
	}()
	select {
	case err := <-finished:
		return err
	case <-server.Exited():
		stopTraffic()
		lines := server.Log()
		return errors.Join(fmt.Errorf("the Jetstream server ended unexpectedly; its last line: %s", lines[max(0, len(lines)-1):]), <-finished)
	}
}

// startServer starts the server, which runs until serverCtx ends. It gives up when ctx ends.
func startServer(ctx, serverCtx context.Context, network *simnet.Network, cfg simnet.JetstreamConfig) (*simnet.Jetstream, error) {
	startCtx, cancel := context.WithCancel(serverCtx)
	unhook := context.AfterFunc(ctx, cancel)
	server, err := network.StartJetstream(startCtx, cfg)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start Jetstream server on %s: %w", cfg.Addr, err)
	}
	if !unhook() {
		cancel()
		return nil, ctx.Err()
	}
	return server, nil
}

// stoppedOr returns nil if the error results from a requested stop.
func stoppedOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// prepareDir empties the server's folder. It refuses a folder that this command did not make,
// unless it is empty.
func prepareDir(dir string) (path string, cleanup func() error, err error) {
	if dir == "" {
		temp, err := os.MkdirTemp("", "tagstream-upstream-")
		if err != nil {
			return "", nil, fmt.Errorf("make a folder for the server: %w", err)
		}
		return temp, func() error { return os.RemoveAll(temp) }, nil
	}
	marker := filepath.Join(dir, markerName)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", nil, fmt.Errorf("read --data-dir: %w", err)
	}
	if len(entries) > 0 {
		if _, err := os.Stat(marker); err != nil {
			return "", nil, fmt.Errorf("--data-dir %s is not empty and was not made by this command", dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return "", nil, fmt.Errorf("empty --data-dir: %w", err)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, fmt.Errorf("make --data-dir: %w", err)
	}
	if err := os.WriteFile(marker, []byte("emptied at each start\n"), 0o644); err != nil {
		return "", nil, fmt.Errorf("mark --data-dir: %w", err)
	}
	return filepath.Join(dir, "jetstream"), func() error { return nil }, nil
}
