package query_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// mixed gives posts languages and tags of every density. Two of the tags are used at different
// times, two alternate.
var mixed = storetest.Seed{
	Posts: 12000,
	Tags: func(i int) []string {
		tags := []string{"all"}
		for _, n := range []int{2, 3, 5, 7, 50, 400, 5000} {
			if i%n == 1 {
				tags = append(tags, fmt.Sprintf("t%d", n))
			}
		}
		for n := 4; n < 19; n++ {
			if i%4 == 0 && i%n != 3 {
				tags = append(tags, fmt.Sprintf("m%d", n))
			}
		}
		if i < 6000 {
			tags = append(tags, "old")
		} else if i != 11999 {
			tags = append(tags, "young")
		} else {
			tags = append(tags, "young", "old")
		}
		return append(tags, []string{"even", "odd"}[i/1000%2])
	},
	Langs: func(i int) []string {
		switch {
		case i%997 == 0:
			return []string{"eu", "en-GB"}
		case i%3 == 0:
			return []string{"pt-BR"}
		case i%11 == 0:
			return nil
		}
		return []string{"EN"}
	},
	Author: func(i int) string {
		for _, n := range []int{3000, 500, 30, 4} {
			if i%n == 2 {
				return fmt.Sprint("did:plc:a", n)
			}
		}
		return "did:plc:author"
	},
	Record: func(i int) string {
		media := []string{"", "images", "video", "images", "gallery", "external", "record"}[i*i%7]
		labels := ""
		if i%9 == 5 {
			labels = `{"val":"nudity"}`
		}
		return fmt.Sprintf(`{"embed":{"$type":"app.bsky.embed.%s"},"labels":{"values":[%s]}}`, media, labels)
	},
	Second: func(i int) int { return i / 7 },
}

// oracle returns the posts that match a query by looking at each.
func oracle(all []*write.Post, q query.PostQuery) []*write.Post {
	var out []*write.Post
	for _, p := range all {
		has := func(tag string) bool { return slices.Contains(p.Tags, tag) }
		if len(q.Tags) > 0 && !slices.ContainsFunc(q.Tags, has) || slices.ContainsFunc(q.None, has) {
			continue
		}
		if slices.ContainsFunc(q.All, func(tag string) bool { return !has(tag) }) {
			continue
		}
		if len(q.Authors) > 0 && !slices.Contains(q.Authors, p.Account.DID) || slices.Contains(q.NotAuthors, p.Account.DID) {
			continue
		}
		if q.MaxTags > 0 && len(p.Tags) > q.MaxTags {
			continue
		}
		traits := event.TraitsOf(p.Record)
		if (q.Media != 0 || q.NoMedia) && !(q.NoMedia && traits&event.HasMedia == 0) && traits&q.Media == 0 {
			continue
		}
		if q.SelfLabels != query.AnySelfLabels && (q.SelfLabels == query.OnlySelfLabels) != (traits&event.SelfLabelled != 0) {
			continue
		}
		ranges := event.LangRanges(p.Langs)
		if len(q.Langs) > 0 && !slices.ContainsFunc(q.Langs, func(l string) bool { return slices.Contains(ranges, l) }) {
			continue
		}
		at := p.Key.SortAt()
		if !q.Since.IsZero() && at.Before(q.Since) || !q.Until.IsZero() && !at.Before(q.Until) {
			continue
		}
		out = append(out, p)
	}
	return out
}

func randomQuery(rng *rand.Rand) query.PostQuery {
	names := []string{"all", "t2", "t3", "t5", "t7", "t50", "t400", "t5000", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "old", "young", "even", "odd", "unused"}
	pick := func(most int) []string {
		var out []string
		for _, i := range rng.Perm(len(names))[:rng.IntN(most+1)] {
			out = append(out, names[i])
		}
		return out
	}
	one := func() string { return names[rng.IntN(len(names)-1)] }
	var q query.PostQuery
	switch rng.IntN(5) {
	case 0, 1:
		q.Tags = append(pick(4), one())
	case 2, 3:
		q.All = append(pick(4), one())
	default:
		q.Tags, q.All = append(pick(4), one()), append(pick(2), one())
	}
	if rng.IntN(10) == 0 {
		q.Tags = append(q.Tags, pick(15)...)
	}
	for _, tags := range []*[]string{&q.Tags, &q.All} {
		slices.Sort(*tags)
		*tags = slices.Compact(*tags)
	}
	if rng.IntN(2) == 0 {
		q.None = pick(3)
	}
	authors := []string{"did:plc:author", "did:plc:a4", "did:plc:a30", "did:plc:a500", "did:plc:a3000", "did:plc:nobody"}
	some := func() (out []string) {
		for _, i := range rng.Perm(len(authors))[:1+rng.IntN(3)] {
			out = append(out, authors[i])
		}
		return out
	}
	switch rng.IntN(6) {
	case 0:
		q.Authors = some()
	case 1:
		q.NotAuthors = some()
	case 2:
		q.Authors, q.NotAuthors = some(), some()[:1]
	}
	if rng.IntN(5) == 0 {
		q.MaxTags = 1 + rng.IntN(8)
	}
	switch rng.IntN(8) {
	case 0:
		q.Media = event.Traits(1 << rng.IntN(4))
	case 1:
		q.Media, q.NoMedia = event.Traits(rng.IntN(int(event.HasMedia)+1)), true
	case 2:
		q.SelfLabels = query.SelfLabels(1 + rng.IntN(2))
	}
	if rng.IntN(3) == 0 {
		langs := []string{"en", "eu", "pt", "pt-br", "en-gb", "xx"}
		for _, i := range rng.Perm(len(langs))[:1+rng.IntN(3)] {
			q.Langs = append(q.Langs, langs[i])
		}
	}
	if rng.IntN(3) == 0 {
		q.Since = storetest.Epoch.Add(time.Duration(rng.IntN(1800)) * time.Second)
	}
	if rng.IntN(3) == 0 {
		q.Until = storetest.Epoch.Add(time.Duration(rng.IntN(1800))*time.Second - time.Duration(rng.IntN(2)*500))
	}
	return q
}

