package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	upstream "github.com/bluesky-social/jetstream"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
)

const (
	// freshTag is on each post whose way is timed, and on no other.
	freshTag = "freshness"
	// settleLimit bounds the wait for the last posts after the last one was written; warmLimit that for the first.
	settleLimit = 15 * time.Second
	warmLimit   = 30 * time.Second
	warmEvery   = 100 * time.Millisecond
	pageLimit   = 100
)

// Quantiles are of a set of durations, by nearest rank.
type Quantiles struct{ P50, P90, P99, Max time.Duration }

func quantiles(all []time.Duration) Quantiles {
	if len(all) == 0 {
		return Quantiles{}
	}
	slices.Sort(all)
	at := func(percent int) time.Duration { return all[(len(all)*percent+99)/100-1] }
	return Quantiles{P50: at(50), P90: at(90), P99: at(99), Max: all[len(all)-1]}
}

// Freshness is how long posts take to be seen.
type Freshness struct {
	// Posts is how many were timed, and PerSecond how many were written a second.
	Posts     int
	PerSecond float64
	// Polls is how many answers of the api were looked through for them.
	Polls int
	// Shown is from the arrival at a client of our own to the first answer that shows the post: what is promised.
	Shown Quantiles
	// Stored and Indexed are its two parts: until the stream has the post, and from there to the answer. A post can be
	// stored before our client has it; that counts as zero.
	Stored, Indexed Quantiles
	// Upstream is what comes before: from the commit on the simulated network to our client.
	Upstream Quantiles
}

// sightings are when posts were first seen, by at-uri. It is safe for concurrent use.
type sightings struct {
	mu   sync.Mutex
	when map[string]time.Time
}

func (s *sightings) see(uri string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, seen := s.when[uri]; !seen {
		s.when[uri] = at
	}
}

func (s *sightings) at(uri string) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, seen := s.when[uri]
	return at, seen
}

func newSightings() *sightings { return &sightings{when: map[string]time.Time{}} }

// timing is the state of one measurement of freshness.
type timing struct {
	site   *installation
	cfg    Config
	author *author
	rng    *rand.Rand
	dids   []string

	mu      sync.Mutex
	written []string // at-uris in the order of the list
	timed   int      // the first of them that counts: those before warmed up
	closed  bool     // nothing more is written

	committed, arrived, stored, shown *sightings
	polls                             int // of the poller until it has ended
	span                              time.Duration
}

// freshness writes posts at the configured rate and times the way of each.
func (s *installation) freshness(ctx context.Context, cfg Config, author *author) (Freshness, error) {
	before, err := stream.GetState(ctx, s.js)
	if err != nil {
		return Freshness{}, err
	}
	t := &timing{
		site: s, cfg: cfg, author: author, rng: rand.New(rand.NewPCG(cfg.Seed, 0x6672657368)), dids: s.network.DIDs(),
		committed: newSightings(), arrived: newSightings(), stored: newSightings(), shown: newSightings(),
	}
	group, running := errgroup.WithContext(ctx)
	listening, hangUp := context.WithCancel(running)
	group.Go(func() error { return t.listen(listening) })
	group.Go(func() error {
		defer hangUp()
		if err := t.poll(running); err != nil {
			return err
		}
		return t.awaitArrivals(running)
	})
	group.Go(func() error { return t.write(running) })
	if err := group.Wait(); err != nil {
		return Freshness{}, fmt.Errorf("measure freshness: %w", err)
	}
	if err := t.readStored(ctx, before.Last+1); err != nil {
		return Freshness{}, err
	}
	return t.result()
}

// write posts until the time is over. Posts of the warm-up go before, until the first came through on both sides: neither
// says otherwise that it is attached.
func (t *timing) write(ctx context.Context) error {
	warm, cancel := context.WithTimeout(ctx, warmLimit)
	defer cancel()
	err := until(warm, warmEvery, func() (bool, error) {
		if err := t.post(); err != nil {
			return false, err
		}
		return t.through(), nil
	})
	if err != nil {
		return fmt.Errorf("wait for a first post on both sides: %w", err)
	}
	t.mu.Lock()
	t.timed = len(t.written)
	t.mu.Unlock()

	began := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	// Arrivals of many independent people: exponential gaps. After a stall it catches up, so the rate holds.
	for next := began; next.Before(began.Add(t.cfg.For)); {
		timer.Reset(max(time.Until(next), 0))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := t.post(); err != nil {
			return err
		}
		next = next.Add(time.Duration(t.rng.ExpFloat64() / t.cfg.Rate * float64(time.Second)))
	}
	t.span = time.Since(began)
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	return nil
}

// through says whether any post was seen on both sides.
func (t *timing) through() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.written, func(uri string) bool {
		_, arrived := t.arrived.at(uri)
		_, shown := t.shown.at(uri)
		return arrived && shown
	})
}

// post writes one post. Only the writer's goroutine calls it, so posts are listed in the order of their times.
func (t *timing) post() error {
	now := time.Now()
	p, err := t.site.network.CreatePost(t.dids[t.rng.IntN(len(t.dids))], "", t.author.post(now, freshTag))
	if err != nil {
		return fmt.Errorf("write a post: %w", err)
	}
	t.committed.see(p.URI, now)
	t.mu.Lock()
	t.written = append(t.written, p.URI)
	t.mu.Unlock()
	return nil
}

