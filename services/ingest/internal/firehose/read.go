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

const (
	// maxErrors in a row without an event end a visit. The client pauses
	// longer before each, about 8 s in all.
	maxErrors = 5
	// maxUnreadable is how often reading the archive may fail behind one
	// position before what cannot be read is passed over.
	maxUnreadable = 5
)

// Why a visit ends, besides what the client says.
var (
	errStalled     = errors.New("the client is stalled: the host has events that it does not deliver")
	errSlowArchive = errors.New("the archive gave nothing for too long")
	errUnreadable  = errors.New("the archive could not be read")
	errEnded       = errors.New("the client ended")
)

// read iterates over one client and says why it ended. A client is iterated
// once: a second time it would begin at its first cursor again.
func (r *run) read(ctx context.Context, client *jetstream.Client, at place) error {
	visit, end := context.WithCancelCause(ctx)
	defer end(nil)
	w := &watch{run: r, client: client, host: at.pos.Host, seq: at.pos.Seq, since: time.Now(), deadline: r.end}
	var watching sync.WaitGroup
	watching.Go(func() { w.watch(visit, end) })

	why := errEnded
	for batch, err := range client.Events(visit) {
		if err != nil {
			if why = r.clientError(w, err); why != nil {
				break
			}
		} else {
			w.busy()
			if why = r.deliver(ctx, at, batch.Events()); why != nil {
				break
			}
			w.idle(r.pos.Seq, r.end)
		}
		why = errEnded
	}
	if cause := context.Cause(visit); cause != nil {
		why = cause // the watchdog's, or the caller's
	}
	end(nil)
	watching.Wait()
	return why
}

// deliver hands events to the handler and moves the position behind them.
func (r *run) deliver(ctx context.Context, at place, events []jetstream.Event) error {
	var ended error
	if r.cfg.StopAfter > 0 {
		for i := range events {
			t := time.UnixMicro(events[i].TimeUS).UTC()
			r.setEnd(t) // only the whole archive begins without a time
			if !t.Before(r.end) {
				events, ended = events[:i], errReachedEnd
				break
			}
		}
	}
	if len(events) > 0 {
		last := r.position(at.pos.Host, &events[len(events)-1])
		if err := r.handle(ctx, Batch{Host: at.pos.Host, NotBefore: at.notBefore, Events: events, Last: last}); err != nil {
			return &handlerError{err}
		}
		r.pos = last
	}
	return ended
}

// maxTimeUS is the last microsecond of the year 9999: beyond it a time does
// not fit its text form.
var maxTimeUS = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).UnixMicro()

// position is where an event stands. One with an impossible time counts as of
// the time before it.
func (r *run) position(host string, ev *jetstream.Event) event.Position {
	t := r.pos.Time
	if ev.TimeUS >= 0 && ev.TimeUS <= maxTimeUS {
		t = time.UnixMicro(ev.TimeUS).UTC()
	}
	return event.Position{Host: host, Seq: ev.Seq, Time: t}
}

// clientError says whether an error that the client yields ends the visit.
func (r *run) clientError(w *watch, err error) error {
	if errors.Is(err, jetstream.ErrFatal) {
		return err
	}
	if r.OnClientError != nil {
		r.OnClientError(err)
	}
	if !w.replaying() {
		// A dropped connection, which the client mends by itself, or a frame
		// that nobody can read.
		if n := w.trouble(); n >= maxErrors {
			return fmt.Errorf("%d errors in a row, the last: %w", n, err)
		}
		r.logger.Warn("firehose client reports an error", "host", w.host, "seq", r.pos.Seq, "err", err)
		return nil
	}
	// The client would go on behind what it could not read.
	u := &r.unreadable
	if u.pos != r.pos {
		u.pos, u.times = r.pos, 0
	}
	if u.times++; u.times <= maxUnreadable {
		return fmt.Errorf("%w behind %d: %w", errUnreadable, r.pos.Seq, err)
	}
	r.notify(Notice{What: Failed, Host: w.host, Position: r.pos,
		Detail: fmt.Sprintf("events may be missing behind %d: the archive could not be read %d times and is passed over: %v", r.pos.Seq, u.times, err)})
	return nil
}
