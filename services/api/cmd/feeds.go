package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/api"
)

// Feeds has the commands for Bluesky feeds.
type Feeds struct {
	Check  CheckFeeds `cmd:"" help:"fetch from PUBLIC_URL what AppViews fetch, and report what they would reject"`
	Record FeedRecord `cmd:"" help:"print the record that publishes a feed"`
}

// CheckFeeds checks what the public URL serves.
type CheckFeeds struct {
	service.Feeds `embed:""`
}

// Run prints the results. It returns an error if AppViews would reject a document.
func (c *CheckFeeds) Run(ctx context.Context, p *service.Process) error {
	feeds, err := load(c.Feeds)
	if err != nil {
		return err
	}
	table := p.Table("DOCUMENT", "RESULT", "URL")
	rejected, results := 0, feeds.Check(ctx, http.DefaultClient, c.PublicURL)
	for _, r := range results {
		if r.Problem != "" {
			rejected++
		}
		if err := table.Row(r, r.Document, cmp.Or(r.Problem, "ok"), r.URL); err != nil {
			return err
		}
	}
	if err := table.Close(); err != nil {
		return err
	}
	if rejected > 0 {
		return fmt.Errorf("%d of %d documents would be rejected by AppViews", rejected, len(results))
	}
	return nil
}

// FeedRecord prints the record that publishes a feed.
type FeedRecord struct {
	service.Feeds `embed:""`
	Name          string `arg:"" help:"record key of the feed in FEEDS_FILE"`
}

// Run prints the record to stdout and instructions to stderr.
func (r *FeedRecord) Run(p *service.Process) error {
	feeds, err := load(r.Feeds)
	if err != nil {
		return err
	}
	body, err := feeds.Record(r.PublicURL, r.Name, time.Now())
	if err != nil {
		return &service.ConfigError{Variable: "feeds record", Err: err}
	}
	fmt.Fprintf(p.Stderr, "To publish it, send it to the PDS of %s, signed in as that account:\n"+
		"  %s feeds record %s | curl -d @- -H 'Content-Type: application/json' -H \"Authorization: Bearer $ACCESS_JWT\" https://PDS/xrpc/com.atproto.repo.putRecord\n",
		feeds.Publisher(), p.Program, r.Name)
	_, err = fmt.Fprintf(p.Stdout, "%s\n", body)
	return err
}

// load reads FEEDS_FILE. The error is a *service.ConfigError.
func load(s service.Feeds) (*api.Feeds, error) {
	switch {
	case s.FeedsFile == "":
		return nil, service.Bad("FEEDS_FILE", errors.New("must name the file that declares the feeds"))
	case s.PublicURL == "":
		return nil, service.Bad("PUBLIC_URL", errors.New("must be the URL at which AppViews reach this service"))
	}
	feeds, err := api.LoadFeeds(s.FeedsFile)
	if err != nil {
		return nil, service.Bad("FEEDS_FILE", err)
	}
	return feeds, nil
}
