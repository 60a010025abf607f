package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// eventWait bounds the wait for an event.
const eventWait = 20 * time.Second

// serverTimeout is the timeout of a server for ordinary answers, in tests of streams.
const serverTimeout = 5 * time.Second

// sse is a connection of /v1/stream, read like an EventSource.
type sse struct {
	header http.Header
	lines  chan string
	close  func()
	lastID string
	retry  string
}

// sseEvent is an event that was dispatched.
type sseEvent struct{ name, data string }

func (s *served) follow(t testing.TB, query string, headers ...string) *sse {
	t.Helper()
	return openSSE(t, http.DefaultTransport, s.url+"/v1/stream?"+query, headers...)
}

func openSSE(t testing.TB, via http.RoundTripper, url string, headers ...string) *sse {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := via.RoundTrip(req)
	require.NoError(t, err)
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(res.Body)
		require.Fail(t, res.Status, "%s", body)
	}
	e := &sse{header: res.Header, lines: make(chan string), close: func() { cancel(); _ = res.Body.Close() }}
	t.Cleanup(e.close)
	go func() {
		defer close(e.lines)
		for in := bufio.NewReader(res.Body); ; {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			select {
			case e.lines <- strings.TrimSuffix(line, "\n"):
			case <-ctx.Done():
				return
			}
		}
	}()
	return e
}

// next returns the next event; ok is false at the end. A comment that is not empty counts as an
// event.
func (e *sse) next(t testing.TB) (got sseEvent, ok bool) {
	t.Helper()
	late := time.After(eventWait)
	id := e.lastID
	for {
		select {
		case line, more := <-e.lines:
			if !more {
				return got, false
			}
			field, value, _ := strings.Cut(line, ":")
			value = strings.TrimPrefix(value, " ")
			switch field {
			case "event":
				got.name = value
			case "data":
				got.data += value
			case "id":
				id = value
			case "retry":
				e.retry = value
			case "":
				if line != "" {
					if value != "" {
						return sseEvent{data: value}, true
					}
					continue
				}
				e.lastID = id
				if got.data != "" {
					return got, true
				}
				got = sseEvent{}
			default:
				require.Fail(t, "invalid line", line)
			}
		case <-late:
			require.Fail(t, "no event")
		}
	}
}

// ops returns the next n events in short, like changesJSON.ops.
func (e *sse) ops(t testing.TB, n int) (out []string) {
	t.Helper()
	for range n {
		got, ok := e.next(t)
		require.True(t, ok, "the connection ended after %v", out)
		if got.name == eventReset {
			out = append(out, eventReset)
			continue
		}
		var c changeJSON
		require.NoError(t, json.Unmarshal([]byte(got.data), &c), got.data)
		require.Equal(t, c.Op, got.name)
		require.Equal(t, c.Cursor, e.lastID)
		out = append(out, changesJSON{Changes: []changeJSON{c}}.ops()...)
	}
	return out
}

// position returns the next position, with or without an event.
func (e *sse) position(t testing.TB) string {
	t.Helper()
	late := time.After(eventWait)
	for {
		select {
		case line, more := <-e.lines:
			require.True(t, more, "the connection ended")
			if id, is := strings.CutPrefix(line, "id: "); is {
				return id
			}
		case <-late:
			require.Fail(t, "no position")
		}
	}
}

func (s *served) awaitFollowers(t testing.TB, n int) {
	t.Helper()
	poll.Until(t, eventWait, func() (bool, string) {
		got := testutil.ToFloat64(s.handler.metrics.followers)
		return int(got) == n, "followers"
	})
}

