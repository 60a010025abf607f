package simnet

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/jcalabro/atmos/cbor"
	"github.com/jcalabro/atmos/repo"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// listen opens a relay for a test.
func listen(t *testing.T, n *Network) *Relay {
	t.Helper()
	r, err := n.Listen(t.Context())
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

// dial subscribes to a relay.
func dial(ctx context.Context, t *testing.T, r *Relay, query string) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(r.URL(), "http")+"/xrpc/com.atproto.sync.subscribeRepos"+query, nil)
	require.NoError(t, err)
	conn.SetReadLimit(maxMessage)
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// next reads one frame: its header's type, or its error, and its body.
func next(ctx context.Context, t *testing.T, conn *websocket.Conn) (string, map[string]any) {
	t.Helper()
	_, data, err := conn.Read(ctx)
	require.NoError(t, err)
	end, err := cbor.SkipValue(data, 0)
	require.NoError(t, err)
	header, body := decode(t, data[:end]), decode(t, data[end:])
	if header["op"] == int64(-1) {
		return body["error"].(string), body
	}
	return header["t"].(string), body
}

func TestRelayReplaysFromCursor(t *testing.T) {
	t.Parallel()
	const kept, emitted = 10, 10 + historyStride + 1
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n, err := New(Config{Seed: 1, Accounts: 1, History: kept})
	require.NoError(t, err)
	did := n.DIDs()[0]
	for range emitted {
		_, err := n.SetAccountStatus(did, true, "")
		require.NoError(t, err)
	}
	cases := []struct {
		name, cursor string
		info         string
		first        int64 // the first frame's number
	}{
		{"no cursor is from now on", "", "", emitted + 1},
		{"the newest", strconv.Itoa(emitted), "", emitted + 1},
		{"within the history", strconv.Itoa(emitted - 3), "", emitted - 2},
		{"the oldest kept", strconv.Itoa(emitted - kept), "", emitted - kept + 1},
		{"before the history", "1", "#info", emitted - kept + 1},
		{"the start", "0", "#info", emitted - kept + 1},
		{"above the newest", strconv.Itoa(emitted + 100), "FutureCursor", 0},
	}
	r := listen(t, n)
	conns := make([]*websocket.Conn, len(cases))
	for i, c := range cases {
		query := ""
		if c.cursor != "" {
			query = "?cursor=" + c.cursor
		}
		conns[i] = dial(ctx, t, r, query)
	}
	require.Eventually(t, func() bool { return len(r.connections()) == len(cases)-1 }, time.Minute, time.Millisecond)
	_, err = n.SetAccountStatus(did, true, "")
	require.NoError(t, err)
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.info != "" {
				kind, _ := next(ctx, t, conns[i])
				require.Equal(t, c.info, kind)
			}
			for seq := c.first; seq > 0 && seq <= emitted+1; seq++ {
				_, body := next(ctx, t, conns[i])
				require.Equal(t, seq, body["seq"])
			}
		})
	}
}

func TestRelayServesVerifiableRepositories(t *testing.T) {
	t.Parallel()
	n := repeatable(t, 6, 3)
	require.NoError(t, Traffic{Count: 400, Seed: 6}.Run(t.Context(), n))
	r := listen(t, n)
	hosts := getJSON(t, r.URL()+"/xrpc/com.atproto.sync.listHosts")
	require.Equal(t, strings.TrimPrefix(r.URL(), "http://"), hosts["hosts"].([]any)[0].(map[string]any)["hostname"])

	var listed []string
	for cursor := ""; ; {
		page := getJSON(t, r.URL()+"/xrpc/com.atproto.sync.listRepos?limit=2&cursor="+cursor)
		for _, item := range page["repos"].([]any) {
			listing := item.(map[string]any)
			did := listing["did"].(string)
			listed = append(listed, did)
			if listing["active"] != true {
				continue
			}
			resp, err := http.Get(r.URL() + "/xrpc/com.atproto.sync.getRepo?did=" + did)
			require.NoError(t, err)
			defer func() { _ = resp.Body.Close() }()
			loaded, commit, err := repo.LoadCompleteFromCAR(resp.Body)
			require.NoError(t, err)
			require.Equal(t, listing["rev"], commit.Rev)
			require.NoError(t, commit.VerifySignature(n.accounts[did].repo.key.PublicKey()))
			records, err := n.Records(did)
			require.NoError(t, err)
			count := 0
			require.NoError(t, loaded.Tree.Walk(func(string, cbor.CID) error { count++; return nil }))
			require.Equal(t, len(records), count)
			document := getJSON(t, r.URL()+"/"+did)
			require.Equal(t, did, document["id"])
		}
		next, more := page["cursor"].(string)
		if !more {
			break
		}
		cursor = next
	}
	require.Equal(t, n.DIDs(), listed)
}

func TestRelayRefusesRepositoriesOfInactiveAccounts(t *testing.T) {
	t.Parallel()
	n := repeatable(t, 6, 1)
	did := n.DIDs()[0]
	r := listen(t, n)
	for status, code := range map[string]string{"deactivated": "RepoDeactivated", "takendown": "RepoTakendown", "suspended": "RepoSuspended",
		"deleted": "RepoNotFound", "invented": "RepoDeactivated"} {
		_, err := n.SetAccountStatus(did, false, status)
		require.NoError(t, err)
		require.Equal(t, code, getJSON(t, r.URL()+"/xrpc/com.atproto.sync.getRepo?did="+did)["error"], status)
	}
	require.Equal(t, "RepoNotFound", getJSON(t, r.URL()+"/xrpc/com.atproto.sync.getRepo?did=did:plc:nobody")["error"])
}

// If the real server fetches the repository for a #sync late, it still emits the records, once, and
// before the account's deactivation.
func TestLateFetchForSync(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	n, err := New(Config{Seed: 9, Accounts: 2})
	require.NoError(t, err)
	binary, err := BuildJetstream(ctx, "")
	require.NoError(t, err)
	j, err := n.StartJetstream(ctx, JetstreamConfig{Binary: binary, DataDir: filepath.Join(t.TempDir(), "jetstream")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, j.Stop()) })
	did := n.DIDs()[0]

	require.NoError(t, j.Hang())
	_, err = n.Sync(did, Op{Action: Create, Record: NewPost(n.Now(), "unannounced", "art")})
	require.NoError(t, err)
	left, err := n.SetAccountStatus(did, false, "deactivated")
	require.NoError(t, err)
	// The relay has sent both frames, into the buffers of the suspended server.
	poll.Until(t, time.Minute, func() (bool, string) {
		sent := j.relay.sent.Load()
		return sent == left.Seq, fmt.Sprintf("frame %d of %d", sent, left.Seq)
	})
	require.NoError(t, j.Resume())
	require.NoError(t, n.Await(ctx, j), "%s", j.Warnings())
	require.Empty(t, j.Warnings())
	require.Equal(t, "RepoDeactivated", getJSON(t, j.relay.URL()+"/xrpc/com.atproto.sync.getRepo?did="+did)["error"])
}

// getJSON fetches an object.
func getJSON(t *testing.T, url string) map[string]any {
	t.Helper()
	resp, err := http.Get(url)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	var value map[string]any
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&value))
	return value
}
