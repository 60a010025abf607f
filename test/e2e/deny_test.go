package e2e_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/testkit/eventtest"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/test/process"
)

// denyBench is an index with a deny file.
type denyBench struct {
	*indexBench
	url string // the API's
	n   uint64
}

func newDenyBench(t *testing.T) *denyBench {
	x := &denyBench{indexBench: newIndexBench(t, natstest.Server(t))}
	x.deny = filepath.Join(t.TempDir(), "deny.yaml")
	x.url = x.api()
	return x
}

func (x *denyBench) write(text string) {
	x.t.Helper()
	require.NoError(x.t, process.WriteDenyFile(x.deny, text))
}

// post returns the message of a post that is newer than the previous one.
func (x *denyBench) post(did, rkey string, tags ...string) []byte {
	x.n++
	now := time.Now().UTC().Add(-time.Minute).Add(time.Duration(x.n) * time.Second).Truncate(time.Microsecond)
	ev := event.Event{Kind: event.KindCreate, Source: event.Position{Host: "https://host.example", Seq: x.n, Time: now}, DID: did, Rkey: rkey,
		Rev: event.RevAt(now), CID: "bafyreid", Tags: tags, Record: json.RawMessage(`{"text":"x"}`)}
	return eventtest.Encode(x.t, ev)
}

// posts returns the record keys in an answer, newest first.
func (x *denyBench) posts(query string) string {
	x.t.Helper()
	var got struct{ Posts []struct{ Rkey string } }
	getJSON(x.t, x.url+"/v1/posts?"+query, &got)
	var keys []string
	for _, p := range got.Posts {
		keys = append(keys, p.Rkey)
	}
	return strings.Join(keys, " ")
}

func (x *denyBench) awaitPosts(query, want string) {
	x.t.Helper()
	poll.Until(x.t, indexWait, func() (bool, string) { got := x.posts(query); return got == want, got })
}

// Accounts and tags in the operator's deny file disappear when the file changes, and return when
// they leave the file. Followers always hold the current lists. A bad file changes nothing. A
// rebuild also applies the file.
func TestDenyFile(t *testing.T) {
	t.Parallel()
	x := newDenyBench(t)
	api, write, post, posts, await := x.url, x.write, x.post, x.posts, x.awaitPosts
	tags := func(query string) string {
		var got struct{ Tags []struct{ Tag string } }
		getJSON(t, api+"/v1/tags?"+query, &got)
		var names []string
		for _, tag := range got.Tags {
			names = append(names, tag.Tag)
		}
		return strings.Join(names, " ")
	}
	changes := func(tag, after string) (ops []string, next string) {
		var got changesPage
		getJSON(t, api+"/v1/changes?tags="+tag+"&after="+url.QueryEscape(after), &got)
		for _, c := range got.Changes {
			ops = append(ops, c.Op)
		}
		return ops, got.Page.Next
	}
	now := func(tag string) string {
		var got changesPage
		getJSON(t, api+"/v1/changes?tags="+tag, &got)
		return got.Page.Next
	}

	write("accounts: [did:plc:c]\n")
	ix := x.indexer(100)
	last := x.publish(post("did:plc:a", "a1", "art"), post("did:plc:b", "b1", "art", "bad"), post("did:plc:c", "c1", "art"))
	x.await(api, last)
	require.Equal(t, "b1 a1", posts("tags=art"))
	require.Equal(t, "art bad", tags("limit=10"))
	held := x.followed(api, "art", "bad")
	held()
	place := now("art")

	write("accounts: [did:plc:a]\n")
	await("tags=art", "c1 b1")
	poll.Until(t, indexWait, func() (bool, string) { // what is shown again is announced after its sweep
		ops, _ := changes("art", place)
		return slices.Equal(slices.Sorted(slices.Values(ops)), []string{"remove", "upsert"}), strings.Join(ops, " ")
	})

	others, bad := now("art"), now("bad")
	write("accounts: [did:plc:a]\ntags: ['#Bad']\n")
	await("tags=bad", "")
	held()
	for list, place := range map[string]string{"art": others, "bad": bad} {
		status, body := process.Fetch(api + "/v1/changes?tags=" + list + "&after=" + url.QueryEscape(place))
		require.Equal(t, http.StatusGone, status, body)
	}
	require.Equal(t, "c1 b1", posts("tags=art"))
	_, body := process.Fetch(api + "/tag/art")
	require.NotContains(t, strings.ToLower(body), "bad")
	_, body = process.Fetch(api + "/v1/posts?tags=art")
	require.NotContains(t, body, "bad")
	require.Equal(t, "", posts("all=bad&tags=art"))
	require.Equal(t, "c1 b1", posts("tags=bad&tags=art"))
	require.Equal(t, "", posts("tags=bad&lang=en"))
	require.Equal(t, "c1", posts("tags=art&none=bad"), "excluding a denied tag changes nothing")
	for _, query := range []string{"limit=10", "window=24h"} {
		require.Equal(t, "art", tags(query), query)
	}
	require.Equal(t, "", tags("prefix=ba"))
	status, _ := process.Fetch(api + "/v1/tags/bad")
	require.Equal(t, http.StatusNotFound, status)
	place = now("bad")
	x.await(api, x.publish(post("did:plc:b", "b2", "bad"), post("did:plc:a", "a2", "art")))
	require.Equal(t, "c1 b1", posts("tags=art"))
	ops, _ := changes("bad", place)
	require.Empty(t, ops)
	status, _ = process.Fetch(api + "/v1/posts/did:plc:b/b2")
	require.Equal(t, http.StatusOK, status, "a post is not a list of its tags")
	held()

	write("accounts: [nobody]\n")
	require.NoError(t, ix.stop())
	_, err := indexer.New(indexer.Config{Database: x.writer, DenyFile: x.deny}, indexer.Deps{NATS: x.nats.Conn(t), Logger: x.logger("indexer")})
	require.ErrorContains(t, err, "TAGSTREAM_DENY_FILE")
	said, err := x.tryRebuild(t.Context(), indexer.RebuildConfig{}, &steps{})
	require.NoError(t, err, said)
	require.Equal(t, "c1 b1", posts("tags=art"))
	require.Equal(t, "", posts("tags=bad"))

	write("")
	x.indexer(100)
	await("tags=art", "a2 c1 b1 a1")
	require.Equal(t, "b2 b1", posts("tags=bad"))
	require.Equal(t, "art bad", tags("limit=10"))
	held()
}

