package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/tagstream/tagstream/test/lab"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/report"
	"github.com/tagstream/tagstream/test/site"
)

const (
	// growthTag is on 7% of the lab's posts.
	growthTag = "art"
	// growthBar is the least speed of a page relative to that of the smallest index.
	growthBar = .91
)

// Grown is one index of the part growth. Hot counts the posts with growthTag.
type Grown struct {
	lab.Corpus
	// First and Random are the rates per second of the first page and of pages at random positions,
	// by round.
	First, Random []float64

	pg    *site.Postgres
	api   *process.Program
	url   string
	first string   // the path of the first page
	paths []string // of pages at random positions
}

// measureGrowth measures pages of indexes of several sizes, each with its own Postgres and api.
func (r *runner) measureGrowth(ctx context.Context) (err error) {
	all := make([]Grown, len(r.cfg.Growth))
	defer func() {
		for _, g := range all {
			err = errors.Join(err, g.api.Terminate())
			if g.pg != nil {
				err = errors.Join(err, g.pg.Stop(ctx))
			}
		}
	}()
	group, filling := errgroup.WithContext(ctx)
	var turns []func() error
	for i := range all {
		g := &all[i]
		group.Go(func() error { return r.grow(filling, g, r.cfg.Growth[i]) })
		turns = append(turns, func() error {
			first, err := ask(ctx, g.url, false, mainClients, r.cfg.Turn, g.first)
			if err != nil {
				return err
			}
			random, err := ask(ctx, g.url, false, mainClients, r.cfg.Turn, g.paths...)
			g.First, g.Random = append(g.First, first.perSecond()), append(g.Random, random.perSecond())
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := r.turns(ctx, turns...); err != nil {
		return err
	}
	r.report.Growth = all
	for _, g := range all[1:] {
		name, peer := fmt.Sprintf("page at %gM posts, ", float64(g.Posts)/1e6), fmt.Sprintf("at %gM posts", float64(all[0].Posts)/1e6)
		r.figure(Figure{Name: name + "first", Unit: "/s", Peer: peer, Ours: g.First, Theirs: all[0].First, Bar: growthBar})
		r.figure(Figure{Name: name + "random", Unit: "/s", Peer: peer, Ours: g.Random, Theirs: all[0].Random, Bar: growthBar})
	}
	return nil
}

// grow fills an index that fits into Postgres's memory, starts its api and reads the list once.
func (r *runner) grow(ctx context.Context, g *Grown, posts int) (err error) {
	settings := map[string]string{"autovacuum": "off", "max_wal_size": "8GB", "shared_buffers": fmt.Sprintf("%dMB", 64+posts/600)}
	if g.pg, err = site.StartPostgres(ctx, r.binaries, filepath.Join(r.dir, fmt.Sprint("growth-", posts)), "", settings); err != nil {
		return err
	}
	cfg := lab.Default()
	cfg.Posts, cfg.Ties, cfg.Drift, cfg.Seed, cfg.Bar = posts, min(cfg.Ties, posts/10), min(cfg.Drift, posts/10), r.cfg.Seed, nil
	if g.Corpus, err = lab.Fill(ctx, cfg, g.pg); err != nil {
		return err
	}
	r.say("%s posts filled in", report.Count(posts))
	if err := g.pg.Exec(ctx, "CHECKPOINT"); err != nil {
		return err
	}
	if g.api, g.url, err = r.runAPI(g.pg); err != nil {
		return err
	}
	if err := awaitAnswer(ctx, g.api, g.url+"/v1/status"); err != nil {
		return err
	}
	if g.paths, _, err = walk(g.url, []string{growthTag}, g.Hot); err != nil {
		return err
	}
	g.first = g.paths[0]
	rng := rand.New(rand.NewPCG(r.cfg.Seed, uint64(posts)))
	rng.Shuffle(len(g.paths), func(i, j int) { g.paths[i], g.paths[j] = g.paths[j], g.paths[i] })
	_, err = ask(ctx, g.url, false, mainClients, r.cfg.Turn, g.paths...) // for connections, and plans
	return err
}

// growth writes the rates of pages by the size of the index.
func (r *Report) growth(p *report.Printer) {
	if len(r.Growth) == 0 {
		return
	}
	p.Text("\n## Growth\n\nPages of %d posts of one tag, for %d clients, by the size of the index, which is in memory: the first page, and\n"+
		"pages at random positions.\n", pagePosts, mainClients)
	bar := func(rate, of float64) string {
		return fmt.Sprintf("`%-24s` %s", strings.Repeat("#", int(20*rate/of+.5)), report.Count(int(rate+.5)))
	}
	var rows [][]string
	for _, g := range r.Growth {
		rows = append(rows, []string{report.Count(g.Posts), report.Count(g.Hot), fmt.Sprintf("%.2f GB", float64(g.Bytes)/1e9),
			bar(median(g.First), median(r.Growth[0].First)), bar(median(g.Random), median(r.Growth[0].Random))})
	}
	p.Table([]string{"posts", "with the tag", "index", "first, a second", "random, a second"}, rows...)
}
