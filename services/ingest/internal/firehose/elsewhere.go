package firehose

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// silentError ends a visit to a host that delivers nothing new while another host has something: it
// may have lost the relay that it reads from, but still answers.
type silentError struct {
	newest time.Time // of what the host gave
	other  int       // the host, in the order of Config.Hosts, that has
	host   string    // its address
	newer  time.Time // of what it has
}

func (e *silentError) Error() string {
	return fmt.Sprintf("the host delivers nothing newer than %s, but %s has an event of %s",
		inWords(e.newest), e.host, inWords(e.newer))
}

// heard records an event's own time. A time ahead of this machine's clock counts as that clock, so
// that one wrong clock does not make all other events look old.
func (r *run) heard(own time.Time) {
	if own = r.limit.bound(own); own.After(r.newest) {
		r.newest = own
	}
}

// lookElsewhere asks the other hosts in turn for something newer if the client has delivered
// nothing new for too long. The error is a *silentError if one has something and the client does
// not catch up. On a quiet network no host has anything newer, and a single host has no other to
// ask: that is reported.
func (w *watch) lookElsewhere(ctx context.Context) error {
	r, now := w.run, time.Now()
	w.mu.Lock()
	pos, newest := w.pos, w.newest
	due := !w.handling && min(now.Sub(w.news), now.Sub(w.asked)) >= r.timing.Idle
	if due {
		w.asked = now
	}
	w.mu.Unlock()
	if !due {
		return nil
	}
	for i, host := range r.cfg.Hosts {
		if host == pos.Host {
			continue
		}
		newer, ok := r.newer(ctx, host, newest)
		switch {
		case ctx.Err() != nil:
			return nil
		case !ok:
			continue
		case w.arrives(ctx, func() bool { return w.newest.After(newest) }), w.isBusy():
			return nil
		}
		return &silentError{newest, i, host, newer}
	}
	if now.Sub(r.quiet) >= sayAgain {
		r.quiet = now
		others := fmt.Sprintf("no other host (%d were asked) has it", len(r.cfg.Hosts)-1)
		if len(r.cfg.Hosts) == 1 {
			others = "there is no other host to ask"
		}
		r.notify(Notice{Kind: Quiet, Host: pos.Host, Position: pos, Detail: fmt.Sprintf(
			"nothing newer than %s arrives, and %s", inWords(newest), others)})
	}
	return nil
}

// hasNews asks a host, which was passed over for another, whether it has something newer than was
// read.
func (r *run) hasNews(ctx context.Context, host string) bool {
	_, ok := r.newer(ctx, host, r.newest)
	if !ok && ctx.Err() == nil {
		r.notify(Notice{Kind: Failed, Host: host, Position: r.pos,
			Detail: "it has nothing newer than another host had: " + inWords(r.newest)})
	}
	return ok
}

// newer asks a host for a followed event that was made after t, and returns its time. A busy host
// has one within moments; a quiet one is asked for the events since t.
func (r *run) newer(ctx context.Context, host string, t time.Time) (time.Time, bool) {
	newer, err := r.newerFrom(ctx, host, nil, t)
	if back := t.Add(-r.timing.Margin).UnixMicro(); err == nil && newer.IsZero() && back >= minTimeCursor {
		cursor := uint64(back)
		newer, err = r.newerFrom(ctx, host, &cursor, t)
	}
	return newer, err == nil && !newer.IsZero()
}

// newerFrom reads from a cursor until it finds an event that was made after t, for up to
// Timing.Ask; the time is zero if there is none by then.
func (r *run) newerFrom(ctx context.Context, host string, cursor *uint64, t time.Time) (time.Time, error) {
	for f, err := range r.frames(ctx, host, cursor, true, r.timing.Ask) {
		if errors.Is(err, errSilent) {
			return time.Time{}, nil
		}
		if err != nil {
			return time.Time{}, err
		}
		// An event that claims to be from the future proves nothing.
		own, ok := f.id.time()
		if ok && f.followed && own.After(t) && !own.After(time.Now().Add(clockAhead)) {
			return own, nil
		}
	}
	return time.Time{}, nil
}
