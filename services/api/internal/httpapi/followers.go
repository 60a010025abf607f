package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
)

const (
	// pollEvery is how often the change feed is polled while there are followers: most of the delay
	// from a commit to a follower.
	pollEvery = 100 * time.Millisecond
	// maxFollowedLists bounds the distinct lists that are followed at once: a poll may have to read
	// each.
	maxFollowedLists = 1000
	// feedReads bounds the concurrent reads of the feed for shared lists, and separately those for
	// followers that are catching up.
	feedReads = 4
	// maxUnsent bounds the bytes of a list that its slowest follower has yet to take,
	// maxUnsentTogether those of all lists.
	maxUnsent         = 1 << 20
	maxUnsentTogether = 64 << 20
)

// followers reads the change feed for all followers of a process: one query finds the changed
// lists, then each of these is read once. Followers of one list get the same bytes.
//
// The events of a list are a chain of chunks. Each follower holds the chunk that it waits for, so
// chunks that all followers have taken are garbage. A chunk beyond the bounds above is emptied, and
// a follower that finds it empty is dropped.
type followers struct {
	index   Index
	metrics *metrics
	logger  *slog.Logger
	max     int

	encodeChange                func(query.Change, postList) encodedEvent
	encodeReset, encodePosition func(query.FeedPosition, postList) []byte
	// positionAge is the greatest age of a position sent to a follower.
	positionAge time.Duration

	woken   chan struct{} // a follower has entered
	stopped chan struct{} // closed when run ends
	left    chan struct{} // a follower has left

	mu     sync.Mutex // guards the fields below and the lists
	over   bool
	count  int
	lists  map[keyset.Fingerprint]*followedList
	unsent int // bytes
	// now is the end of the feed at the last poll.
	now query.FeedPosition
}

// followedList is a list with followers.
type followedList struct {
	list      postList
	tags      []int64
	followers int
	// next is the next chunk, nil until a follower has caught up with the feed.
	next *chunk
	// head is how far the feed has been read, need how far it must be read; more says that the last
	// read was cut short.
	head, need query.FeedPosition
	more       bool
	// position was the head at positionAt; positionEvent is the event that says so.
	position      query.FeedPosition
	positionAt    time.Time
	positionEvent []byte
	// unsent are the chunks that some followers may have yet to take.
	unsent []*chunk
}

// chunk is the result of one read of the feed, once ready is closed.
type chunk struct {
	ready   chan struct{}
	next    *chunk
	at      time.Time
	content atomic.Pointer[content] // nil for followers that are too late
}

// content is the encoded events of a chunk.
type content struct {
	after, through query.FeedPosition
	events         []encodedEvent
	text           []byte // of all events
	reset          bool
}

// encodedEvent is one event as it is sent.
type encodedEvent struct {
	text []byte
	// through is the number of the last change that it covers.
	through int64
}

// eventsAfter returns the events for a follower that has everything up to pos, since the chunk may
// begin before pos.
func (c *content) eventsAfter(pos query.FeedPosition) []byte {
	if c.reset || pos.Change <= c.after.Change {
		return c.text
	}
	var text []byte
	for _, e := range c.events {
		if e.through > pos.Change {
			text = append(text, e.text...)
		}
	}
	return text
}

func newChunk() *chunk { return &chunk{ready: make(chan struct{})} }

// enter admits a follower, until leave. The error is a *problem.
func (f *followers) enter(list postList) (*followedList, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.lists[list.feedFingerprint]
	switch {
	case f.over:
		return nil, fail(codeUnavailable, "This server is stopping; try again in a few seconds.")
	case f.count >= f.max, l == nil && len(f.lists) >= maxFollowedLists:
		return nil, fail(codeOverloaded, "Too many clients follow lists here; try again in a few seconds, or poll /v1/changes.")
	}
	if l == nil {
		l = &followedList{list: list, tags: list.query.FeedTags()}
		f.lists[list.feedFingerprint] = l
	}
	l.followers++
	f.count++
	f.setGauges()
	select {
	case f.woken <- struct{}{}:
	default:
	}
	return l, nil
}

func (f *followers) leave(l *followedList) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count--
	if l.followers--; l.followers == 0 {
		f.forget(l, 0)
		delete(f.lists, l.list.feedFingerprint)
	}
	f.setGauges()
	select {
	case f.left <- struct{}{}:
	default:
	}
}

func (f *followers) setGauges() {
	f.metrics.followers.Set(float64(f.count))
	f.metrics.followedLists.Set(float64(len(f.lists)))
}

// join returns the chunk that a follower with everything up to pos waits for. It is nil if the
// other followers are ahead: then read more and try again.
func (f *followers) join(l *followedList, pos query.FeedPosition) *chunk {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l.next == nil {
		l.next, l.head, l.need = newChunk(), pos, f.now // pos may be from a standby that lags behind now
	}
	if l.head.Run != pos.Run || pos.Change < l.head.Change {
		return nil
	}
	return l.next
}

