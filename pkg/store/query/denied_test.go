package query_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// deny sets the deny list to these tags and no accounts.
func deny(t *testing.T, w *write.Writer, tags ...string) {
	t.Helper()
	require.NoError(t, w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		_, err := tx.Deny(t.Context(), nil, tags)
		return cp, err
	}))
}

// Invariant: lists of tags are what they would be if no post had the denied tags, and just as long.
// No post shows a denied tag.
func TestDeniedTags(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	w, r, rnd := storetest.Leader(t, o), storetest.Reader(t, o), newRand(t)
	tags := randomTags(rnd, 3000)
	putTags(t, o, tags)
	var denied, names []string
	shown := slices.DeleteFunc(slices.Clone(tags), func(tag query.TagCount) bool {
		names = append(names, tag.Name)
		if rnd.IntN(3) == 0 {
			denied = append(denied, tag.Name)
		}
		return slices.Contains(denied, tag.Name)
	})
	deny(t, w, denied...)
	want := inOrder(shown)
	var got []query.TagCount
	for from, more := keyset.Start(), true; more; {
		page, err := r.Tags(t.Context(), query.TagQuery{From: from, Direction: keyset.Forward, Limit: 100})
		require.NoError(t, err)
		got, from, more = append(got, page.Rows...), page.Next, page.HasNext
	}
	require.Equal(t, want, got)
	ranked, total, err := r.RankedTags(t.Context(), 7, 50)
	require.NoError(t, err)
	require.Equal(t, want[7:57], ranked)
	require.EqualValues(t, len(want), total)
	status, err := r.Status(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, len(want), status.Tags)
	for _, prefix := range letters {
		got, err := r.TagsWithPrefix(t.Context(), prefix)
		require.NoError(t, err)
		require.Equal(t, complete(shown, prefix), append([]query.TagCount{}, got...), "%q", prefix)
	}
	used, err := r.TagsInUse(t.Context(), names)
	require.NoError(t, err)
	require.Len(t, used, len(want))
	_, err = r.TagHistory(t.Context(), denied[0])
	require.ErrorIs(t, err, query.ErrNotFound)
}

// If some of the popular tags, with hourly counts or without, are denied, others take their places.
func TestDeniedPopularTags(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	s := &historySite{writer: storetest.Leader(t, o), account: &write.Account{DID: "did:plc:author", Seq: 1}, posts: map[string]*write.Post{}}
	r := storetest.Reader(t, o)
	through := storetest.Epoch
	var changes []write.PostChange
	for i := range query.MaxPopular + 50 {
		for n := range 3 {
			changes = append(changes, s.post(fmt.Sprintf("t%03d-%d", i, n), through.Add(-time.Duration(i+n)*time.Second), fmt.Sprintf("t%03d", i), "other"))
		}
	}
	for i := range 1500 {
		changes = append(changes, s.post(fmt.Sprint("big", i), through.Add(-time.Duration(i)*time.Minute), "big"))
	}
	s.write(t, through, changes...)
	s.requireShownTags(t, r, "t000", "t000 other")
	denied := []string{"big", "other"}
	for i := range 40 {
		denied = append(denied, fmt.Sprintf("t%03d", 2*i))
	}
	deny(t, s.writer, denied...)
	s.requireShownTags(t, r, "t001", "t001")
	for key, p := range s.posts {
		if slices.Contains(denied, p.Tags[0]) {
			delete(s.posts, key)
		}
	}
	for _, hours := range []int{1, 24} {
		s.requirePopular(t, r, hours, through)
	}
}

// requireShownTags compares the tags shown on the newest post with a tag.
func (s *historySite) requireShownTags(t *testing.T, r *query.Reader, tag, want string) {
	t.Helper()
	plain, filtered := query.PostQuery{Tags: []string{tag}}, query.PostQuery{Tags: []string{tag}, None: []string{"nothing"}}
	for _, q := range []query.PostQuery{plain, plain, filtered} { // the first one corrects what the reader assumes
		q.Limit, q.From = 1, keyset.Start()
		page, err := r.Posts(t.Context(), q)
		require.NoError(t, err)
		require.Equal(t, "["+want+"]", fmt.Sprint(page.Rows[0].Tags))
	}
	post, err := r.Post(t.Context(), s.account.DID, tag+"-0")
	require.NoError(t, err)
	require.Equal(t, "["+want+"]", fmt.Sprint(post.Tags))
}

