package query_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// requirePopular compares the popular tags with those counted from the posts.
func (s *historySite) requirePopular(t *testing.T, r *query.Reader, hours int, through time.Time) {
	t.Helper()
	end := through.Truncate(time.Hour).Add(time.Hour)
	from, before := end.Add(-time.Duration(hours)*time.Hour), end.Add(-store.HistoryHours*time.Hour)
	numbers := map[string]query.PopularTag{}
	for _, p := range s.posts {
		at, n := p.Key.SortAt(), numbers[p.Tags[0]]
		switch n.Name = p.Tags[0]; {
		case !at.Before(end) || at.Before(before):
		case at.Before(from):
			n.Before++
		default:
			n.Posts++
		}
		numbers[n.Name] = n
	}
	want := []query.PopularTag{}
	for _, n := range numbers {
		if n.Posts > 0 {
			want = append(want, n)
		}
	}
	slices.SortFunc(want, func(a, b query.PopularTag) int {
		return cmp.Or(cmp.Compare(b.Posts, a.Posts), strings.Compare(a.Name, b.Name))
	})
	got, err := r.Popular(t.Context(), hours)
	require.NoError(t, err)
	require.Equal(t, from, got.From)
	require.Equal(t, before, got.Before)
	require.Equal(t, want[:min(len(want), query.MaxPopular)], append([]query.PopularTag{}, got.Tags...), "%d hours", hours)
}

// TestPopular: the popular tags are those with the most posts in the hours, with and without hourly
// counts, while posts are added and removed and time passes.
func TestPopular(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	s := &historySite{writer: storetest.Leader(t, o), account: &write.Account{DID: "did:plc:author", Seq: 1}, posts: map[string]*write.Post{}}
	r := storetest.Reader(t, o)
	rnd := newRand(t)
	through := time.Date(2025, 11, 20, 21, 45, 3, 0, time.UTC)
	check := func() {
		t.Helper()
		for _, hours := range []int{1, 24, 100, store.HistoryHours - 1} {
			s.requirePopular(t, r, hours, through)
		}
	}
	s.write(t, through)
	check()

	at := func(span time.Duration) time.Time {
		return through.Add(2*time.Hour - time.Duration(rnd.Int64N(int64(span))))
	}
	var changes []write.PostChange
	add := func(tag string, n int, span time.Duration) {
		for i := range n {
			changes = append(changes, s.post(fmt.Sprint(tag, len(changes), "-", i), at(span), tag))
		}
	}
	add("big", 1500, 200*time.Hour)
	add("rising", 900, 20*time.Hour) // more in a day than big, without hourly counts
	add("old", 1200, 2000*time.Hour)
	for i := range 400 { // more tags than the list has
		add(fmt.Sprintf("t%03d", i), 1+i%7, 150*time.Hour)
	}
	s.write(t, through, changes...)
	check()

	var gone []write.PostChange
	for _, p := range s.posts {
		if rnd.IntN(3) == 0 {
			gone = append(gone, write.PostChange{Old: p, OldVisible: true})
		}
	}
	s.write(t, through, gone...)
	check()
	for _, by := range []time.Duration{time.Hour, 30 * time.Hour, 500 * time.Hour} {
		through = through.Add(by)
		s.write(t, through)
		check()
	}
	for _, hours := range []int{0, store.HistoryHours} {
		_, err := r.Popular(t.Context(), hours)
		require.ErrorContains(t, err, "out of bounds")
	}
}

// TestPopularPlan: posts are only counted for tags that could be in the list, and hourly counts are
// read once.
func TestPopularPlan(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	s := &historySite{writer: storetest.Leader(t, o), account: &write.Account{DID: "did:plc:author", Seq: 1}, posts: map[string]*write.Post{}}
	var changes []write.PostChange
	for i := range 6000 {
		changes = append(changes, s.post(fmt.Sprint("big", i), storetest.Epoch.Add(-time.Duration(i)*time.Minute), "big"))
		if i < store.HourlyTag-1 {
			changes = append(changes, s.post(fmt.Sprint("line", i), storetest.Epoch.Add(-time.Duration(i)*time.Minute), "line"))
		}
		if i < 3000 {
			changes = append(changes, s.post(fmt.Sprint("tail", i), storetest.Epoch.Add(-time.Duration(i)*time.Minute), fmt.Sprint("tail", i)))
		}
	}
	s.write(t, storetest.Epoch, changes...)
	vacuum(t, o)
	r := storetest.Reader(t, o)
	got := planOf(t, r, query.PopularQuery, 24, store.HistoryHours, query.MaxPopular, query.PopularScan, query.HistoryScan)
	require.LessOrEqual(t, got.byTable["tag_hours"], 24.0+store.HistoryHours)
	require.LessOrEqual(t, got.byTable["post_tags"], 2*float64(store.HourlyTag+query.PopularScan))
	require.NotContains(t, got.types, "Seq Scan on post_tags")
	require.Zero(t, got.heap)
}
