package simnet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// DefaultMaxPosts is the limit of existing posts if Traffic.MaxPosts is zero.
	DefaultMaxPosts = 50_000
	// rememberedDeleted is how many deleted posts can be recreated.
	rememberedDeleted = 256
	// likeCollection is a collection that readers of posts must not see.
	likeCollection = "app.bsky.feed.like"
)

// Traffic generates ordinary activity on a network. About one post in ten is a root post with tags;
// #art is the most frequent tag.
type Traffic struct {
	// Rate is the average number of actions per second; zero means as fast as possible.
	Rate float64
	// Count is the number of actions; zero means until the context ends.
	Count int
	// Seed fixes what happens. When it happens depends on Rate, and times within records on the network's clock.
	Seed uint64
	// MaxPosts bounds the existing posts; at the limit, deletions replace new posts. Zero means
	// DefaultMaxPosts.
	MaxPosts int
	// TagsOnly generates only root posts with tags, to fill an archive.
	TagsOnly bool
	// Spread makes posts claim times spread over this period before now, oldest first; it needs
	// Count.
	Spread time.Duration
}

// livePost is a post that exists.
type livePost struct {
	did, rkey, uri, cid string
}

// actor is the state of one run.
type actor struct {
	Traffic
	network  *Network
	rng      *rand.Rand
	author   *author
	active   []string // accounts that write
	inactive []string // accounts that may be reactivated
	private  []string // accounts that opted out, in order
	posts    []livePost
	deleted  []livePost
	age      time.Duration // the age that posts claim; see Spread
}

// now returns the time that records claim.
func (a *actor) now() time.Time { return a.network.Now().Add(-a.age) }

// Run generates traffic until Count actions are done or ctx ends, and returns nil in both cases.
// The network must have at least one account. Run may be called again after it has returned.
func (t Traffic) Run(ctx context.Context, n *Network) error {
	if t.MaxPosts <= 0 {
		t.MaxPosts = DefaultMaxPosts
	}
	rng := rand.New(rand.NewPCG(t.Seed, 0x7a66696320))
	a := &actor{Traffic: t, network: n, rng: rng, author: newAuthor(rng)}
	if err := a.load(); err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	next := time.Now()
	for done := 0; t.Count == 0 || done < t.Count; done++ {
		if t.Rate > 0 {
			// Many independent people act at exponential intervals. After a stall it catches up, to
			// keep the rate.
			next = next.Add(time.Duration(rng.ExpFloat64() / t.Rate * float64(time.Second)))
			timer.Reset(max(time.Until(next), 0))
			select {
			case <-timer.C:
			case <-ctx.Done():
				return nil
			}
		} else if ctx.Err() != nil {
			return nil
		}
		if t.Spread > 0 && t.Count > 0 {
			a.age = t.Spread * time.Duration(t.Count-done) / time.Duration(t.Count)
		}
		if err := a.act(); err != nil {
			return fmt.Errorf("traffic action %d of seed %d: %w", done, t.Seed, err)
		}
	}
	return nil
}

// load reads the state of the network.
func (a *actor) load() error {
	n := a.network
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, did := range n.dids {
		acc := n.accounts[did]
		switch {
		case acc.active:
			a.active = append(a.active, did)
		case acc.status != "deleted":
			a.inactive = append(a.inactive, did)
		}
		for _, record := range acc.repo.records() {
			if record.Collection == PostCollection && acc.active {
				a.posts = append(a.posts, livePost{did: did, rkey: record.Rkey, uri: record.URI, cid: record.CID})
			}
		}
	}
	if len(a.active) == 0 {
		return fmt.Errorf("generate traffic: no active account: %w", ErrUnknownAccount)
	}
	return nil
}

