package bench

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jcalabro/atmos/cbor"

	"github.com/tagstream/tagstream/test/simnet"
)

const (
	// accounts is how many people write.
	accounts = 200
	// samples is how many different posts there are but for their times and words of their own.
	samples = 4_000
	// vocabulary is how many words there are, and ownWords how many a post has of its own on average.
	vocabulary = 5_000
	ownWords   = 8
	// historyAge is how far back a history reaches; its posts are spread evenly.
	historyAge = 30 * 24 * time.Hour
	// commitPosts is how many posts of a history share a commit: signing is what costs.
	commitPosts = 100
	// keptFrames is how many frames the simulated relay can replay: a server that is attached never needs more.
	keptFrames = 4096
	// createdAt is how posts here say when they were written: to the microsecond, so that their order is known.
	createdAt = "2006-01-02T15:04:05.000000Z"
)

// author writes root posts with tags. They are as those of simnet's traffic, with words of their own behind the text, so
// that no two are alike and compression finds no more in them than in what people write. One goroutine uses it.
type author struct {
	records []map[string]any
	rng     *rand.Rand
	words   []string
	ranks   *rand.Zipf
}

// newAuthor makes an author; the same seed gives the same posts in the same order.
func newAuthor(ctx context.Context, seed uint64) (*author, error) {
	n, err := simnet.New(simnet.Config{Seed: seed, Accounts: 50, History: 1})
	if err != nil {
		return nil, fmt.Errorf("make a network for samples: %w", err)
	}
	if err := (simnet.Traffic{Count: samples, Seed: seed, TagsOnly: true}).Run(ctx, n); err != nil {
		return nil, fmt.Errorf("write samples: %w", err)
	}
	rng := rand.New(rand.NewPCG(seed, 0x617574686f72))
	a := &author{rng: rng, words: make([]string, vocabulary), ranks: rand.NewZipf(rng, 1.1, 10, vocabulary-1)}
	for i := range a.words {
		word := make([]byte, 2+rng.IntN(8))
		for j := range word {
			word[j] = 'a' + byte(rng.IntN('z'-'a'+1))
		}
		a.words[i] = string(word)
	}
	for _, entry := range n.Log() {
		for _, op := range entry.Ops {
			value, err := cbor.Unmarshal(op.Record)
			if err != nil {
				return nil, fmt.Errorf("read sample %s: %w", op.URI, err)
			}
			record, ok := value.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("read sample %s: it is a %T", op.URI, value)
			}
			a.records = append(a.records, record)
		}
	}
	return a, ctx.Err()
}

// post writes a post as of a time, with further tags.
func (a *author) post(at time.Time, tags ...string) map[string]any {
	record := maps.Clone(a.records[a.rng.IntN(len(a.records))])
	record["createdAt"] = at.UTC().Format(createdAt)
	var text strings.Builder
	before, _ := record["text"].(string)
	text.WriteString(before)
	for range a.rng.IntN(2 * ownWords) {
		text.WriteString(" " + a.words[a.ranks.Uint64()])
	}
	record["text"] = text.String()
	if len(tags) > 0 {
		old, _ := record["tags"].([]any)
		all := append([]any{}, old...)
		for _, tag := range tags {
			all = append(all, tag)
		}
		record["tags"] = all
	}
	return record
}

// newHistory makes a network whose accounts have so many posts with tags among them.
func newHistory(ctx context.Context, seed uint64, posts int, author *author) (*simnet.Network, error) {
	n, err := simnet.New(simnet.Config{Seed: seed, Accounts: accounts, History: keptFrames, LogLimit: -1})
	if err != nil {
		return nil, fmt.Errorf("make the network: %w", err)
	}
	dids, now := n.DIDs(), n.Now()
	for done := 0; done < posts && ctx.Err() == nil; {
		ops := make([]simnet.Op, min(commitPosts, posts-done))
		for i := range ops {
			age := historyAge * time.Duration(posts-done) / time.Duration(posts)
			ops[i] = simnet.Op{Action: simnet.Create, Record: author.post(now.Add(-age))}
			done++
		}
		if _, err := n.Commit(dids[done/commitPosts%len(dids)], ops...); err != nil {
			return nil, fmt.Errorf("write post %d of the history: %w", done, err)
		}
	}
	return n, ctx.Err()
}
