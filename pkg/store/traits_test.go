package store_test

import (
	"fmt"
	"testing"

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

// TestFillTraits: an index that an older program wrote gets the traits of its posts step by step,
// however often the indexer restarts and whatever arrives. Until that is done, queries that need
// traits are refused, and no others.
//
// Invariant: a filter by media or self-labels returns everything that it should, or is refused.
func TestFillTraits(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	const posts = 2500
	record := func(i int) string {
		return fmt.Sprintf(`{"embed":{"$type":"app.bsky.embed.%s"},"labels":{"values":[{"val":%q}]}}`, []string{"images", "record"}[i%2], []string{"", "nudity"}[i/2%2])
	}
	old := storetest.Leader(t, o)
	all := storetest.SeedPosts(t, old, storetest.Seed{Posts: posts, Second: func(i int) int { return i }, Tags: func(int) []string { return []string{"art"} }, Record: record})
	pool := pgtest.Pool(t, o.URL)
	downTo(t, pool, 11)
	require.NoError(t, store.Migrate(t.Context(), o, storetest.Quiet))
	reader := storetest.Reader(t, o)
	images := query.PostQuery{Tags: []string{"art"}, Media: event.HasImage, From: keyset.Start(), Limit: 100}
	labelled := query.PostQuery{Tags: []string{"art"}, SelfLabels: query.OnlySelfLabels, From: keyset.Start(), Limit: 100}
	few := query.PostQuery{Tags: []string{"art"}, MaxTags: 1, From: keyset.Start(), Limit: 100}
	clean := func() {
		t.Helper()
		f, err := check.New(o).Check(t.Context(), store.Live)
		require.NoError(t, err)
		require.Equal(t, check.Findings{}, f)
	}
	steps := 0
	for done := false; !done; steps++ {
		for _, q := range []query.PostQuery{images, labelled} {
			_, err := reader.Posts(t.Context(), q)
			require.ErrorIs(t, err, query.ErrFilling)
			_, err = reader.Changes(t.Context(), query.ChangeQuery{List: q, Limit: 1})
			require.ErrorIs(t, err, query.ErrFilling)
		}
		page, err := reader.Posts(t.Context(), few)
		require.NoError(t, err)
		require.Len(t, page.Rows, few.Limit)
		w := storetest.Writer(t, o, "w") // after a crash: the lease is still its own
		_, err = w.Acquire(t.Context())
		require.NoError(t, err)
		require.True(t, w.Filling() && w.Pending())
		// A post below the current step is edited: it has its traits already.
		edited := *all[len(all)-1-steps]
		edited.Rev, edited.Record = "3zzzzzzzzzzzz", []byte(record(0))
		require.NoError(t, w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
			return cp, tx.Write(t.Context(), write.Changes{Posts: []write.PostChange{{Old: all[len(all)-1-steps], New: &edited, OldVisible: true, NewVisible: true}}})
		}))
		all[len(all)-1-steps] = &edited
		var begun bool
		begun, done, err = w.FillTraits(t.Context())
		require.NoError(t, err)
		require.Equal(t, steps == 0, begun)
		require.Equal(t, !done, w.Filling())
		clean()
	}
	require.Equal(t, 3, steps, "in pieces")
	for _, c := range []struct {
		q     query.PostQuery
		trait event.Traits
	}{{images, event.HasImage}, {labelled, event.SelfLabelled}} {
		var want, got []string
		for _, p := range all {
			if event.TraitsOf(p.Record)&c.trait != 0 {
				want = append(want, p.Rkey)
			}
		}
		for more := true; more; {
			page, err := reader.Posts(t.Context(), c.q)
			require.NoError(t, err)
			for _, p := range page.Rows {
				got = append(got, p.Rkey)
			}
			more, c.q.From = page.HasNext, page.Next
		}
		require.Equal(t, want, got)
	}
}

// TestFillTraitsFenced: a writer that lost the lease fills in nothing, and a new index has nothing
// to fill in.
func TestFillTraitsFenced(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	old := storetest.Leader(t, o)
	begun, done, err := old.FillTraits(t.Context())
	require.NoError(t, err)
	require.True(t, begun && done)
	require.False(t, old.Filling())
	_, err = storetest.Leader(t, o).Acquire(t.Context())
	require.NoError(t, err)
	_, _, err = old.FillTraits(t.Context())
	require.ErrorIs(t, err, write.ErrLeaseLost)
	require.True(t, old.Filling())
}
