package e2e_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	neturl "net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/api"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/model"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/simnet"
)

var followSeeds = seedFlags("follow", "TestFollow", 2)

const (
	followedQueries = 10
	// followersEach is the number of followers per query, half of them pushed.
	followersEach = 10
	followRounds  = 3
	// followLimit bounds the time of one seed, on a busy machine.
	followLimit = 10 * time.Minute
	// followSettled bounds the wait until a follower holds what it must.
	followSettled = 60 * time.Second
)

// TestFollow runs followers of lists with /v1/changes and /v1/stream, whose connections are cut at
// any byte. At the same time all kinds of changes to posts pass through the whole pipeline, api and
// indexer are killed, the index is rebuilt and switched, accounts and tags are denied and allowed
// again, and the database crashes or fails over to a standby that lacks its last transactions.
// Whenever the pipeline is idle, each follower holds exactly the list of the model.
func TestFollow(t *testing.T) {
	t.Parallel()
	followSeeds.run(t, follow)
}

func follow(t *testing.T, seed uint64) {
	b := newFollowBench(t, seed)
	run, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	var followers []*follower
	for round := range followRounds {
		if round < 2 { // some start with an empty index, some later
			for i, q := range b.queries {
				params, err := neturl.ParseQuery(q.String())
				require.NoError(t, err)
				for n := range followersEach / 2 {
					f := &follower{url: b.url, params: params, pushed: n%2 == round, rng: rand.New(rand.NewPCG(seed, uint64(round*1000+i*100+n)))}
					followers = append(followers, f)
					group.Go(func() {
						if err := f.follow(run); err != nil {
							t.Error(err)
						}
					})
				}
			}
		}
		for slice := range 4 {
			b.generate(uint64(round*10+slice), 50, 8)
			b.fail()
		}
		b.awaitIdle()
		want, err := model.FromNetwork(b.net.Log())
		require.NoError(t, err)
		want.Deny(b.deniedDIDs, b.deniedTags)
		// No more changes; a busy machine answers late.
		poll.NoError(t, followSettled, func() error {
			// This also adopts times that the network does not know.
			if err := model.Check(t.Context(), b.url, want, model.Queries(1, seed)); err != nil {
				return err
			}
			return model.Lists(t.Context(), b.url, want, b.queries, 100)
		})
		lists := map[string]map[string]string{}
		for i, f := range followers {
			key := f.params.Encode()
			if lists[key] == nil {
				poll.NoError(t, followSettled, func() (err error) {
					lists[key], err = (&follower{url: b.url, params: f.params}).list(t.Context())
					return err
				})
			}
			poll.Until(t, followSettled, func() (bool, string) {
				differs := f.differs(lists[key])
				return differs == "" || t.Failed(), fmt.Sprintf("follower %d of %s, pushed %t, round %d (%v): %s", i, key, f.pushed, round, &f.did, differs)
			})
		}
		require.False(t, t.Failed())
	}
	stop()
	group.Wait()
	var all followed
	held := 0
	for _, f := range followers {
		all.add(&f.did)
		held += len(f.held)
	}
	require.Positive(t, all.events.Load())
	t.Logf("%d followers compared %d times, 0 differences; %d posts held; %v; failures: %v", len(followers), followRounds, held, &all, b.failures)
}

// followBench is the whole pipeline. Api and indexer are processes, so that they can be killed.
type followBench struct {
	*ingestBench
	index    *indexBench
	rng      *rand.Rand
	seed     uint64
	host     *simnet.Jetstream
	edges    *simnet.Edges
	queries  []model.Query
	url      string
	primary  *pgtest.PrivateServer
	standby  *pgtest.PrivateServer // until it is promoted
	api      *program
	indexer  *program
	failures map[string]int

	deniedDIDs, deniedTags []string // what the indexer's deny file has, sorted
}

