package simnet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/coder/websocket"
)

// maxMessage bounds one message of a server, in bytes.
const maxMessage = 16 << 20

// watch is how far Await has read a server's stream.
type watch struct {
	mu       sync.Mutex        // serializes calls of Await
	last     uint64            // the last sequence number read
	rev      map[string]string // highest revision seen, by account
	rows     map[string]int    // records seen at that revision
	upstream map[string]int64  // highest relay sequence number seen in an account or identity event, by account
}

// want is what must have arrived of one account for everything emitted to have arrived.
type want struct {
	rev      string
	rows     int // records after the sync of that revision; zero for a commit's revision
	upstream int64
}

// Await returns once the server's stream has everything that the network has emitted since the
// server was first attached. Only the order within an account is kept: the server verifies accounts
// concurrently. Await does not wait for empty commits and repeated syncs, which leave no trace. It
// reads the server's stream through its own websocket.
//
// The context's error names the accounts with missing events, so a deadline detects a lost event.
func (n *Network) Await(ctx context.Context, j *Jetstream) error {
	wants := n.wanted(j.from)
	j.mu.Lock()
	if j.watch == nil {
		j.watch = &watch{rev: map[string]string{}, rows: map[string]int{}, upstream: map[string]int64{}}
	}
	seen := j.watch
	j.mu.Unlock()
	seen.mu.Lock()
	defer seen.mu.Unlock()
	seen.settle(wants)
	if len(wants) == 0 {
		return nil
	}
	// Start at the last event that was read, which is repeated. A cursor above the newest event
	// would mean the server's tip, and events that arrive meanwhile would be skipped.
	url := "ws" + strings.TrimPrefix(j.URL(), "http") + subscribePath + "?cursor=" + strconv.FormatUint(seen.last, 10)
	conn, _, err := websocket.Dial(ctx, url, nil) //nolint:bodyclose // the library does not require it
	if err != nil {
		return fmt.Errorf("await server %s: %w", j.cfg.Addr, err)
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(maxMessage)
	for len(wants) > 0 {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return fmt.Errorf("await server %s, still missing %s: %w", j.cfg.Addr, missing(wants), err)
		}
		did, err := seen.read(data)
		if err != nil {
			return fmt.Errorf("await server %s: %w", j.cfg.Addr, err)
		}
		seen.settleOne(wants, did)
	}
	return nil
}

// wanted collects what must arrive because of the entries after position from.
func (n *Network) wanted(from int64) map[string]want {
	n.mu.Lock()
	defer n.mu.Unlock()
	wants := map[string]want{}
	for i := len(n.entries) - 1; i >= 0 && n.entries[i].Seq > from; i-- {
		entry := n.entries[i]
		w := wants[entry.DID]
		switch entry.Kind {
		case KindCommit, KindSync:
			if w.rev != "" || entry.Repeated || entry.Kind == KindCommit && len(entry.Ops) == 0 {
				break // a newer one of this account is awaited, or it leaves no trace
			}
			w.rev = entry.Rev
			if entry.Kind == KindSync {
				w.rows = len(entry.Ops)
			}
		default:
			w.upstream = max(w.upstream, entry.Seq)
		}
		wants[entry.DID] = w
	}
	return wants
}

// settle removes the accounts that are complete.
func (w *watch) settle(wants map[string]want) {
	for did := range wants {
		w.settleOne(wants, did)
	}
}

// settleOne removes one account if it is complete.
func (w *watch) settleOne(wants map[string]want, did string) {
	want, ok := wants[did]
	if !ok || w.upstream[did] < want.upstream || w.rev[did] < want.rev {
		return
	}
	if w.rev[did] > want.rev || w.rows[did] >= want.rows {
		delete(wants, did)
	}
}

// read processes one message and returns its account.
func (w *watch) read(data []byte) (string, error) {
	var message struct {
		Type    string `json:"$type"`
		Error   string `json:"error"`
		Payload struct {
			Seq               uint64 `json:"seq"`
			DID               string `json:"did"`
			Rev               string `json:"rev"`
			Account, Identity struct {
				Seq int64 `json:"seq"`
			}
			Sync struct {
				Rev string `json:"rev"`
			}
		} `json:"payload"`
	}
	if err := json.Unmarshal(data, &message); err != nil {
		return "", fmt.Errorf("decode message: %w", err)
	}
	if message.Type == "error" {
		return "", fmt.Errorf("server answered %s", message.Error)
	}
	event := message.Payload
	if event.DID == "" {
		return "", nil
	}
	if event.Seq <= w.last {
		return event.DID, nil // a repetition
	}
	w.last = event.Seq
	if rev := max(event.Rev, event.Sync.Rev); rev > w.rev[event.DID] {
		w.rev[event.DID], w.rows[event.DID] = rev, 0
	}
	if event.Rev != "" && event.Rev == w.rev[event.DID] {
		w.rows[event.DID]++
	}
	w.upstream[event.DID] = max(w.upstream[event.DID], event.Account.Seq, event.Identity.Seq)
	return event.DID, nil
}

// missing names up to three accounts with missing events.
func missing(wants map[string]want) string {
	const shown = 3
	var dids []string
	for did, w := range wants {
		dids = append(dids, fmt.Sprintf("%s (rev %q, relay seq %d)", did, w.rev, w.upstream))
	}
	slices.Sort(dids)
	if len(dids) > shown {
		return fmt.Sprintf("%s and %d more", strings.Join(dids[:shown], ", "), len(dids)-shown)
	}
	return strings.Join(dids, ", ")
}
