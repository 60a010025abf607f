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

// watch is how far a server's own stream has been read by Await.
type watch struct {
	mu       sync.Mutex        // held by one Await at a time
	last     uint64            // the last sequence number read
	rev      map[string]string // highest revision seen, by account
	rows     map[string]int    // records seen at that revision
	upstream map[string]int64  // highest relay sequence number seen in an account or identity event, by account
}

// want is what one account must have shown for everything emitted to be through.
type want struct {
	rev      string
	rows     int // records behind the sync of that revision; zero if it is a commit's
	upstream int64
}

// Await returns once everything that the network has emitted since the server was first attached has come out of the
// server's stream again. The order is kept by account only: the server verifies accounts side by side. Empty
// commits and repeated syncs leave no trace and are not waited for. It reads the server's stream through a websocket of its own.
//
// The context's error comes with the accounts that are missing, so a deadline is what finds a lost event.
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
	// From the last event that was read, which comes again: a cursor above the newest one means the server's tip, and what it
	// takes in meanwhile is left out.
	url := "ws" + strings.TrimPrefix(j.URL(), "http") + subscribePath + "?cursor=" + strconv.FormatUint(seen.last, 10)
	conn, _, err := websocket.Dial(ctx, url, nil) //nolint:bodyclose // the library says that it need not be
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

// wanted collects what the entries after position from must lead to.
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
				break // a newer one of this account is wanted, or there is nothing to see
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

// settle removes what has been seen.
func (w *watch) settle(wants map[string]want) {
	for did := range wants {
		w.settleOne(wants, did)
	}
}

// settleOne removes one account if it has been seen.
func (w *watch) settleOne(wants map[string]want, did string) {
	want, ok := wants[did]
	if !ok || w.upstream[did] < want.upstream || w.rev[did] < want.rev {
		return
	}
	if w.rev[did] > want.rev || w.rows[did] >= want.rows {
		delete(wants, did)
	}
}

// read takes in one message and returns the account it is about.
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
		return event.DID, nil // again
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

// missing names up to three accounts that have not been seen.
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
