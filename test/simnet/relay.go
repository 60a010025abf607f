package simnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

const (
	// readHeaderTimeout bounds the wait for a client's request.
	readHeaderTimeout = 10 * time.Second
	// pingTimeout bounds the check that an attached server still answers.
	pingTimeout = 5 * time.Second
	// attachPoll is the pause between two checks for an attached server, holdPoll between two
	// checks of how much may be sent.
	attachPoll = 5 * time.Millisecond
	holdPoll   = 5 * time.Millisecond
	// writeBatch is the number of frames that are read from the network together.
	writeBatch = 256
	// A server drops events of an account with more than 64 waiting for verification. A relay of
	// the real network never sends so fast. This one sends at most paceFrames of an account in a
	// paceWindow, and waits until the server has read them before it sends more.
	paceFrames = 16
	paceWindow = 25 * time.Millisecond
	paceSlack  = 4 // multiple of the time that reading took
	// While a server fetches the repository for a #sync, it holds the account's events back. So
	// does this relay, but not longer than this: a server that already had the #sync fetches
	// nothing.
	fetchHold = 2 * time.Second
)

// Relay is one loopback address on which the network answers as PLC directory, PDS, relay and
// AppView. Each server has its own, so that one can tell which server is attached. Every relay
// serves the same frames with the same sequence numbers.
type Relay struct {
	network *Network
	server  *http.Server
	url     string
	cancel  context.CancelFunc
	done    chan struct{}

	// sent is the newest frame that was sent to any server; math.MaxInt64 before there is one.
	sent atomic.Int64
	// limit is the last frame that may be sent.
	limit atomic.Int64

	// away reports that servers are refused.
	away atomic.Bool

	mu       sync.Mutex
	attached map[*websocket.Conn]struct{}
	// owed are accounts whose repository has not been fetched since their last #sync was sent.
	owed map[string]bool
}

// Listen opens a relay on a free loopback port and serves it until Close or until ctx ends.
func (n *Network) Listen(ctx context.Context) (*Relay, error) {
	var listen net.ListenConfig
	ln, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for relay: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &Relay{network: n, url: "http://" + ln.Addr().String(), cancel: cancel, done: make(chan struct{}),
		attached: map[*websocket.Conn]struct{}{}, owed: map[string]bool{}}
	r.sent.Store(math.MaxInt64)
	r.limit.Store(math.MaxInt64)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /xrpc/com.atproto.sync.subscribeRepos", r.subscribeRepos)
	mux.HandleFunc("GET /xrpc/com.atproto.sync.listHosts", r.listHosts)
	mux.HandleFunc("GET /xrpc/com.atproto.sync.listRepos", r.listRepos)
	mux.HandleFunc("GET /xrpc/com.atproto.sync.getRepo", r.getRepo)
	mux.HandleFunc("GET /xrpc/app.bsky.actor.getProfiles", r.getProfiles)
	mux.HandleFunc("GET /{did}", r.didDocument)
	r.server = &http.Server{Handler: mux, ReadHeaderTimeout: readHeaderTimeout, BaseContext: func(net.Listener) context.Context { return ctx }}
	go func() {
		defer close(r.done)
		if err := r.server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			n.log.Error("relay stopped", "url", r.url, "error", err)
		}
	}()
	context.AfterFunc(ctx, func() { _ = r.server.Close() })
	return r, nil
}

// URL returns the base address for all four roles: a Jetstream server uses it as relay and as PLC
// directory.
func (r *Relay) URL() string { return r.url }

// Close stops the relay and closes its connections. A second call does nothing.
func (r *Relay) Close() {
	r.cancel()
	<-r.done
}