// TestStream: the changes of /v1/changes are pushed in the same order and format, and a follower
// whose connection broke resumes at its position.
func TestStream(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	old := x.add(t, "old", t0, "art")
	s := serve(t, x.open(t))
	art, photo := s.follow(t, "tags=art"), s.follow(t, "tags=photo&none=ink")
	require.Equal(t, "text/event-stream", art.header.Get("Content-Type"))
	require.Equal(t, "no", art.header.Get("X-Accel-Buffering"))
	require.Equal(t, "*", art.header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, "no-store", art.header.Get("Cache-Control"))
	s.awaitFollowers(t, 2)
	start := s.changes(t, "tags=art").Page.Next

	late := x.add(t, "late", t0.Add(-24*time.Hour), "art")
	x.add(t, "other", t0, "photo")
	x.add(t, "inked", t0, "photo", "ink")
	require.Equal(t, []string{"+late"}, art.ops(t, 1))
	require.Equal(t, "3000", art.retry)
	x.remove(t, old)
	require.Equal(t, []string{"-old"}, art.ops(t, 1))
	x.add(t, "second", t0, "photo", "art")
	require.Equal(t, []string{"+second"}, art.ops(t, 1))
	require.Equal(t, []string{"+other", "+second"}, photo.ops(t, 2), "no changes of other lists")

	// Followers resume by the header or the parameter. The header wins, since browsers keep the
	// URL.
	first := s.changes(t, "tags=art&limit=1&after="+start).Page.Next
	for _, again := range []*sse{
		s.follow(t, "tags=art&after="+start), s.follow(t, "tags=art", "Last-Event-ID", start), s.follow(t, "tags=art&after="+art.lastID, "Last-Event-ID", start),
	} {
		require.Equal(t, []string{"+late", "-old", "+second"}, again.ops(t, 3))
	}
	require.Equal(t, []string{"-old", "+second"}, s.follow(t, "tags=%23Art&after="+first).ops(t, 2))
	x.remove(t, late)
	require.Equal(t, []string{"-late"}, art.ops(t, 1))

	// A follower resumes from the position sent before the first change.
	ink := s.follow(t, "tags=ink")
	id := ink.position(t)
	ink.close()
	x.add(t, "missed", t0, "ink")
	require.Equal(t, []string{"+missed"}, s.follow(t, "tags=ink", "Last-Event-ID", id).ops(t, 1))

	for _, c := range []struct {
		query string
		want  code
	}{
		{"after=" + start, codeMissingTags},
		{"tags=art&limit=10", codeUnknownParameter},
		{"tags=photo&after=" + start, codeCursorMismatch},
		{"tags=art&after=x" + start, codeInvalidCursor},
	} {
		s.get(t, "/v1/stream?"+c.query).requireProblem(t, c.want)
	}
	head, err := http.Head(s.url + "/v1/stream?tags=art")
	require.NoError(t, err)
	require.NoError(t, head.Body.Close())
	require.Equal(t, http.StatusOK, head.StatusCode)
}

// TestStreamPositions: a follower of an unchanged list gets new positions, so that its position
// does not expire. No follower gets a position past changes that it has not received.
func TestStreamPositions(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	s := serve(t, x.open(t))
	s.handler.heartbeat, s.handler.followers.positionAge = 20*time.Millisecond, 0
	silent, also := s.follow(t, "tags=art"), s.follow(t, "tags=art")
	start := silent.position(t)
	require.NotEmpty(t, also.position(t))
	x.add(t, "other", t0, "photo")
	moved := silent.position(t)
	require.Equal(t, moved, also.position(t), "all followers of a list get one position")

	pool := pgtest.Pool(t, x.db.URL)
	_, err := pool.Exec(t.Context(), "UPDATE tagstream.changes SET at = at - interval '8 days'")
	require.NoError(t, err)
	_, _, err = x.writer.PruneChanges(t.Context(), 7*24*time.Hour, 1000)
	require.NoError(t, err)
	require.Equal(t, []string{eventReset}, s.follow(t, "tags=art", "Last-Event-ID", start).ops(t, 1))
	resumed := s.follow(t, "tags=art", "Last-Event-ID", moved)
	one := x.add(t, "one", t0, "art")
	for _, e := range []*sse{silent, also, resumed} {
		require.Equal(t, []string{"+one"}, e.ops(t, 1))
	}
	x.remove(t, one)
	require.Equal(t, []string{"-one"}, silent.ops(t, 1))

	// Another run of the indexer, in which the list does not change.
	_, err = x.writer.Acquire(t.Context())
	require.NoError(t, err)
	x.add(t, "another", t0, "photo")
	moved = silent.position(t)
	x.add(t, "two", t0, "art")
	require.Equal(t, []string{"+two"}, s.follow(t, "tags=art", "Last-Event-ID", moved).ops(t, 1))
}

