package e2e_test

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/test/model"
	"github.com/tagstream/tagstream/test/process"
)

var foldSeeds = seedFlags("fold", "TestFold", 6)

// TestFold folds generated histories, full of edge cases, through the indexer in batches of every
// size, with restarts and repeats in between, sweeps of accounts of every size and, for half of the seeds,
// accounts and tags that are denied and allowed again, and compares all answers of the API with the
// model.
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
