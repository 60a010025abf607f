package lab

import (
	"context"
	"fmt"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/test/site"
)

// Planning is how often Postgres planned while one connection answered many requests.
type Planning struct {
	// Known is false if the server lacks pg_stat_statements.
	Known    bool
	Requests int
	// Statements is the number of different statements, Calls how often they ran, Plans how often
	// they were planned: in the first round of requests, and in all later ones.
	Statements, Calls, FirstPlans, LaterPlans int
}

// planning repeatedly requests pages of every kind.
func (s *index) planning(ctx context.Context) (p Planning, err error) {
	if p.Known = s.pg.Extension; !p.Known {
		return p, nil
	}
	cases, err := s.filterCases(ctx)
	if err != nil {
		return p, err
	}
	for _, set := range depthSets() {
		cases = append(cases, filterCase{set.name, query.PostQuery{Tags: set.tags, From: keyset.Start()}})
	}
	if err := s.quiesce(ctx); err != nil {
		return p, err
	}
	if _, err := s.owner.Exec(ctx, "SELECT public."+statements+"_reset()"); err != nil {
		return p, fmt.Errorf("reset %s: %w", statements, err)
	}
	err = s.withReader(ctx, func(r *query.Reader) error {
		for round := range minRounds + s.cfg.Walk/len(cases) {
			for _, c := range cases {
				c.q.Limit = page
				got, err := r.Posts(ctx, c.q)
				if err != nil {
					return err
				}
				c.q.From = got.Next // another place with the same statement
				if _, err := r.Posts(ctx, c.q); err != nil {
					return err
				}
				p.Requests += 2
			}
			if _, err := r.Tags(ctx, query.TagQuery{From: keyset.Start(), Limit: tagPage}); err != nil {
				return err
			}
			p.Requests++
			if round == 0 {
				if p.FirstPlans, err = s.plans(ctx, &p); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return p, err
	}
	all, err := s.plans(ctx, &p)
	p.LaterPlans = all - p.FirstPlans
	if p.LaterPlans > 0 {
		s.miss(fmt.Errorf("%d times after the first round of requests", p.LaterPlans), "planning")
	}
	return p, err
}

// plans reads the statistics of the reader's statements over our tables.
func (s *index) plans(ctx context.Context, p *Planning) (plans int, err error) {
	err = s.owner.QueryRow(ctx, `
		SELECT count(*), coalesce(sum(calls), 0), coalesce(sum(plans), 0)
		  FROM public.`+statements+` WHERE userid = $1::regrole AND query ~ '(post_tags|post_langs|posts|tags|langs)'`, site.APIRole).
		Scan(&p.Statements, &p.Calls, &plans)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", statements, err)
	}
	return plans, nil
}
