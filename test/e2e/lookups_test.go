package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/simnet"
)

// appView is a fake AppView that answers author look-ups as defined by the test.
type appView struct {
	*httptest.Server
	mu    sync.Mutex
	says  map[string]map[string]any
	asked map[string]int
	away  bool
}

func newAppView(t *testing.T) *appView {
	v := &appView{says: map[string]map[string]any{}, asked: map[string]int{}}
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.away {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		list := []map[string]any{}
		for _, did := range r.URL.Query()["actors"] {
			v.asked[did]++
			if p, ok := v.says[did]; ok {
				p["did"] = did
				list = append(list, p)
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"profiles": list})
	}))
	t.Cleanup(v.Close)
	return v
}

func (v *appView) set(did string, says map[string]any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.says[did] = says
}

func (v *appView) leave(away bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.away = away
}

// times returns how often an author was looked up.
func (v *appView) times(did string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.asked[did]
}

// Authors who wrote no profile since ingest started get names from an AppView, and an author who
// has opted out there is hidden. Posts do not wait for look-ups. All of it is in the stream: a
// rebuild gives the same result.
func TestAuthorsAreLookedUp(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 0)
	x, url := b.newIndex()
	view := newAppView(t)
	post := func(did string) simnet.Post {
		return b.create(did, "hello", "lookedup")
	}
	author := func() string {
		did := b.account()
		return did
	}
	shows := func(p simnet.Post, want string) {
		t.Helper()
		poll.Until(t, ingestWait, func() (bool, string) {
			status, body := process.Fetch(fmt.Sprintf("%s/v1/posts/%s/%s", url, p.DID, p.Rkey))
			var got struct{ Author json.RawMessage }
			if status != http.StatusOK || json.Unmarshal([]byte(body), &got) != nil {
				return want == "", fmt.Sprint(status, " ", body)
			}
			return string(got.Author) == want, body
		})
	}
	quick := func(cfg ingest.Config) ingest.Config {
		cfg.ProfilesTiming.Gather, cfg.ProfilesTiming.RetryMin, cfg.ProfilesTiming.RetryMax = time.Millisecond, time.Millisecond, time.Millisecond
		cfg.Hosts, cfg.Start, cfg.ProfilesURL = []string{host.URL()}, "archive", view.URL
		return cfg
	}
	const none = `{"did":%q,"handle":null,"displayName":null,"avatar":null}`

	alice, bob, carol := author(), author(), author()
	view.set(alice, map[string]any{"handle": "alice.example", "displayName": "Alice\u202e <b>", "avatar": "https://cdn.example/img/avatar/plain/" + alice + "/bafkreib@jpeg"})
	view.set(bob, map[string]any{"handle": "bob.example", "displayName": "Bob", "labels": []map[string]any{{"src": bob, "val": "!no-unauthenticated"}}})
	view.leave(true)
	in, ix := b.ingest(quick(ingest.Config{})), x.indexer(200)
	of := map[string]simnet.Post{alice: post(alice), bob: post(bob), carol: post(carol)}
	for did, p := range of {
		shows(p, fmt.Sprintf(none, did)) // while the AppView is unavailable
	}
	view.leave(false)
	shown := of[bob]
	for did := range of {
		of[did] = post(did) // failed look-ups are repeated with the author's next post
	}
	shows(of[alice], fmt.Sprintf(`{"did":%q,"handle":"alice.example","displayName":"Alice <b>","avatar":"bafkreib"}`, alice))
	shows(shown, "")
	shows(of[carol], fmt.Sprintf(none, carol))

	// Another run looks them up again. The answer that shows Bob again counts as half a day old.
	in.halt()
	asked := view.times(bob)
	view.set(bob, map[string]any{"handle": "bob.example"})
	view.set(alice, map[string]any{"handle": "handle.invalid", "displayName": "Someone"})
	in = b.ingest(quick(ingest.Config{}))
	again := post(bob)
	poll.Until(t, ingestWait, func() (bool, string) { n := view.times(bob); return n > asked, fmt.Sprint(n) })
	last := post(alice)
	shows(last, fmt.Sprintf(`{"did":%q,"handle":null,"displayName":"Someone","avatar":null}`, alice))
	in.halt()
	st, err := stream.GetState(t.Context(), b.js)
	require.NoError(t, err)
	x.await(url, st.Last)
	shows(again, "")
	require.NoError(t, ix.stop())
	said, err := x.tryRebuild(t.Context(), indexer.RebuildConfig{}, &steps{})
	require.NoError(t, err, said)
	shows(last, fmt.Sprintf(`{"did":%q,"handle":null,"displayName":"Someone","avatar":null}`, alice))
	shows(again, "")
}