// TestStreamReset: a follower whose position has expired, before it connects or later, gets a
// reset, and then the changes after the position of the reset.
func TestStreamReset(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	s := serve(t, x.open(t))
	start := s.changes(t, "tags=art").Page.Next
	live := s.follow(t, "tags=art")
	x.add(t, "one", t0, "art")
	require.Equal(t, []string{"+one"}, live.ops(t, 1))
	pool := pgtest.Pool(t, x.db.URL)
	_, err := pool.Exec(t.Context(), "UPDATE tagstream.changes SET at = at - interval '8 days'")
	require.NoError(t, err)
	_, _, err = x.writer.PruneChanges(t.Context(), 7*24*time.Hour, 1000)
	require.NoError(t, err)
	away := s.follow(t, "tags=art&after="+start)
	require.Equal(t, []string{eventReset}, away.ops(t, 1))
	s.get(t, "/v1/changes?tags=art&after="+start).requireProblem(t, codeCursorExpired)

	x.add(t, "two", t0, "art")
	require.Equal(t, []string{"+two"}, away.ops(t, 1))
	require.Equal(t, []string{"+two"}, live.ops(t, 1))
	// The index is replaced by another, whose feed does not have these positions.
	for _, sql := range []string{"DELETE FROM tagstream.change_runs", "INSERT INTO tagstream.change_runs (id, begun) VALUES (77, 2)"} {
		_, err = pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	require.Equal(t, []string{eventReset}, live.ops(t, 1))
	require.Equal(t, []string{eventReset}, away.ops(t, 1))
	x.add(t, "three", t0, "art")
	require.Equal(t, []string{"+three"}, live.ops(t, 1))
	resumed := s.follow(t, "tags=art", "Last-Event-ID", away.lastID)
	require.Equal(t, []string{"+three"}, resumed.ops(t, 1))
	require.EqualValues(t, 2, testutil.ToFloat64(s.handler.metrics.feedExpired.WithLabelValues("pruned")))
	require.EqualValues(t, 1, testutil.ToFloat64(s.handler.metrics.feedExpired.WithLabelValues("replaced")))
}

// TestStreamBounds: connections and lists are bounded, and a slot is free again once a follower
// leaves.
func TestStreamBounds(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	s := serve(t, x.open(t), func(c *Config) { c.MaxFollowers = 2 })
	one := s.follow(t, "tags=art")
	s.follow(t, "tags=art")
	s.get(t, "/v1/stream?tags=art").requireProblem(t, codeOverloaded)
	one.close()
	s.awaitFollowers(t, 1)
	s.follow(t, "tags=photo")
	require.EqualValues(t, 2, testutil.ToFloat64(s.handler.metrics.followedLists))
}

// TestSlowFollower: a follower that does not read is dropped, since its unsent events take memory.
// Other followers of the list are not affected.
func TestSlowFollower(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	s := serve(t, x.open(t))
	slow, quick := s.follow(t, "tags=art"), s.follow(t, "tags=art")
	poll.Until(t, eventWait, func() (bool, string) {
		s.handler.followers.mu.Lock()
		defer s.handler.followers.mu.Unlock()
		return s.handler.followers.count == 2, "followers"
	})
	slowEnded := func() bool {
		return testutil.ToFloat64(s.handler.metrics.followersEnded.WithLabelValues(endSlow)) == 1
	}
	for i := range 400 {
		if slowEnded() {
			break
		}
		uri, c := x.newPost(strings.Repeat("r", 1+i), t0, "art")
		c.New.Record = []byte(`{"text":"` + strings.Repeat("x", 300<<10) + `"}`)
		x.posts[uri] = c.New
		x.write(t, c)
		got, ok := quick.next(t)
		require.True(t, ok)
		require.Equal(t, opUpsert, got.name)
	}
	poll.Until(t, eventWait, func() (bool, string) { return slowEnded(), "the slow follower is dropped" })
	s.handler.followers.mu.Lock()
	require.LessOrEqual(t, s.handler.followers.unsent, maxUnsent)
	s.handler.followers.mu.Unlock()
	slow.close()
}

// TestStreamEnds: when the server stops, each follower is sent a time to reconnect, and its
// connection ends. New followers get 503.
func TestStreamEnds(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	h, _ := newHandler(t, x.open(t))
	srv := httptest.NewUnstartedServer(h)
	srv.Config.WriteTimeout, srv.Config.ReadTimeout = serverTimeout, serverTimeout
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); h.RunFollowers(ctx) }()
	start := time.Now()
	var all []*sse
	for _, two := range []bool{true, false} {
		transport := &http.Transport{TLSClientConfig: srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone(), ForceAttemptHTTP2: two}
		if !two {
			transport.TLSClientConfig.NextProtos = []string{"http/1.1"}
		}
		t.Cleanup(transport.CloseIdleConnections)
		all = append(all, openSSE(t, transport, srv.URL+"/v1/stream?tags=art"))
	}
	// Longer than the timeouts of ordinary answers.
	for i := 0; time.Since(start) < serverTimeout*3/2; i++ {
		<-time.After(serverTimeout / 20)
		rkey := fmt.Sprint("post", i)
		x.add(t, rkey, t0, "art")
		for _, e := range all {
			require.Equal(t, []string{"+" + rkey}, e.ops(t, 1))
		}
	}
	stop()
	<-ended
	for _, e := range all {
		got, ok := e.next(t)
		require.True(t, ok)
		require.Equal(t, "the server stops", got.data)
		_, ok = e.next(t)
		require.False(t, ok)
		require.NotEqual(t, "3000", e.retry, "%v", e.header)
	}
	res, err := srv.Client().Get(srv.URL + "/v1/stream?tags=art")
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
}

