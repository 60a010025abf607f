package firehose

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/jcalabro/atmos"

	"github.com/tagstream/tagstream/pkg/event"
)

// fakeHost is a Jetstream host with scripted failures. It answers cursors like the real server
// v0.2.0 (internal/subscribe/cursor.go).
type fakeHost struct {
	t   *testing.T
	srv *httptest.Server
	mux *http.ServeMux

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when something below changes
	events  []fakeEvent
	floor   uint64           // sequence numbers below are CursorTooOld
	active  uint64           // if not 0, times are searched from this number on
	sealed  uint64           // the archive according to planSnapshot
	plan    string           // the segments in that answer, as JSON
	planner http.HandlerFunc // answers instead, if set
	planned int              // number of requests for it
	pages   []string
	status  int  // if set, the status of all answers
	hung    bool // neither accepts nor refuses
	epoch   int  // connections from an earlier epoch receive no events
	cut     int  // connections that are cut before their first event
	dials   []url.Values
	conns   map[*websocket.Conn]struct{}
}

type fakeEvent struct {
	seq  uint64
	time time.Time // when the host witnessed it, by its clock
	raw  string    // sent unchanged instead, if set
	// made is when its account's server made it; zero means time.
	made  time.Time
	did   string    // "" means did:plc:a
	op    string    // of the commit, or sync; "" means delete
	shown time.Time // the imported time; zero means time
}

func newFakeHost(t *testing.T) *fakeHost {
	t.Helper()
	h := &fakeHost{t: t, changed: make(chan struct{}), conns: map[*websocket.Conn]struct{}{}}
	mux := http.NewServeMux()
	h.mux = mux
	mux.HandleFunc(subscribePath, h.subscribe)
	mux.HandleFunc(listSegmentsPath, h.listSegments)
	mux.HandleFunc("/xrpc/network.bsky.jetstream.planSnapshot", h.planSnapshot)
	h.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		status, hung := h.status, h.hung
		h.mu.Unlock()
		if hung {
			<-r.Context().Done()
			return
		}
		if status != 0 {
			http.Error(w, "scripted", status)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		h.change(func() {
			for c := range h.conns {
				_ = c.CloseNow()
			}
		})
		h.srv.CloseClientConnections()
		h.srv.Close()
	})
	return h
}

// change changes the host's state and wakes its connections.
func (h *fakeHost) change(fn func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fn()
	close(h.changed)
	h.changed = make(chan struct{})
}

// emit adds events with the given sequence numbers, one second apart from t on.
func (h *fakeHost) emit(t time.Time, seqs ...uint64) {
	h.change(func() {
		for i, seq := range seqs {
			h.events = append(h.events, fakeEvent{seq: seq, time: t.Add(time.Duration(i) * time.Second)})
		}
	})
}

// cutAll ends all websockets.
func (h *fakeHost) cutAll() {
	h.change(func() {
		for c := range h.conns {
			_ = c.CloseNow()
		}
	})
}

func (h *fakeHost) dialed() []url.Values {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.dials)
}

func (h *fakeHost) planSnapshot(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.planned++
	if h.planner != nil {
		h.planner(w, r)
		return
	}
	plan := h.plan
	if plan == "" {
		plan = "[]"
	}
	fmt.Fprintf(w, `{"segments":%s,"plannedThroughSeq":%d,"sealedTipSeq":%d,"stats":{}}`, plan, h.sealed, h.sealed)
}

// listSegments answers with pages[0], then pages[1], by cursor.
func (h *fakeHost) listSegments(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	next := ""
	if n+1 < len(h.pages) {
		next = fmt.Sprintf(`,"cursor":"%d"`, n+1)
	}
	page := "[]"
	if n < len(h.pages) {
		page = h.pages[n]
	}
	fmt.Fprintf(w, `{"segments":%s%s}`, page, next)
}

