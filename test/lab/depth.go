package lab

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
)

// The ways to find posts with any of some tags.
const (
	byOffset = "OFFSET"
	byAny    = "= ANY"
	byUs     = "Tagstream"
)

// Depth is the cost of pages of one list, by their distance from its start.
type Depth struct {
	Name  string
	Tags  []string
	Posts int // in the list, without duplicates
	Pages []DepthPage
}

// DepthPage is the cost of one page, by each way.
type DepthPage struct {
	Page, Skipped int
	// Overlap is the number of entries of the first page+1 posts in excess of one each.
	Overlap int
	By      map[string]PageCost
}

// Bound is the maximum number of list entries that our page may read.
func (p DepthPage) Bound(tags int) int { return page + 1 + tags + p.Overlap }

// PageCost is the cost of a page.
type PageCost struct {
	Latency time.Duration // median
	Counts
	Plan
}

// Growth returns the latency of the deepest page divided by that of the first, by one way.
func (d Depth) Growth(direction string) float64 {
	return float64(d.Pages[len(d.Pages)-1].By[direction].Latency) / float64(d.Pages[0].By[direction].Latency)
}

// tagSet is a named set of tags.
type tagSet struct {
	name string
	tags []string
}

func depthSets() []tagSet {
	common := []string{floodTag, hotTag}
	for i := 0; len(common) < query.MaxTagsEach; i++ {
		common = append(common, wordTag(i))
	}
	var kit []string
	for i := range kitTags {
		kit = append(kit, kitTag(i))
	}
	return []tagSet{
		{"1 tag, hot", []string{hotTag}},
		{"1 tag, every other post", []string{floodTag}},
		{"5 tags", common[:5]},
		{"20 tags", common},
		{"20 tags together", kit},
	}
}

// listed is a post in a list, and the number of the list's tags that it has.
type listed struct {
	key event.Key
	n   int
}

// list reads all posts with any of the tags, newest first, and the tags' ids.
func (s *index) list(ctx context.Context, tags []string) (posts []listed, ids []int64, err error) {
	if ids, err = s.tagIDs(ctx, tags); err != nil {
		return nil, nil, err
	}
	rows, err := s.owner.Query(ctx, "SELECT key, count(*) FROM post_tags WHERE tag_id = ANY($1) GROUP BY key ORDER BY key DESC", ids)
	if err == nil {
		var p listed
		_, err = pgx.ForEachRow(rows, []any{(*[16]byte)(&p.key), &p.n}, func() error {
			posts = append(posts, p)
			return nil
		})
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list posts with %d tags: %w", len(tags), err)
	}
	return posts, ids, nil
}

