package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/test/report"
	"github.com/tagstream/tagstream/test/site"
)

// Report has the results of a run.
type Report struct {
	Config          Config
	Machine         report.Machine
	Took            time.Duration
	Corpus          Corpus
	Depths          []Depth
	Drift, TagDrift Drift
	// Head counts the heap fetches of the first page of the changed list before the next vacuum.
	Head     int
	Ties     Ties
	Boths    []Both
	Listing  Listing
	Filters  []Filter
	Planning Planning
	Tokens   Tokens
	// Missed are the missed bars of rows, plans and drift. It does not include bars of time.
	Missed []error
}

// Run fills a private Postgres and measures. It keeps its data in its own folder, which it removes,
// and stops the server that it starts. Report.Missed has the missed bars of rows, plans and drift.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(cfg.Dir, "tagstream-lab-")
	if err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	began := time.Now()
	machine, err := report.Inspect(ctx, dir)
	if err != nil {
		return nil, err
	}
	pg, err := startPostgres(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, pg.Stop(ctx))
	}()
	r := &Report{Config: cfg, Machine: machine}
	if err := r.measure(ctx, pg); err != nil {
		return nil, err
	}
	r.Machine.LoadPast = report.LoadAverage()
	r.Took = time.Since(began)
	return r, nil
}

// measure fills the database and measures the sections of the report. Those that change the index
// come last.
func (r *Report) measure(ctx context.Context, pg *site.Postgres) error {
	s, err := openIndex(ctx, r.Config, pg)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.owner.AcquireFunc(ctx, func(c *pgxpool.Conn) error { return r.Machine.InspectPostgres(ctx, c.Conn()) }); err != nil {
		return err
	}
	for _, section := range []func() error{
		func() error { r.Corpus, err = s.seed(ctx); return err },
		func() error { r.Depths, err = s.depths(ctx); return err },
		func() error { r.Boths, err = s.boths(ctx); return err },
		func() error { r.Listing, err = s.listing(ctx); return err },
		func() error { r.Filters, err = s.filters(ctx); return err },
		func() error { r.Planning, err = s.planning(ctx); return err },
		func() error { r.Ties, err = s.ties(ctx); return err },
		func() error { r.Tokens, err = tokens(); return err },
		func() error { return s.drifts(ctx, r) },
	} {
		if err := section(); err != nil {
			return err
		}
	}
	r.Missed = s.missed
	return nil
}

// drifts measures while the index changes.
func (s *index) drifts(ctx context.Context, r *Report) error {
	return s.withWriter(ctx, func(w *writer) (err error) {
		s.log.Info("drift")
		u := newChurn(w, s.corpus, s.drift)
		if r.Drift, err = s.driftPosts(ctx, u); err != nil {
			return err
		}
		if r.Head, err = s.head(ctx); err != nil {
			return err
		}
		r.TagDrift, err = s.driftTags(ctx, u)
		return err
	})
}

// head explains the first page of driftTag. An index-only scan must visit the table for each row on
// a changed page of it, and only for these.
func (s *index) head(ctx context.Context) (heap int, err error) {
	q := query.PostQuery{Tags: []string{driftTag}, From: keyset.Start(), Limit: page}
	p, err := s.planPosts(ctx, q)
	if err != nil {
		return 0, err
	}
	if len(p.Sorts) > 0 || p.Heap > page+1+len(q.Tags) {
		s.miss(fmt.Errorf("%d heap fetches, sorts: %v", p.Heap, p.Sorts), "live head")
	}
	return p.Heap, nil
}

const (
	// page is the size of all pages of posts, the API's default.
	page = 50
	// tagPage is the size of a page of tags.
	tagPage = 100
	// MinPosts leaves a few pages for every list of the lab.
	MinPosts = 10_000
)

// LatencyLimit bounds the latency of the deepest page relative to the first one.
const LatencyLimit = 1.2

// WorkLimit bounds the work for all of two tags relative to the better simple way.
const WorkLimit = 2.0

// Config says how much is measured, which determines the time of a run.
type Config struct {
	// Posts is the number of posts in the index, at least MinPosts.
	Posts int
	// Ties is the number of tags with one post: the tie inside which tags are listed.
	Ties int
	// Drift is the number of posts in the list that changes under its readers.
	Drift int
	// Walk is the number of pages to read when a list is read page by page.
	Walk int
	// Depths are the page numbers measured for each list, ascending; for a shorter list, its last
	// page.
	Depths []int
	// Repeat is how often each page is timed, and Budget bounds the time of one way for all its
	// pages together; each page is timed at least three times.
	Repeat int
	Budget time.Duration
	// Seed determines the posts and their changes.
	Seed uint64
	// Dir holds the folder with the data of the run, which is removed afterwards. Empty means the
	// system's temporary folder.
	Dir string
	// Bar receives the progress bar.
	Bar *os.File
	// Logger receives a line for each step.
	Logger *slog.Logger
}

// Default is the full run.
func Default() Config {
	return Config{Posts: 1_000_000, Ties: 12_000, Drift: 10_000, Walk: 200, Depths: []int{1, 2, 10, 100, 1_000, 10_000}, Repeat: 101, Budget: 4 * time.Second, Seed: 1,
		Bar: os.Stderr, Logger: slog.New(slog.DiscardHandler)}
}

// Short is a run of seconds, for tests.
func Short() Config {
	c := Default()
	c.Posts, c.Ties, c.Drift, c.Walk, c.Repeat, c.Budget = 20_000, 2_000, 1_000, 40, 3, time.Millisecond
	c.Depths = []int{1, 2, 10_000}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Posts < MinPosts:
		return fmt.Errorf("posts is %d, must be at least %d", c.Posts, MinPosts)
	case c.Ties < 10*tagPage || c.Ties > c.Posts:
		return fmt.Errorf("ties is %d, must be within %d and the number of posts", c.Ties, 10*tagPage)
	case c.Drift < 10*page || c.Drift > c.Posts/4:
		return fmt.Errorf("drift is %d, must be within %d and a quarter of the posts", c.Drift, 10*page)
	case c.Walk < 2:
		return fmt.Errorf("walk is %d, must be at least 2", c.Walk)
	case len(c.Depths) == 0 || c.Depths[0] != 1 || !slices.IsSorted(c.Depths):
		return fmt.Errorf("depths are %v, must rise from 1", c.Depths)
	case c.Repeat < 1 || c.Budget <= 0:
		return fmt.Errorf("repeat is %d and budget %s, must be positive", c.Repeat, c.Budget)
	}
	return nil
}