// act does one action.
func (a *actor) act() error {
	if a.TagsOnly {
		return a.create(a.author.post(a.now(), 1+a.rng.IntN(4)))
	}
	pick := a.rng.Float64() * 100
	if pick < 84 && len(a.posts) >= a.MaxPosts {
		pick = 90
	}
	switch {
	case pick < 84:
		return a.write()
	case pick < 87:
		return a.edit()
	case pick < 93:
		return a.remove()
	case pick < 94:
		return a.recreatePost()
	case pick < 95.5:
		return a.like()
	case pick < 97:
		return a.introduce()
	case pick < 98.5:
		return a.batch()
	case pick < 99.3:
		return a.changeStatus()
	case pick < 99.4:
		return a.sync()
	case pick < 99.8:
		kinds := Malformations()
		did := a.writer()
		post, err := a.network.CreateMalformed(did, kinds[a.rng.IntN(len(kinds))])
		return a.keep(post, err)
	default:
		did, err := a.network.CreateAccount()
		a.active = append(a.active, did)
		return err
	}
}

// writer returns an account; the first ones write the most.
func (a *actor) writer() string {
	share := a.rng.Float64()
	return a.active[int(share*share*float64(len(a.active)))]
}

// write creates a root post, a reply or a quote.
func (a *actor) write() error {
	record := a.compose()
	pick := a.rng.IntN(100)
	switch {
	case len(a.posts) == 0:
	case pick < 42:
		target := a.posts[a.rng.IntN(len(a.posts))]
		reply(record, target, target)
	case pick < 48:
		quote(record, a.posts[a.rng.IntN(len(a.posts))])
	}
	return a.create(record)
}

// compose returns a record. One in six has tags: without the replies among them, one post in ten is
// a root post with tags.
func (a *actor) compose() map[string]any {
	tags := 0
	if a.rng.IntN(6) == 0 {
		tags = 1 + a.rng.IntN(3)
		if a.rng.IntN(20) == 0 {
			tags = 12
		}
	}
	return a.author.post(a.now(), tags)
}

// create creates a post.
func (a *actor) create(record map[string]any) error {
	return a.keep(a.network.CreatePost(a.writer(), "", record))
}

// keep remembers a created post.
func (a *actor) keep(post Post, err error) error {
	if err != nil {
		return err
	}
	a.posts = append(a.posts, livePost{did: post.DID, rkey: post.Rkey, uri: post.URI, cid: post.CID})
	return nil
}

// take returns a random existing post and forgets it.
func (a *actor) take() livePost {
	i := a.rng.IntN(len(a.posts))
	post := a.posts[i]
	last := len(a.posts) - 1
	a.posts[i] = a.posts[last]
	a.posts = a.posts[:last]
	return post
}

// edit replaces a post, which may lose or gain tags.
func (a *actor) edit() error {
	if len(a.posts) == 0 {
		return a.write()
	}
	post := a.take()
	return a.keep(a.network.UpdatePost(post.did, post.rkey, a.compose()))
}

// remove deletes a post.
func (a *actor) remove() error {
	if len(a.posts) == 0 {
		return a.write()
	}
	post := a.take()
	if len(a.deleted) == rememberedDeleted {
		a.deleted = a.deleted[1:]
	}
	a.deleted = append(a.deleted, post)
	_, err := a.network.DeletePost(post.did, post.rkey)
	return err
}

// recreatePost creates a post under the key of a deleted one.
func (a *actor) recreatePost() error {
	if len(a.deleted) == 0 {
		return a.write()
	}
	i := a.rng.IntN(len(a.deleted))
	post := a.deleted[i]
	a.deleted = append(a.deleted[:i:i], a.deleted[i+1:]...)
	return a.keep(a.network.CreatePost(post.did, post.rkey, a.compose()))
}

// like creates a record that is not a post.
func (a *actor) like() error {
	if len(a.posts) == 0 {
		return a.write()
	}
	target := a.posts[a.rng.IntN(len(a.posts))]
	_, err := a.network.Commit(a.writer(), Op{Action: Create, Collection: likeCollection, Record: map[string]any{
		"$type": likeCollection, "subject": strongRef(target.uri, target.cid), "createdAt": a.network.Now().Format(recordTime)}})
	return err
}