func (s *index) tagIDs(ctx context.Context, tags []string) ([]int64, error) {
	rows, err := s.owner.Query(ctx, "SELECT t.id FROM unnest($1::text[]) WITH ORDINALITY AS i(name, n) JOIN tags t USING (name) ORDER BY i.n", tags)
	if err != nil {
		return nil, fmt.Errorf("look up %d tags: %w", len(tags), err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err == nil && len(ids) < len(tags) {
		err = fmt.Errorf("only %d exist", len(ids))
	}
	if err != nil {
		return nil, fmt.Errorf("look up tags %s: %w", strings.Join(tags, ", "), err)
	}
	return ids, nil
}

// depths measures pages of lists at every depth.
func (s *index) depths(ctx context.Context) ([]Depth, error) {
	var out []Depth
	for _, set := range depthSets() {
		s.log.Info("depth", "tags", set.name)
		d, err := s.depth(ctx, set)
		if err != nil {
			return nil, fmt.Errorf("depth, %s: %w", set.name, err)
		}
		out = append(out, d)
	}
	return out, nil
}

func (s *index) depth(ctx context.Context, set tagSet) (Depth, error) {
	d := Depth{Name: set.name, Tags: set.tags}
	posts, ids, err := s.list(ctx, set.tags)
	if err != nil {
		return d, err
	}
	d.Posts = len(posts)
	deepest := len(posts) / page
	if deepest < 1 {
		return d, fmt.Errorf("there are only %d posts", len(posts))
	}
	for i, n := range s.cfg.Depths {
		if i > 0 && s.cfg.Depths[i-1] >= deepest {
			break
		}
		n = min(n, deepest)
		p := DepthPage{Page: n, Skipped: (n - 1) * page, By: map[string]PageCost{}}
		for _, post := range posts[p.Skipped:min(p.Skipped+page+1, len(posts))] {
			p.Overlap += post.n - 1
		}
		d.Pages = append(d.Pages, p)
	}
	if err := s.depthOurs(ctx, &d, posts); err != nil {
		return d, fmt.Errorf("%s: %w", byUs, err)
	}
	if err := s.depthRival(ctx, &d, byOffset, func(p DepthPage) query.Statement { return offsetPage(ids, p.Skipped) }); err != nil {
		return d, err
	}
	return d, s.depthRival(ctx, &d, byAny, func(p DepthPage) query.Statement { return anyPage(ids, placeBefore(posts, p.Skipped)) })
}

// placeBefore returns the key of the last skipped post.
func placeBefore(posts []listed, skipped int) event.Key {
	if skipped == 0 {
		return newest
	}
	return posts[skipped-1].key
}

func below(posts []listed, skipped int) keyset.Position {
	if skipped == 0 {
		return keyset.Start()
	}
	return keyset.Below(keyset.UUID(posts[skipped-1].key))
}

func (s *index) depthOurs(ctx context.Context, d *Depth, posts []listed) error {
	var asks []func(context.Context) error
	queries := make([]query.PostQuery, len(d.Pages))
	for i, p := range d.Pages {
		q := query.PostQuery{Tags: d.Tags, From: below(posts, p.Skipped), Limit: page}
		queries[i] = q
		var want []event.Key
		for _, post := range posts[p.Skipped:min(p.Skipped+page, len(posts))] {
			want = append(want, post.key)
		}
		asks = append(asks, func(ctx context.Context) error {
			got, err := s.reader.Posts(ctx, q)
			if err != nil {
				return err
			}
			return sameKeys(keysOf(got.Rows), want)
		})
	}
	medians, err := s.timeInTurns(ctx, asks...)
	if err != nil {
		return err
	}
	for i, p := range d.Pages {
		cost := PageCost{Latency: medians[i]}
		if cost.Counts, cost.Plan, err = s.costOurs(ctx, queries[i]); err != nil {
			return err
		}
		d.Pages[i].By[byUs] = cost
		s.miss(d.check(p, cost), "any of %d tags (%s), page %d", len(d.Tags), d.Name, p.Page)
	}
	return nil
}

// check returns an error if our page costs too much.
func (d *Depth) check(p DepthPage, cost PageCost) error {
	if err := cost.check(); err != nil {
		return err
	}
	switch bound := p.Bound(len(d.Tags)); {
	case cost.Entries > bound:
		return fmt.Errorf("%d index rows were read, the bound is %d", cost.Entries, bound)
	case cost.Filtered > 0:
		return fmt.Errorf("%d rows were read and dropped", cost.Filtered)
	case cost.Records > page:
		return fmt.Errorf("%d records were fetched for a page of %d", cost.Records, page)
	}
	return nil
}

// costOurs counts what our page reads, and explains its statements.
func (s *index) costOurs(ctx context.Context, q query.PostQuery) (Counts, Plan, error) {
	counts, err := s.countOurs(ctx, func(r *query.Reader) error {
		_, err := r.Posts(ctx, q)
		return err
	})
	if err != nil {
		return counts, Plan{}, err
	}
	p, err := s.planPosts(ctx, q)
	return counts, p, err
}

// planPosts explains the reader's statements for one page.
func (s *index) planPosts(ctx context.Context, q query.PostQuery) (Plan, error) {
	var all []query.Statement
	if _, err := s.reader.TracePosts(ctx, q, func(st query.Statement) { all = append(all, st) }); err != nil {
		return Plan{}, err
	}
	return s.planOurs(ctx, all)
}

func (s *index) depthRival(ctx context.Context, d *Depth, direction string, statement func(DepthPage) query.Statement) error {
	var asks []func(context.Context) error
	for _, p := range d.Pages {
		st := statement(p)
		asks = append(asks, func(ctx context.Context) error { return drain(ctx, s.rival, st) })
	}
	medians, err := s.timeInTurns(ctx, asks...)
	if err != nil {
		return fmt.Errorf("%s: %w", direction, err)
	}
	for i, p := range d.Pages {
		cost := PageCost{Latency: medians[i]}
		if cost.Counts, err = s.countRival(ctx, statement(p)); err != nil {
			return err
		}
		if cost.Plan, err = s.planRival(ctx, statement(p)); err != nil {
			return err
		}
		d.Pages[i].By[direction] = cost
	}
	return nil
}

// What people write first, in its best form: ids are known, keys are found before records are
// fetched, and the planner is unrestricted.

// newest is the key above all others.
var newest = event.Key{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// recordsQuery fetches the records of keys, as the reader does.
const recordsQuery = `SELECT p.key, a.did, p.rkey, p.cid, p.tags, p.langs, p.indexed_at, p.record
  FROM unnest($1::uuid[]) AS page(key) JOIN posts p USING (key) JOIN accounts a ON a.id = p.account_id`

// withRecords fetches the records of the keys that a statement returns.
func withRecords(keys string, args ...any) query.Statement {
	return query.Statement{SQL: `SELECT p.key, a.did, p.rkey, p.cid, p.tags, p.langs, p.indexed_at, p.record
  FROM (` + keys + `) AS page JOIN posts p USING (key) JOIN accounts a ON a.id = p.account_id
 ORDER BY p.key DESC`, Args: args}
}

// offsetPage skips the rows before the page.
func offsetPage(ids []int64, depth int) query.Statement {
	if len(ids) == 1 {
		return withRecords(`SELECT key FROM post_tags WHERE tag_id = $1 ORDER BY key DESC LIMIT $2 OFFSET $3`, ids[0], page, depth)
	}
	return withRecords(`SELECT DISTINCT key FROM post_tags WHERE tag_id = ANY($1::bigint[]) ORDER BY key DESC LIMIT $2 OFFSET $3`, ids, page, depth)
}

// anyPage seeks to the place by the key, with one condition for all tags.
func anyPage(ids []int64, below event.Key) query.Statement {
	return withRecords(`SELECT DISTINCT key FROM post_tags WHERE tag_id = ANY($1::bigint[]) AND key < $2 ORDER BY key DESC LIMIT $3`, ids, below, page)
}
