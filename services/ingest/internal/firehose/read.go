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
	// maxErrors consecutive errors without an event end a visit.
	maxErrors = 5
	// maxUnreadable is how often reading may fail after one position before the unreadable part is
	// skipped.
	maxUnreadable = 5
)

// Why a visit ends, other than by the client's error.
var (
	errStalled      = errors.New("the client is stalled: the host has events that the client does not deliver")
	errOtherHistory = errors.New("the host's history has changed")
	errAway         = errors.New("the client is silent and so is the host")
	errSlowArchive  = errors.New("the archive delivered nothing for too long")
	errBroken       = errors.New("the client reports an error")
	errEnded        = errors.New("the client ended")
)

// read iterates over one client and returns why it ended. A client is iterated only once: a second
// time it would begin at its first cursor again.
func (r *run) read(ctx context.Context, client *jetstream.Client, at event.Position) error {
	if r.newest.IsZero() {
		r.heard(r.pos.Time) // where the very first start begins
	}
	visit, end := context.WithCancelCause(ctx)
	defer end(nil)
	w := &watch{run: r, client: client, pos: at, began: time.Now(), since: time.Now(), deadline: r.end,
		newest: r.newest, news: time.Now()}
	var helpers sync.WaitGroup
	helpers.Go(func() { w.watch(visit, end) })
	came := make(chan arrival, maxTogether)
	helpers.Go(func() { receive(visit, client, came) })

	why := errEnded
	var events []jetstream.Event
	for a := range came {
		var failed error
		events, failed = a.gather(events[:0], came)
		if len(events) > 0 {
			w.busy()
			why = r.deliver(at.Host, events)
			clear(events) // each keeps its archive block in memory
			if why != nil {
				break
			}
			w.idle(r.pos, r.newest, r.end)
		}
		if failed != nil {
			if why = r.clientError(w, failed); why != nil {
				break
			}
		}
		why = errEnded
	}
	if cause := context.Cause(visit); cause != nil && !isFinal(why) {
		why = cause // the watchdog's, or the caller's
	}
	end(nil)
	helpers.Wait()
	return why
}

// maxTogether is how many events are passed on at a time, and how many may wait for that.
const maxTogether = 64

// arrival is what a client gave: events, and an error after them.
type arrival struct {
	events []jetstream.Event
	err    error
}

// receive passes on what a client gives until ctx ends or the client does. The client gives live
// events one by one: gather puts together those that arrive faster than the caller takes them, and
// delays none.
func receive(ctx context.Context, client *jetstream.Client, to chan<- arrival) {
	defer close(to)
	for batch, err := range client.Events(ctx) {
		a := arrival{err: err}
		if err == nil {
			a.events = batch.Events()
		}
		select {
		case to <- a:
		case <-ctx.Done():
			return
		}
	}
}

// gather appends the events of an arrival and of those that have come since, up to an error.
func (a arrival) gather(events []jetstream.Event, came <-chan arrival) ([]jetstream.Event, error) {
	for more := true; more; {
		events = append(events, a.events...)
		if a.err != nil || len(events) >= maxTogether {
			return events, a.err
		}
		select {
		case a, more = <-came:
		default:
			more = false
		}
	}
	return events, nil
}

// deliver passes events to the caller and moves the position past them.
func (r *run) deliver(host string, events []jetstream.Event) error {
	var ended error
	var last event.Position
	r.limit, r.clock.limit = ceiling{}, ceiling{}
	r.positions = r.positions[:0]
	kept := events[:0]
	for i := range events {
		p := r.observe(host, &events[i])
		if r.cfg.StopAfter > 0 {
			r.setEnd(p.NetworkTime()) // only the whole archive begins without a time
			if !p.NetworkTime().Before(r.end) {
				ended = errReachedEnd
				break
			}
		}
		if last = p; !r.early(p, &events[i]) {
			kept, r.positions = append(kept, events[i]), append(r.positions, p)
		}
	}
	if last.Seq > 0 {
		if !r.give(Batch{Host: host, Events: kept, Positions: r.positions, Last: last}) {
			return errStopped
		}
		r.pos, r.young, r.gap = last, time.Time{}, false
	}
	return ended
}

// early reports whether an event is older than the start of the very first run: hosts are read from
// somewhat earlier. Both the clock and the event's own time must say so, because what a host
// downloaded when it was new is in no order. A later start drops nothing, because an age such as
// -2h then means another time.
func (r *run) early(p event.Position, ev *jetstream.Event) bool {
	if !p.NetworkTime().Before(r.start) {
		return false
	}
	own, ok := identityOf(ev).time()
	return !ok || own.Before(r.start)
}

// maxTimeUS is the last microsecond of the year 9999: later times do not fit their text form.
var maxTimeUS = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).UnixMicro()

// observe takes the next event into account (the clock, the open #sync, the newest time) and
// returns its position. A host's operator may import times that have no text form: such an event is
// shown with its own time or, if it has none, with that of the previous position. A position that
// cannot be stored would stop ingest.
func (r *run) observe(host string, ev *jetstream.Event) event.Position {
	id := identityOf(ev)
	own, ok := id.time()
	if ok {
		r.heard(own)
	}
	t := time.UnixMicro(ev.TimeUS).UTC()
	if ev.TimeUS < 0 || ev.TimeUS > maxTimeUS {
		if t = r.pos.Time; ok {
			t = own
		}
	}
	create := ev.Commit != nil && ev.Commit.Operation == jetstream.OpCreate
	p := event.Position{Host: host, Seq: ev.Seq, Time: t, Clock: r.clock.read(id, create), Mark: id.mark()}
	if r.sync != (event.OpenSync{}) || ev.Sync != nil {
		r.sync = r.sync.After(outline(ev))
	}
	r.resync.observe(ev, r.sync.DID != "", p.Clock)
	p.Sync, p.Resync = r.sync, r.resync.made
	return p
}

// clientError reports whether an error of the client ends the visit. It nearly always does,
// although the client would continue: after an archive block that it could not read; or, after a
// dropped connection, from its last sequence number, which a crashed host may have given to another
// event by then. A new visit verifies that first.
//
// But a frame that cannot be decoded is met again by each visit. So what repeatedly fails soon
// after one position is skipped.
func (r *run) clientError(w *watch, err error) error {
	if errors.Is(err, jetstream.ErrFatal) {
		return err
	}
	if r.OnClientError != nil {
		r.OnClientError(err)
	}
	u := &r.unreadable
	if soon := w.replaying() || time.Since(w.began) < r.timing.Ask; u.pos != r.pos || !soon {
		u.pos, u.times = r.pos, 0
	}
	if u.times++; u.times <= maxUnreadable {
		return fmt.Errorf("%w after %d: %w", errBroken, r.pos.Seq, err)
	}
	if n := w.trouble(); n >= maxErrors {
		u.times = 0
		return fmt.Errorf("%w, %d times in a row: %w", errBroken, n, err)
	}
	r.forgetSync() // the skipped events may belong to the #sync
	r.notify(Notice{Kind: Skipped, Host: w.pos.Host, Position: r.pos,
		Detail: fmt.Sprintf("the events after %d could not be read %d times and are skipped; some may be missing: %v", r.pos.Seq, u.times, err)})
	return nil
}