// Invariant: every query returns what a filter over all posts gives, in pages of any size, in both
// directions, from any position. A short page says that there is more, its token makes progress,
// and new posts at its other edge are seen. See also TestFilters and TestWatchFromAnEmptyPage.
func TestQueriesAgreeWithOracle(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	all := storetest.SeedPosts(t, storetest.Leader(t, o), mixed)
	r := storetest.Reader(t, o)
	for seed := range uint64(150) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 3))
			q := randomQuery(rng)
			agree(t, r, rng, q, all, oracle(all, q))
		})
	}
}

// agree walks from a random position, in pages of a random size, and compares the posts with want,
// all that match.
func agree(t *testing.T, r *query.Reader, rng *rand.Rand, q query.PostQuery, all, want []*write.Post) {
	t.Helper()
	q.Limit = 1 + rng.IntN(query.MaxLimit)
	q.Direction = keyset.Direction(rng.IntN(2))
	q.From = []keyset.Position{keyset.Start(), keyset.End()}[q.Direction]
	at := all[rng.IntN(len(all))].Key
	switch side := rng.IntN(6); side {
	case 0, 1, 2:
		q.From = []func(...keyset.Value) keyset.Position{keyset.Above, keyset.Below, keyset.At}[side](keyset.UUID(at))
	}
	ordered := slices.Clone(want)
	if q.Direction == keyset.Backward {
		slices.Reverse(ordered)
	}
	passed := 0 // number of posts before the position
	for _, p := range ordered {
		c := slices.Compare(p.Key[:], at[:])
		if q.Direction == keyset.Forward {
			c = -c
		}
		if len(q.From.Key) > 0 && (c < 0 || c == 0 && !q.From.Includes(q.Direction)) {
			passed++
		}
	}
	rest := ordered[passed:]
	for pages := 0; ; pages++ {
		page, err := r.Posts(t.Context(), q)
		require.NoError(t, err)
		got := slices.Clone(page.Rows)
		more, behind, edge := page.HasNext, page.HasPrevious, page.Next
		if q.Direction == keyset.Backward {
			slices.Reverse(got)
			more, behind, edge = behind, more, page.Previous
		}
		require.LessOrEqual(t, len(got), min(q.Limit, len(rest)), "%+v", q)
		for i, p := range got {
			require.Equal(t, rest[i].Rkey, p.Rkey, "row %d of page %d of %+v", i, pages, q)
		}
		rest = rest[len(got):]
		if len(got) == q.Limit || !more {
			require.Equal(t, len(rest) > 0, more, "page %d of %+v", pages, q)
		}
		if !behind {
			require.Zero(t, passed, "page %d of %+v", pages, q)
		}
		passed += len(got)
		if !more {
			break
		}
		require.NotEqual(t, q.From, edge, "the token makes progress")
		q.From = edge
		require.Less(t, pages, len(all))
	}
	require.Empty(t, rest)
}

// If the first page is empty because its search ran out of work, a client can poll at its edges:
// new posts appear there, at either end.
func TestWatchFromAnEmptyPage(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	w := storetest.Leader(t, o)
	apart := storetest.Seed{
		Posts:  80_000,
		Tags:   func(i int) []string { return []string{[]string{"left", "right"}[i%2]} },
		Second: func(i int) int { return 10 + i },
	}
	all := storetest.SeedPosts(t, w, apart)
	r := storetest.Reader(t, o)
	q := query.PostQuery{All: []string{"left", "right"}, Limit: 50}
	for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
		q.Direction, q.From = direction, []keyset.Position{keyset.Start(), keyset.End()}[direction]
		page, err := r.Posts(t.Context(), q)
		require.NoError(t, err)
		require.Empty(t, page.Rows)
		back, ahead, at := page.Previous, page.HasNext, storetest.Epoch.Add(200_000*time.Second)
		if direction == keyset.Backward {
			back, ahead, at = page.Next, page.HasPrevious, storetest.Epoch
		}
		require.True(t, ahead, "the search ran out")

		both := &write.Post{Account: all[0].Account, Rkey: fmt.Sprint("both", direction), Rev: "3abcdefghijkl", CID: "bafy", Tags: q.All, IndexedAt: storetest.Epoch, Seq: 1, Record: []byte("{}")}
		both.Key = event.NewKey(at, both.Rkey)
		require.NoError(t, w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
			return cp, tx.Write(t.Context(), write.Changes{Posts: []write.PostChange{{New: both, NewVisible: true}}})
		}))
		q.Direction, q.From = direction.Reverse(), back
		page, err = r.Posts(t.Context(), q)
		require.NoError(t, err)
		require.Len(t, page.Rows, 1, "the new post")
		require.Equal(t, both.Rkey, page.Rows[0].Rkey)
	}
}
