package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
)

const (
	// heartbeat is the time between two comments on a quiet connection, which keep proxies from
	// closing it and show each end that the other is there.
	heartbeat = 15 * time.Second
	// followerWriteTimeout bounds each write to a follower.
	followerWriteTimeout = 10 * time.Second
	// reconnectAfter is how long a follower waits before it reconnects. Followers that a stopping
	// server disconnects wait up to reconnectSpread longer, so that they do not all return at once.
	reconnectAfter  = 3 * time.Second
	reconnectSpread = 7 * time.Second
	// positionAge bounds the age of the position sent with a heartbeat, which followers of one list
	// share.
	positionAge = heartbeat / 3
	// catchUpPause is the time between two reads of a follower that is still behind the others, and
	// catchUpRetry the pause after a failed read.
	catchUpPause = 250 * time.Millisecond
	catchUpRetry = 2 * time.Second
	// maxCatchingUp bounds the unsent bytes of all followers that are catching up.
	maxCatchingUp = 32 << 20
	// catchUpLimit is how many changes a follower that is catching up reads at once: each follower
	// holds its own copy.
	catchUpLimit = 20
)

// followParams are the parameters of a list, and the position to continue from.
var followParams = params{
	single:   slices.DeleteFunc(slices.Clone(changesParams.single), func(name string) bool { return name == "limit" }),
	repeated: changesParams.repeated,
}

// eventReset tells a follower to read everything again.
const eventReset = "reset"

// Why a follower is dropped.
const (
	endGone    = "gone"    // it disconnected
	endSlow    = "slow"    // it does not read fast enough
	endStopped = "stopped" // the server is stopping
	endFailed  = "failed"  // something failed on our side
)

var followerEnds = []string{endGone, endSlow, endStopped, endFailed}

// follow is /v1/stream: /v1/changes as Server-Sent Events.
func (h *Handler) follow(r *http.Request) (*response, error) {
	q, err := parseQuery(r.URL.RawQuery, followParams)
	if err != nil {
		return nil, err
	}
	list, err := parsePostList(q)
	if err != nil {
		return nil, err
	}
	cq := query.ChangeQuery{List: list.query, Limit: catchUpLimit}
	name, token := "Last-Event-ID", r.Header.Get("Last-Event-ID")
	if token == "" {
		name = "after"
		token, _ = q.get(name)
	}
	if token != "" {
		if cq.After, err = h.feedPosition(name, token, list); err != nil {
			return nil, err
		}
	}
	f := &follower{h: h, list: list}
	if f.shared, err = h.followers.enter(list); err != nil {
		return nil, err
	}
	if err := f.read(r.Context(), cq); err != nil {
		h.followers.leave(f.shared)
		return nil, err
	}
	return &response{follower: f}, nil
}

// follower is a follower that is connected to /v1/stream.
type follower struct {
	h      *Handler
	list   postList
	shared *followedList
	// pos is the follower's position after unsent is sent. more reports that the feed has more.
	pos    query.FeedPosition
	more   bool
	unsent []byte
	// next is the chunk that the follower waits for, nil while it is catching up.
	next *chunk

	out eventWriter
}

// read reads the changes after a position for this follower alone, and joins the others at the end
// of the feed. An expired position gives a reset. An error leaves the follower as it was.
func (f *follower) read(ctx context.Context, cq query.ChangeQuery) error {
	page, err := f.h.index.Changes(ctx, cq)
	var expired *query.Expired
	var text []byte
	switch {
	case errors.As(err, &expired):
		f.h.metrics.countExpired(err)
		page.Next, text = expired.Now, f.h.resetEvent(expired.Now, f.list)
	case err != nil:
		return err
	case cq.After == nil: // so that a connection that breaks before the first change loses nothing
		text = f.h.positionEvent(page.Next, f.list)
	default:
		f.h.metrics.countChanges(page)
		for _, c := range page.Changes {
			text = append(text, f.h.changeEvent(c, f.list).text...)
		}
	}
	if !f.h.catchUpBytes.take(int64(len(text))) {
		return errOverloaded
	}
	f.pos, f.more, f.unsent = page.Next, page.HasNext, text
	if !f.more {
		f.next = f.h.followers.join(f.shared, f.pos)
	}
	return nil
}

