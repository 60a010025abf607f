package firehose

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bluesky-social/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
)

// watch is the watchdog of one client. A client is silent for one of four reasons: the network is
// quiet, the host is away, the client is stalled, or the host itself receives nothing. Asking the
// host rules out the second and third, and only asking other hosts rules out the last. Time in
// which the caller has a batch does not count.
type watch struct {
	run    *run
	client *jetstream.Client
	began  time.Time

	mu       sync.Mutex // guards what follows
	handling bool
	pos      event.Position // of the last event delivered
	since    time.Time      // of the last sign of life
	errors   int            // since the last event
	troubled time.Time      // time of the first of these errors
	deadline time.Time      // when the time to read ends; zero is never
	stats    jetstream.Stats
	newest   time.Time // of the events' own times
	news     time.Time // when newest last moved, or the visit began
	asked    time.Time // when other hosts were last asked
}

// busy records that the caller is processing a batch.
func (w *watch) busy() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handling = true
}

func (w *watch) isBusy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.handling
}

// idle records that the caller took events up to pos, and that reading waits for the client again.
// newest is the latest of the events' own times.
func (w *watch) idle(pos event.Position, newest, deadline time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if pos.Host == w.pos.Host && pos.Seq > w.pos.Seq {
		w.pos = pos
	}
	w.handling, w.since, w.deadline = false, time.Now(), deadline
	w.errors, w.troubled = 0, time.Time{}
	if newest.After(w.newest) {
		w.newest, w.news = newest, w.since
	}
}

// trouble counts an error and returns the number of consecutive ones.
func (w *watch) trouble() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.errors++; w.errors == 1 {
		w.troubled = time.Now()
	}
	return w.errors
}

// replaying reports whether the client reads the archive rather than the live tail. It publishes a
// page's progress only when it has delivered the page.
func (w *watch) replaying() bool {
	s := w.client.Stats()
	return s.Pages == 0 || s.ResidualGap > 0
}

// watch checks the client until ctx ends, and ends it with a cause.
func (w *watch) watch(ctx context.Context, end context.CancelCauseFunc) {
	tick := time.NewTicker(w.run.timing.Tick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := w.check(ctx); err != nil && ctx.Err() == nil {
			end(err)
			return
		}
	}
}

// check returns why the client must end, or nil.
func (w *watch) check(ctx context.Context) error {
	now, timing := time.Now(), w.run.timing
	replaying, stats := w.replaying(), w.client.Stats()

	w.mu.Lock()
	if w.stats != stats {
		w.stats, w.since = stats, now
	}
	pos := w.pos
	past := !w.deadline.IsZero() && now.After(w.deadline.Add(timing.Settle))
	silent := now.Sub(w.since)
	ask := silent >= timing.Idle ||
		past && silent >= timing.Settle ||
		!w.troubled.IsZero() && now.Sub(w.troubled) >= timing.Troubled
	handling := w.handling
	w.mu.Unlock()

	switch {
	case handling:
		return nil
	case replaying && silent >= timing.Replay:
		return errSlowArchive
	case replaying:
		return nil
	}
	if ask {
		next, err := w.undelivered(ctx, pos)
		switch {
		case err != nil:
			return err
		case next > 0 && w.arrives(ctx, func() bool { return w.handling || w.pos.Seq >= next }):
			return nil
		case next > 0:
			return errStalled
		case past:
			return errReachedEnd
		}
		w.mu.Lock()
		w.since, w.errors, w.troubled = time.Now(), 0, time.Time{}
		w.mu.Unlock()
	}
	return w.lookElsewhere(ctx)
}

// undelivered asks the host for an event after pos that the client should have delivered, and
// returns its sequence number, 0 if there is none. The error wraps errAway or errOtherHistory.
func (w *watch) undelivered(ctx context.Context, pos event.Position) (uint64, error) {
	for f, err := range w.run.frames(ctx, pos.Host, &pos.Seq, true, w.run.timing.Ask) {
		switch {
		case isTooOld(err):
			// Quiet for longer than the live window: a new client reads from the archive what may
			// be there.
			return pos.Seq + 1, nil
		case errors.Is(err, errSilent):
			return 0, nil // nothing to say
		case err != nil:
			return 0, fmt.Errorf("%w: %w", errAway, err)
		case f.seq < pos.Seq:
			return 0, fmt.Errorf("%w: asked for sequence number %d, it returns %d", errOtherHistory, pos.Seq, f.seq)
		case f.seq == pos.Seq && pos.Mark != "" && f.id.mark() != pos.Mark:
			return 0, fmt.Errorf("%w: %s", errOtherHistory, f.another())
		case f.seq > pos.Seq && f.followed: // the client skips events that are not followed
			return f.seq, nil
		}
	}
	return 0, nil
}

// arrives reports whether arrived becomes true within Timing.Ask. arrived is called with the lock
// held.
func (w *watch) arrives(ctx context.Context, arrived func() bool) bool {
	until := time.NewTimer(w.run.timing.Ask)
	defer until.Stop()
	tick := time.NewTicker(w.run.timing.Ask / 20)
	defer tick.Stop()
	for {
		w.mu.Lock()
		done := arrived()
		w.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-ctx.Done():
			return true
		case <-until.C:
			return false
		case <-tick.C:
		}
	}
}
