package firehose

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// locate returns the event on a host after which a client begins, given how far was read on any
// host.
func (r *run) locate(ctx context.Context, host string) (event.Position, error) {
	if r.pos.IsZero() {
		return r.firstPosition(ctx, host)
	}
	if r.pos.Host == host {
		mismatch, err := r.verify(ctx, r.pos)
		if err != nil {
			return event.Position{}, err
		}
		if mismatch == "" {
			return r.pos, nil
		}
		r.notify(Notice{Kind: Switched, Host: host, Position: r.pos,
			Detail: "the host's history is not the one read before: " + mismatch})
	} else {
		r.notify(Notice{Kind: Switched, Host: host, Position: r.pos, Detail: "coming from " + r.pos.Host})
	}
	var back time.Time // zero inside a bulk, where nothing is covered: read from origin, or everything
	if !inBulk(r.pos) {
		back = r.covered().Add(-r.timing.Margin)
	}
	if back.Before(r.origin) {
		back = r.origin
	}
	seq, err := r.seek(ctx, host, back)
	if err != nil {
		return event.Position{}, err
	}
	if seq == 0 {
		if err := r.checkYoung(ctx, host); err != nil {
			return event.Position{}, err
		}
	}
	r.clock.beginBulk(back)
	r.forgetSync()
	if !r.resync.made.IsZero() {
		r.resync.until = r.clock.at
	}
	if epoch := time.Unix(0, 0).UTC(); back.Before(epoch) {
		back = epoch // no earlier time can be stored
	}
	return event.Position{Host: host, Seq: seq, Time: back}, nil
}

// resyncReach is how far back another host is read for a #sync at most. Its revision may be years
// old: the account may have written nothing since.
const resyncReach = 24 * time.Hour

// covered returns the time from which another host is read, without the margin: the position's
// network time or, within a #sync, the time of the #sync, because replacements need it.
func (r *run) covered() time.Time {
	at := r.pos.NetworkTime()
	if made := r.resync.made; !made.IsZero() && made.Before(at) {
		return later(made, at.Add(-resyncReach))
	}
	return at
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// errYoung says that a host's history begins only after the position.
var errYoung = errors.New("the host lacks the history in between")

// checkYoung checks whether a host that would be read from its very beginning has a history that
// starts only after the position. Such a host has downloaded what the accounts held at that time,
// so it knows the posts made in between, but no deletions. It is used only if there has been no
// other host for some time.
func (r *run) checkYoung(ctx context.Context, host string) error {
	begins, err := r.historyBegins(ctx, host)
	if err != nil || !begins.After(r.pos.NetworkTime()) {
		return err
	}
	detail := fmt.Sprintf("its history begins at %s, the last position is at %s", inWords(begins), inWords(r.pos.NetworkTime()))
	if r.young.IsZero() {
		r.young = time.Now()
	}
	if len(r.cfg.Hosts) > 1 && time.Since(r.young) < r.timing.Gap {
		return fmt.Errorf("%w: %s", errYoung, detail)
	}
	if !r.gap {
		r.gap = true
		r.notify(Notice{Kind: Gap, Host: host, Position: r.pos,
			Detail: "deletions and changes of accounts may be missing: " + detail})
	}
	return nil
}

// historyBegins returns when the host witnessed the first event of its history.
func (r *run) historyBegins(ctx context.Context, host string) (time.Time, error) {
	page, err := r.listSegments(ctx, host, "")
	if err != nil {
		return time.Time{}, fmt.Errorf("list the archive of %s: %w", host, err)
	}
	if len(page.Segments) > 0 {
		return time.UnixMicro(page.Segments[0].MinWitnessedAt).UTC(), nil
	}
	f, err := r.eventAt(ctx, host, 0)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the first event of %s: %w", host, err)
	}
	return f.time, nil
}

// firstPosition returns where the very first start begins. From then on the position is known,
// whether or not an event ever arrives.
func (r *run) firstPosition(ctx context.Context, host string) (event.Position, error) {
	epoch := time.Unix(0, 0).UTC()
	if r.cfg.Start.Archive {
		if err := r.checkReachable(ctx, host); err != nil {
			return event.Position{}, err
		}
		r.pos = event.Position{Host: host, Time: epoch}
		return r.pos, nil
	}
	var seq uint64
	var err error
	if r.origin.IsZero() {
		seq, err = r.tip(ctx, host)
	} else if seq, err = r.seek(ctx, host, r.origin); err == nil && seq == 0 {
		err = r.checkStart(ctx, host)
	}
	if err != nil {
		return event.Position{}, err
	}
	mark, err := r.markOf(ctx, host, seq)
	if err != nil {
		return event.Position{}, err
	}
	r.clock.bulk = seq == 0
	r.pos = event.Position{Host: host, Seq: seq, Time: r.origin, Clock: r.origin, Mark: mark}
	return r.pos, nil
}

// checkStart checks whether a host's history begins only after the start time, and reports it.
func (r *run) checkStart(ctx context.Context, host string) error {
	if r.origin.UnixMicro() < minTimeCursor {
		return nil // all that there is
	}
	begins, err := r.historyBegins(ctx, host)
	if err != nil || !begins.After(r.origin) {
		return err
	}
	r.logger.Warn("the host's history begins after the configured start", "host", host, "begins", begins, "start", r.origin)
	if r.OnLateHistory == nil {
		return nil
	}
	return r.OnLateHistory(host, begins)
}

// tip returns the sequence number after which the host's present begins, and sets origin to the
// host's clock, so that no later failure loses anything from then on. It waits for the network's
// next event.
func (r *run) tip(ctx context.Context, host string) (uint64, error) {
	p, err := r.dial(ctx, host, nil, false)
	if err != nil {
		return 0, err
	}
	defer p.close()
	r.setOrigin(p.now)
	wait, cancel := context.WithTimeout(ctx, r.patience())
	defer cancel()
	for {
		f, err := p.next(wait)
		if err != nil {
			if ctx.Err() != nil {
				return 0, context.Cause(ctx)
			}
			return 0, fmt.Errorf("wait for the next event of %s: %w", host, err)
		}
		if f.info == "" {
			return f.seq - 1, nil
		}
	}
}

const (
	// minTimeCursor is the smallest cursor that hosts take for Unix microseconds; smaller ones are
	// sequence numbers. It is a time in 2001.
	minTimeCursor = 1_000_000_000_000_000
	// infoOutdated is the advisory of a host that cannot begin as early as requested.
	infoOutdated = "OutdatedCursor"
)

// markOf returns the mark of one event, "" if the host does not have it at hand.
func (r *run) markOf(ctx context.Context, host string, seq uint64) (string, error) {
	if seq == 0 {
		return "", nil
	}
	f, err := r.eventAt(ctx, host, seq)
	switch {
	case isTooOld(err):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read event %d of %s: %w", seq, host, err)
	case f.seq != seq:
		return "", nil
	}
	return f.id.mark(), nil
}

// checkReachable returns why a host does not accept subscribers, for callers that have no other
// question.
func (r *run) checkReachable(ctx context.Context, host string) error {
	p, err := r.dial(ctx, host, nil, true)
	if err == nil {
		p.close()
	}
	return err
}

// patience is how long to wait for an event of a host that answers but has none: longer if there is
// no other host.
func (r *run) patience() time.Duration {
	if len(r.cfg.Hosts) == 1 {
		return r.timing.QuietAlone
	}
	return r.timing.Quiet
}
