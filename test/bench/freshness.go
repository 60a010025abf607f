package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	upstream "github.com/bluesky-social/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/test/process"
)

const (
	// freshTag is on exactly the posts that are timed.
	freshTag = "freshness"
	// settleLimit bounds the wait for the last posts after writing ends; warmLimit that for the
	// first ones.
	settleLimit = 30 * time.Second
	warmLimit   = 30 * time.Second
	warmEvery   = 100 * time.Millisecond
)

// sightings holds when posts were first seen, by at-uri. It is safe for concurrent use.
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
	written []string // in order, including those of the warm-up
	timed   int      // number of posts of the warm-up
	closed  bool     // nothing more will be written
}

// bars of freshness in milliseconds, by rate: the median's and the 99th percentile's.
var freshnessBars = map[float64][2]float64{100: {20, 60}, 1000: {0, 200}}

// measureFreshness measures the time from the arrival of a post at a plain client to the first
// answer that shows it.
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
	return r.measureStandalone(ctx)
}

// measureStandalone measures the memory of the all-in-one program, without that of its Postgres,
// while it reads the archive and indexes it.
func (r *runner) measureStandalone(ctx context.Context) (err error) {
	if err := process.Build(ctx, r.bin, process.Tagstream); err != nil {
		return err
	}
	listen, err := process.FreeAddr()
	if err != nil {
		return err
	}
	p, err := r.run(service.Standalone, nil, map[string]string{
		"DATA_DIR": filepath.Join(r.dir, service.Standalone), "JETSTREAM_HOSTS": r.upstream.URL(), "JETSTREAM_START": "archive", "API_LISTEN": listen,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Terminate()) }()
	if _, err := follow(ctx, p, float64(r.archive.last), func(context.Context) (float64, error) {
		var status struct {
			Checkpoint struct{ Source struct{ Seq uint64 } }
		}
		if code, body := process.Fetch("http://" + listen + "/v1/status"); code == http.StatusOK {
			if err := json.Unmarshal([]byte(body), &status); err != nil {
				return 0, err
			}
		}
		return float64(status.Checkpoint.Source.Seq), nil
	}); err != nil {
		return err
	}
	peak, err := p.PeakMemory()
	r.figure(Figure{Name: "peak memory of the all-in-one program without Postgres", Unit: " MiB", Ours: []float64{float64(peak) / (1 << 20)}, Bar: standaloneBar >> 20, AtMost: true})
	return err
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

// write posts until the time is over, after a warm-up until posts arrive on both sides: there is no
// other sign that both are attached.
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
	// Many independent people act at exponential intervals. After a stall it catches up, to keep
	// the rate.
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

// post writes one post. Only the writer's goroutine calls it, so posts are ordered by their times.
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

// listen records when each event arrives at an official client.
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

// poll repeatedly requests the posts newer than a token, and records them. The token advances only
// past posts that were all seen: two events can arrive in another order than their times.
func (t *timing) poll(ctx context.Context) error {
	tags := []string{freshTag}
	p, err := getPage(t.apiURL, queryOf(tags, pageLimit, "", "")) // which may have the first posts
	token, cursors, seen := p.Page.Previous, map[string]string{}, 0
	var deadline time.Time
	for ; ctx.Err() == nil; p, err = getPage(t.apiURL, queryOf(tags, pageLimit, "before", token)) {
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

// awaitArrivals waits until the plain client has every post. A slow client may be behind the api.
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
