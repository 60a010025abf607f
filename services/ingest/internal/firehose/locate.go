package firehose

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// place is where a client begins: behind pos.Seq on pos.Host.
type place struct {
	pos event.Position
	// notBefore is the time that the place stands for, where it was found by
	// time: the host may replay from somewhat earlier.
	notBefore time.Time
}

// locate finds where to begin on a host, given how far was read anywhere.
func (r *run) locate(ctx context.Context, host string) (place, error) {
	if r.pos.IsZero() {
		return r.first(ctx, host)
	}
	if r.pos.Host == host {
		foreign, err := r.verify(ctx, r.pos)
		if err != nil {
			return place{}, err
		}
		if foreign == "" {
			return place{pos: r.pos, notBefore: r.origin}, nil
		}
		r.notify(Notice{What: Switched, Host: host, Position: r.pos,
			Detail: "the host's history is not the one read before: " + foreign})
	} else {
		r.notify(Notice{What: Switched, Host: host, Position: r.pos, Detail: "coming from " + r.pos.Host})
	}
	// Two hosts witness an event at slightly different times.
	back := r.pos.Time.Add(-switchMargin)
	if back.Before(r.origin) {
		back = r.origin
	}
	seq, err := r.resolve(ctx, host, back)
	if err != nil {
		return place{}, err
	}
	if seq == 0 {
		if err := r.checkYoung(ctx, host); err != nil {
			return place{}, err
		}
	}
	return place{pos: event.Position{Host: host, Seq: seq, Time: back}, notBefore: back}, nil
}

// errYoung says that a host's history begins only behind the position.
var errYoung = errors.New("the host does not know what came between")

// checkYoung looks whether a host whose history is to be read from its very
// beginning begins only behind the position. Such a host has downloaded what
// the accounts held then, so it knows the posts of the time between, but no
// deletions. It is used when no other has been for some time.
func (r *run) checkYoung(ctx context.Context, host string) error {
	begins, err := r.begins(ctx, host)
	if err != nil || !begins.After(r.pos.Time) {
		return err
	}
	detail := fmt.Sprintf("its history begins at %s, the last position is of %s", begins.Format(time.RFC3339), r.pos.Time.Format(time.RFC3339))
	if r.young.IsZero() {
		r.young = time.Now()
	}
	if len(r.cfg.Hosts) > 1 && time.Since(r.young) < r.timing.Gap {
		return fmt.Errorf("%w: %s", errYoung, detail)
	}
	if !r.gap {
		r.gap = true
		r.notify(Notice{What: Gap, Host: host, Position: r.pos,
			Detail: "deletions and changes of accounts may be missing: " + detail})
	}
	return nil
}

// begins returns the time of the first event of a host's history.
func (r *run) begins(ctx context.Context, host string) (time.Time, error) {
	page, err := r.listSegments(ctx, host, "")
	if err != nil {
		return time.Time{}, fmt.Errorf("list the archive of %s: %w", host, err)
	}
	if len(page.Segments) > 0 {
		return time.UnixMicro(page.Segments[0].MinWitnessedAt).UTC(), nil
	}
	var first uint64
	p, err := r.dial(ctx, host, &first, false)
	if err != nil {
		return time.Time{}, err
	}
	defer p.close()
	wait, cancel := context.WithTimeout(ctx, r.timing.Verify)
	defer cancel()
	f, err := p.next(wait)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the first event of %s: %w", host, err)
	}
	return f.time, nil
}

