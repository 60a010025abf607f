package e2e_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	neturl "net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/test/model"
)

var (
	followSeed  = flag.Uint64("follow.seed", 0, "run TestFollow with this seed only")
	followSeeds = flag.Uint64("follow.seeds", 2, "how many seeds TestFollow runs")
)

// followersEach is how many follow each query.
const followersEach = 2

// TestFollow lets programs follow lists over HTTP while histories full of edges are folded in,
// indexers are stopped and take over from each other, and the index is rebuilt and switched under
// them. Whenever nothing is left to do, each holds what the list has, and the list has what the
// model has. No position expires meanwhile.
func TestFollow(t *testing.T) {
	t.Parallel()
	bySeed(t, "follow", *followSeed, *followSeeds, follow)
}

func follow(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 11))
	b := newIndexBench(t, natstest.Server(t))
	url := b.api()
	want := model.New()
	history := model.GenerateMessages(seed, 1500)
	lists := followedLists(rng, history)
	seq := uint64(0)
	var followers []*httpFollower
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for round := 0; len(history) > 0; round++ {
		if round < 2 { // some begin in an empty index, some later
			for _, params := range lists {
				for range followersEach / 2 {
					followers = append(followers, &httpFollower{url: url, params: params, rng: rand.New(rand.NewPCG(seed, uint64(len(followers)+20)))})
				}
			}
		}
		polling, rest := context.WithCancel(ctx)
		var group sync.WaitGroup
		for _, f := range followers {
			group.Go(func() {
				for polling.Err() == nil {
					if _, err := f.poll(t.Context()); err != nil {
						t.Errorf("%v: %v", f.params, err)
						return
					}
				}
			})
		}
		n := min(len(history), 100+rng.IntN(400))
		for _, m := range history[:n] {
			seq++
			want.Apply(seq, m)
		}
		b.big = []int{0, 1, 3, 20}[rng.IntN(4)]
		r := b.indexer(1 + rng.IntN(60))
		require.Equal(t, seq, b.publish(history[:n]...))
		history = history[n:]
		rebuilding := rng.IntN(2) == 0
		if rebuilding { // beside the indexer, which may be behind it or not
			if rng.IntN(2) == 0 {
				require.NoError(t, r.stop())
			}
			_, err := indexer.Rebuild(t.Context(), indexer.RebuildConfig{Database: b.owner, ID: fmt.Sprint("rebuild-", round)}, b.nats.Conn(t), b.logger("rebuild"), quietProgress{})
			require.NoError(t, err)
		}
		require.NoError(t, r.stop())
		r = b.indexer(1 + rng.IntN(60))
		b.await(url, seq)
		b.awaitAnnounced()
		require.NoError(t, r.stop())
		rest()
		group.Wait()
		for _, f := range followers {
			require.NoError(t, f.settle(t.Context()))
			held, err := f.list(t.Context())
			require.NoError(t, err)
			require.Equal(t, held, f.held, "%v", f.params)
		}
		if t.Failed() {
			return
		}
	}
	model.CheckHTTP(t, url, want)
}

// followedLists are random queries for tags that a history has in the end.
func followedLists(rng *rand.Rand, history [][]byte) (lists []neturl.Values) {
	end := model.New()
	for i, m := range history {
		end.Apply(uint64(i+1), m)
	}
	counts := end.TagCounts()
	counts = counts[:min(len(counts), 12)] // the most used
	for i := range 10 {
		rng.Shuffle(len(counts), func(i, j int) { counts[i], counts[j] = counts[j], counts[i] })
		params := neturl.Values{}
		for _, c := range counts[:1+rng.IntN(3)] {
			params.Add("tags", c.Tag)
		}
		switch i % 5 {
		case 1:
			params.Set("match", "all")
		case 2:
			params.Set("none", counts[3].Tag)
		case 3:
			params["lang"] = []string{"en", "pt"}
		}
		lists = append(lists, params)
	}
	return lists
}

// awaitAnnounced returns when all that came in sight is in the change feed.
func (b *indexBench) awaitAnnounced() {
	b.t.Helper()
	conn := connect(b.t, b.owner)
	var left int
	require.Eventually(b.t, func() bool {
		require.NoError(b.t, conn.QueryRow(b.t.Context(), `SELECT count(*) FROM tagstream.announcements`).Scan(&left))
		return left == 0
	}, indexWait, 10*time.Millisecond)
}

// httpFollower keeps a copy of a list, as docs/api.md says.
type httpFollower struct {
	url    string
	params neturl.Values
	rng    *rand.Rand
	held   map[string]string // the posts as they came, without their cursors, by at-uri
	after  string
	begun  bool
}

type followedPost map[string]json.RawMessage

func (p followedPost) put(into map[string]string) error {
	var uri string
	if err := json.Unmarshal(p["uri"], &uri); err != nil {
		return err
	}
	delete(p, "cursor")
	text, err := json.Marshal(p)
	into[uri] = string(text)
	return err
}

func (f *httpFollower) get(ctx context.Context, path string, into any, more ...string) error {
	params := neturl.Values{}
	for name, values := range f.params {
		params[name] = values
	}
	for i := 0; i < len(more); i += 2 {
		params.Set(more[i], more[i+1])
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+path+"?"+params.Encode(), nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", req.URL.RequestURI(), res.Status)
	}
	return json.NewDecoder(res.Body).Decode(into)
}

type changesPage struct {
	Changes []struct {
		Op, URI, Cursor string
		Post            followedPost
	}
	Page struct {
		HasNext bool
		Next    string
	}
}

// poll takes a page of changes in, and the list before the first.
func (f *httpFollower) poll(ctx context.Context) (more bool, err error) {
	if !f.begun {
		var now changesPage
		if err := f.get(ctx, "/v1/changes", &now); err != nil {
			return false, err
		}
		f.after, f.begun = now.Page.Next, true
		f.held, err = f.list(ctx)
		return true, err
	}
	var page changesPage
	if err := f.get(ctx, "/v1/changes", &page, "after", f.after, "limit", fmt.Sprint(1+f.rng.IntN(20))); err != nil {
		return false, err
	}
	for _, c := range page.Changes {
		if c.Op == "remove" {
			delete(f.held, c.URI)
		} else if err := c.Post.put(f.held); err != nil {
			return false, err
		}
	}
	f.after = page.Page.Next
	return page.Page.HasNext, nil
}

// settle polls until there is nothing.
func (f *httpFollower) settle(ctx context.Context) error {
	for {
		if more, err := f.poll(ctx); err != nil || !more {
			return err
		}
	}
}

// list reads the whole list.
func (f *httpFollower) list(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	for token := ""; ; {
		var page struct {
			Posts []followedPost
			Page  struct {
				HasNext bool
				Next    string
			}
		}
		if err := f.get(ctx, "/v1/posts", &page, "after", token, "limit", "100"); err != nil {
			return nil, err
		}
		for _, p := range page.Posts {
			if err := p.put(all); err != nil {
				return nil, err
			}
		}
		if token = page.Page.Next; !page.Page.HasNext {
			return all, nil
		}
	}
}
