package write_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/check"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// Lists and counts made at the end equal those made batch by batch, also after an interruption.
//
// Invariant: an index whose lists are made at the end equals one that keeps them all the time.
// Until then verify refuses it, and nothing is applied to a partly listed index.
func TestList(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	live, rebuilt := storetest.Leader(t, o), storetest.Rebuilding(t, o)
	require.NoError(t, rebuilt.ListLater(t.Context()))
	for _, w := range []*write.Writer{live, rebuilt} {
		seedLists(t, w)
	}
	pool := pgtest.Pool(t, o.URL)
	for _, schema := range []string{store.Live, store.Rebuilding} {
		_, err := pool.Exec(t.Context(), "UPDATE "+schema+".checkpoint SET source_time = $1", storetest.Epoch.Add(5*time.Hour))
		require.NoError(t, err)
	}
	v := check.New(o)
	_, err := v.Check(t.Context(), store.Rebuilding)
	require.ErrorIs(t, err, check.ErrUnlisted)

	require.True(t, rebuilt.Unlisted() && !rebuilt.Listing())
	require.NoError(t, rebuilt.ListSome(t.Context(), 700))
	_, err = rebuilt.Acquire(t.Context())
	require.NoError(t, err)
	require.True(t, rebuilt.Listing())
	require.ErrorContains(t, storetest.Add(t, rebuilt, "did:plc:a", "art", 9999), "partly made")
	require.NoError(t, rebuilt.ListLater(t.Context()))
	require.True(t, rebuilt.Listing(), "ListLater must not reset a filled index")
	require.NoError(t, rebuilt.List(t.Context()))
	require.False(t, rebuilt.Unlisted())

	f, err := v.Compare(t.Context(), store.Live, store.Rebuilding, nil)
	require.NoError(t, err)
	require.Equal(t, check.Findings{}, f)
	for _, sql := range []string{
		"SELECT string_agg(concat_ws(' ', name, posts, hourly), ',' ORDER BY name) FROM %s.tags WHERE posts > 0",
		"SELECT string_agg(concat_ws(' ', name, posts), ',' ORDER BY name) FROM %s.langs WHERE posts > 0",
		"SELECT string_agg(concat_ws(' ', hour, name, h.posts), ',' ORDER BY hour, name) FROM %s.tag_hours h JOIN %[1]s.tags t ON t.id = h.tag_id",
		"SELECT concat_ws(' ', posts, visible_posts, tags) FROM %s.checkpoint",
	} {
		var want, got string
		require.NoError(t, pool.QueryRow(t.Context(), fmt.Sprintf(sql, store.Live)).Scan(&want))
		require.NoError(t, pool.QueryRow(t.Context(), fmt.Sprintf(sql, store.Rebuilding)).Scan(&got))
		require.Equal(t, want, got)
	}
	// From here on, each batch updates the lists.
	for _, w := range []*write.Writer{live, rebuilt} {
		require.NoError(t, storetest.Add(t, w, "did:plc:late", "all", 9999))
	}
	f, err = v.Compare(t.Context(), store.Live, store.Rebuilding, nil)
	require.NoError(t, err)
	require.Equal(t, check.Findings{}, f)
}

// seedLists writes posts in several languages under a tag with hourly counts and one without. One
// post is removed again, and one belongs to a hidden account.
func seedLists(t *testing.T, w *write.Writer) {
	t.Helper()
	posts := storetest.SeedPosts(t, w, storetest.Seed{
		Posts:  store.HourlyTag + 500,
		Tags:   func(i int) []string { return [][]string{{"all", "\"quoted\" \\"}, {"all"}, {"all", "third"}}[i%3] },
		Langs:  func(i int) []string { return [][]string{nil, {"en-US", "en-GB"}, {"pt", "\"x\\"}, {""}}[i%4] },
		Author: func(i int) string { return fmt.Sprint("did:plc:", i%7) },
		Second: func(i int) int { return i * 11 },
	})
	hidden := &write.Account{DID: "did:plc:hidden", State: store.Hidden, Reported: store.Hidden, Seq: 1}
	secret := &write.Post{
		Account: hidden, Rkey: "r", Rev: "3a", CID: "bafy", Tags: []string{"all", "secret"}, Langs: []string{"ja"}, IndexedAt: storetest.Epoch, Seq: 1,
		Record: []byte(`{}`), Key: event.NewKey(storetest.Epoch, "at://did:plc:hidden/app.bsky.feed.post/r"),
	}
	for _, c := range []write.Changes{
		{Accounts: []*write.Account{hidden}, Posts: []write.PostChange{{New: secret}}},
		{Posts: []write.PostChange{{Old: posts[3], OldVisible: true}}},
	} {
		require.NoError(t, w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
			cp.Seq++
			return cp, tx.Write(t.Context(), c)
		}))
	}
}