// A statement reads a long deny list only a few times, not for each row or name.
func TestDeniedPlan(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	w, r := storetest.Leader(t, o), storetest.Reader(t, o)
	const limit, long = 50, 1000
	all := storetest.SeedPosts(t, w, spread)
	var denied []string
	for i := range long {
		denied = append(denied, fmt.Sprintf("denied%05d", i))
	}
	putTags(t, o, tiedTags())
	deny(t, w, denied...)
	vacuum(t, o)
	var read float64
	page, err := r.TracePosts(t.Context(), query.PostQuery{Tags: spreadTags(20), From: keyset.Below(keyset.UUID(all[100].Key)), Limit: limit}, func(s query.Statement) {
		explain(t, r, s).each(func(n node) {
			if n.Relation == "denied_tags" {
				read += n.Rows * n.Loops
			}
			if n.Relation == "posts" {
				require.LessOrEqual(t, n.Rows*n.Loops, float64(limit))
			}
		})
	})
	require.NoError(t, err)
	require.Len(t, page.Rows, limit)
	require.LessOrEqual(t, read, 2*float64(long))

	sql, args, err := query.TagsFrom(query.TagQuery{From: keyset.Start(), Direction: keyset.Forward, Limit: limit})
	require.NoError(t, err)
	got := planOf(t, r, sql, args...)
	require.LessOrEqual(t, got.byTable["denied_tags"], 2*float64(long))
	require.LessOrEqual(t, got.byTable["tags"], float64(limit+2))
	got = planOf(t, r, query.CompletionQuery, "rare", query.PrefixEnd("rare"), query.MaxCompletions, query.CompletionScan)
	require.LessOrEqual(t, got.byTable["denied_tags"], 2*float64(long))
	require.LessOrEqual(t, got.byTable["tags"], 2*float64(query.CompletionScan))
	got = planOf(t, r, query.PopularQuery, 24, store.HistoryHours, query.MaxPopular, query.PopularScan, query.HistoryScan)
	require.LessOrEqual(t, got.byTable["denied_tags"], 2*float64(long))
}

// Invariant: a position in the change feed is valid for one set of denied tags. When the set
// changes, and only then, followers must list again.
func TestDeniedTagsEndTheFeed(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	w, r := storetest.Leader(t, o), storetest.Reader(t, o)
	require.NoError(t, storetest.Add(t, w, "did:plc:a", "art", 1))
	set := func(accounts []string, tags ...string) {
		t.Helper()
		require.NoError(t, w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
			_, err := tx.Deny(t.Context(), accounts, tags)
			return cp, err
		}))
	}
	// expired reports whether a position has expired. If so, every list must have changes.
	expired := func(after query.FeedPosition) bool {
		t.Helper()
		_, err := r.Changes(t.Context(), query.ChangeQuery{List: query.PostQuery{Tags: []string{"art"}}, After: &after, Limit: 10})
		var e *query.Expired
		if !errors.As(err, &e) {
			require.NoError(t, err)
			return false
		}
		require.Equal(t, query.ExpiredReplaced, e.Reason)
		require.Equal(t, now(t, r, "art"), e.Now)
		changed, err := r.ChangedTags(t.Context(), after)
		require.NoError(t, err)
		require.True(t, changed.Include(nil))
		return true
	}
	for _, step := range []struct {
		accounts, tags []string
		expires        bool
	}{
		{nil, []string{"bad"}, true}, {nil, []string{"bad"}, false}, {[]string{"did:plc:b"}, []string{"bad"}, false},
		{nil, []string{"bad", "worse"}, true}, {nil, []string{"worse"}, true}, {nil, nil, true}, {nil, nil, false},
	} {
		before := now(t, r, "art")
		set(step.accounts, step.tags...)
		require.Equal(t, step.expires, expired(before), "%v", step)
		require.False(t, expired(now(t, r, "art")))
	}
	before := now(t, r, "art")
	require.NoError(t, storetest.Add(t, w, "did:plc:b", "art", 2))
	require.False(t, expired(before), "the feed continues from there")
}