// WaitAttached returns once a server follows this relay's frames and answers a ping.
func (r *Relay) WaitAttached(ctx context.Context) error {
	ticker := time.NewTicker(attachPoll)
	defer ticker.Stop()
	for {
		for _, conn := range r.connections() {
			pingCtx, cancel := context.WithTimeout(ctx, pingTimeout)
			err := conn.Ping(pingCtx)
			cancel()
			if err == nil {
				return nil
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for a server on relay %s: %w", r.url, ctx.Err())
		}
	}
}

// Disconnect closes every connection, like a restart of the relay. Servers reconnect with their
// cursor.
func (r *Relay) Disconnect() {
	for _, conn := range r.connections() {
		_ = conn.CloseNow()
	}
}

// HoldAfter holds the frames after number seq back, so that servers on this relay lag;
// math.MaxInt64 releases all.
func (r *Relay) HoldAfter(seq int64) { r.limit.Store(seq) }

// awaitLimit returns when the frame after position may be sent.
func (r *Relay) awaitLimit(ctx context.Context, position int64) error {
	for position >= r.limit.Load() {
		select {
		case <-time.After(holdPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Away makes the relay refuse servers, or accept them again. Requests to the directory and the
// accounts' hosts are still answered.
func (r *Relay) Away(away bool) {
	r.away.Store(away)
	if away {
		r.Disconnect()
	}
}

// connections returns the attached connections.
func (r *Relay) connections() []*websocket.Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	conns := make([]*websocket.Conn, 0, len(r.attached))
	for conn := range r.attached {
		conns = append(conns, conn)
	}
	return conns
}

// subscribeRepos sends the frames after ?cursor, or from now on without one. A cursor above the
// newest frame is refused with FutureCursor; for one older than the kept frames, an OutdatedCursor
// advisory precedes the oldest frame.
func (r *Relay) subscribeRepos(w http.ResponseWriter, req *http.Request) {
	if r.away.Load() {
		http.Error(w, "the relay is away", http.StatusServiceUnavailable)
		return
	}
	position := r.network.Seq()
	cursor := req.URL.Query().Get("cursor")
	if cursor != "" {
		parsed, err := strconv.ParseInt(cursor, 10, 64)
		if err != nil || parsed < 0 {
			http.Error(w, "cursor is not a number", http.StatusBadRequest)
			return
		}
		if parsed > position {
			parsed = -1
		}
		position = parsed
	}
	conn, err := websocket.Accept(w, req, nil)
	if err != nil {
		r.network.log.Warn("websocket not accepted", "error", err)
		return
	}
	defer func() { _ = conn.CloseNow() }()
	ctx := conn.CloseRead(req.Context())
	if position < 0 {
		_ = conn.Write(ctx, websocket.MessageBinary, errorFrame("FutureCursor", "cursor is above the newest frame"))
		_ = conn.Close(websocket.StatusPolicyViolation, "FutureCursor")
		return
	}
	r.mu.Lock()
	r.attached[conn] = struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.attached, conn)
		r.mu.Unlock()
	}()
	if r.away.Load() {
		return // the server disconnected in between
	}
	r.network.log.Debug("server attached", "relay", r.url, "cursor", cursor)
	err = r.send(ctx, conn, position)
	r.network.log.Debug("server detached", "relay", r.url, "reason", err)
}

// send writes the frames after position until the connection or the relay ends.
func (r *Relay) send(ctx context.Context, conn *websocket.Conn, position int64) error {
	if oldest := r.network.oldest(); position < oldest {
		position = oldest
		info, err := infoFrame("OutdatedCursor", "the frames after this cursor are no longer kept")
		if err != nil {
			return err
		}
		if err := conn.Write(ctx, websocket.MessageBinary, info); err != nil {
			return fmt.Errorf("write advisory: %w", err)
		}
	}
	pace := pacer{sent: map[string]int{}, holds: map[string]time.Time{}, read: conn.Ping, fetched: func(did string) bool { return !r.owes(did) }}
	r.sent.Store(position)
	for {
		frames, err := r.network.framesAfter(ctx, position, writeBatch)
		if errors.Is(err, errOutdated) {
			_ = conn.Write(ctx, websocket.MessageBinary, errorFrame("ConsumerTooSlow", "frames were dropped before they were read"))
			_ = conn.Close(websocket.StatusPolicyViolation, "ConsumerTooSlow")
			return err
		}
		if err != nil {
			return err
		}
		for _, frame := range frames {
			if err := r.awaitLimit(ctx, position); err != nil {
				return err
			}
			if err := pace.wait(ctx, frame); err != nil {
				return err
			}
			if frame.sync {
				r.owe(frame.did)
			}
			if err := conn.Write(ctx, websocket.MessageBinary, frame.data); err != nil {
				return fmt.Errorf("write frame %d: %w", position+1, err)
			}
			position++
			r.sent.Store(position)
		}
	}
}

// owe records that a server will fetch an account's repository.
func (r *Relay) owe(did string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owed[did] = true
}

// owes reports whether a server has yet to fetch an account's repository.
func (r *Relay) owes(did string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owed[did]
}

// settle reports whether a repository is owed, and clears that.
func (r *Relay) settle(did string) (owed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	owed = r.owed[did]
	delete(r.owed, did)
	return owed
}

// pacer spreads the frames of each account over time; see paceFrames and fetchHold.
type pacer struct {
	ends time.Time // end of the current window
	sent map[string]int
	// read returns when the server has read everything sent; fetched reports whether it has fetched
	// the repository for an account's newest #sync.
	read    func(context.Context) error
	fetched func(did string) bool
	holds   map[string]time.Time // until when accounts wait for that
}

// wait returns when this frame may be sent, or with the context's error. Later frames wait too: the
// order is kept.
func (p *pacer) wait(ctx context.Context, next frame) error {
	for time.Now().Before(p.holds[next.did]) && !p.fetched(next.did) {
		if err := pause(ctx, holdPoll); err != nil {
			return err
		}
	}
	delete(p.holds, next.did)
	if p.sent[next.did] >= paceFrames {
		asked := time.Now()
		if err := p.read(ctx); err != nil {
			return err
		}
		// On a slow machine, processing what was read also takes longer.
		if err := pause(ctx, max(time.Until(p.ends), paceSlack*time.Since(asked))); err != nil {
			return err
		}
		clear(p.sent)
	}
	if len(p.sent) == 0 {
		p.ends = time.Now().Add(paceWindow)
	}
	p.sent[next.did]++
	if next.sync {
		p.holds[next.did] = time.Now().Add(fetchHold)
	}
	return nil
}

// pause returns after the given time, or with the context's error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// listHosts names this relay's address as the only PDS: a server downloads from a loopback host
// only if it is the relay's, including the port.
func (r *Relay) listHosts(w http.ResponseWriter, req *http.Request) {
	n := r.network
	n.mu.Lock()
	accounts, seq := len(n.dids), n.seq
	n.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"hosts": []any{
		map[string]any{"hostname": req.Host, "status": "active", "accountCount": accounts, "seq": seq},
	}})
}

