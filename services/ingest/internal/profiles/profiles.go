// Package profiles looks authors up: what the firehose does not tell of one who wrote no profile
// since ingest began to read. It owns the queue of authors to ask for and the memory of whom it
// asked, and turns answers of one trusted AppView (app.bsky.actor.getProfiles) into author events.
//
// It is never in the way of posts: Offer does not block, and an author who finds the queue full is
// passed over. Each author is asked for once within a day, 25 at a time, one request after the
// other. A service that is away, slow or asks for patience is tried again, ever later; what it
// answers besides profiles of authors that were asked for is counted and dropped. A restart
// forgets whom it asked. Memory is bounded: the queue by 3 MB, whom it asked by about 15 MB.
//
// # What an answer is worth
//
// An answer has no revision, and the AppView may be behind the firehose. An answer that takes away
// (the author opts out, or has no handle) counts as of the moment of the question. One that shows
// something counts as of half a day before: a commit of that time or later was made by someone who
// may know better, whichever comes first. So no answer shows an author who opted out a moment ago,
// and what a gap of the firehose hid comes to light within a day. The event says all that (rev,
// handle.time), so that a replay of the stream decides alike.
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
	// queued is how many authors may wait, and maxDID how long the DID of one may be: 25 of them
	// are to fit a URL.
	queued = 10_000
	maxDID = 300
	// AtOnce is how many authors one request asks for.
	AtOnce = 25
	// askedFor is how long an author is not asked for again.
	askedFor = 24 * time.Hour
	// behind is how far the AppView may be behind what ingest reads; shorter than askedFor, so that
	// an answer counts more than the one before.
	behind = 12 * time.Hour
	// attempts is how often authors are asked for before they are given up, to be asked for with
	// their next post.
	attempts = 5
)

// Timing is the patience with the service; a zero field means the default.
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

// The fates; the list is closed.
const (
	// Found: the answer is in the stream, or says what the last one there said.
	Found Fate = "found"
	// Absent: the service does not know the author, or does not show it.
	Absent Fate = "absent"
	// Malformed: what it says of the author cannot be used.
	Malformed Fate = "malformed"
	// Unasked: it answered of an author that was not asked for, or twice.
	Unasked Fate = "unasked"
	// PassedOver: the queue was full, or the DID is too long.
	PassedOver Fate = "passed_over"
	// GivenUp: the service could not be asked, or refused the question for this author alone.
	GivenUp Fate = "given_up"
)

// Fates lists them all.
var Fates = []Fate{Found, Absent, Malformed, Unasked, PassedOver, GivenUp}

// Observer hears what happens, from several goroutines. None of its methods may block.
type Observer interface {
	// Author is called with each fate of authors, and of how many.
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

	// Of the goroutine of Run:
	pause   time.Duration // after the next failure
	failing bool          // and that was logged
}

// New returns what asks the service at a base URL. It starts nothing.
func New(base string, timing Timing, logger *slog.Logger, observer Observer) *Profiles {
	timing = timing.withDefaults()
	return &Profiles{
		base: base, client: newClient(timing.Timeout), timing: timing, logger: logger, observer: observer, now: time.Now,
		queue: make(chan string, queued), asked: newAsked(remembered), pause: timing.RetryMin,
	}
}

// Offer says that an author has posted. It does not block. It is for one goroutine at a time.
func (p *Profiles) Offer(did string) {
	now := p.now()
	switch {
	case p.asked.within(did, now):
	case len(did) > maxDID, len(p.queue) == cap(p.queue):
		p.observer.Author(PassedOver, 1)
	default:
		p.asked.put(did, now)
		p.queue <- did // there is room, and only this goroutine puts
	}
}

// Run asks for the authors that were offered until ctx ends or store fails, which is given author
// events without a Resume. It must not run twice at a time.
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

// gather waits for authors, and for a moment for more.
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

// lookUp asks for authors and stores what is said of them. It is false where ctx has ended or
// nothing can be stored.
func (p *Profiles) lookUp(ctx context.Context, dids []string, store func(context.Context, []*event.Event) error) bool {
	for attempt := 1; ; attempt++ {
		at := p.now()
		body, date, err := p.ask(ctx, dids)
		if ctx.Err() != nil {
			return false
		}
		var read answer
		if err == nil {
			if !date.IsZero() && date.Add(time.Second).Before(at) { // its fraction is cut off
				at = date // this machine's clock is ahead
			}
			read, err = parse(body, dids, p.base, at)
		}
		var failed *requestError
		if !errors.As(err, &failed) {
			p.observer.Request(OK)
			p.well()
			return p.storeAnswer(ctx, read, store)
		}
		p.observer.Request(failed.outcome)
		wait := p.unwell(failed)
		switch {
		case failed.outcome == Refused && len(dids) > 1: // one of them may be what it does not take
			half := len(dids) / 2
			return pause.For(ctx, wait) == nil && p.lookUp(ctx, dids[:half], store) &&
				pause.For(ctx, p.timing.Pace) == nil && p.lookUp(ctx, dids[half:], store)
		case failed.outcome == Refused:
			p.observer.Author(GivenUp, len(dids)) // and not asked for again today
			return pause.For(ctx, wait) == nil
		case failed.outcome == RateLimited:
			attempt-- // no fault of the question
		case attempt == attempts:
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

// well notes that the service has answered, and unwell that it has not: it returns the pause.
func (p *Profiles) well() {
	p.pause = p.timing.RetryMin
	if p.failing {
		p.failing = false
		p.logger.Info("author look-ups work again", "url", p.base)
	}
}

func (p *Profiles) unwell(err *requestError) time.Duration {
	wait := p.pause/2 + rand.N(p.pause/2+1)
	p.pause = min(2*p.pause, p.timing.RetryMax)
	if err.retryAfter > 0 {
		// Not all at once.
		wait = max(wait, err.retryAfter+rand.N(p.timing.RetryMin))
	}
	if !p.failing {
		p.failing = true
		p.logger.Warn("author look-ups fail; trying again", "url", p.base, "err", err)
	}
	return wait
}
