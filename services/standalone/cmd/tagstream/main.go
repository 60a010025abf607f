// Command tagstream is the whole pipeline in one process.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/standalone"
)

func main() {
	service.Main(service.Program{
		Name: service.Standalone,
		About: "keeps Bluesky's root posts by hashtag and answers over HTTP, all in one process:\n" +
			"an embedded NATS stream, a private Postgres, ingest, indexer and api.",
		Commands: []service.Command{{Name: "run", Summary: "run until stopped", Serves: true, Run: run}},
	})
}

func run(ctx context.Context, v *service.Values) error {
	logger := service.Logger(v, os.Stderr)
	cfg := standalone.ConfigFrom(v)
	if err := v.Err(); err != nil {
		return err
	}
	if err := cfg.Ingest.Validate(); err != nil {
		return err
	}
	if v.IsSet("NATS_URL") {
		cfg.NATSDomain = v.String("NATS_DOMAIN")
		cfg.ConnectNATS = func(changed func(error)) (*nats.Conn, error) { return service.ConnectNATS(v, logger, changed) }
	}
	return standalone.Run(ctx, cfg, logger, func(url string) {
		if v.String("LOG_FORMAT") == "json" {
			logger.Info("answering", "url", url)
			return
		}
		fmt.Printf("Tagstream answers at %s\n\n    curl '%s/v1/posts?tags=art&limit=3'\n\n", url, url)
	})
}
