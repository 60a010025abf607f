// Command api serves the index over HTTP.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/services/api"
)

const makeKeys = `make a file with "api keys --out FILE"`

func main() { service.Main(program()) }

func program() service.Program {
	var out string
	return service.Program{
		Name:  service.API,
		About: "answers questions about the index over HTTP; read only.",
		Commands: []service.Command{
			{Name: "run", Summary: "serve until stopped", Run: run},
			{
				Name: "keys", Summary: "make a file of keys that sign page tokens",
				Flags: func(fs *flag.FlagSet) {
					fs.StringVar(&out, "out", "", "`FILE` to make; one that exists is not touched")
				},
				Run: func(context.Context, *service.Values) error { return createKeys(out) },
			},
		},
	}
}

func run(ctx context.Context, v *service.Values) error {
	cfg := api.Config{
		Database: store.Options{
			URL:      v.Required("DATABASE_URL", "the URL of the index, such as postgres://tagstream_api@db.example/tagstream"),
			Password: v.Secret("DATABASE_PASSWORD_FILE"),
			Program:  service.API,
		},
		Listen: v.Listen("API_LISTEN"),
	}
	opsListen := v.Listen("OPS_LISTEN")
	if path := v.Required("CURSOR_KEYS_FILE", makeKeys); path != "" {
		keys, err := keyset.LoadKeys(path)
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w; %s", err, makeKeys)
		}
		if err != nil {
			v.Fail("CURSOR_KEYS_FILE", err)
		}
		cfg.CursorKeys = keys
	}
	if err := cfg.Database.Check(); err != nil && cfg.Database.URL != "" {
		v.Fail("DATABASE_URL", err)
	}
	logger, err := obs.NewLogger(os.Stderr, v.String("LOG_FORMAT"), v.String("LOG_LEVEL"))
	if err != nil {
		v.Fail("LOG_FORMAT", err) // the error names the level where that is the bad one
	}
	if err := v.Err(); err != nil {
		return err
	}

	registry := obs.NewRegistry()
	health := obs.NewHealth(logger, api.HealthDatabase, api.HealthListener)
	a, err := api.New(cfg, api.Deps{Logger: logger, Registry: registry, Health: health})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", opsListen)
	if err != nil {
		return fmt.Errorf("listen for operators: %w", err)
	}
	// The ops listener answers to the very end: that is how a load balancer
	// learns that this one is going.
	ops, stopOps := context.WithCancel(context.WithoutCancel(ctx))
	defer stopOps()
	opsFailed := make(chan error, 1)
	go func() { opsFailed <- obs.RunOps(ops, listener, health, registry, nil) }()

	running, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- a.Run(running) }()
	select {
	case err = <-done:
		stopOps()
		return errors.Join(err, <-opsFailed)
	case err = <-opsFailed:
		stop()
		return errors.Join(err, <-done)
	}
}

func createKeys(path string) error {
	if path == "" {
		return &service.ConfigError{Variable: "--out", Err: errors.New("must name the file to make")}
	}
	switch err := keyset.CreateKeys(path); {
	case errors.Is(err, os.ErrExist):
		return &service.ConfigError{Variable: "--out", Err: err}
	case err != nil:
		return err
	}
	fmt.Printf("made %s; set %sCURSOR_KEYS_FILE to it\n", path, service.Prefix)
	return nil
}
