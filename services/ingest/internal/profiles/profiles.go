// Package profiles looks authors up: the firehose shows nothing of an author who wrote no profile
// since ingest began to read. The package owns the queue of authors to ask for and the memory of
// who was asked for, and turns answers of one trusted AppView (app.bsky.actor.getProfiles) into
// author events.
//
// Look-ups never delay posts: Offer does not block, and passes over an author if the queue is full.
// Each author is asked for once within a day, 25 at a time, one request after the other. If the
// service is away, slow or asks for a pause, requests are repeated after growing pauses. Anything
// in an answer besides profiles of the requested authors is counted and dropped. A restart forgets
// who was asked for. Memory is bounded: 3 MB for the queue, about 15 MB for who was asked for.
//
// # What an answer is worth
//
// An answer has no revision, and the AppView may lag behind the firehose. An answer that takes
// something away (the author opts out, or has no handle) counts as of the moment of the question.
// One that shows something counts as of half a day earlier: a commit made since then may be newer
// than the answer, so the commit wins, whichever is stored first. So no answer shows an author who
// has just opted out, and what a gap of the firehose hid appears within a day. The event holds
// these times (rev, handle.time), so a replay of the stream decides alike.
package profiles

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/pause"
)

const (
	// maxQueued is how many authors may wait. maxDID is the longest DID that is asked for: AtOnce of
	// them must fit a URL.
	maxQueued = 10_000
	maxDID    = 300
	// AtOnce is how many authors one request asks for.
	AtOnce = 25
	// askAgainAfter is how long an author is not asked for again.
	askAgainAfter = 24 * time.Hour
	// appViewLag is how far the AppView may be behind what ingest reads. It is shorter than
	// askAgainAfter, so that an answer is newer than the one before.
	appViewLag = 12 * time.Hour
	// maxAttempts is how often a request is tried. Then its authors are given up until their next
	// post.
	maxAttempts = 5
)

// Timing has the time limits for the service; a zero field means the default.
type Timing struct {
	// Gather is how long a request waits for more authors after its first; 1 s.
	Gather time.Duration
	// Pace is the least time between two requests; 200 ms.
	Pace time.Duration
	// Timeout bounds a request with its answer; 15 s.
	Timeout time.Duration
	// RetryMin and RetryMax bound the pause after a failure, which doubles from one to the next;
	// 1 s and 5 min. What the service asks for is obeyed up to an hour.
	RetryMin, RetryMax time.Duration
}

const maxRetryAfter = time.Hour

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		is *time.Duration
		to time.Duration
	}{
		{&t.Gather, time.Second}, {&t.Pace, 200 * time.Millisecond}, {&t.Timeout, 15 * time.Second},
		{&t.RetryMin, time.Second}, {&t.RetryMax, 5 * time.Minute},
	} {
		if *d.is == 0 {
			*d.is = d.to
		}
	}
	return t
}

// Fate is what became of an author.
type Fate string

// The fates. The set is closed.
const (
	// Found: the answer is in the stream, or says what the last one there said.
	Found Fate = "found"
	// Absent: the service does not know the author, or does not show it.
	Absent Fate = "absent"
	// Malformed: the service's profile of the author cannot be used.
	Malformed Fate = "malformed"
	// Unasked: the answer has an author who was not asked for, or has one twice.
	Unasked Fate = "unasked"
	// PassedOver: the queue was full, or the DID is too long.
	PassedOver Fate = "passed_over"
	// GivenUp: all requests failed, or the service refuses a request for this author alone.
	GivenUp Fate = "given_up"
)

// Fates lists them all.
var Fates = []Fate{Found, Absent, Malformed, Unasked, PassedOver, GivenUp}

// Observer receives what happens, from several goroutines. Its methods must not block.
type Observer interface {
	// Author is called with a fate, and the number of authors who met it.
	Author(fate Fate, n int)
	// Request is called after each request.
	Request(outcome Outcome)
}

// Profiles looks authors up. Make one with New.
type Profiles struct {
	base     string
	client   *http.Client
	timing   Timing
	logger   *slog.Logger
	observer Observer
	now      func() time.Time

	queue chan string
	asked asked

	// The fields below belong to Run's goroutine.
	pause   time.Duration // after the next failure
	failing bool          // and that was logged
}

// New returns look-ups at the service with that base URL. It starts nothing.
func New(base string, timing Timing, logger *slog.Logger, observer Observer) *Profiles {
	timing = timing.withDefaults()
	return &Profiles{
		base: base, client: newClient(timing.Timeout), timing: timing, logger: logger, observer: observer, now: time.Now,
		queue: make(chan string, maxQueued), asked: newAsked(maxRemembered), pause: timing.RetryMin,
	}
}

