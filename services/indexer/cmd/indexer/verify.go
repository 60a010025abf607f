package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/indexer"
)

func verifyCommand(out *os.File) service.Command {
	var cfg indexer.VerifyConfig
	return service.Command{
		Name: "verify", Summary: "check that the index agrees with itself, and with what a rebuild has made where there is that",
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&cfg.Schema, "schema", "tagstream", "the `SCHEMA` to check")
			fs.StringVar(&cfg.Other, "other", "", "the `SCHEMA` to compare with, brought to the same message first; default: tagstream_rebuild or tagstream_retired, if it exists")
			fs.BoolVar(&cfg.Alone, "alone", false, "compare with nothing")
		},
		Run: func(ctx context.Context, v *service.Values) error {
			logger, database, err := settings(v, writer)
			if err != nil {
				return err
			}
			switch {
			case cfg.Alone && cfg.Other != "":
				return usage("--alone", "there is an --other as well")
			case cfg.Schema == cfg.Other:
				return usage("--other", "%q is the same schema", cfg.Other)
			}
			cfg.Database, cfg.ID, cfg.Domain = database, nuid.Next(), v.String("NATS_DOMAIN")
			cfg.Connect = func(ctx context.Context) (*nats.Conn, error) { return connect(ctx, v, logger) }
			bar := obs.NewBar(os.Stderr, logger, "verifying", "rows")
			did, found, err := indexer.Verify(ctx, cfg, logger, bar)
			bar.Close()
			if err != nil {
				return err
			}
			if !isTerminal(out) {
				err = jsonLines(out).Encode(struct {
					Checked  string `json:"checked"`
					Findings int    `json:"findings"`
					First    string `json:"first,omitempty"`
				}{did, found.N, found.First})
			} else if found.N == 0 {
				_, err = fmt.Fprintf(out, "%s: %s\n", did, found)
			}
			if found.N > 0 {
				err = errors.Join(errors.New(found.String()), err)
			}
			return err
		},
	}
}