func newFollowBench(t *testing.T, seed uint64) *followBench {
	b := &followBench{ingestBench: newIngestBench(t, 25, natstest.Listen()), seed: seed, rng: rand.New(rand.NewPCG(seed, 11)), failures: map[string]int{}}
	var cancel context.CancelFunc
	b.ctx, cancel = context.WithTimeout(t.Context(), followLimit)
	t.Cleanup(cancel)
	require.NoError(t, simnet.Traffic{Count: 150, Seed: seed, TagsOnly: true}.Run(b.ctx, b.net))
	b.host = b.ingestBench.host()
	b.edges = simnet.NewEdges(b.net, seed)
	b.index = newIndexBench(t, b.nats)
	b.index.deny = filepath.Join(t.TempDir(), "deny.yaml")
	require.NoError(t, process.WriteDenyFile(b.index.deny, ""))
	b.primary = b.index.deployed()
	b.standby = b.primary.Standby(t)
	at := func(o store.Options, servers ...*pgtest.PrivateServer) store.Options {
		var hosts []string
		for _, s := range servers {
			u, err := neturl.Parse(s.URL)
			require.NoError(t, err)
			hosts = append(hosts, u.Host)
		}
		u, err := neturl.Parse(o.URL)
		require.NoError(t, err)
		u.Host = strings.Join(hosts, ",")
		return store.Options{URL: u.String()}
	}
	b.index.owner, b.index.writer = at(b.index.owner, b.primary, b.standby), at(b.index.writer, b.primary, b.standby)
	b.index.reader = at(b.index.reader, b.primary, b.standby)
	if seed%2 == 0 { // the api reads the standby
		b.index.reader = at(b.index.reader, b.standby, b.primary)
	}
	want, err := model.FromNetwork(b.net.Log())
	require.NoError(t, err)
	b.queries = followedLists(b.rng, want.TagCounts(), b.net.DIDs())
	listen := freeAddr(t)
	b.url = "http://" + listen
	b.ingest(ingest.Config{Hosts: []string{b.host.URL()}, Start: "archive"})
	child := func(service string, o store.Options, env ...string) *program {
		return running(t, &process.Program{Name: service, Path: os.Args[0], Env: append(env, followChild+"="+service, "DATABASE="+o.URL)})
	}
	b.api = child("api", b.index.reader, "LISTEN="+listen)
	b.indexer = child("indexer", b.index.writer, "NATS="+b.nats.URL(), "DENY="+b.index.deny, fmt.Sprint("BATCH=", 1+b.rng.IntN(60)), fmt.Sprint("BIG=", []int{1, 3, 20}[b.rng.IntN(3)]))
	return b
}

// generate makes traffic on the network.
func (b *followBench) generate(part uint64, count, edges int) {
	b.t.Helper()
	require.NoError(b.t, simnet.Traffic{Count: count * 5, Seed: b.seed<<16 + part}.Run(b.ctx, b.net))
	for range edges {
		require.NoError(b.t, b.edges.Act())
	}
}

// fail causes a random failure, or none.
func (b *followBench) fail() {
	b.t.Helper()
	again := func(p *program) {
		p.end(syscall.SIGKILL)
		require.NoError(b.t, p.Start())
	}
	what := []string{"api", "indexer", "rebuild", "database", "deny", "none"}[b.rng.IntN(6)]
	b.failures[what]++
	switch what {
	case "api":
		again(b.api)
	case "indexer":
		again(b.indexer)
	case "rebuild":
		poll.NoError(b.t, ingestWait, func() error { // until ingest has created the stream
			_, err := stream.GetState(b.t.Context(), b.index.js)
			return err
		})
		_, err := b.index.tryRebuild(b.t.Context(), indexer.RebuildConfig{}, &steps{})
		require.NoError(b.t, err)
	case "deny":
		some := func(of []string) []string {
			b.rng.Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
			return slices.Sorted(slices.Values(of[:b.rng.IntN(4)]))
		}
		var tags []string
		for _, q := range b.queries {
			tags = append(tags, q.Tags...)
		}
		b.deniedDIDs, b.deniedTags = some(b.net.DIDs()), slices.Compact(some(tags))
		require.NoError(b.t, process.WriteDenyFile(b.index.deny, process.DenyFile(b.deniedDIDs, b.deniedTags)))
	case "database":
		b.primary.Kill(b.t)
		if b.standby == nil {
			b.primary.Start(b.t)
			return
		}
		b.standby.Promote(b.t)
		b.primary, b.standby = b.standby, nil
	}
}