// sendUnsent sends what read has left unsent.
func (f *follower) sendUnsent(prefix string) (end string) {
	defer f.dropUnsent()
	return f.send(append([]byte(prefix), f.unsent...))
}

// dropUnsent returns what read took from the budget.
func (f *follower) dropUnsent() {
	f.h.catchUpBytes.giveBack(int64(len(f.unsent)))
	f.unsent = nil
}

// catchUp reads and sends for this follower alone. The caller pauses before the next call.
func (f *follower) catchUp(ctx context.Context) (end string, pause time.Duration) {
	select {
	case f.h.catchUpSlots <- struct{}{}:
	case <-ctx.Done():
		return endGone, 0
	}
	reading, cancel := context.WithTimeout(ctx, requestTimeout)
	err := f.read(reading, query.ChangeQuery{List: f.list.query, After: &f.pos, Limit: catchUpLimit})
	cancel()
	<-f.h.catchUpSlots
	var p *problem
	switch {
	case err == nil:
		end = f.sendUnsent("")
	case ctx.Err() != nil:
		return endGone, 0
	case errors.As(err, &p), store.Unavailable(err):
		return "", catchUpRetry
	default:
		f.h.logFailure(routeStream, problemOf(err), err)
		return endFailed, 0
	}
	if f.more {
		return end, 0
	}
	return end, catchUpPause
}

// serve sends until the follower leaves or is dropped, and returns why.
func (f *follower) serve(ctx context.Context, head string) (end string) {
	if end := f.sendUnsent(fmt.Sprintf("%sretry: %d\n\n", head, reconnectAfter.Milliseconds())); end != "" {
		return end
	}
	beat := time.NewTicker(f.h.heartbeat)
	defer beat.Stop()
	for {
		var ready <-chan struct{}
		var paused <-chan time.Time
		if f.next == nil {
			end, pause := f.catchUp(ctx)
			if end != "" {
				return end
			}
			paused = time.After(pause)
		}
		if f.next != nil {
			ready, paused = f.next.ready, nil
		}
		select {
		case <-ctx.Done():
			end = endGone
		case <-f.h.followers.stopped:
			retry := reconnectAfter + rand.N(reconnectSpread)
			_ = f.send(fmt.Appendf(nil, ": the server stops\nretry: %d\n\n", retry.Milliseconds()))
			end = endStopped
		case <-paused:
		case <-beat.C:
			end = f.sendHeartbeat()
		case <-ready:
			end = f.sendChunk()
		}
		if end != "" {
			return end
		}
	}
}

// sendHeartbeat sends a comment, with a new position if the feed has moved: positions expire even
// if a list hardly changes.
func (f *follower) sendHeartbeat() (end string) {
	text := []byte(":\n\n")
	if f.next != nil {
		if pos, event, moved := f.h.followers.heartbeatPosition(f.shared, f.next, f.pos); moved {
			f.pos, text = pos, event
		}
	}
	return f.send(text)
}

// sendChunk sends the chunk that is ready.
func (f *follower) sendChunk() (end string) {
	c := f.next.content.Load()
	if c == nil {
		_ = f.send([]byte(": too slow: connect again with Last-Event-ID\n\n"))
		return endSlow
	}
	end = f.send(c.eventsAfter(f.pos))
	f.next = f.next.next
	if c.reset || c.through.Change > f.pos.Change {
		f.pos = c.through
	}
	return end
}

// send sends within followerWriteTimeout.
func (f *follower) send(text []byte) (end string) {
	if len(text) == 0 {
		return ""
	}
	late := time.Now().Add(followerWriteTimeout)
	err := f.out.send(text, late)
	switch {
	case err == nil:
		return ""
	case time.Now().Before(late):
		return endGone
	}
	return endSlow
}

// eventWriter writes to a follower's connection.
type eventWriter interface {
	// send sends text before the deadline.
	send(text []byte, deadline time.Time) error
}

// responseWriter writes to a response that stays open (HTTP/2).
type responseWriter struct {
	w   http.ResponseWriter
	out *http.ResponseController
}

