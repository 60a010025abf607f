// Package cmd is the command line of the api.
package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/service/dbsettings"
	"github.com/tagstream/tagstream/services/api"
)

// Program returns the api program.
func Program() service.Program {
	return service.Program{
		Name:  service.API,
		About: "Answers queries of the index over HTTP; read only.",
		Verbs: &struct {
			Run Run `cmd:"" default:"withargs" serves:"" help:"serve until stopped; the default"`
			Verbs
			service.Common
		}{},
	}
}

// Verbs are the commands of the api.
type Verbs struct {
	Keys  Keys  `cmd:"" help:"create a file of keys that sign page tokens"`
	Feeds Feeds `cmd:"" help:"check and publish the Bluesky feeds of FEEDS_FILE"`
}

// Run is the command that serves until it is stopped.
type Run struct {
	Database     service.Database `embed:""`
	service.HTTP `embed:""`
	Feeds        service.Feeds `embed:""`
	service.Observability
}

const makeKeys = `create a file with "api keys --out FILE"`

// Run runs the api.
func (r *Run) Run(ctx context.Context, p *service.Process) error {
	options, err := dbsettings.Options(p, r.Database, dbsettings.API)
	if err != nil {
		return err
	}
	cfg := api.Config{Database: options, Listen: r.HTTP.Listen, PublicURL: r.Feeds.PublicURL, FeedsFile: r.Feeds.FeedsFile, Media: r.Media, MaxFollowers: r.Followers}
	if r.KeysFile == "" {
		return service.Bad("CURSOR_KEYS_FILE", errors.New("must be set: "+makeKeys))
	}
	cfg.CursorKeys, err = keyset.LoadKeys(r.KeysFile)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w; %s", err, makeKeys)
	}
	if err != nil {
		return service.Bad("CURSOR_KEYS_FILE", err)
	}
	return r.Serve(ctx, p, []string{api.HealthDatabase, api.HealthListener}, func(ctx context.Context, d service.Deps) error {
		a, err := api.New(cfg, api.Deps{Logger: d.Logger, Registry: d.Registry, Health: d.Health, Tracer: d.Tracer})
		if err != nil {
			return err
		}
		d.Ops.Handle("/", a.Ops())
		return a.Run(ctx)
	})
}

// Keys creates a keys file.
type Keys struct {
	Out string `placeholder:"FILE" help:"FILE to create; an existing one is not touched"`
}

// Run creates the file.
func (k *Keys) Run(p *service.Process) error {
	bad := func(err error) error { return &service.ConfigError{Variable: "--out", Err: err} }
	if k.Out == "" {
		return bad(errors.New("must name the file to create"))
	}
	switch err := keyset.CreateKeys(k.Out); {
	case errors.Is(err, os.ErrExist):
		return bad(fmt.Errorf("%s already exists and stays unchanged", k.Out))
	case err != nil:
		return err
	}
	fmt.Fprintf(p.Stdout, "created %s; set %sCURSOR_KEYS_FILE to it\n", k.Out, service.Prefix)
	return nil
}
