package backfill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/services/ingest/internal/decode"
	"github.com/tagstream/tagstream/services/ingest/internal/firehose"
	"github.com/tagstream/tagstream/services/ingest/internal/forward"
)

// margin is how far beyond the clock of the live events later changes are followed. If the live
// events are from the same host, their sequence number is used instead.
const margin = time.Minute

var (
	// ErrBeforeHistory is returned if no host has any history of the window.
	ErrBeforeHistory = errors.New("the window is before the host's history")
	errLater         = errors.New("the host's history begins later")
)

// Request is a request for a backfill, as it is stored with the job.
type Request struct {
	// From and Until bound the window: from inclusive, until exclusive.
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
	// Hosts are the addresses of the hosts to read, without secrets.
	Hosts []string `json:"hosts"`
}

// Config is the configuration of a backfill.
type Config struct {
	Request
	// Firehose says how to read; its Hosts, Start and StopAfter are not used.
	Firehose firehose.Config
	// Before, if set, is the summary that Progress.Save received before a restart.
	Before *Summary
}

// Progress receives the progress of a backfill, in seconds of history.
type Progress interface {
	obs.Progress
	// Save stores the summary. Everything in it is in the stream.
	Save(summary any)
}

// Summary says what a backfill did.
type Summary struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
	// First and Last are the ends of the part of the window that was read, zero if nothing was
	// read.
	First event.Position `json:"first,omitzero"`
	Last  event.Position `json:"last,omitzero"`
	// Read counts the upstream events of the window.
	Read uint64 `json:"read"`
	// Published counts what was published from the window, by kind.
	Published map[event.Kind]uint64 `json:"published"`
	// Gone counts posts of the window that were left out because they have been removed since.
	Gone uint64 `json:"gone"`
	// Dropped counts the others, by reason.
	Dropped map[decode.DropReason]uint64 `json:"dropped"`
	// Since counts published later changes, by kind.
	Since map[event.Kind]uint64 `json:"since"`
	// HistoryBegins is set if the host's history begins within the window or after it. From the
	// time before, it has only what accounts held at that moment.
	HistoryBegins time.Time `json:"historyBegins,omitzero"`
	// Took is the duration in seconds.
	Took float64 `json:"tookSeconds"`
	// Complete reports whether the backfill finished; if not, Why says why.
	Complete bool   `json:"complete"`
	Why      string `json:"why,omitempty"`
}

// Backfill is one run.
type Backfill struct {
	cfg      Config
	to       *forward.SideWriter
	progress Progress
	logger   *slog.Logger
	notice   func(firehose.Notice)

	survey  *survey
	summary Summary
	// done and total are seconds of history, over all three readings.
	done, total time.Duration
	// savedAt is when progress was last saved, zero except while the window is published.
	savedAt time.Time
	// syncOurs reports that the last #sync was published, so its end must be, too.
	syncOurs bool
}

// New returns a backfill. It starts nothing. notice may be nil.
func New(cfg Config, to *forward.SideWriter, progress Progress, logger *slog.Logger, notice func(firehose.Notice)) *Backfill {
	return &Backfill{
		cfg: cfg, to: to, progress: progress, logger: logger, notice: notice, survey: newSurvey(),
		summary: Summary{
			From: cfg.From, Until: cfg.Until, Published: map[event.Kind]uint64{},
			Since: map[event.Kind]uint64{}, Dropped: map[decode.DropReason]uint64{},
		},
	}
}

// Run fills the window. The summary says what was done, even if there is an error: ctx's,
// ErrTooMuch or ErrBeforeHistory. Run waits for hosts that are away.
func (b *Backfill) Run(ctx context.Context) (Summary, error) {
	began := time.Now()
	err := b.run(ctx, began)
	b.summary.Took = time.Since(began).Seconds()
	if b.summary.Complete = err == nil; err != nil {
		b.summary.Why = err.Error()
	}
	return b.summary, err
}

