package reconcile

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/ingest/internal/firehose"
	"github.com/tagstream/tagstream/services/ingest/internal/forward"
)

const (
	// DefaultMargin is how long before an archive's first live event its creates may be live as
	// well: in the events of the whole network there are always some deletions and statuses.
	DefaultMargin = time.Minute
	// maxRemovals is the most posts that one run removes, about 100 bytes each in memory.
	maxRemovals = 500_000
	maxParts    = 1 << 12
)

var (
	// ErrTooMany is returned if more posts would be removed than the operator allows; nothing was
	// published then.
	ErrTooMany = errors.New("too many posts would be removed")
	errAgain   = errors.New("more parts are needed")
)

// Request is a request for a reconciliation, as it is stored with the job.
type Request struct {
	// Host is the host whose archive is compared; "" is the host that is read live.
	Host string `json:"host,omitempty"`
	// MaxShare is the share of the visible posts that may be removed, 0 to 1.
	MaxShare float64 `json:"maxShare"`
	// DryRun publishes nothing.
	DryRun bool `json:"dryRun,omitempty"`
	// Margin replaces DefaultMargin; 0 means DefaultMargin.
	Margin time.Duration `json:"margin,omitempty"`
}

// Config is the configuration of a reconciliation.
type Config struct {
	Request
	// Firehose says how to read; its Hosts, Start and StopAfter are not used.
	Firehose firehose.Config
	// limit is maxKnown, except in tests.
	limit int
}

// Summary says what was found and done.
type Summary struct {
	Host string `json:"host"`
	// Posts counts the visible posts, according to the stream.
	Posts uint64 `json:"posts"`
	// Accounts counts accounts with such posts, Archived those of them that the archive has, and
	// Unsure those that it has only where downloads and live events cannot be distinguished.
	Accounts uint64 `json:"accounts"`
	Archived uint64 `json:"archived"`
	Unsure   uint64 `json:"unsure"`
	// Deleted posts are missing in the archive; Unqualified ones have no tags there, or are
	// replies.
	Deleted     uint64 `json:"deleted"`
	Unqualified uint64 `json:"unqualified"`
	// Share is the share of posts to remove.
	Share float64 `json:"share"`
	// Published counts the published removals.
	Published uint64 `json:"published"`
	// Took is the duration in seconds.
	Took float64 `json:"tookSeconds"`
	// Complete reports whether nothing is left to do; if not, Why says why.
	Complete bool   `json:"complete"`
	Why      string `json:"why,omitempty"`
}

// Reconcile is one run.
type Reconcile struct {
	cfg      Config
	js       jetstream.JetStream
	to       *forward.SideWriter
	progress obs.Progress
	logger   *slog.Logger

	seed     maphash.Seed
	last     uint64 // of the stream, when it began
	summary  Summary
	removals map[uint64]removal // by the post's hash
}

// removal is the message to publish for a post.
type removal struct {
	kind event.Kind
	rev  rev
	at   event.Position
}

// New returns a run. It starts nothing.
func New(cfg Config, js jetstream.JetStream, to *forward.SideWriter, progress obs.Progress, logger *slog.Logger) *Reconcile {
	if cfg.Margin == 0 {
		cfg.Margin = DefaultMargin
	}
	if cfg.limit == 0 {
		cfg.limit = maxKnown
	}
	return &Reconcile{cfg: cfg, js: js, to: to, progress: progress, logger: logger, seed: maphash.MakeSeed()}
}

// Run compares and publishes. The summary says what was found, even if there is an error:
// ErrTooMany, ctx's or the stream's. An interrupted run is simply run again: repeated removals
// change nothing.
func (r *Reconcile) Run(ctx context.Context) (Summary, error) {
	began := time.Now()
	err := r.run(ctx)
	r.summary.Took = time.Since(began).Seconds()
	r.summary.conclude(r.cfg.DryRun, err)
	return r.summary, err
}

// conclude records whether the run is complete, and why not.
func (s *Summary) conclude(dryRun bool, err error) {
	switch {
	case err != nil:
		s.Why = err.Error()
	case dryRun && s.Deleted+s.Unqualified > 0:
		s.Why = "a dry run publishes nothing"
	case s.Posts > 0 && s.Archived == 0:
		s.Why = "nothing was compared: the archive shows none of the accounts, or not apart from its live events"
	default:
		s.Complete = true
	}
}

