package bench

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/jcalabro/atmos/cbor"

	"github.com/tagstream/tagstream/test/simnet"
)

const (
	// accounts is how many people write.
	accounts = 200
	// samples is how many different posts there are but for their times.
	samples = 4_000
	// historyAge is how far back a history reaches; its posts are spread evenly.
	historyAge = 30 * 24 * time.Hour
	// commitPosts is how many posts of a history share a commit: signing is what costs.
	commitPosts = 100
	// keptFrames is how many frames the simulated relay can replay: a server that is attached never needs more.
	keptFrames = 4096
	// createdAt is how posts here say when they were written: to the microsecond, so that their order is known.
	createdAt = "2006-01-02T15:04:05.000000Z"
)

// sampleRecords returns root posts with tags as simnet's traffic writes them, as maps.
func sampleRecords(ctx context.Context, seed uint64) ([]map[string]any, error) {
	n, err := simnet.New(simnet.Config{Seed: seed, Accounts: 50, History: 1})
	if err != nil {
		return nil, fmt.Errorf("make a network for samples: %w", err)
	}
	if err := (simnet.Traffic{Count: samples, Seed: seed, TagsOnly: true}).Run(ctx, n); err != nil {
		return nil, fmt.Errorf("write samples: %w", err)
	}
	var records []map[string]any
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
			records = append(records, record)
		}
	}
	return records, ctx.Err()
}

// writtenAt copies a record with another time, and with further tags.
func writtenAt(record map[string]any, at time.Time, tags ...string) map[string]any {
	record = maps.Clone(record)
	record["createdAt"] = at.UTC().Format(createdAt)
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

// newHistory makes a network whose accounts have posts posts with tags among them.
func newHistory(ctx context.Context, seed uint64, posts int, records []map[string]any) (*simnet.Network, error) {
	n, err := simnet.New(simnet.Config{Seed: seed, Accounts: accounts, History: keptFrames, LogLimit: -1})
	if err != nil {
		return nil, fmt.Errorf("make the network: %w", err)
	}
	dids, now := n.DIDs(), n.Now()
	for done := 0; done < posts && ctx.Err() == nil; {
		ops := make([]simnet.Op, min(commitPosts, posts-done))
		for i := range ops {
			age := historyAge * time.Duration(posts-done) / time.Duration(posts)
			ops[i] = simnet.Op{Action: simnet.Create, Record: writtenAt(records[done%len(records)], now.Add(-age))}
			done++
		}
		if _, err := n.Commit(dids[done/commitPosts%len(dids)], ops...); err != nil {
			return nil, fmt.Errorf("write post %d of the history: %w", done, err)
		}
	}
	return n, ctx.Err()
}
