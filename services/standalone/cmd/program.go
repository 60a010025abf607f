// Package cmd is the command line of the all-in-one program: every verb of the other programs,
// applied to its own servers while it runs.
package cmd

import (
	"context"
	"fmt"

	"github.com/tagstream/tagstream/pkg/service"
	api "github.com/tagstream/tagstream/services/api/cmd"
	indexer "github.com/tagstream/tagstream/services/indexer/cmd"
	ingest "github.com/tagstream/tagstream/services/ingest/cmd"
	"github.com/tagstream/tagstream/services/standalone"
)

// Program returns the tagstream program.
func Program() service.Program {
	return service.Program{
		Name: service.Standalone,
		About: "Keeps Bluesky's root posts by hashtag and answers over HTTP, all in one process: " +
			"an embedded NATS stream, a private Postgres, ingest, indexer and api. " +
			"The other commands work on that process while it runs, or on the servers that the settings name.",
		Verbs: &verbs{},
	}
}

type verbs struct {
	service.Data
	Run Run `cmd:"" default:"withargs" serves:"" help:"run until stopped; the default"`
	ingest.Verbs
	Indexer indexer.Verbs `embed:""`
	API     api.Verbs     `embed:""`
	service.Common
}

// AfterApply lets the verbs find the running program's servers.
func (v *verbs) AfterApply(p *service.Process) error {
	p.Local = standalone.Servers(v.Dir)
	return nil
}

// Run runs everything until it is stopped.
type Run struct {
	standalone.Settings `embed:""`
}

// Run runs everything.
func (r *Run) Run(ctx context.Context, p *service.Process, v *verbs) error {
	cfg, err := r.Config(v.Dir)
	if err != nil {
		return err
	}
	logger := r.Log.Logger(p.Stderr)
	return standalone.Run(ctx, cfg, logger, func(url string) {
		if r.Log.Format == "json" {
			logger.Info("answering", "url", url)
			return
		}
		fmt.Fprintf(p.Stdout, "Tagstream answers at %s\n\n    curl '%s/v1/posts?tags=art&limit=3'\n\n", url, url)
	})
}
