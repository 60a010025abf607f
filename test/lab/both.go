package lab

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/test/site"
)

// Two simple ways to find posts with both of two tags.
const (
	byProbe = "probe"
	byMerge = "merge"
)

// probeQuery reads the rarer list in order, and looks up each of its posts in the other one. %[1]s
// is the side of the place to read from, %[2]s the direction.
const probeQuery = `SELECT r.key FROM (SELECT key FROM post_tags WHERE tag_id = $1 AND key %[1]s $3 ORDER BY key %[2]s OFFSET 0) AS r
  WHERE (SELECT true FROM post_tags p WHERE p.tag_id = $2 AND p.key = r.key) ORDER BY r.key %[2]s LIMIT $4`

// mergeQuery reads both lists in order, in parallel.
const mergeQuery = `SELECT key FROM (SELECT key FROM post_tags WHERE tag_id = $1 AND key %[1]s $3 ORDER BY key %[2]s OFFSET 0) AS a
  JOIN (SELECT key FROM post_tags WHERE tag_id = $2 AND key %[1]s $3 ORDER BY key %[2]s OFFSET 0) AS b USING (key) ORDER BY key %[2]s LIMIT $4`

// simple is the request of a simple way: the page and one more post, and, unless it starts at the
// newest post, whether posts precede it. Our request answers the same.
type simple struct {
	keys   query.Statement
	behind *query.Statement
}

func newSimple(sql string, ids []int64, start event.Key) simple {
	s := simple{keys: query.Statement{SQL: fmt.Sprintf(sql, "<", "DESC"), Args: []any{ids[0], ids[1], start, page + 1}}}
	if start != newest {
		s.behind = &query.Statement{SQL: fmt.Sprintf(sql, ">=", "ASC"), Args: []any{ids[0], ids[1], start, 1}}
	}
	return s
}

// simpleSettings make Postgres use the intended plan.
func simpleSettings() map[string]string {
	return map[string]string{
		"enable_seqscan": "off", "enable_bitmapscan": "off", "enable_hashjoin": "off", "enable_sort": "off", "enable_material": "off",
		"plan_cache_mode": "force_generic_plan",
	}
}

// Both is the cost of the first posts with both of two tags, by each way.
type Both struct {
	pair
	Posts [2]int // of A and of B
	By    map[string]BothCost
	// Requests is the number of our requests, and Most the largest work of one.
	Requests, Most int
}

// BothCost is the cost of one way.
type BothCost struct {
	Latency time.Duration // median
	Counts
}

// better returns the lower of the simple ways' costs.
func (b Both) better(cost func(BothCost) float64) float64 {
	return min(cost(b.By[byProbe]), cost(b.By[byMerge]))
}

// leastWork is the cost of reading one page of each of the two lists. Less counts as that much: if
// there is almost nothing to read, the fixed cost of a request dominates.
const leastWork = 2 * (page + 1 + descentWork)

// WorkRatio returns our work divided by that of the better simple way.
func (b Both) WorkRatio() float64 {
	work := func(c BothCost) float64 { return float64(max(c.Work(), leastWork)) }
	return work(b.By[byUs]) / b.better(work)
}

// LatencyRatio is WorkRatio for latencies.
func (b Both) LatencyRatio() float64 {
	latency := func(c BothCost) float64 { return float64(c.Latency) }
	return latency(b.By[byUs]) / b.better(latency)
}

// bothFrom are the places of the measured pages: the fraction of the two lists that is skipped.
var bothFrom = []struct {
	name string
	part float64
}{{"the newest", 0}, {"the middle", 0.5}}

// boths measures all pairs.
func (s *index) boths(ctx context.Context) ([]Both, error) {
	cfg, err := poolConfig(s.pg.URL(site.APIRole))
	if err != nil {
		return nil, err
	}
	for name, value := range simpleSettings() {
		cfg.ConnConfig.RuntimeParams[name] = value
	}
	// Use this connection for the rivals meanwhile, so that counting and timing use the same one.
	pool, err := newPool(ctx, cfg)
	if err != nil {
		return nil, err
	}
	planner := s.rival
	s.rival = pool
	defer func() {
		pool.Close()
		s.rival = planner
	}()
	planner.Reset()
	var out []Both
	for _, p := range pairs() {
		s.log.Info("all of two tags", "pair", p.Name)
		ids, err := s.tagIDs(ctx, []string{p.A, p.B})
		if err != nil {
			return nil, err
		}
		posts, common, err := s.both(ctx, ids)
		if err != nil {
			return nil, err
		}
		lists := posts[0] + posts[1]
		if posts[0] > posts[1] {
			ids[0], ids[1] = ids[1], ids[0]
		}
		for _, from := range bothFrom {
			b := Both{pair: p, Posts: posts, By: map[string]BothCost{}}
			start := newest
			if from.part > 0 {
				if start, err = s.keyAt(ctx, ids, int(from.part*float64(lists))); err != nil {
					return nil, err
				}
			}
			if err := s.bothAt(ctx, &b, ids, start, common); err != nil {
				return nil, fmt.Errorf("all of two tags, %s, from %s: %w", p.Name, from.name, err)
			}
			if ratio := b.WorkRatio(); ratio > WorkLimit {
				s.miss(fmt.Errorf("%.2f times the work of the better simple way, the bound is %g", ratio, WorkLimit), "all of two tags, %s, from %s", p.Name, from.name)
			}
			if b.Most > requestBound {
				s.miss(fmt.Errorf("one request did work of %d, the bound is %d", b.Most, requestBound), "all of two tags, %s, from %s", p.Name, from.name)
			}
			out = append(out, b)
		}
	}
	return out, nil
}

