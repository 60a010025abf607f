// Command api serves the index over HTTP.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/service/dbsettings"
	"github.com/tagstream/tagstream/pkg/tracing"
	"github.com/tagstream/tagstream/services/api"
)

const makeKeys = `make a file with "api keys --out FILE"`

func main() { service.Main(program()) }

func program() service.Program {
	var out string
	return service.Program{
		Name:  service.API,
		About: "answers queries of the index over HTTP; read only.",
		Commands: []service.Command{
			{Name: "run", Summary: "serve until stopped", Serves: true, Run: run},
			{
				Name: "keys", Summary: "create a file of keys that sign page tokens",
				Flags: func(fs *flag.FlagSet) {
					fs.StringVar(&out, "out", "", "`FILE` to create; an existing one is not touched")
				},
				Run: func(context.Context, *service.Values) error { return createKeys(out) },
			},
		},
	}
}

func run(ctx context.Context, v *service.Values) error {
	logger := service.Logger(v, os.Stderr)
	v.Required("DATABASE_URL", "the URL of the index, such as postgres://tagstream_api@db.example/tagstream")
	cfg := api.Config{Database: dbsettings.Options(v, service.API), Listen: v.Listen("API_LISTEN"), PublicURL: v.BaseURL("PUBLIC_URL"), FeedsFile: v.String("FEEDS_FILE"), Media: v.Choice("MEDIA", "cdn", "link", "off")}
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
	traces := tracing.ConfigFrom(v, service.API)
	if err := v.Err(); err != nil {
		return err
	}

	health := obs.NewHealth(logger, api.HealthDatabase, api.HealthListener)
	registry := obs.NewRegistry(health, service.Version())
	traced, err := tracing.Start(ctx, traces, logger, registry)
	if err != nil {
		return err
	}
	defer traced.Stop()
	a, err := api.New(cfg, api.Deps{Logger: logger, Registry: registry, Health: health, Tracer: traced.Tracer("api")})
	if err != nil {
		return err
	}
	return service.RunWithOps(ctx, v, service.Ops{Health: health, Registry: registry, Extra: a.Ops()}, a.Run)
}

func createKeys(path string) error {
	if path == "" {
		return &service.ConfigError{Variable: "--out", Err: errors.New("must name the file to create")}
	}
	switch err := keyset.CreateKeys(path); {
	case errors.Is(err, os.ErrExist):
		return &service.ConfigError{Variable: "--out", Err: fmt.Errorf("%s exists already and stays unchanged", path)}
	case err != nil:
		return err
	}
	fmt.Printf("made %s; set %sCURSOR_KEYS_FILE to it\n", path, service.Prefix)
	return nil
}
