package lab

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store/write"
)

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