// A chunk has one event for a post that changed several times, at the position of the first change.
// A follower that joins after that position still gets the event if it has not seen the last
// change.
func TestJoiningFollowers(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	h, _ := newHandler(t, x.open(t))
	f := h.followers
	list, err := parsePostList(values{{"tags", "art"}})
	require.NoError(t, err)
	l, err := f.enter(list)
	require.NoError(t, err)
	now := func() query.FeedPosition {
		page, err := h.index.Changes(t.Context(), query.ChangeQuery{List: list.query, Limit: 1})
		require.NoError(t, err)
		return page.Next
	}
	start := now()
	next := f.join(l, start)
	uri := x.add(t, "one", t0, "art")
	created := now()
	require.Same(t, next, f.join(l, created))
	before := x.posts[uri]
	edited := *before
	edited.CID, edited.Rev = "bafyedited", before.Rev+"a"
	x.write(t, write.PostChange{Old: before, New: &edited, OldVisible: true, NewVisible: true})
	changed := now()
	require.Nil(t, f.read(t.Context(), l))
	<-next.ready
	for _, pos := range []query.FeedPosition{start, created} {
		require.Contains(t, string(next.content.Load().eventsAfter(pos)), edited.CID)
	}
	require.Empty(t, next.content.Load().eventsAfter(changed))
	require.Nil(t, f.join(l, created), "the other followers are ahead")
	require.Same(t, next.next, f.join(l, changed))
	at, event, moved := f.heartbeatPosition(l, next.next, start)
	require.True(t, moved)
	require.Equal(t, changed, at)
	require.Equal(t, h.positionEvent(changed, list), event)
	_, _, moved = f.heartbeatPosition(l, next, start)
	require.False(t, moved, "a follower that has not taken the chunk is not moved past it")
	_, _, moved = f.heartbeatPosition(l, next.next, changed)
	require.False(t, moved, "the follower is at the position already")
}