// both counts two lists, and reads the posts in both, newest first, in a third way.
func (s *index) both(ctx context.Context, ids []int64) (posts [2]int, common []event.Key, err error) {
	err = s.owner.QueryRow(ctx, "SELECT (SELECT posts FROM tags WHERE id = $1), (SELECT posts FROM tags WHERE id = $2)", ids[0], ids[1]).Scan(&posts[0], &posts[1])
	if err == nil {
		common, err = collect(ctx, s.owner, "SELECT key FROM post_tags WHERE tag_id = ANY($1) GROUP BY key HAVING count(*) = 2 ORDER BY key DESC", rowToKey, ids)
	}
	if err != nil {
		return posts, nil, fmt.Errorf("look at two lists: %w", err)
	}
	return posts, common, nil
}

// keyAt returns the key after a fraction of the two lists.
func (s *index) keyAt(ctx context.Context, ids []int64, skipped int) (event.Key, error) {
	keys, err := collect(ctx, s.owner, "SELECT key FROM post_tags WHERE tag_id = ANY($1) ORDER BY key DESC OFFSET $2 LIMIT 1", rowToKey, ids, skipped)
	if err != nil || len(keys) == 0 {
		return event.Key{}, fmt.Errorf("find place %d in two lists: %w", skipped, err)
	}
	return keys[0], nil
}

func (s *index) bothAt(ctx context.Context, b *Both, ids []int64, start event.Key, common []event.Key) error {
	for len(common) > 0 && string(common[0][:]) >= string(start[:]) {
		common = common[1:]
	}
	common = common[:min(page, len(common))]

	q := query.PostQuery{All: []string{b.A, b.B}, From: keyset.Below(keyset.UUID(start)), Limit: page}
	if start == newest {
		q.From = keyset.Start()
	}
	var requests []query.PostQuery // the timed run repeats them
	ours := func(ctx context.Context, r *query.Reader) error {
		requests = requests[:0]
		keys, err := fill(ctx, r, q, func(q query.PostQuery) { requests = append(requests, q) })
		if err != nil {
			return err
		}
		return sameKeys(keys, common)
	}
	probe, merge := newSimple(probeQuery, ids, start), newSimple(mergeQuery, ids, start)
	if err := s.isJoin(ctx, merge.keys, "Merge Join"); err != nil {
		return err
	}
	medians, err := s.timeInTurns(ctx,
		func(ctx context.Context) error { return ours(ctx, s.reader) },
		func(ctx context.Context) error { return s.simply(ctx, b, probe, common) },
		func(ctx context.Context) error { return s.simply(ctx, b, merge, common) })
	if err != nil {
		return err
	}
	counts, err := s.countOurs(ctx, func(r *query.Reader) error { return ours(ctx, r) })
	if err != nil {
		return err
	}
	b.By[byUs] = BothCost{medians[0], counts}
	for i, direction := range []simple{probe, merge} {
		counts, err := s.countRival(ctx, direction.keys)
		if err != nil {
			return err
		}
		if direction.behind != nil {
			behind, err := s.countRival(ctx, *direction.behind)
			if err != nil {
				return err
			}
			counts = counts.plus(behind)
		}
		b.By[[]string{byProbe, byMerge}[i]] = BothCost{medians[i+1], counts}
	}
	b.Requests = len(requests)
	for _, q := range requests {
		counts, err := s.countOurs(ctx, func(r *query.Reader) error {
			_, err := r.Posts(ctx, q)
			return err
		})
		if err != nil {
			return err
		}
		b.Most = max(b.Most, counts.Work())
	}
	return nil
}

