package simnet

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jcalabro/atmos/cbor"
	"github.com/stretchr/testify/require"
)

// epoch is the start time of the clocks of repeatable runs.
func epoch() time.Time { return time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC) }

// repeatable returns a network whose every byte follows from the seed.
func repeatable(t *testing.T, seed uint64, accounts int) *Network {
	t.Helper()
	n, err := New(Config{Seed: seed, Accounts: accounts, Clock: StepClock(epoch(), time.Millisecond)})
	require.NoError(t, err)
	return n
}

// digest hashes all frames.
func digest(n *Network) [sha256.Size]byte {
	hash := sha256.New()
	for _, frame := range n.frames {
		hash.Write(frame.data)
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

func TestSeedFixesEveryByte(t *testing.T) {
	t.Parallel()
	run := func(networkSeed, trafficSeed uint64) *Network {
		n := repeatable(t, networkSeed, 20)
		require.NoError(t, Traffic{Count: 800, Seed: trafficSeed}.Run(t.Context(), n))
		return n
	}
	first, second := run(1, 2), run(1, 2)
	require.Equal(t, first.Log(), second.Log())
	require.Equal(t, digest(first), digest(second))
	require.NotEqual(t, digest(first), digest(run(1, 3)), "another traffic seed")
	require.NotEqual(t, digest(first), digest(run(2, 2)), "another network seed")
}

func TestLogIsOrderedAndRevisionsRise(t *testing.T) {
	t.Parallel()
	n := repeatable(t, 4, 10)
	require.NoError(t, Traffic{Count: 600, Seed: 4}.Run(t.Context(), n))
	last := ""
	for i, entry := range n.Log() {
		require.Equal(t, int64(i+1), entry.Seq)
		if entry.Rev != "" {
			require.Greater(t, entry.Rev, last)
			last = entry.Rev
		}
	}
	require.Equal(t, n.Seq(), int64(len(n.Log())))
}

func TestInvalidChangesAreRefused(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 500_000)
	cases := []struct {
		name   string
		change func(n *Network, did string) error
		want   error
	}{
		{"unknown account", func(n *Network, _ string) error { _, err := n.CreatePost("did:plc:nobody", "", nil); return err }, ErrUnknownAccount},
		{"status of unknown account", func(n *Network, _ string) error {
			_, err := n.SetAccountStatus("did:plc:nobody", true, "")
			return err
		}, ErrUnknownAccount},
		{"sync of unknown account", func(n *Network, _ string) error { _, err := n.Sync("did:plc:nobody"); return err }, ErrUnknownAccount},
		{"sync of an account that is away", func(n *Network, _ string) error {
			did := n.DIDs()[1]
			n.accounts[did].active = false
			_, err := n.Sync(did, Op{Action: Create, Record: NewPost(n.Now(), "unheard")})
			return err
		}, ErrInactive},
		{"create twice", func(n *Network, did string) error { _, err := n.CreatePost(did, "taken", nil); return err }, ErrRecordExists},
		{"update of nothing", func(n *Network, did string) error { _, err := n.UpdatePost(did, "absent", nil); return err }, ErrNoRecord},
		{"delete of nothing", func(n *Network, did string) error { _, err := n.DeletePost(did, "absent"); return err }, ErrNoRecord},
		{"one key twice in a commit", func(n *Network, did string) error {
			_, err := n.Commit(did, Op{Action: Create, Rkey: "a"}, Op{Action: Create, Rkey: "a"})
			return err
		}, ErrRecordExists},
		{"a good operation before a bad one", func(n *Network, did string) error {
			_, err := n.Commit(did, Op{Action: Create, Rkey: "good"}, Op{Action: Delete, Rkey: "absent"})
			return err
		}, ErrNoRecord},
		{"201 operations", func(n *Network, did string) error { _, err := n.Commit(did, make([]Op, 201)...); return err }, ErrCommitTooLarge},
		{"2 MB in a commit", func(n *Network, did string) error {
			ops := make([]Op, 4)
			for i := range ops {
				ops[i] = Op{Action: Create, Record: map[string]any{"text": big, "i": i}}
			}
			_, err := n.Commit(did, ops...)
			return err
		}, ErrCommitTooLarge},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := repeatable(t, 1, 2)
			did := n.DIDs()[0]
			_, err := n.CreatePost(did, "taken", NewPost(n.Now(), "here"))
			require.NoError(t, err)
			before, err := n.Records(did)
			require.NoError(t, err)
			require.ErrorIs(t, c.change(n, did), c.want)
			after, err := n.Records(did)
			require.NoError(t, err)
			require.Equal(t, before, after)
			require.Equal(t, int64(1), n.Seq())
			_, err = n.CreatePost(did, "next", NewPost(n.Now(), "continues"))
			require.NoError(t, err)
		})
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	n, err := New(Config{Seed: 1, Accounts: 1, Clock: StepClock(epoch(), time.Millisecond), History: 100, LogLimit: 50})
	require.NoError(t, err)
	did := n.DIDs()[0]
	for range 4000 {
		post, err := n.CreatePost(did, "", NewPost(n.Now(), "short-lived"))
		require.NoError(t, err)
		_, err = n.DeletePost(did, post.Rkey)
		require.NoError(t, err)
	}
	require.Less(t, len(n.accounts[did].repo.store.blocks), 1000)
	require.LessOrEqual(t, len(n.frames), 100+historyStride)
	require.LessOrEqual(t, len(n.Log()), 50+historyStride)
	require.Equal(t, n.Seq(), n.Log()[len(n.Log())-1].Seq)
}

