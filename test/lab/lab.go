package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
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
