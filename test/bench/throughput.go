package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/site"
)

const (
	// paceEvery is how often a count is read while it grows.
	paceEvery = 20 * time.Millisecond
	// rebuildEvery is the same for a rebuild, where each look is a connection of its own.
	rebuildEvery = 100 * time.Millisecond
	// paceLimit bounds one wait for a service to get through a history.
	paceLimit = 4 * time.Minute
)

// Pace is how fast a count grew.
type Pace struct {
	// Count is where it ended, and Took how long that was from the start of the process.
	Count int
	Took  time.Duration
	// PerSecond is the rate between the first growth and the last, which leaves the start out; of a history so small that
	// most of it came at once, it is Count by Took.
	PerSecond float64
}

// pacer follows a count.
type pacer struct {
	began       time.Time
	first, last time.Time
	from, to    int
}

func (p *pacer) observe(n int) {
	if n <= p.to {
		return
	}
	p.last, p.to = time.Now(), n
	if p.first.IsZero() {
		p.first, p.from = p.last, n
	}
}

func (p *pacer) pace() Pace {
	out := Pace{Count: p.to, Took: p.last.Sub(p.began)}
	grown, took := p.to-p.from, p.last.Sub(p.first)
	if grown < p.to/2 { // it came in too few steps to leave the start out
		grown, took = p.to, out.Took
	}
	if took > 0 {
		out.PerSecond = float64(grown) / took.Seconds()
	}
	return out
}

// follow reads count until it is want.
func follow(ctx context.Context, p *process.Program, want int, count func(context.Context) (int, error)) (Pace, error) {
	ctx, cancel := context.WithTimeout(ctx, paceLimit)
	defer cancel()
	seen := pacer{began: time.Now()}
	err := until(ctx, paceEvery, func() (bool, error) {
		n, err := count(ctx)
		if err != nil {
			return false, err
		}
		seen.observe(n)
		return n >= want, p.Alive()
	})
	if err != nil {
		return Pace{}, fmt.Errorf("follow %s, at %d of %d: %w: %s", p.Name, seen.to, want, err, p.Tail())
	}
	return seen.pace(), nil
}

// replay starts ingest and returns when the whole history is in the stream.
func (s *installation) replay(ctx context.Context) (Pace, error) {
	if err := s.startIngest(); err != nil {
		return Pace{}, err
	}
	return follow(ctx, s.ingest, s.posts, s.streamed)
}

// streamed counts the posts in the stream.
func (s *installation) streamed(ctx context.Context) (int, error) {
	posts, err := s.js.Stream(ctx, stream.Posts)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, nil // ingest has not made it yet
	}
	if err != nil {
		return 0, fmt.Errorf("look up the stream: %w", err)
	}
	subject := stream.Subject(event.KindCreate)
	info, err := posts.Info(ctx, jetstream.WithSubjectFilter(subject))
	if err != nil {
		return 0, fmt.Errorf("count the stream's posts: %w", err)
	}
	return int(info.State.Subjects[subject]), nil
}

// fold starts the indexer and returns when everything in the stream is in the index.
func (s *installation) fold(ctx context.Context) (Pace, error) {
	st, err := stream.GetState(ctx, s.js)
	if err != nil {
		return Pace{}, err
	}
	if err := s.startIndexer(); err != nil {
		return Pace{}, err
	}
	pace, err := follow(ctx, s.indexer, int(st.Last), func(ctx context.Context) (int, error) {
		status, err := s.index.Status(ctx)
		return int(status.Checkpoint.Seq), err
	})
	if err != nil {
		return Pace{}, err
	}
	status, err := s.index.Status(ctx)
	if err == nil && status.VisiblePosts != int64(s.posts) {
		err = fmt.Errorf("the index shows %d posts of %d", status.VisiblePosts, s.posts)
	}
	return pace, err
}

// rebuild runs "indexer rebuild" to its end. Took in the answer is until the new index is the live one.
func (s *installation) rebuild(ctx context.Context) (Pace, error) {
	ctx, cancel := context.WithTimeout(ctx, paceLimit)
	defer cancel()
	owner := write.NewOwner(store.Options{URL: s.pg.URL(site.OwnerRole)})
	seen := pacer{began: time.Now()}
	p, err := s.run(service.Indexer, []string{"rebuild"}, map[string]string{
		"NATS_URL": s.nats.ClientURL(), "DATABASE_URL": s.pg.URL(site.OwnerRole),
	})
	if err != nil {
		return Pace{}, err
	}
	defer p.Terminate() //nolint:errcheck // checked below where it matters
	existed := false
	var switched time.Time
	err = until(ctx, rebuildEvery, func() (bool, error) {
		cp, exists, err := owner.CheckpointOf(ctx, store.Rebuilding)
		if err != nil {
			return false, err
		}
		if exists {
			existed = true
			seen.observe(int(cp.Seq))
		} else if existed {
			switched = time.Now()
			return true, nil
		}
		return false, p.Alive()
	})
	if err != nil {
		return Pace{}, fmt.Errorf("follow a rebuild, at %d: %w: %s", seen.to, err, p.Tail())
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		return Pace{}, fmt.Errorf("wait for the end of a rebuild: %w", context.Cause(ctx))
	}
	if err := p.Terminate(); err != nil {
		return Pace{}, err
	}
	// Its last batch and the switch come in quick succession, and may fall between two looks.
	status, err := s.index.Status(ctx)
	if err != nil {
		return Pace{}, err
	}
	total := int(status.Checkpoint.Seq)
	if seen.to-seen.from < total/2 {
		seen.observe(total)
		seen.last = switched
	}
	pace := seen.pace()
	pace.Count, pace.Took = total, switched.Sub(seen.began)
	return pace, nil
}