func (h *fakeHost) subscribe(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	h.mu.Lock()
	h.dials = append(h.dials, q)
	epoch, outdated := h.epoch, false
	next := h.tip() + 1
	if q.Has("cursor") {
		cursor, err := strconv.ParseUint(q.Get("cursor"), 10, 64)
		if err != nil {
			h.t.Errorf("cursor %q: %v", q.Get("cursor"), err)
		}
		switch {
		case cursor >= minTimeCursor:
			for _, e := range h.events {
				if e.time.UnixMicro() >= int64(cursor) {
					next = e.seq
					break
				}
			}
			if h.active > 0 {
				next = min(next, h.active)
			}
			if outdated = next <= h.floor; outdated {
				next = h.floor
			}
		case cursor > h.tip(): // the trap: silently start at the tip
		case cursor < h.floor:
			h.mu.Unlock()
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"CursorTooOld","message":"scripted"}`)
			return
		default:
			next = cursor
		}
	}
	cut := h.cut > 0
	if cut {
		h.cut--
	}
	h.mu.Unlock()

	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{subprotocol}})
	if err != nil {
		return
	}
	defer func() { _ = conn.CloseNow() }()
	if cut {
		return
	}
	h.change(func() { h.conns[conn] = struct{}{} })
	defer h.change(func() { delete(h.conns, conn) })
	ctx := conn.CloseRead(r.Context())
	if outdated {
		h.send(ctx, conn, `{"$type":"network.bsky.jetstream.subscribeEvents#info","name":"OutdatedCursor"}`)
	}
	for {
		h.mu.Lock()
		changed := h.changed
		var due []fakeEvent
		if epoch == h.epoch {
			for _, e := range h.events {
				if e.seq >= next {
					due = append(due, e)
				}
			}
		}
		h.mu.Unlock()
		for _, e := range due {
			next = e.seq + 1
			payload := e.raw
			if payload == "" {
				payload = e.frame()
			}
			if !h.send(ctx, conn, payload) {
				return
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// tip returns the last sequence number; the caller holds mu.
func (h *fakeHost) tip() uint64 {
	if len(h.events) == 0 {
		return 0
	}
	return h.events[len(h.events)-1].seq
}

func (h *fakeHost) send(ctx context.Context, conn *websocket.Conn, payload string) bool {
	return conn.Write(ctx, websocket.MessageText, []byte(`{"$type":"message","payload":`+payload+`}`)) == nil
}

// frame returns an account event or, if made is set, a commit.
func (e fakeEvent) frame() string {
	text := func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }
	at := text(e.time)
	if !e.shown.IsZero() {
		at = text(e.shown)
	}
	did := cmp.Or(e.did, "did:plc:a")
	payload := map[string]any{
		"$type": "network.bsky.jetstream.subscribeEvents#account", "seq": e.seq, "time": at, "did": did,
		"account": map[string]any{"did": did, "active": true, "seq": 1, "time": text(e.time)},
	}
	if !e.made.IsZero() {
		payload = map[string]any{
			"$type": "network.bsky.jetstream.subscribeEvents#commit", "seq": e.seq, "time": at, "did": did, "rev": revOf(e.made),
			"operation": cmp.Or(e.op, "delete"), "collection": event.Collection, "rkey": "a",
		}
		if e.op == "sync" {
			payload = map[string]any{
				"$type": "network.bsky.jetstream.subscribeEvents#sync", "seq": e.seq, "time": at, "did": did,
				"sync": map[string]any{"did": did, "rev": revOf(e.made), "seq": 1, "time": at},
			}
		}
		if e.op == "create" {
			payload["cid"], payload["record"] = "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", map[string]any{"$type": event.Collection, "text": "a"}
		}
	}
	data, err := json.Marshal(payload)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// revOf returns the revision of a commit made at t.
func revOf(t time.Time) string { return atmos.NewTID(t.UnixMicro(), 0).String() }

// session is a running reader and its events.
type session struct {
	t       *testing.T
	cancel  context.CancelFunc
	done    chan error
	mu      sync.Mutex
	events  []string // "host:seq"
	batches []Batch
	late    time.Time
	notices []Notice
	changed chan struct{}
}

// By default, how far back reading begins on another host, and how much earlier than a place a host
// is searched for it.
const (
	switchMargin = time.Minute
	seekSlack    = switchMargin / 2
)

// impatient has short time limits for tests.
func impatient() Timing {
	return Timing{
		Dial: time.Second, Verify: 300 * time.Millisecond, Quiet: 500 * time.Millisecond, QuietAlone: 5 * time.Second,
		Tick: 10 * time.Millisecond, Idle: 200 * time.Millisecond, Troubled: 400 * time.Millisecond,
		Ask: 100 * time.Millisecond, Settle: 50 * time.Millisecond,
		Gap:        300 * time.Millisecond,
		BackoffMin: 10 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
	}
}

// read starts a reader on the hosts, named a, b, c in events.
func read(t *testing.T, from event.Position, cfg Config, hosts ...*fakeHost) *session {
	t.Helper()
	names := map[string]string{}
	for i, h := range hosts {
		cfg.Hosts = append(cfg.Hosts, h.srv.URL)
		names[h.srv.URL] = string(rune('a' + i))
	}
	if cfg.Timing == (Timing{}) {
		cfg.Timing = impatient()
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &session{t: t, cancel: cancel, done: make(chan error, 1), changed: make(chan struct{}, 1)}
	r := New(cfg, slog.New(slog.DiscardHandler))
	r.OnNotice = func(n Notice) {
		s.mu.Lock()
		defer s.mu.Unlock()
		t.Logf("%s %s at %d: %s", n.Kind, names[n.Host], n.Position.Seq, n.Detail)
		s.notices = append(s.notices, n)
	}
	r.OnLateHistory = func(_ string, begins time.Time) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.late = begins
		return nil
	}
	go func() {
		s.done <- each(r.Read(ctx, from), func(b Batch) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, e := range b.Events {
				s.events = append(s.events, fmt.Sprintf("%s:%d", names[b.Host], e.Seq))
			}
			b.Events, b.Positions = slices.Clone(b.Events), slices.Clone(b.Positions)
			s.batches = append(s.batches, b)
			select {
			case s.changed <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-s.done
	})
	return s
}

// each calls take with each batch, and returns the last error.
func each(batches iter.Seq2[Batch, error], take func(Batch)) error {
	for b, err := range batches {
		if err != nil {
			return err
		}
		take(b)
	}
	return nil
}

const waitLimit = time.Minute

// await waits until the events end with want.
func (s *session) await(want ...string) {
	s.t.Helper()
	s.awaitThat(fmt.Sprint("events to end with ", want), func() bool {
		return len(s.events) >= len(want) && slices.Equal(s.events[len(s.events)-len(want):], want)
	})
}

// awaitThat waits until check holds; it is called with the lock held.
func (s *session) awaitThat(what string, check func() bool) {
	s.t.Helper()
	deadline := time.After(waitLimit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		s.mu.Lock()
		ok, events := check(), slices.Clone(s.events)
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("waited for %s; events are %v", what, events)
		}
	}
}

// ended waits for the end of Run.
func (s *session) ended() error {
	s.t.Helper()
	select {
	case err := <-s.done:
		s.done <- err
		return err
	case <-time.After(waitLimit):
		s.t.Fatal("the reader did not end")
		return nil
	}
}

// last returns the last position that was read. firstOf returns the first position after a host was
// connected.
func (s *session) firstOf(h *fakeHost) event.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.batches, func(b Batch) bool { return b.Host == h.srv.URL })
	return s.batches[max(i, 0)].Last
}

func (s *session) last() event.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.batches[len(s.batches)-1].Last
}

func (s *session) count(kind NoticeKind) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, notice := range s.notices {
		if notice.Kind == kind {
			n++
		}
	}
	return n
}

// lateHistory returns the reported beginning of the host's history.
func (s *session) lateHistory() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.late
}

func (s *session) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// cursors returns the cursors requested from a host, in order.
func cursors(dials []url.Values) []string {
	var out []string
	for _, q := range dials {
		if !q.Has("cursor") {
			out = append(out, "tip")
			continue
		}
		out = append(out, q.Get("cursor"))
	}
	return out
}

func micros(t time.Time) string { return strconv.FormatInt(t.UnixMicro(), 10) }

func seqs(from, to uint64) []uint64 {
	var out []uint64
	for s := from; s <= to; s++ {
		out = append(out, s)
	}
	return out
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
