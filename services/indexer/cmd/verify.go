package cmd

import (
	"context"
	"errors"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/service/dbsettings"
	"github.com/tagstream/tagstream/services/indexer"
)

// Verify checks the index.
type Verify struct {
	Schema  string `placeholder:"SCHEMA" default:"tagstream" help:"the SCHEMA to check"`
	Other   string `placeholder:"SCHEMA" help:"the SCHEMA to compare with, brought to the same message first; default: tagstream_rebuild or tagstream_retired, if it exists"`
	Alone   bool   `help:"compare with nothing"`
	servers `embed:""`
}

// Run verifies.
func (v *Verify) Run(ctx context.Context, p *service.Process) error {
	options, err := dbsettings.Options(p, v.Database, dbsettings.Indexer)
	if err != nil {
		return err
	}
	switch {
	case v.Alone && v.Other != "":
		return usage("--alone", "there is an --other as well")
	case v.Schema == v.Other:
		return usage("--other", "%q is the same schema", v.Other)
	}
	logger := v.Logger(p.Stderr)
	bar := obs.NewBar(os.Stderr, logger, "verifying", "rows")
	did, found, err := indexer.Verify(ctx, indexer.VerifyConfig{
		Database: options, Schema: v.Schema, Other: v.Other, Alone: v.Alone, ID: nuid.Next(), Domain: v.NATS.Domain,
		Connect: func(ctx context.Context) (*nats.Conn, error) { return v.NATS.Dial(ctx, p) },
	}, logger, bar)
	bar.Close()
	if err != nil {
		return err
	}
	if !p.Terminal || found.N == 0 {
		err = p.Answer(struct {
			Checked  string `json:"checked"`
			Findings int    `json:"findings"`
			First    string `json:"first,omitempty"`
		}{did, found.N, found.First}, did+": "+found.String())
	}
	if found.N > 0 {
		err = errors.Join(errors.New(found.String()), err)
	}
	return err
}
