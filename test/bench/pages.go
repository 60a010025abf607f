package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tagstream/tagstream/pkg/pgserver"
)

const (
	// pageClients is how many clients ask for pages while the rate is measured, each for the next when it has one.
	pageClients = 4
	// pageRounds is how often the kinds of pages take turns, so that a busy moment of the machine meets all of them.
	pageRounds = 6
	// pagePosts is the api's own default.
	pagePosts = 50
	// loadClients is how many ask while the api's memory is measured.
	loadClients = 32
	// loadTags is how many of the commonest tags they ask for.
	loadTags = 20
	// chain is how many pages of one list such a client reads.
	chain = 10
)

// PageRate is how fast one kind of page is answered.
type PageRate struct {
	Tags int
	// Depth is how many posts lie before the page.
	Depth int
	// Requests were answered in Took.
	Requests int
	Took     time.Duration
	query    string
}

// PerSecond is the rate of requests.
func (p PageRate) PerSecond() float64 { return float64(p.Requests) / p.Took.Seconds() }

// commonTags returns the most used tags, the commonest first.
func (s *installation) commonTags(ctx context.Context, n int) ([]string, error) {
	var tags []string
	err := s.sql(ctx, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, "SELECT name FROM tagstream.tags ORDER BY posts DESC, name LIMIT $1", n)
		if err != nil {
			return err
		}
		tags, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err == nil && len(tags) < n {
		err = fmt.Errorf("there are %d tags, at least %d are needed", len(tags), n)
	}
	if err != nil {
		return nil, fmt.Errorf("look up the commonest tags: %w", err)
	}
	return tags, nil
}

// sql runs fn on a connection of the superuser.
func (s *installation) sql(ctx context.Context, fn func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, s.pg.URL(pgserver.Superuser))
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return fn(conn)
}

// pages measures first pages and deep ones, with one tag and with five.
func (s *installation) pages(ctx context.Context, cfg Config) ([]PageRate, error) {
	tags, err := s.commonTags(ctx, 5)
	if err != nil {
		return nil, err
	}
	c := newClient(s.apiURL, pageClients)
	defer c.close()
	var kinds []PageRate
	for _, n := range []int{1, len(tags)} {
		deep, err := c.seek(ctx, tags[:n], cfg.Depth)
		if err != nil {
			return nil, err
		}
		kinds = append(kinds, PageRate{Tags: n, query: queryOf(tags[:n], pagePosts, "", "")}, deep)
	}
	for range pageRounds {
		for i := range kinds {
			began := time.Now()
			n, err := c.ask(ctx, pageClients, cfg.Pages/pageRounds, func(int) (func() string, func(page)) {
				return func() string { return kinds[i].query }, nil
			})
			if err != nil {
				return nil, err
			}
			kinds[i].Requests += n
			kinds[i].Took += time.Since(began)
		}
	}
	return kinds, nil
}

// seek walks down a list and returns the page behind depth posts, or the last whole page of a shorter list.
func (c *client) seek(ctx context.Context, tags []string, depth int) (PageRate, error) {
	token, passed, deep := "", 0, PageRate{Tags: len(tags)}
	for {
		p, err := c.posts(ctx, queryOf(tags, pageLimit, "after", token))
		if err != nil {
			return deep, err
		}
		if len(p.Posts) == pageLimit {
			deep.Depth, deep.query = passed, queryOf(tags, pagePosts, "after", token)
		}
		passed += len(p.Posts)
		token = p.Page.Next
		if passed > depth || !p.Page.HasNext {
			break
		}
	}
	if deep.Depth == 0 {
		return deep, fmt.Errorf("the list of %q ends after %d posts: too short for a deep page", tags, passed)
	}
	return deep, nil
}

// ask lets clients ask for some time and returns how many answers they got. next makes, for each client, the function
// that gives its next query, and one that looks at each answer or nil.
func (c *client) ask(ctx context.Context, clients int, how time.Duration, next func(i int) (func() string, func(page))) (int, error) {
	deadline := time.Now().Add(how)
	group, ctx := errgroup.WithContext(ctx)
	counts := make([]int, clients)
	for i := range clients {
		query, look := next(i)
		group.Go(func() error {
			for time.Now().Before(deadline) {
				if look == nil {
					if _, err := c.fetch(ctx, query()); err != nil {
						return err
					}
				} else {
					p, err := c.posts(ctx, query())
					if err != nil {
						return err
					}
					look(p)
				}
				counts[i]++
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	total := 0
	for _, n := range counts {
		total += n
	}
	return total, nil
}

// load has many clients read lists of the commonest tags, the largest pages, page after page, and returns how many
// answers they got.
func (s *installation) load(ctx context.Context, cfg Config) (int, error) {
	tags, err := s.commonTags(ctx, loadTags)
	if err != nil {
		return 0, err
	}
	c := newClient(s.apiURL, loadClients)
	defer c.close()
	return c.ask(ctx, loadClients, cfg.Load, func(i int) (func() string, func(page)) {
		rng := rand.New(rand.NewPCG(cfg.Seed, uint64(i)))
		var list []string
		token, read := "", 0
		return func() string {
				if token == "" || read == chain {
					list = pick(rng, tags, 1+rng.IntN(5))
					token, read = "", 0
				}
				read++
				return queryOf(list, pageLimit, "after", token)
			}, func(p page) {
				if token = p.Page.Next; !p.Page.HasNext {
					token = ""
				}
			}
	})
}

// pick returns n different ones of all, in random order.
func pick(rng *rand.Rand, all []string, n int) []string {
	out := make([]string, n)
	for i, from := range rng.Perm(len(all))[:n] {
		out[i] = all[from]
	}
	return out
}
