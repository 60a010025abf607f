package lab

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
)

// Drift is what readers saw of a list that changed under them.
type Drift struct {
	// The transactions between two pages added and removed so many posts.
	Inserted, Deleted int
	Readings          []Reading
}

// The queries of the ways without a tie-breaker, and of OFFSET.
const (
	postsByOffset = `SELECT key FROM post_tags WHERE tag_id = $2 ORDER BY key DESC LIMIT $1 OFFSET $3`
	// A key is a time and a hash: everything below the first key of a microsecond is older than it.
	postsByTime     = `SELECT key FROM post_tags WHERE tag_id = $2 AND key < $3 ORDER BY key DESC LIMIT $1`
	tagsByOffset    = `SELECT name, posts FROM tags WHERE posts > 0 ORDER BY posts DESC, name LIMIT $1 OFFSET $2`
	tagsByCount     = `SELECT name, posts FROM tags WHERE posts > 0 AND posts < $2 ORDER BY posts DESC LIMIT $1`
	tagsByCountSame = `SELECT name, posts FROM tags WHERE posts > 0 AND posts <= $2 ORDER BY posts DESC LIMIT $1`
	tagsUnordered   = `SELECT name, posts FROM tags WHERE posts > 0 ORDER BY posts DESC LIMIT $1 OFFSET $2`
)

// mostPosts exceeds the posts of any tag.
const mostPosts = int64(1) << 62

// driftPosts reads the list of driftTag while it changes.
func (s *index) driftPosts(ctx context.Context, u *churn) (Drift, error) {
	ids, err := s.tagIDs(ctx, []string{driftTag})
	if err != nil {
		return Drift{}, err
	}
	stayed := map[event.Key]bool{}
	for _, p := range u.live {
		stayed[p.Key] = true
	}
	readings := []*reading[event.Key]{
		read(byOffset, false, bySQL(s.rival, postsByOffset, page, rowToKey, func(n int, _ []event.Key) []any { return []any{ids[0], n} })),
		read("time alone", false, bySQL(s.rival, postsByTime, page, rowToKey, func(_ int, last []event.Key) []any { return []any{ids[0], olderThan(last)} })),
		read(byUs+", to older posts", true, ourPosts(s.reader, []string{driftTag}, keyset.Forward)),
		read(byUs+", to newer posts", true, ourPosts(s.reader, []string{driftTag}, keyset.Backward)),
	}
	d, err := turns(ctx, u, readings)
	if err != nil {
		return d, err
	}
	maps.DeleteFunc(stayed, func(k event.Key, _ bool) bool { return u.deleted[k] })
	d.Readings = readingsOf(readings, stayed)
	s.judge("drift of posts", d.Readings)
	return d, nil
}

// driftTags reads the list of tags at the same time.
func (s *index) driftTags(ctx context.Context, u *churn) (Drift, error) {
	stayed, err := s.tagNames(ctx)
	if err != nil {
		return Drift{}, err
	}
	clear(u.moved)
	row := pgx.RowToStructByPos[query.TagCount]
	readings := []*reading[string]{
		read(byOffset, false, names(bySQL(s.rival, tagsByOffset, tagPage, row, func(n int, _ []query.TagCount) []any { return []any{n} }))),
		read("count alone", false, names(bySQL(s.rival, tagsByCount, tagPage, row, countBelow))),
		read(byUs+", to fewer posts", true, ourTags(s.reader, keyset.Forward)),
		read(byUs+", to more posts", true, ourTags(s.reader, keyset.Backward)),
	}
	d, err := turns(ctx, u, readings)
	if err != nil {
		return d, err
	}
	maps.DeleteFunc(stayed, func(name string, _ bool) bool { return u.moved[name] })
	d.Readings = readingsOf(readings, stayed)
	s.judge("drift of tags", d.Readings)
	return d, nil
}

// tagNames returns the tags that have posts.
func (s *index) tagNames(ctx context.Context) (map[string]bool, error) {
	all, err := collect(ctx, s.owner, "SELECT name FROM tags WHERE posts > 0", pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list tags: %w", err)
	}
	names := map[string]bool{}
	for _, name := range all {
		names[name] = true
	}
	return names, nil
}