// first finds where the very first start begins. From there on the position
// is known, whether or not an event ever comes.
func (r *run) first(ctx context.Context, host string) (place, error) {
	epoch := time.Unix(0, 0).UTC()
	if r.cfg.Start.Archive {
		if err := r.answers(ctx, host); err != nil {
			return place{}, err
		}
		r.pos = event.Position{Host: host, Time: epoch}
		return place{pos: r.pos}, nil
	}
	var seq uint64
	var err error
	if r.origin.IsZero() {
		seq, err = r.tip(ctx, host)
	} else {
		seq, err = r.resolve(ctx, host, r.origin)
	}
	if err != nil {
		return place{}, err
	}
	mark, err := r.markOf(ctx, host, seq)
	if err != nil {
		return place{}, err
	}
	r.pos = event.Position{Host: host, Seq: seq, Time: r.origin, Mark: mark}
	return place{pos: r.pos, notBefore: r.origin}, nil
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

// resolve returns the sequence number behind which the host's events of time t
// begin. The number may be lower than need be, never higher. On a quiet
// network it waits for an event.
func (r *run) resolve(ctx context.Context, host string, t time.Time) (uint64, error) {
	if t.UnixMicro() < minTimeCursor {
		return 0, r.answers(ctx, host)
	}
	cursor := uint64(t.UnixMicro())
	p, err := r.dial(ctx, host, &cursor, false)
	if err != nil {
		return 0, err
	}
	defer p.close()
	wait, cancel := context.WithTimeout(ctx, r.patience())
	defer cancel()
	for {
		f, err := p.next(wait)
		switch {
		case err != nil && ctx.Err() != nil:
			return 0, context.Cause(ctx)
		case err != nil:
			return 0, fmt.Errorf("find %s on %s: %w", t.Format(time.RFC3339Nano), host, err)
		case f.info == infoOutdated:
			// Below the host's live window: the archive knows.
			return r.sealedBefore(ctx, host, t)
		case f.info == "":
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

// verify reports why the host's history is not the one that pos is from; ""
// where it is, as far as can be told.
func (r *run) verify(ctx context.Context, pos event.Position) (foreign string, err error) {
	if pos.Seq == 0 {
		return "", r.answers(ctx, pos.Host) // the beginning is part of every history
	}
	p, err := r.dial(ctx, pos.Host, &pos.Seq, false)
	if isTooOld(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer p.close()
	wait, cancel := context.WithTimeout(ctx, r.timing.Verify)
	defer cancel()
	for {
		f, err := p.next(wait)
		switch {
		case err != nil && ctx.Err() != nil:
			return "", context.Cause(ctx)
		case errors.Is(err, context.DeadlineExceeded):
			// A host that knows the cursor answers at once, with that event.
			return fmt.Sprintf("it is silent at sequence number %d", pos.Seq), nil
		case err != nil:
			return "", fmt.Errorf("verify position %d on %s: %w", pos.Seq, pos.Host, err)
		case f.info != "":
			continue
		case f.seq < pos.Seq:
			return fmt.Sprintf("asked for sequence number %d it gives %d", pos.Seq, f.seq), nil
		case f.seq == pos.Seq && !f.is(pos):
			return f.another(), nil
		case f.seq == pos.Seq && !f.time.Equal(pos.Time):
			return r.witnessedLater(ctx, pos)
		}
		return "", nil
	}
}

// witnessedLater reports, as verify, on a host that shows another time for the
// event of a position. Either its operator has imported times, or it has a new
// history in which the same event came to the same place. Hosts seek times among
// those of witnessing, which no import changes: in the history that was read,
// nothing up to the position is later than its time.
func (r *run) witnessedLater(ctx context.Context, pos event.Position) (foreign string, err error) {
	if pos.Time.UnixMicro() < minTimeCursor {
		return "", nil
	}
	cursor := uint64(pos.Time.UnixMicro()) + 1
	p, err := r.dial(ctx, pos.Host, &cursor, false)
	if err != nil {
		return "", err
	}
	defer p.close()
	wait, cancel := context.WithTimeout(ctx, r.timing.Verify)
	defer cancel()
	for {
		f, err := p.next(wait)
		switch {
		case err != nil && ctx.Err() != nil:
			return "", context.Cause(ctx)
		case errors.Is(err, context.DeadlineExceeded):
			return "", nil // nothing is later
		case err != nil:
			return "", fmt.Errorf("verify position %d on %s: %w", pos.Seq, pos.Host, err)
		case f.info == "" && f.seq <= pos.Seq:
			return fmt.Sprintf("it witnessed its event %d only after %s", pos.Seq, pos.Time.Format(time.RFC3339Nano)), nil
		case f.info == "":
			return "", nil
		}
	}
}

// unmarkedSlack is how far the time of a position that has no mark may be from
// the own one of the event that the host gives for it: hosts witness events
// somewhat later than they are made.
const unmarkedSlack = time.Minute

// is reports whether f may be the event that a position with its number is of.
func (f frame) is(pos event.Position) bool {
	if pos.Mark != "" {
		return f.id.mark() == pos.Mark
	}
	own, ok := f.id.time()
	return f.time.Equal(pos.Time) || ok && own.Sub(pos.Time).Abs() <= unmarkedSlack
}

// another says that f is not the event expected.
func (f frame) another() string {
	made := "unknown time"
	if own, ok := f.id.time(); ok {
		made = own.Format(time.RFC3339Nano)
	}
	return fmt.Sprintf("its event %d is another one, of %s at %s", f.seq, f.id.did, made)
}

// markOf returns the mark of one event, "" where the host has it not at hand.
func (r *run) markOf(ctx context.Context, host string, seq uint64) (string, error) {
	if seq == 0 {
		return "", nil
	}
	p, err := r.dial(ctx, host, &seq, false)
	if isTooOld(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer p.close()
	wait, cancel := context.WithTimeout(ctx, r.timing.Verify)
	defer cancel()
	f, err := p.next(wait)
	if err != nil {
		return "", fmt.Errorf("read event %d of %s: %w", seq, host, err)
	}
	if f.info != "" || f.seq != seq {
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

func (r *run) dial(ctx context.Context, host string, cursor *uint64, filtered bool) (*probe, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timing.Dial)
	defer cancel()
	return dial(ctx, r.http, host, cursor, filtered)
}

// patience is how long to wait for an event of a host that answers but has
// none: for long where there is no other host to ask.
func (r *run) patience() time.Duration {
	if len(r.cfg.Hosts) == 1 {
		return r.timing.QuietAlone
	}
	return r.timing.Quiet
}
