package model

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// Crowd generates an endless history from a seed: many posts with few, heavily overlapping tags. So
// it has long lists, where posts come and go at the top and everywhere below it, many of them in
// ties. Unlike Generate it contains nothing odd: revs and times only rise.
type Crowd struct {
	rng      *rand.Rand
	size     int
	step     time.Duration
	now      time.Time
	seq, rev uint64
	posts    []crowdPost // in the index, including those of hidden accounts
	hidden   []string    // accounts
	keys     uint64
	queue    []*event.Event
}

type crowdPost struct{ did, rkey string }

const (
	crowdAccounts = 40
	maxHidden     = 4 // accounts at a time
)

// NewCrowd returns a crowd that grows to about size posts and stays there. Its first event is at
// start, and events are about step apart.
func NewCrowd(seed uint64, size int, start time.Time, step time.Duration) *Crowd {
	return &Crowd{rng: rand.New(rand.NewPCG(seed, 5)), size: size, step: step, now: start.UTC(), rev: 1_700_000_000_000_000}
}

// Take returns the next n events.
func (c *Crowd) Take(n int) []*event.Event {
	for len(c.queue) < n {
		c.turn()
	}
	events := c.queue[:n:n]
	c.queue = c.queue[n:]
	return events
}

func (c *Crowd) emit(e event.Event) {
	c.now = c.now.Add(time.Duration(c.rng.Int64N(2*int64(c.step) + 1)))
	c.seq++
	e.V = event.Version
	e.Source = event.Position{Host: "https://jetstream.crowd.example", Seq: c.seq, Time: c.now}
	c.queue = append(c.queue, &e)
}

func (c *Crowd) account() string { return fmt.Sprintf("did:plc:%024d", c.rng.IntN(crowdAccounts)) }

// turn emits one change or two related ones.
func (c *Crowd) turn() {
	grow := 62
	if len(c.posts) > c.size {
		grow = 14
	}
	p := c.rng.IntN(100)
	switch {
	case p < grow || len(c.posts) == 0:
		c.keys++
		c.put(event.KindCreate, crowdPost{c.account(), tid(1_600_000_000_000_000 + c.keys)})
	case p < 78:
		c.put(event.KindUpdate, pick(c.rng, c.posts...))
	case p < 92:
		c.gone(event.KindDelete)
	case p < 94: // edited to have no tags
		c.gone(event.KindRemove)
	case p < 98: // deleted and recreated
		c.put(event.KindCreate, c.gone(event.KindDelete))
	default:
		c.toggle(c.account())
	}
}

// toggle hides an account, or shows a hidden one again.
func (c *Crowd) toggle(did string) {
	if len(c.hidden) >= maxHidden {
		did = pick(c.rng, c.hidden...)
	}
	e := event.Event{Kind: event.KindAccount, DID: did}
	if i := slices.Index(c.hidden, did); i >= 0 {
		c.hidden, e.Active = slices.Delete(c.hidden, i, i+1), true
	} else {
		c.hidden, e.Status = append(c.hidden, did), pick(c.rng, "deactivated", "suspended", "takendown")
	}
	c.emit(e)
}

func (c *Crowd) gone(kind event.Kind) crowdPost {
	i := c.rng.IntN(len(c.posts))
	p := c.posts[i]
	c.posts = slices.Delete(c.posts, i, i+1)
	c.rev++
	c.emit(event.Event{Kind: kind, DID: p.did, Rkey: p.rkey, Rev: tid(c.rev)})
	return p
}

func (c *Crowd) put(kind event.Kind, p crowdPost) {
	if kind == event.KindCreate {
		c.posts = append(c.posts, p)
	}
	c.rev++
	e := event.Event{Kind: kind, DID: p.did, Rkey: p.rkey, Rev: tid(c.rev), CID: "bafyrei" + tid(c.rev), Tags: c.tags(), CreatedAt: c.createdAt()}
	e.Langs = pick(c.rng, nil, []string{"en"}, []string{"en"}, []string{"en-US", "es"}, []string{"ja"}, []string{"pt-BR"}, []string{"PT", "en-gb"})
	record := map[string]any{"$type": event.Collection, "text": fmt.Sprint("post ", c.seq), "tags": e.Tags, "langs": e.Langs}
	if e.CreatedAt != "" {
		record["createdAt"] = e.CreatedAt
	}
	var err error
	if e.Record, err = json.Marshal(record); err != nil {
		panic(fmt.Sprintf("model: %v", err))
	}
	c.emit(e)
}

// CrowdTags are the tags of most posts, the commonest first.
func CrowdTags() []string {
	return []string{"art", "photo", "cats", "film", "猫", "ink", "c++", "night sky"}
}

// tags returns one to five tags. The first of CrowdTags is on three posts in four, the second on
// half as many, the third on a third as many, and so on.
func (c *Crowd) tags() []string {
	var tags []string
	for i, tag := range CrowdTags() {
		if len(tags) < 5 && c.rng.IntN(4*i+4) < 3 {
			tags = append(tags, tag)
		}
	}
	if len(tags) == 0 || len(tags) < 5 && c.rng.IntN(4) == 0 {
		tags = append(tags, fmt.Sprintf("rare%d", c.rng.IntN(300)))
	}
	c.rng.Shuffle(len(tags), func(i, j int) { tags[i], tags[j] = tags[j], tags[i] })
	return tags
}

// createdAt returns the current time, the current minute, or a time long ago among older posts.
func (c *Crowd) createdAt() string {
	ago := c.now.Add(-time.Duration(c.rng.Int64N(int64(c.step) * int64(c.size))))
	switch c.rng.IntN(10) {
	case 0, 1, 2:
		return c.now.Truncate(time.Minute).Format(time.RFC3339Nano)
	case 3, 4, 5:
		return ago.Format(time.RFC3339Nano)
	case 6:
		return ago.Truncate(10 * c.step).Format(time.RFC3339Nano)
	case 7:
		return ""
	}
	return c.now.Format(time.RFC3339Nano)
}
