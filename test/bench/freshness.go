package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	upstream "github.com/bluesky-social/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/test/process"
)

const (
	// freshTag is on each post whose way is timed, and on no other.
	freshTag = "freshness"
	// settleLimit bounds the wait for the last posts after the last one was written; warmLimit that
	// for the first.
	settleLimit = 30 * time.Second
	warmLimit   = 30 * time.Second
	warmEvery   = 100 * time.Millisecond
)

// sightings are when posts were first seen, by at-uri. They are safe for concurrent use.
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

// timing is one measurement of freshness.
type timing struct {
	*runner
	dids           []string
	rng            *rand.Rand
	arrived, shown sightings

	mu      sync.Mutex
	written []string // in order, with those of the warm-up
	timed   int      // how many of them those are
	closed  bool     // nothing more will be written
}

// bars of freshness in milliseconds, by rate: the median's and the 99th percentile's.
var freshnessBars = map[float64][2]float64{100: {20, 60}, 1000: {0, 200}}

// measureFreshness measures from the arrival of a post at a client of our own to the first answer
// that shows it.
func (r *runner) measureFreshness(ctx context.Context) error {
	if err := r.ingest.Terminate(); err != nil {
		return err
	}
	if err := r.startIngest(); err != nil {
		return err
	}
	if r.api == nil {
		if err := r.startAPI(ctx); err != nil {
			return err
		}
	}
	for _, rate := range r.cfg.Rates {
		t := &timing{runner: r, dids: r.network.DIDs(), rng: rand.New(rand.NewPCG(r.cfg.Seed, 0x66726573)),
			arrived: sightings{when: map[string]time.Time{}}, shown: sightings{when: map[string]time.Time{}}}
		worked, err := r.worked(func() error { return t.run(ctx, rate) },
			func() *process.Program { return r.nats }, func() *process.Program { return r.ingest }, func() *process.Program { return r.indexer })
		if err != nil {
			return fmt.Errorf("%g posts a second: %w", rate, err)
		}
		r.spend(fmt.Sprintf("post at %g a second", rate), len(t.written), worked)
		var all []float64
		for _, uri := range t.written[t.timed:] {
			arrived, _ := t.arrived.at(uri)
			shown, _ := t.shown.at(uri)
			all = append(all, max(0, float64(shown.Sub(arrived))/float64(time.Millisecond)))
		}
		slices.Sort(all)
		for i, q := range []int{50, 99} {
			r.figure(Figure{Name: fmt.Sprintf("arrival to answer at %g posts a second, p%d", rate, q), Unit: "ms",
				Ours: []float64{all[(len(all)*q+99)/100-1]}, Bar: freshnessBars[rate][i], AtMost: true})
		}
	}
	return nil
}

func (t *timing) run(ctx context.Context, rate float64) error {
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
	group.Go(func() error { return t.write(running, rate) })
	return group.Wait()
}

// write posts until the time is over. Posts of the warm-up go before, until the first came through
// on both sides: neither says otherwise that it is attached.
func (t *timing) write(ctx context.Context, rate float64) error {
	warm, cancel := context.WithTimeout(ctx, warmLimit)
	defer cancel()
	err := until(warm, warmEvery, func() (bool, error) {
		if err := t.post(); err != nil {
			return false, err
		}
		return slices.ContainsFunc(t.written, func(uri string) bool {
			_, arrived := t.arrived.at(uri)
			_, shown := t.shown.at(uri)
			return arrived && shown
		}), nil
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
		next = next.Add(time.Duration(t.rng.ExpFloat64() / rate * float64(time.Second)))
	}
	if behind := time.Since(began) - t.cfg.For; behind > t.cfg.For/10 {
		t.report.Notes = append(t.report.Notes, fmt.Sprintf("At %g posts a second the network fell %s behind.", rate, behind.Round(time.Millisecond)))
	}
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	return nil
}

// post writes one post. Only the writer's goroutine calls it, so posts are listed in the order of
// their times.
func (t *timing) post() error {
	p, err := t.network.CreatePost(t.dids[t.rng.IntN(len(t.dids))], "", t.author.post(time.Now(), freshTag))
	if err != nil {
		return fmt.Errorf("write a post: %w", err)
	}
	t.mu.Lock()
	t.written = append(t.written, p.URI)
	t.mu.Unlock()
	return nil
}

// listen notes when events arrive at an official client, each as soon as it has it.
func (t *timing) listen(ctx context.Context) error {
	c, err := upstream.Subscribe(t.upstream.URL(), upstream.WithCollection(event.Collection), upstream.WithBatchSize(1),
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

// poll asks for what is newer than a token, again and again, and notes which posts are there. The
// token follows the longest run of posts from the start that were all seen: two events can come
// through in another order than their times.
func (t *timing) poll(ctx context.Context) error {
	tags := []string{freshTag}
	first, err := getPage(t.apiURL, queryOf(tags, pageLimit, "", ""))
	if err != nil {
		return err
	}
	token, cursors, seen := first.Page.Previous, map[string]string{}, 0
	var deadline time.Time
	for ctx.Err() == nil {
		p, err := getPage(t.apiURL, queryOf(tags, pageLimit, "before", token))
		now := time.Now()
		if err != nil {
			return err
		}
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
	return context.Cause(ctx)
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