// fill sends requests until the page is full or the list ends: one request may return a short page
// when it reaches its work limit. It calls asked with each request.
func fill(ctx context.Context, r *query.Reader, q query.PostQuery, asked func(query.PostQuery)) ([]event.Key, error) {
	var keys []event.Key
	for {
		asked(q)
		p, err := r.Posts(ctx, q)
		if err != nil {
			return nil, err
		}
		keys = append(keys, keysOf(p.Rows)...)
		if len(keys) >= page || !p.HasNext {
			return keys[:min(page, len(keys))], nil
		}
		q.From = p.Next
	}
}

func keysOf(rows []query.PostRow) []event.Key {
	keys := make([]event.Key, len(rows))
	for i, row := range rows {
		keys[i] = row.Key
	}
	return keys
}

// sameKeys compares posts that were found with those that were found in another way.
func sameKeys(got, want []event.Key) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d posts were found and there are %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("post %d of those found is not the one that is there", i+1)
		}
	}
	return nil
}

// simply runs a request by a simple way: one snapshot, the tags' ids, the keys, whether more posts
// precede, the records.
func (s *index) simply(ctx context.Context, b *Both, direction simple, want []event.Key) error {
	return s.rivalConn(ctx, func(conn *pgx.Conn) error {
		return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			if err := drain(ctx, tx, query.Statement{SQL: "SELECT name, id, posts FROM tags WHERE name = ANY($1)", Args: []any{[]string{b.A, b.B}}}); err != nil {
				return err
			}
			found, err := collect(ctx, tx, direction.keys.SQL, rowToKey, direction.keys.Args...)
			if err != nil {
				return err
			}
			found = found[:min(page, len(found))]
			if err := sameKeys(found, want); err != nil {
				return err
			}
			if direction.behind != nil {
				if err := drain(ctx, tx, *direction.behind); err != nil {
					return err
				}
			}
			return drain(ctx, tx, query.Statement{SQL: recordsQuery, Args: []any{found}})
		})
	})
}

// isJoin checks that a statement uses the plan that it is named after.
func (s *index) isJoin(ctx context.Context, st query.Statement, join string) error {
	p, err := s.planRival(ctx, st)
	if err != nil {
		return err
	}
	if !strings.Contains(p.Outline, join) || len(p.Sorts) > 0 {
		return fmt.Errorf("the statement is not run as a %s:\n%s", join, p.Outline)
	}
	return nil
}

// pair is two tags and how their posts overlap.
type pair struct {
	Name string
	A, B string
	// has returns which of the two tags post i of n has.
	has func(rng *rand.Rand, i, n int) (a, b bool)
}

// sparseName is the pair whose lists must be read far to find few posts.
const sparseName = "1:1, sparse overlap"

// pairs returns the cases for all of two tags.
func pairs() []pair {
	chance := func(rng *rand.Rand, share float64) bool { return rng.Float64() < share }
	all := []pair{
		{Name: "skewed 1:1000", has: func(rng *rand.Rand, i, _ int) (bool, bool) {
			a := i%20_000 == 9_999
			return a, chance(rng, 0.05) || a && i/20_000%2 == 0
		}},
		{Name: "skewed 1:10", has: func(rng *rand.Rand, _, _ int) (bool, bool) {
			a := chance(rng, 0.005)
			return a, chance(rng, 0.05) || a && chance(rng, 0.5)
		}},
		{Name: "1:1, dense overlap", has: func(rng *rand.Rand, _, _ int) (bool, bool) {
			if !chance(rng, 0.02) {
				return false, false
			}
			u := rng.Float64()
			return u < 0.95, u > 0.05
		}},
		{Name: sparseName, has: func(rng *rand.Rand, i, _ int) (bool, bool) {
			if i%10_000 == 7_777 {
				return true, true
			}
			u := rng.Float64()
			return u < 0.02, u > 0.98
		}},
		{Name: "1:1, old half against new half", has: func(rng *rand.Rand, i, n int) (bool, bool) {
			hit := chance(rng, 0.04)
			return hit && i < n/2, hit && i >= n/2
		}},
		{Name: "1:1, bursts that alternate", has: func(rng *rand.Rand, i, n int) (bool, bool) {
			const bursts = 200
			every := n / bursts
			if i%every == every-1 { // where one burst ends and the next begins
				return true, true
			}
			hit := chance(rng, 0.10)
			return hit && i/every%2 == 0, hit && i/every%2 == 1
		}},
	}
	for i := range all {
		all[i].A, all[i].B = "pair-"+string(rune('1'+i))+"a", "pair-"+string(rune('1'+i))+"b"
	}
	return all
}

func (c *corpus) pairTags() []string {
	var tags []string
	for _, p := range c.pairs {
		a, b := p.has(c.rng, c.made, c.cfg.Posts)
		if a {
			tags = append(tags, p.A)
		}
		if b {
			tags = append(tags, p.B)
		}
	}
	return tags
}