func (a responseWriter) send(text []byte, deadline time.Time) error {
	_ = a.out.SetWriteDeadline(deadline)
	_, err := a.w.Write(text)
	if err == nil {
		err = a.out.Flush()
	}
	_ = a.out.SetWriteDeadline(time.Time{}) // else it would end an idle connection
	return err
}

// connWriter writes to a connection that was taken over from the server (HTTP/1).
type connWriter struct{ net.Conn }

func (c connWriter) send(text []byte, deadline time.Time) error {
	_ = c.SetWriteDeadline(deadline)
	_, err := c.Write(text)
	return err
}

// connectFollower turns a request into a follower's connection. An HTTP/1 connection is taken over
// from the server, whose buffers need 10 KB per connection, and closed after the last event.
func (h *Handler) connectFollower(w *recorder, r *http.Request, f *follower, opened func()) {
	head := w.Header()
	head.Set("Content-Type", "text/event-stream")
	head.Set("Cache-Control", "no-store")
	head.Set("X-Accel-Buffering", "no") // for nginx and other proxies
	out := http.NewResponseController(w)
	w.status = http.StatusOK
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		f.dropUnsent()
		h.followers.leave(f.shared)
		return
	}
	conn, _, err := out.Hijack()
	opened()
	if err == nil {
		var text bytes.Buffer
		head.Set("Connection", "close")
		head.Set("Date", time.Now().UTC().Format(http.TimeFormat))
		text.WriteString("HTTP/1.1 200 OK\r\n")
		_ = head.Write(&text) // writing to a buffer never fails
		text.WriteString("\r\n")
		go h.serveConn(conn, f, text.String())
		return
	}
	// The server's timeouts are for answers that end. Writers in tests may not support deadlines.
	_ = out.SetReadDeadline(time.Time{})
	_ = out.SetWriteDeadline(time.Time{})
	w.WriteHeader(http.StatusOK)
	f.out = responseWriter{w, out}
	h.serveFollower(r.Context(), f, "")
}

// serveConn serves a follower until either side ends the connection.
func (h *Handler) serveConn(conn net.Conn, f *follower, head string) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Time{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // until the connection is closed
		defer cancel()
		for ignored := make([]byte, 16); ; {
			if _, err := conn.Read(ignored); err != nil {
				return
			}
		}
	}()
	f.out = connWriter{conn}
	h.serveFollower(ctx, f, head)
}

func (h *Handler) serveFollower(ctx context.Context, f *follower, head string) {
	end := endFailed
	defer func() {
		if v := recover(); v != nil {
			h.logger.Error("serving a follower failed", "err", fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
		}
		f.dropUnsent()
		h.metrics.followersEnded.WithLabelValues(end).Inc()
		h.followers.leave(f.shared)
	}()
	end = f.serve(ctx, head)
}

// RunFollowers reads the change feed for the clients of /v1/stream until ctx ends, and then
// disconnects them. Call it once.
func (h *Handler) RunFollowers(ctx context.Context) { h.followers.run(ctx) }

// changeEvent encodes a change as an event, with the same JSON as in /v1/changes.
func (h *Handler) changeEvent(c query.Change, list postList) encodedEvent {
	j := h.newChangeJSON(c, list)
	b := append(append([]byte("event: "), j.Op...), "\nid: "...)
	b = append(append(b, j.Cursor...), "\ndata: "...)
	from := len(b)
	b = j.appendJSON(b)
	for i := from; i < len(b); i++ { // a line break between tokens of a record would end the event's data
		if b[i] == '\n' || b[i] == '\r' {
			b[i] = ' '
		}
	}
	return encodedEvent{append(b, "\n\n"...), c.Through}
}

// resetEvent tells a follower to read everything again, and then follow from a position.
func (h *Handler) resetEvent(p query.FeedPosition, list postList) []byte {
	token := h.changeToken(p, list)
	return fmt.Appendf(nil, "event: %s\nid: %s\ndata: {\"op\":%q,\"cursor\":%q}\n\n", eventReset, token, eventReset, token)
}

// positionEvent moves a follower's Last-Event-ID; nothing is dispatched.
func (h *Handler) positionEvent(p query.FeedPosition, list postList) []byte {
	return fmt.Appendf(nil, ":\nid: %s\n\n", h.changeToken(p, list))
}