// listRepos pages through the accounts in the order of their creation; the cursor is an index.
func (r *Relay) listRepos(w http.ResponseWriter, req *http.Request) {
	const defaultLimit, maxLimit = 500, 1000
	start, limit := 0, defaultLimit
	var err error
	if raw := req.URL.Query().Get("cursor"); raw != "" {
		if start, err = strconv.Atoi(raw); err != nil || start < 0 {
			writeError(w, "InvalidRequest", "cursor is not an index")
			return
		}
	}
	if raw := req.URL.Query().Get("limit"); raw != "" {
		if limit, err = strconv.Atoi(raw); err != nil || limit < 1 {
			writeError(w, "InvalidRequest", "limit is not a positive number")
			return
		}
		limit = min(limit, maxLimit)
	}
	n := r.network
	n.mu.Lock()
	defer n.mu.Unlock()
	end := min(start+limit, len(n.dids))
	repos := []any{}
	for _, did := range n.dids[min(start, end):end] {
		acc := n.accounts[did]
		item := map[string]any{"did": did, "head": acc.repo.head.String(), "rev": acc.repo.rev, "active": acc.active}
		if acc.status != "" {
			item["status"] = acc.status
		}
		repos = append(repos, item)
	}
	answer := map[string]any{"repos": repos}
	if end < len(n.dids) {
		answer["cursor"] = strconv.Itoa(end)
	}
	writeJSON(w, http.StatusOK, answer)
}

// getRepo serves a whole repository at the last announced head.
func (r *Relay) getRepo(w http.ResponseWriter, req *http.Request) {
	did := req.URL.Query().Get("did")
	data, code := r.network.exportRepo(did, r.sent.Load(), r.settle(did))
	if code != "" {
		writeError(w, code, "repository of "+did+" is not available")
		return
	}
	w.Header().Set("Content-Type", "application/vnd.ipld.car")
	if _, err := w.Write(data); err != nil {
		r.network.log.Debug("repository not sent", "did", did, "error", err)
	}
}

// exportRepo returns a repository as a CAR, or the error code of com.atproto.sync.getRepo. An
// account that became inactive in a frame after through counts as active, and so does one whose
// repository is owed for a #sync, however late the server fetches it. A real host refuses that. The
// server then logs it and emits nothing for the #sync, and its readers cannot know what they miss.
func (n *Network) exportRepo(did string, through int64, owed bool) (data []byte, code string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	acc, ok := n.accounts[did]
	switch {
	case ok && (owed || acc.closed > through):
	case !ok || !acc.active && acc.status == "deleted":
		return nil, "RepoNotFound"
	case !acc.active && acc.status == "takendown":
		return nil, "RepoTakendown"
	case !acc.active && acc.status == "suspended":
		return nil, "RepoSuspended"
	case !acc.active:
		return nil, "RepoDeactivated"
	}
	data, err := acc.repo.export()
	if err != nil {
		n.log.Error("repository not exported", "did", did, "error", err)
		return nil, "InternalServerError"
	}
	return data, ""
}

// didDocument answers like the PLC directory.
func (r *Relay) didDocument(w http.ResponseWriter, req *http.Request) {
	did := req.PathValue("did")
	r.network.mu.Lock()
	acc, ok := r.network.accounts[did]
	r.network.mu.Unlock()
	if !ok || !strings.HasPrefix(did, "did:") {
		http.NotFound(w, req)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"id":          did,
		"alsoKnownAs": []string{"at://" + acc.handle},
		"verificationMethod": []any{map[string]any{"id": did + "#atproto", "type": "Multikey", "controller": did,
			"publicKeyMultibase": acc.repo.key.PublicKey().Multibase()}},
		"service": []any{map[string]any{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": r.url}},
	})
}

// writeError answers 400 with an XRPC error.
func writeError(w http.ResponseWriter, code, text string) {
	writeJSON(w, http.StatusBadRequest, map[string]any{"error": code, "message": text})
}

// writeJSON answers with a value. It ignores a disconnected client.
func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}
