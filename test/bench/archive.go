package bench

import (
	"context"
	"encoding/base32"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bluesky-social/jetstream/segment"
	"github.com/jcalabro/atmos"
	"github.com/jcalabro/atmos/api/comatproto"
	"github.com/jcalabro/atmos/cbor"
	"github.com/jcalabro/gt"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/test/simnet"
)

const (
	// accounts is the number of accounts that write on the simulated network, archived the number
	// in the archive.
	accounts = 200
	archived = 5000
	// samples is the number of posts that differ by more than times and random words.
	samples = 4_000
	// vocabulary is the number of random words, and ownWords the average number of them in a post.
	vocabulary = 5_000
	ownWords   = 8
	// archiveAge is the age of the archive's oldest event. Events are spread evenly.
	archiveAge = 30 * 24 * time.Hour
	// keptFrames is the number of frames that the simulated relay can replay: an attached server
	// never needs more.
	keptFrames = 4096
	// createdAt is the time format of posts: microseconds make their order known.
	createdAt = "2006-01-02T15:04:05.000000Z"
)

// The mix of the archive. Per 1,000 events: deletions, edits, and changes of accounts; the others
// are posts. Per 1,000 posts: posts with tags, and replies among the others.
const (
	deletions, edits, statuses = 60, 20, 5
	tagged, replies            = 100, 500
)

// author generates posts like those of simnet's traffic, followed by random words, so that no two
// are equal and they compress like real posts. It is not safe for concurrent use.
type author struct {
	records []map[string]any
	rng     *rand.Rand
	words   []string
	ranks   *rand.Zipf
}

// newAuthor returns an author. Equal seeds give equal posts in the same order.
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

// post returns a post with tags, including the given ones, as of a time.
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

// anyPost returns a post with tags or, mostly, without.
func (a *author) anyPost(at time.Time) map[string]any {
	record := a.post(at)
	if a.rng.IntN(1000) < tagged {
		return record
	}
	delete(record, "tags")
	delete(record, "facets")
	if a.rng.IntN(1000) < replies {
		parent := map[string]any{"uri": "at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/app.bsky.feed.post/3l3qo2vutsw2b", "cid": "bafyreibjifzpqj6o6wcq3hejh7y4z4z2vmiklkvykc57tw3pcbx3kxifpm"}
		record["reply"] = map[string]any{"root": parent, "parent": parent}
	}
	return record
}

// archive is the initial content of the Jetstream server.
type archive struct {
	events int
	last   uint64 // the sequence number of the last event, which is a post with tags
}

type archivedPost struct {
	did, rkey string
}

// writeArchive appends events to the segment of a stopped Jetstream server, and seals it. The
// server continues after it.
func writeArchive(ctx context.Context, a *author, dataDir string, events int) (out archive, err error) {
	files, err := filepath.Glob(filepath.Join(dataDir, "segments", "*"))
	if err != nil || len(files) == 0 {
		return out, fmt.Errorf("the Jetstream server has no segment in %s: %w", dataDir, err)
	}
	path := slices.Max(files)
	next := uint64(1)
	if max, found, err := segment.ScanMaxSeq(path); err != nil {
		return out, fmt.Errorf("read segment %s: %w", path, err)
	} else if found {
		next = max + 1
	}
	w, err := segment.New(segment.Config{Path: path})
	if err != nil {
		return out, fmt.Errorf("open segment %s: %w", path, err)
	}
	defer w.Close()
	dids := make([]string, archived)
	for i := range dids {
		var id [15]byte
		for j := range id {
			id[j] = byte(a.rng.UintN(256))
		}
		dids[i] = "did:plc:" + strings.ToLower(base32.StdEncoding.EncodeToString(id[:]))
	}
	busy := rand.NewZipf(a.rng, 1.1, 50, archived-1)
	var posts []archivedPost
	begun := time.Now().Add(-archiveAge)
	for i := range events {
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		at := begun.Add(time.Duration(float64(archiveAge-time.Minute) * float64(i) / float64(events)))
		tid := atmos.NewTID(at.UnixMicro(), 0).String()
		ev := segment.Event{Seq: next + uint64(i), WitnessedAt: at.UnixMicro(), Kind: segment.KindCreate,
			DID: dids[busy.Uint64()], Collection: event.Collection, Rkey: tid, Rev: tid}
		var record any
		kind := a.rng.IntN(1000)
		switch {
		case i == events-1:
			record = a.post(at)
		case i < 1000 || kind >= deletions+edits+statuses:
			record = a.anyPost(at)
			posts = append(posts, archivedPost{ev.DID, tid})
		case kind < deletions+edits: // of a post, possibly deleted before
			p := posts[a.rng.IntN(len(posts))]
			ev.Kind, ev.DID, ev.Rkey = segment.KindDelete, p.did, p.rkey
			if kind >= deletions {
				ev.Kind, record = segment.KindUpdate, a.anyPost(at)
			}
		default:
			ev.Kind, ev.Collection, ev.Rkey, ev.Rev = segment.KindAccount, "", "", ""
			account := comatproto.SyncSubscribeRepos_Account{LexiconTypeID: "com.atproto.sync.subscribeRepos#account", DID: ev.DID, Seq: int64(i + 1), Time: at.UTC().Format(time.RFC3339Nano), Active: kind%2 == 0}
			if !account.Active {
				account.Status = gt.Some("deactivated")
			}
			if ev.Payload, err = account.MarshalCBOR(); err != nil {
				return out, fmt.Errorf("write a status: %w", err)
			}
		}
		if record != nil {
			if ev.Payload, err = cbor.Marshal(record); err != nil {
				return out, fmt.Errorf("write a record: %w", err)
			}
		}
		full, err := w.Append(ev)
		if err == nil && full {
			err = w.Flush()
		}
		if err != nil {
			return out, fmt.Errorf("write event %d of the archive: %w", i, err)
		}
	}
	if _, err := w.Seal(); err != nil {
		return out, fmt.Errorf("seal the archive: %w", err)
	}
	return archive{events: events, last: next + uint64(events) - 1}, nil
}