func TestTrafficResemblesTheNetwork(t *testing.T) {
	t.Parallel()
	const seed = 9
	n := repeatable(t, seed, 100)
	require.NoError(t, Traffic{Count: 12_000, Seed: seed, MaxPosts: 4_000}.Run(t.Context(), n))
	kinds, actions, tags, langs := map[Kind]int{}, map[Action]int{}, map[string]int{}, map[any]int{}
	posts, taggedRoots := 0, 0
	for _, entry := range n.Log() {
		kinds[entry.Kind]++
		if entry.Kind != KindCommit {
			continue
		}
		for _, op := range entry.Ops {
			if op.Collection != PostCollection {
				continue
			}
			actions[op.Action]++
			if op.Action != Create {
				continue
			}
			posts++
			record := decode(t, op.Record)
			if list, ok := record["langs"].([]any); ok {
				langs[list[0]]++
			}
			found := tagsIn(t, record)
			for _, tag := range found {
				tags[strings.ToLower(tag)]++
			}
			if _, isReply := record["reply"]; !isReply && len(found) > 0 {
				taggedRoots++
			}
		}
	}
	share := float64(taggedRoots) / float64(posts)
	require.InDelta(t, 0.10, share, 0.03, "seed %d: share of root posts with tags", seed)
	for tag, count := range tags {
		if tag != "art" {
			require.Less(t, count, tags["art"], "seed %d: %q is more common than art", seed, tag)
		}
	}
	require.Greater(t, len(tags), 200, "a long tail of tags")
	require.Greater(t, len(langs), 6)
	for _, kind := range []Kind{KindCommit, KindAccount, KindIdentity, KindSync} {
		require.Positive(t, kinds[kind], kind)
	}
	for _, action := range []Action{Create, Update, Delete} {
		require.Greater(t, actions[action], posts/50, action)
	}
}

// decode decodes a record.
func decode(t *testing.T, data []byte) map[string]any {
	t.Helper()
	value, err := cbor.Unmarshal(data)
	require.NoError(t, err)
	return value.(map[string]any)
}

// tagsIn returns a record's tags and checks that each well-formed facet marks "#" and its tag.
func tagsIn(t *testing.T, record map[string]any) []string {
	t.Helper()
	var found []string
	text, _ := record["text"].(string)
	facets, _ := record["facets"].([]any)
	for _, item := range facets {
		facet, _ := item.(map[string]any)
		features, _ := facet["features"].([]any)
		index, _ := facet["index"].(map[string]any)
		for _, feature := range features {
			tag, ok := feature.(map[string]any)["tag"].(string)
			if !ok || index == nil {
				continue
			}
			found = append(found, tag)
			start, end := index["byteStart"].(int64), index["byteEnd"].(int64)
			if text != "" && end <= int64(len(text)) {
				require.Equal(t, "#"+tag, text[start:end])
			}
		}
	}
	list, _ := record["tags"].([]any)
	for _, item := range list {
		if tag, ok := item.(string); ok {
			found = append(found, tag)
		}
	}
	return found
}

func TestSignaturesAreDeterministicAndVerify(t *testing.T) {
	t.Parallel()
	key, err := newSigningKey(1, 2)
	require.NoError(t, err)
	content := []byte("content")
	first, err := key.HashAndSign(content)
	require.NoError(t, err)
	second, err := key.HashAndSign(content)
	require.NoError(t, err)
	require.Equal(t, first, second)
	require.NoError(t, key.PublicKey().HashAndVerify(content, first))
	require.Error(t, key.PublicKey().HashAndVerify([]byte("other"), first))
	other, err := newSigningKey(1, 3)
	require.NoError(t, err)
	require.Error(t, other.PublicKey().HashAndVerify(content, first))
}

func TestFramesAfterReportsTrimming(t *testing.T) {
	t.Parallel()
	n, err := New(Config{Seed: 1, Accounts: 1, History: 10})
	require.NoError(t, err)
	for range historyStride + 20 {
		_, err := n.SetAccountStatus(n.DIDs()[0], true, "")
		require.NoError(t, err)
	}
	_, err = n.framesAfter(t.Context(), 0, 5)
	require.True(t, errors.Is(err, errOutdated))
	frames, err := n.framesAfter(t.Context(), n.Seq()-3, 5)
	require.NoError(t, err)
	require.Len(t, frames, 3)
}