// listen notes when events arrive at an official client, each as soon as it has it.
func (t *timing) listen(ctx context.Context) error {
	c, err := upstream.Subscribe(t.site.upstream.URL(), upstream.WithCollection(event.Collection), upstream.WithBatchSize(1),
		upstream.WithKinds([]upstream.Kind{upstream.KindCommit}), upstream.WithRawRecords())
	if err != nil {
		return fmt.Errorf("subscribe to the Jetstream server: %w", err)
	}
	defer c.Close()
	for batch, err := range c.Events(ctx) {
		now := time.Now()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the Jetstream server: %w", err)
		}
		for _, ev := range batch.Events() {
			if ev.Commit != nil && ev.Commit.Operation == upstream.OpCreate {
				t.arrived.see(event.URI(ev.DID, ev.Commit.Rkey), now)
			}
		}
	}
	return nil
}

// poll asks for what is newer than a token, again and again, and notes which posts are there. The token follows the
// longest run of posts from the start that were all seen: two events can come through in another order than their times.
func (t *timing) poll(ctx context.Context) error {
	c := newClient(t.site.apiURL, 1)
	defer c.close()
	tags := []string{freshTag}
	first, err := c.posts(ctx, queryOf(tags, pageLimit, "", ""))
	if err != nil {
		return err
	}
	token, cursors, seen := first.Page.Previous, map[string]string{}, 0
	var deadline time.Time
	for {
		p, err := c.posts(ctx, queryOf(tags, pageLimit, "before", token))
		now := time.Now()
		if err != nil {
			return err
		}
		t.polls++
		for _, post := range p.Posts {
			t.shown.see(post.URI, now)
			cursors[post.URI] = post.Cursor
		}
		t.mu.Lock()
		written, closed := t.written, t.closed
		t.mu.Unlock()
		for seen < len(written) && cursors[written[seen]] != "" {
			token = cursors[written[seen]]
			delete(cursors, written[seen])
			seen++
		}
		switch {
		case !closed:
		case seen == len(written):
			return nil
		case deadline.IsZero():
			deadline = now.Add(settleLimit)
		case now.After(deadline):
			return fmt.Errorf("%d of %d posts are not shown %s after the last was written, the first of them %s",
				len(written)-seen, len(written), settleLimit, written[seen])
		}
	}
}

// awaitArrivals waits until our client has every post, which the api had first where the client is slow.
func (t *timing) awaitArrivals(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	waiting := slices.Clone(t.written[t.timed:]) // nothing more is written
	err := until(ctx, readyPoll, func() (bool, error) {
		waiting = slices.DeleteFunc(waiting, func(uri string) bool {
			_, arrived := t.arrived.at(uri)
			return arrived
		})
		return len(waiting) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("wait until %d posts arrive at a client of our own: %w", len(waiting), err)
	}
	return nil
}

// readStored reads from the stream when it took each post, from sequence number from.
func (t *timing) readStored(ctx context.Context, from uint64) error {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	st, err := stream.GetState(ctx, t.site.js)
	if err != nil {
		return err
	}
	consumer, err := t.site.js.OrderedConsumer(ctx, stream.Posts, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from,
	})
	if err != nil {
		return fmt.Errorf("read the stream from %d: %w", from, err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("read the stream from %d: %w", from, err)
	}
	defer messages.Stop()
	for seq := from; seq <= st.Last; {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("read the stream behind %d: %w", seq-1, err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("read the stream behind %d: %w", seq-1, err)
		}
		seq = meta.Sequence.Stream + 1
		ev, err := event.Decode(msg.Data())
		if err != nil {
			return err
		}
		if ev.Kind == event.KindCreate {
			t.stored.see(event.URI(ev.DID, ev.Rkey), meta.Timestamp)
		}
	}
	return nil
}

var errUntimed = errors.New("a post has no time")

// result joins the sightings.
func (t *timing) result() (Freshness, error) {
	out := Freshness{Posts: len(t.written) - t.timed, Polls: t.polls}
	out.PerSecond = float64(out.Posts) / t.span.Seconds()
	var shown, stored, indexed, before []time.Duration
	for _, uri := range t.written[t.timed:] {
		committed, ok1 := t.committed.at(uri)
		arrived, ok2 := t.arrived.at(uri)
		kept, ok3 := t.stored.at(uri)
		seen, ok4 := t.shown.at(uri)
		if !ok1 || !ok2 || !ok3 || !ok4 {
			return out, fmt.Errorf("measure freshness: %w: %s (committed %t, arrived %t, stored %t, shown %t)", errUntimed, uri, ok1, ok2, ok3, ok4)
		}
		shown = append(shown, max(0, seen.Sub(arrived)))
		stored = append(stored, max(0, kept.Sub(arrived)))
		indexed = append(indexed, seen.Sub(kept))
		before = append(before, arrived.Sub(committed))
	}
	out.Shown, out.Stored, out.Indexed, out.Upstream = quantiles(shown), quantiles(stored), quantiles(indexed), quantiles(before)
	return out, nil
}