// Offer queues an author who has posted, if a look-up is due. It does not block, and must be called
// from one goroutine at a time.
func (p *Profiles) Offer(did string) {
	now := p.now()
	switch {
	case p.asked.recently(did, now):
	case len(did) > maxDID, len(p.queue) == cap(p.queue):
		p.observer.Author(PassedOver, 1)
	default:
		p.asked.note(did, now)
		p.queue <- did // there is room: only this goroutine adds
	}
}

// Run looks up offered authors until ctx ends or store fails. store receives author events without
// a Resume. Run must not be called again before it returns.
func (p *Profiles) Run(ctx context.Context, store func(context.Context, []*event.Event) error) {
	for {
		dids := p.gather(ctx)
		if !p.lookUp(ctx, dids, store) {
			p.asked.forget(dids...) // whoever leads next asks
			return
		}
		if pause.For(ctx, p.timing.Pace) != nil {
			return
		}
	}
}

// gather waits for an author, and then up to Timing.Gather for more.
func (p *Profiles) gather(ctx context.Context) []string {
	var dids []string
	var enough <-chan time.Time
	for len(dids) < AtOnce {
		select {
		case did := <-p.queue:
			if dids = append(dids, did); enough == nil {
				enough = time.After(p.timing.Gather)
			}
		case <-enough:
			return dids
		case <-ctx.Done():
			return dids
		}
	}
	return dids
}

// lookUp asks for authors and stores the answer. It returns false if ctx has ended or nothing can
// be stored.
func (p *Profiles) lookUp(ctx context.Context, dids []string, store func(context.Context, []*event.Event) error) bool {
	for attempt := 1; ; attempt++ {
		at := p.now()
		body, date, err := p.ask(ctx, dids)
		if ctx.Err() != nil {
			return false
		}
		var read answer
		if err == nil {
			if !date.IsZero() && date.Add(time.Second).Before(at) { // the header has whole seconds
				at = date // this machine's clock is ahead
			}
			read, err = parse(body, dids, p.base, at)
		}
		var failed *requestError
		if !errors.As(err, &failed) {
			p.observer.Request(OK)
			p.noteSuccess()
			return p.storeAnswer(ctx, read, store)
		}
		p.observer.Request(failed.outcome)
		wait := p.noteFailure(failed)
		switch {
		case failed.outcome == Refused && len(dids) > 1: // one of them may be the reason
			half := len(dids) / 2
			return pause.For(ctx, wait) == nil && p.lookUp(ctx, dids[:half], store) &&
				pause.For(ctx, p.timing.Pace) == nil && p.lookUp(ctx, dids[half:], store)
		case failed.outcome == Refused:
			p.observer.Author(GivenUp, len(dids)) // and not asked for again today
			return pause.For(ctx, wait) == nil
		case failed.outcome == RateLimited:
			attempt-- // not the request's fault
		case attempt == maxAttempts:
			p.asked.forget(dids...)
			p.observer.Author(GivenUp, len(dids))
			return pause.For(ctx, wait) == nil
		}
		if pause.For(ctx, wait) != nil {
			return false
		}
	}
}

// storeAnswer stores what an answer says, and reports whether it could. It counts the authors'
// fates.
func (p *Profiles) storeAnswer(ctx context.Context, read answer, store func(context.Context, []*event.Event) error) bool {
	var news []*event.Event
	for _, ev := range read.events {
		if !p.asked.repeats(ev) {
			news = append(news, ev)
		}
	}
	if len(news) > 0 {
		if store(ctx, news) != nil {
			return false
		}
	}
	for _, ev := range news {
		p.asked.stored(ev)
	}
	for fate, n := range map[Fate]int{Found: len(read.events), Absent: read.absent, Malformed: read.malformed, Unasked: read.unasked} {
		if n > 0 {
			p.observer.Author(fate, n)
		}
	}
	return true
}

// noteSuccess records that the service has answered. noteFailure records that it has not, and
// returns the pause before the next request.
func (p *Profiles) noteSuccess() {
	p.pause = p.timing.RetryMin
	if p.failing {
		p.failing = false
		p.logger.Info("author look-ups work again", "url", p.base)
	}
}

func (p *Profiles) noteFailure(err *requestError) time.Duration {
	wait := p.pause/2 + rand.N(p.pause/2+1)
	p.pause = min(2*p.pause, p.timing.RetryMax)
	if err.retryAfter > 0 {
		// Programs must not all return at once.
		wait = max(wait, err.retryAfter+rand.N(p.timing.RetryMin))
	}
	if !p.failing {
		p.failing = true
		p.logger.Warn("author look-ups fail; trying again", "url", p.base, "err", err)
	}
	return wait
}
