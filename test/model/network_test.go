package model

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/test/simnet"
)

func TestFromNetwork(t *testing.T) {
	t.Parallel()
	n, err := simnet.New(simnet.Config{Seed: 1, Accounts: 2, Clock: simnet.StepClock(base, time.Second)})
	require.NoError(t, err)
	record := func(text string, tags ...any) map[string]any {
		return map[string]any{"$type": simnet.PostCollection, "text": text, "tags": tags, "createdAt": base.Format(time.RFC3339)}
	}
	a, b := n.DIDs()[0], n.DIDs()[1]
	for _, key := range []string{"one", "two", "three", "four"} {
		_, err = n.CreatePost(a, key, record(key, "art"))
		require.NoError(t, err)
	}
	_, err = n.UpdatePost(a, "two", record("2", "Photo", "cats"))
	require.NoError(t, err)
	_, err = n.UpdatePost(a, "three", record("3"))
	require.NoError(t, err)
	_, err = n.DeletePost(a, "four")
	require.NoError(t, err)
	_, err = n.CreatePost(b, "five", record("five", "art"))
	require.NoError(t, err)
	_, err = n.SetAccountStatus(b, false, "suspended")
	require.NoError(t, err)
	x, err := FromNetwork(n.Log())
	require.NoError(t, err)
	require.Equal(t, []TagCount{{"art", 1}, {"cats", 1}, {"photo", 1}}, x.TagCounts())
	require.Equal(t, "five", keys(x.Hidden()))
	require.Equal(t, []string{uriOf(a, "four"), uriOf(a, "three")}, x.Absent())

	_, err = n.Sync(a, simnet.Op{Action: simnet.Delete, Rkey: "one"}, simnet.Op{Action: simnet.Create, Rkey: "six", Record: record("six", "art")})
	require.NoError(t, err)
	_, err = n.Sync(a) // the same state again
	require.NoError(t, err)
	x, err = FromNetwork(n.Log())
	require.NoError(t, err)
	require.Equal(t, []TagCount{{"art", 1}, {"cats", 1}, {"photo", 1}}, x.TagCounts())
	require.Contains(t, x.Absent(), uriOf(a, "one"))
}