// awaitIdle returns when everything that happened is in the index and its change feed.
func (b *followBench) awaitIdle() {
	b.t.Helper()
	b.settle(b.host, b.url)
	poll.Until(b.t, indexWait, func() (bool, string) {
		conn, err := pgx.Connect(b.ctx, b.index.owner.URL)
		if err != nil {
			return false, err.Error()
		}
		defer conn.Close(b.ctx)
		var left int
		var denied []string
		err = conn.QueryRow(b.ctx, `
			SELECT (SELECT count(*) FROM tagstream.announcements) + (SELECT count(*) FROM tagstream.sweeps),
			       ARRAY(SELECT did FROM tagstream.denied_accounts) || ARRAY(SELECT name FROM tagstream.denied_tags)`).Scan(&left, &denied)
		slices.Sort(denied)
		want := slices.Sorted(slices.Values(slices.Concat(b.deniedDIDs, b.deniedTags)))
		return err == nil && left == 0 && slices.Equal(denied, want), fmt.Sprint(left, " accounts are being swept or announced; denied are ", denied, " of ", want, ": ", err)
	})
	// The api may read a standby, which lags.
	b.settle(b.host, b.url)
}

// followedLists returns random queries for the most frequent tags and for the accounts, with all
// filters whose result an edit can change.
func followedLists(rng *rand.Rand, counts []model.TagCount, dids []string) (lists []model.Query) {
	counts = counts[:min(len(counts), 12)]
	some := func(of []string, n int) []string {
		rng.Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
		return slices.Clone(of[:n])
	}
	for i := range followedQueries {
		rng.Shuffle(len(counts), func(i, j int) { counts[i], counts[j] = counts[j], counts[i] })
		var q model.Query
		for _, c := range counts[:1+rng.IntN(3)] {
			q.Tags = append(q.Tags, c.Tag)
		}
		if i > 4 { // the tags of simnet.Edges, whose posts have media and labels
			q.Tags = slices.Compact(slices.Sorted(slices.Values(append(q.Tags[:1], "art", "photo"))))
		}
		switch i {
		case 1:
			q.All, q.Tags = q.Tags[:min(len(q.Tags), 2)], nil
		case 2:
			q.None = []string{counts[3].Tag}
		case 3:
			q.Langs = []string{"en", "pt"}
		case 4:
			q.By = some(dids, 6)
		case 5:
			q.NotBy = some(dids, 6)
		case 6:
			q.MaxTags = 1 + rng.IntN(3)
		case 7:
			q.Media = some([]string{"image", "video", "gallery", "link"}, 1+rng.IntN(2))
		case 8:
			q.SelfLabels = []string{"exclude", "only"}[rng.IntN(2)]
		case 9:
			q.All, q.Tags = []string{"art"}, nil
			q.NotBy, q.Media, q.SelfLabels, q.MaxTags = some(dids, 2), []string{[]string{"any", "none"}[rng.IntN(2)]}, "exclude", 2+rng.IntN(3)
		}
		lists = append(lists, q)
	}
	return lists
}

// followChild is the variable that makes this test binary run as one of the services, with limits
// so low that every account is swept.
const followChild = "FOLLOW_CHILD"

// serveFollow runs that service.
func serveFollow(name string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	database, health, registry := store.Options{URL: os.Getenv("DATABASE")}, obs.NewHealth(logger), prometheus.NewRegistry()
	if name == "api" {
		service.UseMemory() // as its command does
		key, err := keyset.NewKey("test", []byte(strings.Repeat("k", keyset.MinSecret)))
		if err != nil {
			return err
		}
		a, err := api.New(api.Config{Database: database, Listen: os.Getenv("LISTEN"), CursorKeys: []keyset.Key{key}, MaxFollowers: 20_000}, api.Deps{Logger: logger, Registry: registry, Health: health})
		if err != nil {
			return err
		}
		return a.Run(ctx)
	}
	conn, err := nats.Connect(os.Getenv("NATS"), nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer conn.Close()
	batch, err := strconv.Atoi(os.Getenv("BATCH"))
	if err != nil {
		return err
	}
	big, err := strconv.Atoi(os.Getenv("BIG"))
	if err != nil {
		return err
	}
	x, err := indexer.New(indexer.Config{Database: database, BatchSize: batch, BigAccount: big, DenyFile: os.Getenv("DENY")}, indexer.Deps{
		NATS: conn, Logger: logger, Registry: registry, Health: health, ID: fmt.Sprint("indexer-", os.Getpid()),
	})
	if err != nil {
		return err
	}
	return x.Run(ctx)
}
