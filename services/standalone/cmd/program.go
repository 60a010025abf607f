// Package cmd is the command line of the all-in-one program.
package cmd

import (
	"context"
	"fmt"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/standalone"
)

// Program is the program tagstream.
func Program() service.Program {
	return service.Program{
		Name: service.Standalone,
		About: "Keeps Bluesky's root posts by hashtag and answers over HTTP, all in one process: " +
			"an embedded NATS stream, a private Postgres, ingest, indexer and api.",
		Verbs: &struct {
			Run Run `cmd:"" default:"withargs" serves:"" help:"run until stopped; the default"`
			service.Common
		}{},
	}
}

// Run runs everything until it is stopped.
type Run struct {
	standalone.Settings `embed:""`
}

// Run runs it.
func (r *Run) Run(ctx context.Context, p *service.Process) error {
	cfg, err := r.Config()
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