// Introduce gives every account of a network a handle and a profile.
func Introduce(n *Network, seed uint64) error {
	author := newAuthor(rand.New(rand.NewPCG(seed, 0x6e616d6573)))
	for i, did := range n.DIDs() {
		name := author.name()
		if _, err := n.Rename(did, fmt.Sprintf("%s-%d.test", handleName(name), i)); err != nil {
			return err
		}
		if _, err := n.SetProfile(did, NewProfile(name, true)); err != nil {
			return err
		}
	}
	return nil
}

// introduce changes an author's handle or profile. Few opt out, and only for a while.
func (a *actor) introduce() error {
	did := a.writer()
	name := a.author.name()
	switch pick := a.rng.IntN(20); {
	case len(a.private) > len(a.active)/10:
		did, a.private = a.private[0], a.private[1:]
		_, err := a.network.SetProfile(did, NewProfile(name, true))
		return err
	case pick < 7:
		_, err := a.network.Rename(did, fmt.Sprintf("%s-%d.test", handleName(name), a.rng.IntN(1000)))
		return err
	case pick == 7 && !slices.Contains(a.private, did):
		if _, err := a.network.DeleteProfile(did); !errors.Is(err, ErrNoRecord) {
			return err
		}
	case pick == 8:
		a.private = append(a.private, did)
		_, err := a.network.SetProfile(did, NewProfile(name, false))
		return err
	}
	_, err := a.network.SetProfile(did, NewProfile(name, true))
	return err
}

// batch writes several posts in one commit.
func (a *actor) batch() error {
	did := a.writer()
	ops := make([]Op, 2+a.rng.IntN(4))
	for i := range ops {
		ops[i] = Op{Action: Create, Record: a.compose()}
	}
	entry, err := a.network.Commit(did, ops...)
	if err != nil {
		return err
	}
	for _, op := range entry.Ops {
		a.posts = append(a.posts, livePost{did: did, rkey: op.Rkey, uri: op.URI, cid: op.CID})
	}
	return nil
}

// changeStatus deactivates or reactivates an account. An inactive account writes nothing, but its
// posts stay in the repository, and others may still reply to them.
func (a *actor) changeStatus() error {
	if len(a.inactive) > 0 && (len(a.inactive) > len(a.active)/5 || a.rng.IntN(2) == 0) {
		i := a.rng.IntN(len(a.inactive))
		did := a.inactive[i]
		a.inactive = append(a.inactive[:i:i], a.inactive[i+1:]...)
		a.active = append(a.active, did)
		_, err := a.network.SetAccountStatus(did, true, "")
		return err
	}
	if len(a.active) < 2 {
		return a.write()
	}
	i := a.rng.IntN(len(a.active))
	did := a.active[i]
	a.active = append(a.active[:i:i], a.active[i+1:]...)
	a.forget(did)
	status := []string{"deactivated", "deactivated", "takendown", "suspended", "deleted"}[a.rng.IntN(5)]
	if status == "deleted" {
		newcomer, err := a.network.CreateAccount()
		if err != nil {
			return err
		}
		a.active = append(a.active, newcomer)
	} else {
		a.inactive = append(a.inactive, did)
	}
	_, err := a.network.SetAccountStatus(did, false, status)
	return err
}

// forget stops editing, deleting and recreating an account's posts.
func (a *actor) forget(did string) {
	keep := func(posts []livePost) []livePost {
		kept := posts[:0]
		for _, post := range posts {
			if post.did != did {
				kept = append(kept, post)
			}
		}
		return kept
	}
	a.posts, a.deleted = keep(a.posts), keep(a.deleted)
}

// sync rewrites part of a repository and announces only the result.
func (a *actor) sync() error {
	did := a.active[a.rng.IntN(len(a.active))]
	ops := []Op{{Action: Create, Record: a.author.post(a.now(), 1)}}
	for i := len(a.posts) - 1; i >= 0; i-- {
		if a.posts[i].did == did {
			ops = append(ops, Op{Action: Delete, Rkey: a.posts[i].rkey})
			a.posts = append(a.posts[:i:i], a.posts[i+1:]...)
			break
		}
	}
	_, err := a.network.Sync(did, ops...)
	return err
}
