package e2e_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/test/model"
	"github.com/tagstream/tagstream/test/process"
)

var (
	queriesSeeds = seedFlags("queries", "TestQueries", 2)
	queriesCount = flag.Int("queries.count", 80, "how many random queries each seed of TestQueries walks")
)

// seeds are the flags that select the seeds of a test.
type seeds struct {
	name      string // of the flags, before the dot
	one, many *uint64
}

func seedFlags(name, test string, many uint64) seeds {
	return seeds{name, flag.Uint64(name+".seed", 0, "run "+test+" with this seed only"), flag.Uint64(name+".seeds", many, "how many seeds "+test+" runs")}
}

// run runs a test with each seed that its flags select.
func (s seeds) run(t *testing.T, test func(t *testing.T, seed uint64)) {
	whole, first, many := t.Name(), uint64(1), *s.many
	if *s.one != 0 {
		first, many = *s.one, 1
	}
	for seed := first; seed < first+many; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("repeat with: go test ./test/e2e -run '^%s$' -%s.seed=%d", whole, s.name, seed)
				}
			})
			test(t, seed)
		})
	}
}

// TestQueries folds a history full of edge cases with the indexer, and then walks many random
// queries in every possible way.
//
// Invariant: every query, tag and count of the API agrees with the model, in every spelling and way
// of paging. See also TestQueriesOfCrowd.
func TestQueries(t *testing.T) {
	t.Parallel()
	queriesSeeds.run(t, func(t *testing.T, seed uint64) {
		b, url := newIndex(t)
		history := model.GenerateMessages(seed+1000, 1500)
		want := model.Fold(history)
		b.indexer(1 + int(seed*97)%300)
		b.await(url, b.publish(history...))
		model.CheckHTTP(t, url, want, model.Queries(*queriesCount, seed))
	})
}

// TestQueriesOfCrowd does the same with many posts, spread over more hours than the history of a
// tag has, and with tags so common that their hours are counted as posts arrive.
func TestQueriesOfCrowd(t *testing.T) {
	t.Parallel()
	one := uint64(1)
	seeds{"queries", queriesSeeds.one, &one}.run(t, func(t *testing.T, seed uint64) {
		b, url := newIndex(t)
		want := model.New()
		start := time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)
		events := model.NewCrowd(seed, 1700, start, 6*time.Minute).Take(5000)
		var last uint64
		for len(events) > 0 {
			n := min(len(events), 500)
			last = b.feed(want, encoded(t, events[:n])...)
			events = events[n:]
			r := b.indexer(40 + n/3)
			b.await(url, last)
			require.NoError(t, r.stop())
		}
		counts := want.TagCounts()
		require.Greater(t, counts[0].Posts, 1100)
		model.CheckHTTP(t, url, want, model.Queries(16, seed))

		// Much work for few posts. Short pages need even more posts: see TestWorkIsBounded of
		// pkg/store.
		hard := model.Query{Tags: []string{counts[0].Tag}}
		for _, c := range counts[1:21] {
			hard.None = append(hard.None, c.Tag)
		}
		harder := hard
		harder.Langs = []string{"ja", "pt-br"}
		short := 0
		model.CheckQueries(t, url, want, []model.Query{hard, harder}, 100, model.ShortPages(&short))
		t.Logf("%d posts with %q, %d short pages", counts[0].Posts, counts[0].Tag, short)

		// A rebuild counts the hours in different batches.
		b.rebuild()
		model.CheckTags(t, url, want)
		model.CheckQueries(t, url, want, []model.Query{hard}, 100, model.ShortPages(&short))
	})
}

func encoded(t *testing.T, events []*event.Event) [][]byte {
	t.Helper()
	var messages [][]byte
	for _, e := range events {
		m, err := e.Encode()
		require.NoError(t, err)
		messages = append(messages, m)
	}
	return messages
}

var foldSeeds = seedFlags("fold", "TestFold", 6)

// TestFold folds generated histories, full of edge cases, through the indexer in batches of every
// size, with restarts and repeats in between and sweeps of accounts of every size. For half of the
// seeds, accounts and tags are denied and allowed again. All answers of the API must equal the
// model's.
func TestFold(t *testing.T) {
	t.Parallel()
	foldSeeds.run(t, fold)
}

func fold(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	b, url := newIndex(t)
	want := model.New()
	seq := uint64(0)
	sizes := []int{1, 2, 3, 7, 50, 1000}
	history := model.GenerateMessages(seed, 2000)
	for len(history) > 0 {
		n := min(len(history), 1+rng.IntN(1000))
		seq = b.feed(want, history[:n]...)
		history = history[n:]
		b.big = []int{0, 1, 3, 20}[rng.IntN(4)]
		if seed%2 == 0 {
			var dids, tags []string
			if all, counts := want.All(), want.TagCounts(); len(counts) > 0 {
				dids = []string{all[rng.IntN(len(all))].DID, "did:plc:unknown"}
				for range 3 {
					tags = append(tags, counts[rng.IntN(min(len(counts), 20))].Tag, counts[rng.IntN(len(counts))].Tag)
				}
			}
			b.deny = filepath.Join(t.TempDir(), "deny.yaml")
			require.NoError(t, process.WriteDenyFile(b.deny, process.DenyFile(dids, tags)))
			want.Deny(dids, tags)
		}
		r := b.indexer(sizes[rng.IntN(len(sizes))])
		b.await(url, seq)
		require.NoError(t, r.stop())
	}
	model.CheckHTTP(t, url, want)

	// An index rebuilt from the stream is the same.
	b.indexer(100)
	s := &steps{}
	_, err := b.tryRebuild(t.Context(), indexer.RebuildConfig{}, s)
	require.NoError(t, err)
	require.Equal(t, seq, s.replayed)
	model.CheckHTTP(t, url, want)
}