func olderThan(last []event.Key) event.Key {
	if len(last) == 0 {
		return newest
	}
	return event.FirstKey(last[len(last)-1].SortAt())
}

func countBelow(_ int, last []query.TagCount) []any {
	if len(last) == 0 {
		return []any{mostPosts}
	}
	return []any{last[len(last)-1].Posts}
}

// turns lets every reader read a page, then changes the list, until all are done. So all see the
// same changes at the same time.
func turns[R comparable](ctx context.Context, u *churn, readings []*reading[R]) (Drift, error) {
	inserted, deleted := u.inserted, len(u.deleted)
	for open := true; open; {
		open = false
		for _, r := range readings {
			if err := r.turn(ctx); err != nil {
				return Drift{}, err
			}
			open = open || !r.done
		}
		if err := u.step(ctx); err != nil {
			return Drift{}, err
		}
	}
	return Drift{Inserted: u.inserted - inserted, Deleted: len(u.deleted) - deleted}, nil
}

func readingsOf[R comparable](all []*reading[R], stayed map[R]bool) []Reading {
	var out []Reading
	for _, r := range all {
		out = append(out, r.result(stayed))
	}
	return out
}

func (s *index) judge(where string, all []Reading) {
	for _, r := range all {
		s.miss(r.check(), "%s", where)
	}
}

func collect[R any](ctx context.Context, q querier, sql string, row pgx.RowToFunc[R], args ...any) ([]R, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, row)
}

// maxChurn bounds the posts that are added, and those that are removed, between two pages.
const maxChurn = 8

// churn changes the list of driftTag, depending only on the seed: posts are added at its newest end
// and, late, anywhere in it; others are deleted. Each also has other tags, so the counts of tags
// change.
type churn struct {
	w    *writer
	c    *corpus
	rng  *rand.Rand
	live []*write.Post

	steps, inserted int
	deleted         map[event.Key]bool
	moved           map[string]bool // tags whose count changed
}

func newChurn(w *writer, c *corpus, live []*write.Post) *churn {
	return &churn{w: w, c: c, rng: rand.New(rand.NewPCG(c.cfg.Seed, 2)), live: live, deleted: map[event.Key]bool{}, moved: map[string]bool{}}
}

// step is one transaction of the writer.
func (u *churn) step(ctx context.Context) error {
	var changes write.Changes
	for range min(1+u.rng.IntN(maxChurn), len(u.live)) {
		i := u.rng.IntN(len(u.live))
		p := u.live[i]
		u.live[i] = u.live[len(u.live)-1]
		u.live = u.live[:len(u.live)-1]
		changes.Posts = append(changes.Posts, write.PostChange{Old: p, OldVisible: true})
		u.deleted[p.Key] = true
		u.move(p)
	}
	for range 1 + u.rng.IntN(maxChurn) {
		p := u.insert()
		changes.Posts = append(changes.Posts, write.PostChange{New: p, NewVisible: true})
		u.live = append(u.live, p)
		u.inserted++
		u.move(p)
	}
	u.steps++
	if err := u.w.apply(ctx, changes, u.c.at); err != nil {
		return fmt.Errorf("change the list, step %d: %w", u.steps, err)
	}
	return nil
}

func (u *churn) insert() *write.Post {
	u.c.made++
	u.c.at = u.c.at.Add(time.Second)
	at := u.c.at
	if u.rng.IntN(2) == 0 {
		at = corpusStart.Add(time.Duration(u.rng.Int64N(int64(at.Sub(corpusStart))))).Truncate(time.Microsecond)
	}
	tags := append([]string{driftTag}, u.c.someWords()...)
	if u.rng.IntN(4) == 0 {
		tags = append(tags, fmt.Sprintf("new-%d", u.c.made))
	}
	return u.c.post(at, tags)
}

func (u *churn) move(p *write.Post) {
	for _, t := range p.Tags {
		u.moved[t] = true
	}
}
