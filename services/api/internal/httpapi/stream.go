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
	// streamBeat is the time between two comments on a quiet connection, which keep proxies from
	// closing it and show each end that the other is there.
	streamBeat = 15 * time.Second
	// streamWriteTimeout bounds each write to a follower.
	streamWriteTimeout = 10 * time.Second
	// streamRetry is how long a follower waits before it reconnects. Followers that a stopping server
	// disconnects wait up to streamSpread longer, so that they do not all return at once.
	streamRetry  = 3 * time.Second
	streamSpread = 7 * time.Second
	// positionAge bounds the age of the position sent with a heartbeat, which followers of one list
	// share.
	positionAge = streamBeat / 3
	// streamPause is the time between two reads of a follower that is still behind the others, and
	// streamAway the pause after a failed read.
	streamPause = 250 * time.Millisecond
	streamAway  = 2 * time.Second
	// maxCatchingUp bounds the unsent bytes of all followers that are catching up.
	maxCatchingUp = 32 << 20
	// catchUpLimit is how many changes a follower that is catching up reads at once: each follower
	// holds its own copy.
	catchUpLimit = 20
)

// streamParams are the parameters of a list, and the position to continue from.
var streamParams = params{
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

var streamEnds = []string{endGone, endSlow, endStopped, endFailed}

// openStream is /v1/stream: /v1/changes, pushed.
func (h *Handler) openStream(r *http.Request) (*response, error) {
	q, err := parseQuery(r.URL.RawQuery, streamParams)
	if err != nil {
		return nil, err
	}
	list, err := newPostList(q)
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
	s := &stream{h: h, list: list}
	if s.shared, err = h.followers.enter(list); err != nil {
		return nil, err
	}
	if err := s.read(r.Context(), cq); err != nil {
		h.followers.leave(s.shared)
		return nil, err
	}
	return &response{stream: s}, nil
}

// stream is one follower's connection.
type stream struct {
	h      *Handler
	list   postList
	shared *followedList
	// pos is the follower's position after unsent is sent. more reports that the feed has more.
	pos    query.FeedPosition
	more   bool
	unsent []byte
	// next is the batch that the follower waits for, nil while it is catching up.
	next *batch

	out eventWriter
}

// read reads the changes after a position for this follower alone, and joins the others at the end
// of the feed. An expired position gives a reset. An error leaves the stream as it was.
func (s *stream) read(ctx context.Context, cq query.ChangeQuery) error {
	page, err := s.h.index.Changes(ctx, cq)
	var expired *query.Expired
	var text []byte
	switch {
	case errors.As(err, &expired):
		s.h.metrics.expired(err)
		page.Next, text = expired.Now, s.h.resetEvent(expired.Now, s.list)
	case err != nil:
		return err
	case cq.After == nil: // so that a connection that breaks before the first change loses nothing
		text = s.h.positionEvent(page.Next, s.list)
	default:
		s.h.metrics.changes(page)
		for _, c := range page.Changes {
			text = append(text, s.h.changeEvent(c, s.list).text...)
		}
	}
	if !s.h.catchUps.take(int64(len(text))) {
		return errOverloaded
	}
	s.pos, s.more, s.unsent = page.Next, page.HasNext, text
	if !s.more {
		s.next = s.h.followers.join(s.shared, s.pos)
	}
	return nil
}

// flush sends what read has left unsent.
func (s *stream) flush(prefix string) (end string) {
	defer s.drop()
	return s.send(append([]byte(prefix), s.unsent...))
}

// drop returns what read took from the budget.
func (s *stream) drop() {
	s.h.catchUps.used.Add(-int64(len(s.unsent)))
	s.unsent = nil
}

// catchUp reads and sends for this follower alone. The caller pauses before the next call.
func (s *stream) catchUp(ctx context.Context) (end string, pause time.Duration) {
	select {
	case s.h.catchingUp <- struct{}{}:
	case <-ctx.Done():
		return endGone, 0
	}
	reading, cancel := context.WithTimeout(ctx, requestTimeout)
	err := s.read(reading, query.ChangeQuery{List: s.list.query, After: &s.pos, Limit: catchUpLimit})
	cancel()
	<-s.h.catchingUp
	var p *problem
	switch {
	case err == nil:
		end = s.flush("")
	case ctx.Err() != nil:
		return endGone, 0
	case errors.As(err, &p), store.Unavailable(err):
		return "", streamAway
	default:
		s.h.logFailure(routeStream, problemOf(err), err)
		return endFailed, 0
	}
	if s.more {
		return end, 0
	}
	return end, streamPause
}

// serve sends until the follower leaves or is dropped, and returns why.
func (s *stream) serve(ctx context.Context, head string) (end string) {
	if end := s.flush(fmt.Sprintf("%sretry: %d\n\n", head, streamRetry.Milliseconds())); end != "" {
		return end
	}
	beat := time.NewTicker(s.h.streamBeat)
	defer beat.Stop()
	for {
		var ready <-chan struct{}
		var paused <-chan time.Time
		if s.next == nil {
			end, pause := s.catchUp(ctx)
			if end != "" {
				return end
			}
			paused = time.After(pause)
		}
		if s.next != nil {
			ready, paused = s.next.ready, nil
		}
		select {
		case <-ctx.Done():
			end = endGone
		case <-s.h.followers.stopped:
			retry := streamRetry + rand.N(streamSpread)
			_ = s.send(fmt.Appendf(nil, ": the server stops\nretry: %d\n\n", retry.Milliseconds()))
			end = endStopped
		case <-paused:
		case <-beat.C:
			end = s.beat()
		case <-ready:
			end = s.take()
		}
		if end != "" {
			return end
		}
	}
}

// beat sends a comment, with a new position if the feed has moved: positions expire even if a list
// hardly changes.
func (s *stream) beat() (end string) {
	text := []byte(":\n\n")
	if s.next != nil {
		if pos, event, moved := s.h.followers.position(s.shared, s.next, s.pos); moved {
			s.pos, text = pos, event
		}
	}
	return s.send(text)
}

// take sends the batch that is ready.
func (s *stream) take() (end string) {
	c := s.next.content.Load()
	if c == nil {
		_ = s.send([]byte(": too slow: connect again with Last-Event-ID\n\n"))
		return endSlow
	}
	end = s.send(c.eventsAfter(s.pos))
	s.next = s.next.next
	if c.reset || c.through.Change > s.pos.Change {
		s.pos = c.through
	}
	return end
}

// send sends within streamWriteTimeout.
func (s *stream) send(text []byte) (end string) {
	if len(text) == 0 {
		return ""
	}
	late := time.Now().Add(streamWriteTimeout)
	err := s.out.send(text, late)
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

// push turns a request into a follower's connection. An HTTP/1 connection is taken over from the
// server, whose buffers need 10 KB per connection, and closed after the last event.
func (h *Handler) push(w *recorder, r *http.Request, s *stream, opened func()) {
	head := w.Header()
	head.Set("Content-Type", "text/event-stream")
	head.Set("Cache-Control", "no-store")
	head.Set("X-Accel-Buffering", "no") // for nginx and other proxies
	out := http.NewResponseController(w)
	w.status = http.StatusOK
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		s.drop()
		h.followers.leave(s.shared)
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
		go h.serveConn(conn, s, text.String())
		return
	}
	// The server's timeouts are for answers that end. Writers in tests may not support deadlines.
	_ = out.SetReadDeadline(time.Time{})
	_ = out.SetWriteDeadline(time.Time{})
	w.WriteHeader(http.StatusOK)
	s.out = responseWriter{w, out}
	h.serveFollower(r.Context(), s, "")
}

// serveConn serves a follower until either side ends the connection.
func (h *Handler) serveConn(conn net.Conn, s *stream, head string) {
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
	s.out = connWriter{conn}
	h.serveFollower(ctx, s, head)
}

func (h *Handler) serveFollower(ctx context.Context, s *stream, head string) {
	end := endFailed
	defer func() {
		if v := recover(); v != nil {
			h.logger.Error("serving a follower failed", "err", fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
		}
		s.drop()
		h.metrics.followersEnded.WithLabelValues(end).Inc()
		h.followers.leave(s.shared)
	}()
	end = s.serve(ctx, head)
}

// Follow reads the change feed for the clients of /v1/stream until ctx ends, and then disconnects
// them. Call it once.
func (h *Handler) Follow(ctx context.Context) { h.followers.run(ctx) }

// changeEvent encodes a change as an event, with the same JSON as in /v1/changes.
func (h *Handler) changeEvent(c query.Change, list postList) pushed {
	j := h.change(c, list)
	b := append(append([]byte("event: "), j.Op...), "\nid: "...)
	b = append(append(b, j.Cursor...), "\ndata: "...)
	from := len(b)
	b = j.appendJSON(b)
	for i := from; i < len(b); i++ { // a line break between tokens of a record would end the event's data
		if b[i] == '\n' || b[i] == '\r' {
			b[i] = ' '
		}
	}
	return pushed{append(b, "\n\n"...), c.Through}
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