func (b *Backfill) run(ctx context.Context, now time.Time) error {
	if err := b.to.Flush(ctx); err != nil {
		return err
	}
	b.total = 2 * now.Sub(b.cfg.From) // the last two readings make one

	b.progress.Say("reading what has changed since the window")
	if _, err := b.read(ctx, event.Position{}, b.cfg.From, now, event.Position{}, b.look); err != nil {
		return fmt.Errorf("survey later changes of the window: %w", err)
	}
	b.progress.Say("publishing the window")
	b.savedAt = time.Now()
	after, from := event.Position{}, b.cfg.From
	if b.cfg.Before != nil && !b.cfg.Before.Last.IsZero() {
		b.summary = *b.cfg.Before
		after, from = b.summary.Last, later(from, b.summary.Last.NetworkTime())
		b.syncOurs = after.Sync.DID != ""
	}
	var err error
	last := after
	if from.Before(b.cfg.Until) {
		last, err = b.read(ctx, after, from, b.cfg.Until, event.Position{}, b.publish)
	}
	if err == nil {
		err = b.to.Flush(ctx)
	}
	if err != nil {
		return fmt.Errorf("publish the window: %w", err)
	}
	b.savedAt = time.Time{}
	if len(b.summary.Published) == 0 {
		return nil
	}
	live := b.to.Live()
	until := live.NetworkTime().Add(margin)
	if caughtUp(last, live) || !until.After(last.NetworkTime()) {
		return nil // the live events are behind the window: they tell the rest
	}
	b.progress.Say("publishing later changes of the window")
	if _, err = b.read(ctx, last, last.NetworkTime(), until, live, b.follow); err == nil {
		err = b.to.Flush(ctx)
	}
	if err != nil {
		return fmt.Errorf("follow later changes of the window: %w", err)
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// saveEvery is how often progress is saved while the window is published.
const saveEvery = 10 * time.Second

// saveProgress saves the progress from time to time, once everything in it is in the stream.
func (b *Backfill) saveProgress(ctx context.Context) error {
	if b.savedAt.IsZero() || time.Since(b.savedAt) < saveEvery {
		return nil
	}
	if err := b.to.Flush(ctx); err != nil {
		return err
	}
	b.savedAt = time.Now()
	b.progress.Save(b.summary)
	return nil
}

// caughtUp reports whether pos has reached live. Only positions of the same host are comparable.
func caughtUp(pos, live event.Position) bool { return pos.Host == live.Host && pos.Seq >= live.Seq }

// read passes to take what follows a position, or a time if the position is zero, until a time or a
// live position, and returns how far it got. Times are network time.
func (b *Backfill) read(ctx context.Context, after event.Position, from, until time.Time, live event.Position,
	take func(context.Context, decode.Item) error,
) (last event.Position, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cfg := b.cfg.Firehose
	cfg.Hosts, cfg.Start, cfg.StopAfter = b.cfg.Hosts, firehose.Start{Time: from}, until.Sub(from)
	reader := firehose.New(cfg, b.logger)
	reader.OnNotice = b.notice
	late := map[string]time.Time{}
	reader.OnLateHistory = func(host string, begins time.Time) error { return b.lateHistory(late, host, begins, cancel) }
	begun, last := b.done, after
	defer func() { b.done = begun + until.Sub(from) }()
	d := decode.Reading{Decoder: decode.Decoder{MaxPayload: b.to.MaxPayload()}}
	for batch, err := range reader.Read(ctx, after) {
		if err != nil {
			return last, err
		}
		for it := range d.Items(batch) {
			if b.syncOurs && it.SyncEnd != nil {
				b.syncOurs = false
				if err := b.to.Put(ctx, it.SyncEnd); err != nil {
					return last, err
				}
			}
			if err := take(ctx, it); err != nil {
				return last, err
			}
		}
		last = batch.Last
		b.done = max(b.done, begun+last.NetworkTime().Sub(from))
		b.progress.At(uint64(b.done.Seconds()), uint64(max(b.total, b.done).Seconds()))
		if caughtUp(last, live) {
			break
		}
		if err := b.saveProgress(ctx); err != nil {
			return last, err
		}
	}
	return last, nil
}

// lateHistory handles a host whose history begins only within the window or after it. late has the
// hosts for which that happened in this reading. Each is skipped once in favor of the others; then
// the one that goes back furthest has part of the window, or none has any.
func (b *Backfill) lateHistory(late map[string]time.Time, host string, begins time.Time, cancel context.CancelCauseFunc) error {
	_, again := late[host]
	late[host] = begins
	if !again && len(b.cfg.Hosts) > 1 || begins.After(slices.MinFunc(slices.Collect(maps.Values(late)), time.Time.Compare)) {
		return fmt.Errorf("%w, at %s", errLater, begins.Format(time.RFC3339))
	}
	b.summary.HistoryBegins = begins
	if begins.Before(b.cfg.Until) {
		return nil
	}
	err := fmt.Errorf("%w: that of %s begins at %s", ErrBeforeHistory, host, begins.Format(time.RFC3339))
	cancel(err)
	return err
}

// lateSlack is how far the clock may be behind an event that was just made.
const lateSlack = time.Minute

// afterWindow reports whether an event comes after the window, which its own time shows before the
// clock does. For an account that the host downloaded when it was new, the event's time is
// arbitrary: then the clock decides.
func (b *Backfill) afterWindow(at event.Position, ev *event.Event) bool {
	own, ok := event.RevTime(ev.Rev)
	return ok && !own.Before(b.cfg.Until) && own.Sub(at.NetworkTime()) < lateSlack || !at.NetworkTime().Before(b.cfg.Until)
}

// look handles an event of the survey.
func (b *Backfill) look(_ context.Context, it decode.Item) error {
	if it.Event == nil {
		return nil
	}
	return b.survey.note(it.Event, !b.afterWindow(it.At, it.Event), it.Replaces())
}

// publish publishes what qualifies.
func (b *Backfill) publish(ctx context.Context, it decode.Item) error {
	ev := it.Event
	if ev != nil && b.afterWindow(it.At, ev) {
		return b.follow(ctx, it)
	}
	b.summary.Read++
	if ev == nil {
		b.summary.Dropped[it.Drop]++
		return nil
	}
	if b.summary.First.IsZero() {
		b.summary.First = ev.Source
	}
	b.summary.Last = ev.Source
	switch {
	case b.survey.gone(ev):
		b.summary.Gone++
		return nil
	case b.survey.outdated(ev):
		return nil
	}
	// An account that was hidden since is hidden before its posts arrive.
	if status := b.survey.hidden[ev.DID]; status != nil {
		delete(b.survey.hidden, ev.DID)
		b.summary.Since[status.Kind]++
		if err := b.to.Put(ctx, status); err != nil {
			return err
		}
	}
	// Changes after the survey, and those it could not see.
	switch ev.Kind {
	case event.KindCreate, event.KindUpdate:
		b.survey.posts.add(ev.URI())
		b.survey.accounts.add(ev.DID)
	case event.KindAccount:
		b.survey.accounts.add(ev.DID)
	}
	b.syncOurs = b.syncOurs || ev.Kind == event.KindSync
	b.summary.Published[ev.Kind]++
	return b.to.Put(ctx, ev)
}

// follow publishes changes of the window's posts and accounts. After a #sync that is the whole
// repository: what is missing in it is removed.
//
// The host may have dropped the window's version of a post that was edited since, or whose
// repository was replaced. The current version then stands in for it, if the post says that it was
// written in the window.
func (b *Backfill) follow(ctx context.Context, it decode.Item) error {
	ev := it.Event
	if ev == nil {
		return nil
	}
	ours := b.survey.concerns(ev)
	switch {
	case it.Replaces():
		ours = ours || b.syncOurs || b.writtenInWindow(ev)
	case ev.Kind == event.KindSync:
		b.syncOurs = ours
	default:
		ours = ours || ev.Kind == event.KindUpdate && b.writtenInWindow(ev)
	}
	if !ours || b.survey.gone(ev) || b.survey.outdated(ev) {
		return nil
	}
	b.summary.Since[ev.Kind]++
	return b.to.Put(ctx, ev)
}

// writtenInWindow reports whether a post says that it was written in the window.
func (b *Backfill) writtenInWindow(ev *event.Event) bool {
	t := event.SortAt(ev.CreatedAt, ev.Source.Time)
	from := b.cfg.From.Truncate(time.Millisecond) // what most records are precise to
	return !t.Before(from) && t.Before(b.cfg.Until)
}
