package firehose

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// sampleFrames is the most events that are read at a place on a host to learn the network time
	// there.
	sampleFrames = 200
	// nearEnough is how much earlier than necessary reading may begin, to save the search for a
	// closer place.
	nearEnough = 5 * time.Minute
	// liveLag is how late a host may have witnessed what it reads live. What it witnessed later may
	// be from the download when it was new.
	liveLag = time.Hour
	// seekStride is how close seeking gets to the place, in events.
	seekStride = 1024
)

// sample describes what a host has at a cursor.
type sample struct {
	// seq is the first event's number, 0 if there is none.
	seq uint64
	// first is the first event, and shown the time that the host shows for it.
	first identity
	shown time.Time
	// at is the network time there, the median of some accounts' events; zero if unknown.
	at time.Time
	// outdated reports that the cursor was a time before the host's live window.
	outdated bool
}

// late reports whether reading from s would miss events of the network from t on.
func (s sample) late(t time.Time) bool { return s.at.After(t) }

// seek returns the sequence number after which the host has all events of the network from t on, or
// 0 if its history begins later or must be read whole. The number may be lower than necessary.
//
// Hosts are asked by their own stamps, which may be anything: a host lags, or its clock is wrong.
// So seek reads the revisions of what the host has there, and if they are too late asks for an
// earlier time.
func (r *run) seek(ctx context.Context, host string, t time.Time) (uint64, error) {
	back := r.timing.Margin
	// Somewhat earlier than necessary: the events that follow must show that the network time there
	// is not later.
	for stamp := t.Add(-back / 2); stamp.UnixMicro() >= minTimeCursor; {
		s, err := r.sample(ctx, host, uint64(stamp.UnixMicro()), r.patience())
		if err == nil && s.outdated && s.late(t) {
			s, err = r.sampleArchiveAt(ctx, host, stamp)
		}
		switch {
		case err != nil && ctx.Err() != nil:
			return 0, context.Cause(ctx)
		case err != nil:
			return 0, fmt.Errorf("find %s on %s: %w", inWords(t), host, err)
		case s.seq <= 1:
			return 0, nil
		case !s.late(t):
			return r.approach(ctx, host, s, t)
		}
		back = max(2*back, s.at.Sub(t))
		stamp = stamp.Add(-back)
	}
	return 0, r.checkReachable(ctx, host)
}

// approach looks for a place closer to t than s: a host begins early where it has no index, which
// is everything that it has not sealed yet. What a host downloaded when it was new is in no order,
// and is not skipped.
func (r *run) approach(ctx context.Context, host string, s sample, t time.Time) (uint64, error) {
	low, high := s.seq, uint64(0)
	for step := uint64(seekStride); t.Sub(s.at) > nearEnough && s.shown.Sub(s.at) < liveLag; {
		probe := low + step
		if high > 0 {
			if high-low <= seekStride {
				break
			}
			probe = low + (high-low)/2
		}
		next, err := r.sample(ctx, host, probe, r.timing.Ask)
		if isTooOld(err) {
			break // it is in the archive
		}
		if err != nil && ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return 0, fmt.Errorf("find %s on %s: %w", inWords(t), host, err)
		}
		// Above its tip a host is silent, or delivers the next event.
		if err != nil || next.seq < probe || next.late(t) {
			high = probe
			continue
		}
		low, s = probe, next
		step *= 2
	}
	return low - 1, nil
}

// sample reads what a host has at a cursor. It waits up to patience for the first event.
func (r *run) sample(ctx context.Context, host string, cursor uint64, patience time.Duration) (sample, error) {
	p, err := r.dial(ctx, host, &cursor, false)
	if err != nil {
		return sample{}, err
	}
	defer p.close()
	s, accounts := sample{}, newAccountTimes()
	until := time.Now().Add(patience)
	for range sampleFrames {
		wait, cancel := context.WithDeadline(ctx, until)
		f, err := p.next(wait)
		cancel()
		switch {
		case err != nil && s.seq > 0 && ctx.Err() == nil:
			return s, nil // as many as there are
		case err != nil:
			return s, err
		case f.info != "":
			s.outdated = s.outdated || f.info == infoOutdated
			continue
		}
		if s.seq == 0 {
			s.seq, s.first, s.shown = f.seq, f.id, f.time
			until = time.Now().Add(r.timing.Ask / 5) // further events arrive now or do not exist
		}
		if !accounts.has(f.id.did) { // its first event here, the closest to the place
			accounts.add(f.id)
		}
		if s.at = accounts.median(); accounts.full() {
			break
		}
	}
	return s, nil
}

// sampleArchiveAt reads what the archive has at a time before the live window.
func (r *run) sampleArchiveAt(ctx context.Context, host string, stamp time.Time) (sample, error) {
	last, err := r.sealedBefore(ctx, host, stamp)
	if err != nil || last == 0 {
		return sample{}, err
	}
	return r.sampleArchiveAfter(ctx, host, last)
}

// sampleArchiveAfter reads the next followed events that the archive has after a sequence number.
func (r *run) sampleArchiveAfter(ctx context.Context, host string, after uint64) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timing.Listing)
	defer cancel()
	client, err := r.subscribe(host, after)
	if err != nil {
		return sample{}, err
	}
	defer func() { _ = client.Close() }()
	for batch, err := range client.Events(ctx) {
		if err != nil {
			return sample{}, fmt.Errorf("read the archive after %d: %w", after, err)
		}
		events := batch.Events()
		if len(events) == 0 {
			continue
		}
		s, accounts := sample{}, newAccountTimes()
		for i := range events {
			id := identityOf(&events[i])
			if i == 0 {
				s.seq, s.first, s.shown = events[i].Seq, id, time.UnixMicro(events[i].TimeUS).UTC()
			}
			if !accounts.full() && !accounts.has(id.did) {
				accounts.add(id)
			}
		}
		s.at = accounts.median()
		return s, nil
	}
	return sample{}, fmt.Errorf("read the archive after %d: %w", after, errEnded)
}