// heartbeatPosition returns how far the feed has moved without a change for a follower that has
// everything up to pos and waits for a chunk, and the event with that position. moved is false if
// it has not.
func (f *followers) heartbeatPosition(l *followedList, waits *chunk, pos query.FeedPosition) (at query.FeedPosition, event []byte, moved bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l.next != waits {
		return pos, nil, false // its chunk is ready
	}
	if l.position != l.head && time.Since(l.positionAt) >= f.positionAge {
		l.position, l.positionAt, l.positionEvent = l.head, time.Now(), f.encodePosition(l.head, l.list)
	}
	// The head moves to another run without a chunk if nothing in the list changed.
	return l.position, l.positionEvent, l.position.Run == l.head.Run && l.position != pos && l.position.Change >= pos.Change
}

// run reads for followers until ctx ends. Then it disconnects all of them and waits until they have
// left; none takes longer than followerWriteTimeout.
func (f *followers) run(ctx context.Context) {
	defer func() {
		f.mu.Lock()
		f.over = true
		count := f.count
		f.mu.Unlock()
		close(f.stopped)
		for count > 0 {
			<-f.left
			f.mu.Lock()
			count = f.count
			f.mu.Unlock()
		}
	}()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		f.mu.Lock()
		idle := f.count == 0
		f.mu.Unlock()
		wake := tick.C
		if idle {
			wake = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-f.woken:
		case <-wake:
			f.poll(ctx)
		}
	}
}

// poll finds the changed lists and reads them.
func (f *followers) poll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	f.mu.Lock()
	seen := f.now
	f.mu.Unlock()
	changed, err := f.index.ChangedTags(ctx, seen)
	if err != nil {
		f.logger.Debug("looking for changes failed", "err", err) // the health report says so
		return
	}
	var reads sync.WaitGroup
	var expired atomic.Pointer[query.Expired]
	var resets atomic.Int64
	slots := make(chan struct{}, feedReads)
	for _, l := range f.due(changed) {
		slots <- struct{}{}
		reads.Go(func() {
			defer func() { <-slots }()
			if e := f.read(ctx, l); e != nil {
				expired.Store(e)
				resets.Add(1)
			}
		})
	}
	reads.Wait()
	if e := expired.Load(); e != nil {
		f.logger.Warn("positions in the change feed expired: followers must list everything again", "reason", e.Reason, "lists", resets.Load())
	}
}

// due records the end of the feed and returns the lists to read. The others have no changes.
func (f *followers) due(changed query.ChangedTags) (due []*followedList) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if changed.Now.Run == f.now.Run && changed.Now.Change < f.now.Change {
		changed.Now = f.now // the answer is from a lagging standby
	}
	f.now = changed.Now
	for _, l := range f.lists {
		f.forget(l, followerWriteTimeout)
		switch {
		case l.next == nil:
		case changed.Include(l.tags):
			l.need = f.now
			due = append(due, l)
		case l.unread():
			due = append(due, l)
		case l.head.Change < f.now.Change:
			l.head = f.now
		}
	}
	return due
}

// unread reports whether the list must be read further: the last read may have been from a standby
// that lags behind the server that was polled.
func (l *followedList) unread() bool {
	return l.more || l.head.Run != l.need.Run || l.head.Change < l.need.Change
}

// read reads the feed once for a list.
func (f *followers) read(ctx context.Context, l *followedList) *query.Expired {
	f.mu.Lock()
	after := l.head
	f.mu.Unlock()
	page, err := f.index.Changes(ctx, query.ChangeQuery{List: l.list.query, After: &after, Limit: query.MaxLimit})
	var expired *query.Expired
	c := &content{after: after, through: page.Next}
	switch {
	case errors.As(err, &expired):
		f.metrics.countExpired(err)
		c.through, c.reset, c.text = expired.Now, true, f.encodeReset(expired.Now, l.list)
	case err != nil:
		f.logger.Debug("reading changes failed", "err", err)
		return nil
	default:
		f.metrics.countChanges(page)
		for _, change := range page.Changes {
			e := f.encodeChange(change, l.list)
			c.events = append(c.events, e)
			c.text = append(c.text, e.text...)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l.head, l.more = c.through, page.HasNext
	if len(c.text) > 0 {
		f.publish(l, c)
	}
	return expired
}

// publish gives a chunk to the followers that wait for it.
func (f *followers) publish(l *followedList, c *content) {
	b := l.next
	b.next, b.at = newChunk(), time.Now()
	b.content.Store(c)
	l.next = b.next
	l.unsent = append(l.unsent, b)
	f.unsent += len(c.text)
	size := 0
	for _, b := range l.unsent {
		size += len(b.content.Load().text)
	}
	for len(l.unsent) > 0 && (size > maxUnsent && len(l.unsent) > 1 || f.unsent > maxUnsentTogether) {
		size -= f.forgetFirst(l)
	}
	close(b.ready)
}

// forget empties the chunks that are older than age.
func (f *followers) forget(l *followedList, age time.Duration) {
	for len(l.unsent) > 0 && time.Since(l.unsent[0].at) >= age {
		f.forgetFirst(l)
	}
}

func (f *followers) forgetFirst(l *followedList) (size int) {
	size = len(l.unsent[0].content.Swap(nil).text)
	f.unsent -= size
	l.unsent = l.unsent[1:]
	return size
}