func (r *Reconcile) run(ctx context.Context) error {
	if err := r.to.Flush(ctx); err != nil {
		return err
	}
	if r.cfg.Host == "" {
		r.cfg.Host = r.to.Live().Host
	}
	st, err := stream.GetState(ctx, r.js)
	if err != nil {
		return err
	}
	r.last = st.Last
	for parts := uint64(1); ; parts *= 2 {
		if parts > maxParts {
			return fmt.Errorf("%w: the stream has too many posts to compare", errFull)
		}
		r.summary, r.removals = Summary{Host: r.cfg.Host}, map[uint64]removal{}
		if err := r.compare(ctx, parts); !errors.Is(err, errAgain) {
			if err != nil {
				return err
			}
			break
		}
	}
	if n := r.summary.Deleted + r.summary.Unqualified; r.summary.Posts > 0 {
		r.summary.Share = float64(n) / float64(r.summary.Posts)
	}
	if r.summary.Share > r.cfg.MaxShare {
		return fmt.Errorf("%w: %.2f %% of all, %.2f %% are allowed", ErrTooMany, 100*r.summary.Share, 100*r.cfg.MaxShare)
	}
	if r.cfg.DryRun {
		return nil
	}
	return r.publish(ctx)
}

// compare compares all accounts, in parts. The error is errAgain if it needs more parts.
func (r *Reconcile) compare(ctx context.Context, parts uint64) error {
	for part := range parts {
		r.progress.Say(fmt.Sprintf("reading the stream, part %d of %d", part+1, parts))
		k := newKnown(r.seed, part, parts, r.cfg.limit)
		if err := readStream(ctx, r.js, r.last, k.fold); errors.Is(err, errFull) {
			return errAgain
		} else if err != nil {
			return fmt.Errorf("read the posts of the stream: %w", err)
		}
		r.progress.Say(fmt.Sprintf("reading the archive of %s, part %d of %d", r.summary.Host, part+1, parts))
		cfg := r.cfg.Firehose
		epoch := time.Unix(0, 0).UTC()
		cfg.Hosts, cfg.Start, cfg.StopAfter = []string{r.cfg.Host}, firehose.Start{Time: epoch}, time.Since(epoch)
		a := &archive{known: k, margin: r.cfg.Margin}
		if err := a.read(ctx, firehose.New(cfg, r.logger), int(r.js.Conn().MaxPayload())); err != nil {
			return fmt.Errorf("read the archive of %s: %w", r.summary.Host, err)
		}
		r.summary.Unsure += a.unsure
		if err := r.collect(k); err != nil {
			return err
		}
	}
	return nil
}

// collect counts, and records what must be removed.
func (r *Reconcile) collect(k *known) error {
	counted := map[*account]bool{}
	for id, p := range k.posts {
		a := k.accounts[p.account]
		if a.hidden || a.gone(p) {
			continue
		}
		r.summary.Posts++
		if !counted[a] {
			counted[a] = true
			r.summary.Accounts++
			if a.archived != (rev{}) {
				r.summary.Archived++
			}
		}
		if p.shown == present || !p.rev.below(a.archived) {
			continue
		}
		rm := removal{kind: event.KindDelete, rev: a.archived, at: a.at}
		if p.shown == unqualified {
			rm.kind = event.KindRemove
			r.summary.Unqualified++
		} else {
			r.summary.Deleted++
		}
		if r.removals[id] = rm; len(r.removals) > maxRemovals {
			return fmt.Errorf("%w: more than %d", ErrTooMany, maxRemovals)
		}
	}
	return nil
}

// publish reads the stream once more for the names of the posts to remove.
func (r *Reconcile) publish(ctx context.Context) error {
	r.progress.Say(fmt.Sprintf("publishing %d removals", len(r.removals)))
	err := readStream(ctx, r.js, r.last, func(ev *event.Event) error {
		if ev.Kind != event.KindCreate && ev.Kind != event.KindUpdate {
			return nil
		}
		id := maphash.String(r.seed, ev.URI())
		rm, ok := r.removals[id]
		if !ok {
			return nil
		}
		delete(r.removals, id)
		r.summary.Published++
		return r.to.Put(ctx, &event.Event{Kind: rm.kind, Source: rm.at, DID: ev.DID, Rkey: ev.Rkey, Rev: string(rm.rev[:])})
	})
	if err == nil {
		err = r.to.Flush(ctx)
	}
	if err != nil {
		return fmt.Errorf("publish removals: %w", err)
	}
	return nil
}
