package httpapi

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
)

// TestPopularTags: the numbers of the popular tags agree with the tags' histories.
func TestPopularTags(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	var changes []write.PostChange
	add := func(tag string, n int, before time.Duration) {
		for i := range n {
			_, c := x.newPost(fmt.Sprint(tag, before, i), t0.Add(-before-time.Duration(i)*time.Minute), tag)
			changes = append(changes, c)
		}
	}
	add("steady", 40, time.Hour)
	add("steady", 200, 50*time.Hour)
	add("rising", 30, 2*time.Hour)
	add("rising", 3, 60*time.Hour)
	add("gone", 90, 70*time.Hour)
	x.write(t, changes...)
	s := serve(t, x.open(t))
	for _, window := range windows {
		var out popularJSON
		s.get(t, "/v1/tags?window="+window.name).json(t, &out)
		since, compared := time.Time(out.Since), time.Time(out.ComparedSince)
		require.Equal(t, t0.Truncate(time.Hour).Add(-time.Duration(window.hours-1)*time.Hour), since)
		for _, tag := range out.Tags {
			var one tagHistoryJSON
			s.get(t, "/v1/tags/"+tag.Tag).json(t, &one)
			require.Equal(t, one.History[0].Hour, out.ComparedSince)
			var want popularTagJSON
			for _, hour := range one.History {
				if time.Time(hour.Hour).Before(since) {
					want.Before += hour.Posts
				} else {
					want.Posts += hour.Posts
				}
			}
			require.Equal(t, [2]int64{want.Posts, want.Before}, [2]int64{tag.Posts, tag.Before}, "%s in %s since %s", tag.Tag, window.name, compared)
		}
	}
	var day popularJSON
	s.get(t, "/v1/tags?window=24h&limit=1").json(t, &day)
	require.Equal(t, []popularTagJSON{{tagJSON{"steady", 40}, 200}}, day.Tags)
	require.Equal(t, []popularTagJSON{{tagJSON{"rising", 30}, 3}}, day.Rising)

	s.get(t, "/v1/tags?window=25h").requireProblem(t, codeInvalidWindow)
	s.get(t, "/v1/tags?window=24h&first=3").requireProblem(t, codeConflicting)
	s.get(t, "/v1/tags?window=24h&prefix=a").requireProblem(t, codeConflicting)
	s.get(t, "/v1/tags?window=24h&limit=0").requireProblem(t, codeInvalidLimit)
}

// TestRising: a tag does not rise if all tags do, or if the index is new.
func TestRising(t *testing.T) {
	t.Parallel()
	names := func(tags ...query.PopularTag) (out []string) {
		for _, r := range rising(tags) {
			out = append(out, r.Name)
		}
		return out
	}
	require.Empty(t, names(query.PopularTag{Name: "a", Posts: 100}), "a new index")
	require.Empty(t, names(query.PopularTag{Name: "a", Posts: 100, Before: 10}, query.PopularTag{Name: "b", Posts: 10, Before: 1}), "the whole network")
	require.Equal(t, []string{"new", "more"}, names(
		query.PopularTag{Name: "big", Posts: 1000, Before: 6000}, query.PopularTag{Name: "more", Posts: 60, Before: 100},
		query.PopularTag{Name: "new", Posts: 90}, query.PopularTag{Name: "few", Posts: risingPosts - 1}))
}