// A standby reads the file again before it writes anything, so a state read earlier is never
// applied.
func TestStandbyAppliesDenyList(t *testing.T) {
	t.Parallel()
	x := newDenyBench(t)
	x.write("")
	first := x.indexer(100)
	x.await(x.url, x.publish(x.post("did:plc:a", "a1", "art"), x.post("did:plc:b", "b1", "bad"), x.post("did:plc:c", "c1", "art")))
	x.indexer(100) // has read the file, and waits for the lease
	x.write("accounts: [did:plc:a]\ntags: [bad]\n")
	x.awaitPosts("tags=art", "c1")
	x.awaitPosts("tags=bad", "")
	var now changesPage
	getJSON(t, x.url+"/v1/changes?tags=bad", &now)
	require.NoError(t, first.stop())
	x.await(x.url, x.publish(x.post("did:plc:c", "c2", "art"), x.post("did:plc:b", "b2", "bad")))
	require.Equal(t, "c2 c1", x.posts("tags=art"))
	require.Equal(t, "", x.posts("tags=bad"))
	status, body := process.Fetch(x.url + "/v1/changes?tags=bad&after=" + url.QueryEscape(now.Page.Next))
	require.Equal(t, http.StatusOK, status, "the feed must end if denied tags change: %s", body)
	require.Contains(t, body, `"changes":[]`, "no account's posts must change")
}

// A running indexer changes the deny list at the beginning of a rebuild and after its comparison.
// The new index has the changes when it is switched in.
func TestRebuildAppliesDenyListChanges(t *testing.T) {
	t.Parallel()
	x := newDenyBench(t)
	x.write("accounts: [did:plc:a]\ntags: [bad]\n")
	ix := x.indexer(100)
	x.await(x.url, x.publish(x.post("did:plc:a", "a1", "art"), x.post("did:plc:b", "b1", "bad"), x.post("did:plc:c", "c1", "art"), x.post("did:plc:b", "b2", "worse")))
	require.Equal(t, "c1", x.posts("tags=art"))
	held := x.followed(x.url, "art", "bad", "worse")
	held()
	changed := 0
	said, err := x.tryRebuild(t.Context(), indexer.RebuildConfig{}, &steps{say: func(step string) {
		switch step {
		case "making the new index's lists":
			x.write("accounts: [did:plc:c]\n")
			x.awaitPosts("tags=art", "a1")
			x.awaitPosts("tags=bad", "b1")
		case "there is no difference":
			x.write("accounts: [did:plc:a]\ntags: [worse]\n")
			x.awaitPosts("tags=art", "c1")
			x.awaitPosts("tags=worse", "")
			require.NoError(t, ix.stop()) // so that only the rebuild can change the new index
		default:
			return
		}
		changed++
	}})
	require.NoError(t, err, said)
	require.Equal(t, 2, changed, said)
	x.await(x.url, 4)
	require.Equal(t, "c1", x.posts("tags=art"))
	require.Equal(t, "b1", x.posts("tags=bad"))
	require.Equal(t, "", x.posts("tags=worse"))
	x.indexer(100)
	held()
}

// followed starts followers of lists with one tag each, and returns a function that waits until all
// hold the current lists.
func (b *indexBench) followed(api string, tags ...string) (held func()) {
	var all []*follower
	for i, tag := range tags {
		for _, pushed := range []bool{false, true} {
			f := &follower{url: api, params: url.Values{"tags": {tag}}, pushed: pushed, rng: rand.New(rand.NewPCG(uint64(i), 0))}
			all = append(all, f)
			b.start(f.follow)
		}
	}
	return func() {
		b.t.Helper()
		for _, f := range all {
			poll.Until(b.t, indexWait, func() (bool, string) {
				list, err := f.list(b.t.Context())
				require.NoError(b.t, err)
				differs := f.differs(list)
				return differs == "", fmt.Sprintf("the follower of %v, pushed %t: %s", f.params, f.pushed, differs)
			})
		}
	}
}
