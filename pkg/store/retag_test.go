package store_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/check"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// olderTags returns the tags of post number i as stored by programs that kept invisible characters.
// Every post has the first one or a look-alike.
func olderTags(i int) []string {
	first := []string{"art", "a\u00adrt", "\u200bart"}[i%3]
	switch {
	case i%7 == 0:
		return []string{first, "❤\ufe0f", "❤"}
	case i%11 == 0:
		return []string{"#\ufe0f\u20e3", first, "\u2800", "art\u2060"}
	}
	return []string{first}
}

// TestRetag: an index that an older program wrote is converted step by step to what a rebuild
// makes, while it is read and however often the indexer restarts.
func TestRetag(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	live, rebuilt := storetest.Leader(t, o), storetest.Rebuilding(t, o)
	pool := pgtest.Pool(t, o.URL)
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := pool.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
	}
	for _, schema := range []string{store.Live, store.Rebuilding} {
		exec(`UPDATE ` + schema + `.checkpoint SET source_time = '2026-11-01T00:30:00Z'`)
	}
	const posts = 2500
	fill := func(w *write.Writer, form func([]string) []string) {
		storetest.SeedPosts(t, w, storetest.Seed{Posts: posts, Second: func(i int) int { return i }, Tags: func(i int) []string { return form(olderTags(i)) }})
		// And one without any tag now, in a hidden account.
		hidden := &write.Account{DID: "did:plc:hidden", State: store.Hidden, Seq: 1}
		c := write.Changes{Accounts: []*write.Account{hidden}}
		for i, tags := range [][]string{{"s\u00adecret"}, {"\u200b"}} {
			p := &write.Post{Account: hidden, Rkey: fmt.Sprint("hidden", i), Rev: "3abcdefghijkl", CID: "bafy", Tags: form(tags), IndexedAt: storetest.Epoch, Seq: posts + 1, Record: []byte("{}")}
			p.Key = event.NewKey(storetest.Epoch, event.URI(hidden.DID, p.Rkey))
			if len(p.Tags) > 0 {
				c.Posts = append(c.Posts, write.PostChange{New: p})
			}
		}
		require.NoError(t, w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
			cp.Seq++
			return cp, tx.Write(t.Context(), c)
		}))
	}
	fill(live, slices.Clone[[]string])
	fill(rebuilt, func(tags []string) []string { now, _ := event.Tags(tags); return now })
	v := check.New(o)
	clean := func() {
		t.Helper()
		f, err := v.Check(t.Context(), store.Live)
		require.NoError(t, err)
		require.Equal(t, check.Findings{}, f)
	}
	clean()
	downTo(t, pool, 6)
	require.NoError(t, store.Migrate(t.Context(), o, storetest.Quiet))
	// A comparison waits for the end of the conversion.
	compared := make(chan check.Findings, 1)
	go func() {
		f, err := check.New(o).Compare(context.WithoutCancel(t.Context()), store.Live, store.Rebuilding, nil)
		if err != nil {
			f.First = err.Error()
		}
		compared <- f
	}()

	// Readers that ask for all the look-alikes, as an API of either version may, get every post, in
	// order.
	reader := storetest.Reader(t, o)
	reading, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	readers.Go(func() {
		for reading.Err() == nil {
			q := query.PostQuery{Tags: []string{"art", "a\u00adrt", "\u200bart"}, From: keyset.Start(), Limit: query.MaxLimit}
			for seen, more := 0, true; more; {
				page, err := reader.Posts(context.WithoutCancel(reading), q)
				if err != nil {
					t.Error(err)
					return
				}
				seen += len(page.Rows)
				if more, q.From = page.HasNext, page.Next; !more && seen != posts {
					t.Errorf("%d posts in the midst of it, not %d", seen, posts)
				}
			}
		}
	})
	defer readers.Wait()
	defer stop()

	steps := 0
	for done := false; !done; steps++ {
		w := storetest.Writer(t, o, "w") // after a crash: the lease is still its own
		_, err := w.Acquire(t.Context())
		require.NoError(t, err)
		require.True(t, w.Retagging())
		var begun bool
		begun, done, err = w.Retag(t.Context())
		require.NoError(t, err)
		require.Equal(t, steps == 0, begun)
		require.Equal(t, !done, w.Retagging())
		clean()
	}
	require.Equal(t, 3, steps, "in pieces")
	require.Equal(t, check.Findings{}, <-compared)

	// The removed post keeps its older events out of the index.
	var rev string
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT rev FROM tagstream.removed_posts WHERE rkey = 'hidden1'`).Scan(&rev))
	require.Equal(t, "3abcdefghijkl", rev)
	history, err := reader.TagHistory(t.Context(), "art")
	require.NoError(t, err)
	require.EqualValues(t, posts, history.Posts)
	total := int64(0)
	for _, h := range history.Hours {
		total += h.Posts
	}
	require.EqualValues(t, posts, total, "by hours from %s on", storetest.Epoch.Format(time.RFC3339))
	_, err = reader.TagHistory(t.Context(), "a\u00adrt")
	require.ErrorIs(t, err, query.ErrNotFound)
}

// TestRetagNothing: a new index has nothing to rewrite.
func TestRetagNothing(t *testing.T) {
	t.Parallel()
	w := storetest.Leader(t, storetest.Database(t))
	begun, done, err := w.Retag(t.Context())
	require.NoError(t, err)
	require.True(t, begun && done)
	require.False(t, w.Retagging())
}

// TestRetagFenced: a writer that lost the lease rewrites nothing.
func TestRetagFenced(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	old := storetest.Leader(t, o)
	_, err := storetest.Leader(t, o).Acquire(t.Context())
	require.NoError(t, err)
	_, _, err = old.Retag(t.Context())
	require.ErrorIs(t, err, write.ErrLeaseLost)
	require.True(t, old.Retagging())
}
