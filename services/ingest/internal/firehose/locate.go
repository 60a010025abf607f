package firehose

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// locate finds where a client begins on a host, behind which event, given how
// far was read anywhere.
func (r *run) locate(ctx context.Context, host string) (event.Position, error) {
	if r.pos.IsZero() {
		return r.first(ctx, host)
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
	var back time.Time // of a bulk nothing is covered: read from origin, or everything
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
	r.clock.begin(back)
	r.forgetSync()
	if !r.resync.made.IsZero() {
		r.resync.until = r.clock.at
	}
	if epoch := time.Unix(0, 0).UTC(); back.Before(epoch) {
		back = epoch // no earlier time can be stored
	}
	return event.Position{Host: host, Seq: seq, Time: back}, nil
}

// resyncReach is how far another host is read back at most for a #sync. Its revision
// may be years old: the account may have written nothing since.
const resyncReach = 24 * time.Hour

// covered is the time from which another host is read, but for the margin: that of the
// position or, within a #sync, that of the #sync, since replacements without it say nothing.
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

// errYoung says that a host's history begins only behind the position.
var errYoung = errors.New("the host does not have what lies between")

// checkYoung looks whether a host whose history is to be read from its very
// beginning begins only behind the position. Such a host has downloaded what
// the accounts held then, so it knows the posts of the time between, but no
// deletions. It is used when no other has been for some time.
func (r *run) checkYoung(ctx context.Context, host string) error {
	begins, err := r.begins(ctx, host)
	if err != nil || !begins.After(r.pos.NetworkTime()) {
		return err
	}
	detail := fmt.Sprintf("its history begins at %s, the last position is of %s", inWords(begins), inWords(r.pos.NetworkTime()))
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

// begins returns when the host witnessed the first event of its history.
func (r *run) begins(ctx context.Context, host string) (time.Time, error) {
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

// first finds where the very first start begins. From there on the position
// is known, whether or not an event ever comes.
func (r *run) first(ctx context.Context, host string) (event.Position, error) {
	epoch := time.Unix(0, 0).UTC()
	if r.cfg.Start.Archive {
		if err := r.answers(ctx, host); err != nil {
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

// checkStart looks whether a host's history begins only behind the time to begin
// at, and says so.
func (r *run) checkStart(ctx context.Context, host string) error {
	if r.origin.UnixMicro() < minTimeCursor {
		return nil // all that there is
	}
	begins, err := r.begins(ctx, host)
	if err != nil || !begins.After(r.origin) {
		return err
	}
	r.logger.Warn("the host's history begins after the configured start", "host", host, "begins", begins, "start", r.origin)
	if r.OnLateHistory == nil {
		return nil
	}
	return r.OnLateHistory(host, begins)
}

// tip returns the sequence number behind which the host's present begins, and
// sets origin to the host's clock, so that whatever fails from here on, nothing
// since then is missed. It waits for the network's next event.
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
	// minTimeCursor is the least cursor that hosts take for unix microseconds;
	// below it is a sequence number. It is a time in 2001.
	minTimeCursor = 1_000_000_000_000_000
	// infoOutdated is the advisory of a host that cannot begin as early as asked.
	infoOutdated = "OutdatedCursor"
)

// markOf returns the mark of one event, "" where the host has it not at hand.
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

// answers returns why a host does not take subscribers, where nothing else is
// to be asked of it.
func (r *run) answers(ctx context.Context, host string) error {
	p, err := r.dial(ctx, host, nil, true)
	if err == nil {
		p.close()
	}
	return err
}

// patience is how long to wait for an event of a host that answers but has
// none: for long where there is no other host to ask.
func (r *run) patience() time.Duration {
	if len(r.cfg.Hosts) == 1 {
		return r.timing.QuietAlone
	}
	return r.timing.Quiet
}
