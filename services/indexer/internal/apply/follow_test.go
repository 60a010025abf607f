package apply_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/testkit/eventtest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
)

var (
	followSeed  = flag.Uint64("follow.seed", 0, "run TestFollowers with this seed only")
	followSeeds = flag.Uint64("follow.seeds", 8, "how many seeds TestFollowers runs")
)

// followed are the queries of the followers: each kind of condition, alone and combined.
var followed = []query.PostQuery{
	{Tags: []string{"art"}},
	{Tags: []string{"t0"}},
	{Tags: []string{"t1", "t2"}},
	{All: []string{"art", "t1"}},
	{All: []string{"t0", "t2"}},
	{Tags: []string{"art"}, None: []string{"t0"}},
	{Tags: []string{"art", "t2"}, Langs: []string{"en"}},
	{Tags: []string{"art"}, Since: eventtest.Time(20), Until: eventtest.Time(70)},
	{Tags: []string{"t1", "t2"}, All: []string{"art"}},
	{Tags: []string{"art"}, Authors: []string{did + "0", did + "2"}},
	{Tags: []string{"t0", "art"}, NotAuthors: []string{did + "1"}},
	{Tags: []string{"art"}, MaxTags: 1},
	{Tags: []string{"art", "t0"}, Media: event.HasImage | event.HasVideo},
	{Tags: []string{"art"}, NoMedia: true, SelfLabels: query.ExcludeSelfLabels},
	{All: []string{"art"}, SelfLabels: query.OnlySelfLabels},
	{Tags: []string{"never"}},
}

// follower keeps a listing up to date with the change feed.
type follower struct {
	q    query.PostQuery
	held map[string]string
	at   query.FeedPosition
	// from is where its listing continues, nil once it is complete.
	from *keyset.Position
}

// For any events in any order, and at any progress of sweeps: a follower that takes the current
// position, lists everything and then reads all changes holds the same posts as a listing. Until
// then, each change agrees with a listing, and no follower receives a post that was never visible
// under one of its tags.
func TestFollowers(t *testing.T) {
	t.Parallel()
	first, many := uint64(1), *followSeeds
	if *followSeed != 0 {
		first, many = *followSeed, 1
	}
	for seed := first; seed < first+many; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 9))
			w := &followedIndex{index: newIndex(t), rng: rng, rev: 1, seen: map[string]bool{}}
			w.applier.BigAccount = []int{1, 3, 6, 1 << 30}[rng.IntN(4)]
			w.pool = pgtest.Pool(t, w.url)
			var all []*follower
			for _, q := range followed {
				all = append(all, w.follow(q), w.follow(q))
			}
			for round := range 60 {
				w.first = round / 2
				w.apply(w.events()...)
				w.look()
				for n := rng.IntN(4); n > 0; n-- {
					if w.sweep(1) == 1 {
						w.look()
					}
					w.turn(all)
				}
				switch rng.IntN(12) {
				case 0: // another writer, or the same, acquires the lease
					_, err := w.applier.Writer.Acquire(t.Context())
					require.NoError(t, err)
				case 1:
					all[rng.IntN(len(all))] = w.follow(all[rng.IntN(len(all))].q)
				case 2:
					w.sweep(1000)
					w.look()
					w.catchUp(all)
				}
			}
			w.sweep(1000)
			w.look()
			w.catchUp(all)
		})
	}
}

// A post that came and went while a sweep hid its account is in no follower's changes.
func TestRemovalWhileHidden(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.applier.BigAccount = 1
	x.apply(create("seen", 1, "art"))
	q := query.ChangeQuery{List: query.PostQuery{Tags: []string{"art"}}, Limit: 100}
	now, err := x.reader.Changes(t.Context(), q)
	require.NoError(t, err)
	q.After = &now.Next
	x.apply(status(false, "suspended"))
	x.apply(status(true, ""))
	x.apply(create("unseen", 2, "art"))
	x.apply(gone("unseen", 3), gone("seen", 4))
	x.sweep(1000)
	page, err := x.reader.Changes(t.Context(), q)
	require.NoError(t, err)
	require.False(t, page.HasNext)
	require.NotEmpty(t, page.Changes)
	for _, c := range page.Changes {
		require.Equal(t, "seen", c.Rkey)
		require.Nil(t, c.Post)
	}
}

// followedIndex is an index with random changes and followers.
type followedIndex struct {
	*index
	rng         *rand.Rand
	rev, second int
	first       int // first post that events concern: new posts are added all the time
	pool        *pgxpool.Pool
	seen        map[string]bool              // "tag uri" that were visible
	lists       map[string]map[string]string // at the last look
}

// events returns a batch of events of three accounts.
func (w *followedIndex) events() (events []event.Event) {
	rng := w.rng
	for range 1 + rng.IntN(6) {
		w.second += rng.IntN(3)
		w.rev += rng.IntN(3)
		rkey := fmt.Sprint("p", w.first+rng.IntN(5))
		tags := []string{fmt.Sprint("t", rng.IntN(3))}
		if rng.IntN(3) > 0 {
			tags = append(tags, "art")
		}
		r := max(1, w.rev-rng.IntN(4))
		ev := create(rkey, r, tags...)
		switch rng.IntN(16) {
		case 0, 1:
			ev = status(false, []string{"suspended", "takendown"}[rng.IntN(2)])
		case 2, 3, 4:
			ev = status(true, "")
		case 5:
			ev = status(false, "deleted")
		case 6:
			ev = event.Event{Kind: event.KindSync, Rev: rev(w.rev)}
		case 7, 8:
			ev = gone(rkey, r)
		case 9, 10:
			ev.Kind = event.KindUpdate
		}
		ev.DID = fmt.Sprint(did, rng.IntN(3))
		if ev.IsPost() && len(ev.Tags) > 0 {
			ev.Record = fmt.Appendf(nil, `{"embed":{"$type":"app.bsky.embed.%s"},"labels":{"values":[%s]},"n":%d}`,
				[]string{"images", "video", "record"}[rng.IntN(3)], []string{"", "", `{"val":"nudity"}`}[rng.IntN(3)], w.rev)
			ev.Langs = [][]string{nil, {"en"}, {"en-GB", "de"}, {"de"}}[rng.IntN(4)]
			// Late posts, with old times, and some with times in the future.
			ev.CreatedAt = eventtest.Time(w.second - 40 + rng.IntN(60)).Format(time.RFC3339)
		}
		events = append(events, later(ev, w.second))
		if ev.Kind == event.KindSync {
			for i := range 5 {
				if rng.IntN(3) == 0 {
					again := create(fmt.Sprint("p", w.first+i), w.rev, tags...)
					again.DID = ev.DID
					events = append(events, later(again, w.second))
				}
			}
		}
	}
	return events
}

// look records what is visible.
func (w *followedIndex) look() {
	w.lists = map[string]map[string]string{}
	rows, err := w.pool.Query(w.t.Context(), `
		SELECT a.did, p.rkey, p.tags FROM tagstream.posts p JOIN tagstream.accounts a ON a.id = p.account_id
		 WHERE a.state = 0 AND NOT EXISTS (SELECT FROM tagstream.sweeps w WHERE w.account_id = a.id AND (w.hidden OR p.rev < w.gone_below))`)
	require.NoError(w.t, err)
	var did, rkey string
	var tags []string
	_, err = pgx.ForEachRow(rows, []any{&did, &rkey, &tags}, func() error {
		for _, tag := range tags {
			w.seen[tag+" "+event.URI(did, rkey)] = true
		}
		return nil
	})
	require.NoError(w.t, err)
}

func (w *followedIndex) follow(q query.PostQuery) *follower {
	page, err := w.reader.Changes(w.t.Context(), query.ChangeQuery{List: q, Limit: 1})
	require.NoError(w.t, err)
	require.Empty(w.t, page.Changes)
	require.False(w.t, page.HasNext)
	start := keyset.Start()
	return &follower{q: q, held: map[string]string{}, at: page.Next, from: &start}
}

// turn lets some followers read a page.
func (w *followedIndex) turn(all []*follower) {
	for _, f := range all {
		if w.rng.IntN(3) == 0 {
			w.read(f)
		}
	}
}

// catchUp lets all followers read to the end, and compares each with a listing.
func (w *followedIndex) catchUp(all []*follower) {
	for _, f := range all {
		for more := true; more; {
			more = w.read(f)
		}
		require.Equal(w.t, w.list(f.q), f.held, "%+v", f.q)
	}
}

// read reads a page of the listing or of changes, and reports whether there is more.
func (w *followedIndex) read(f *follower) (more bool) {
	limit := 1 + w.rng.IntN(8)
	if f.from != nil {
		q := f.q
		q.From, q.Limit = *f.from, limit
		page, err := w.reader.Posts(w.t.Context(), q)
		require.NoError(w.t, err)
		for _, p := range page.Rows {
			f.held[event.URI(p.DID, p.Rkey)] = shown(p)
		}
		if f.from = &page.Next; !page.HasNext {
			f.from = nil
		}
		return true
	}
	page, err := w.reader.Changes(w.t.Context(), query.ChangeQuery{List: f.q, After: &f.at, Limit: limit})
	require.NoError(w.t, err)
	require.LessOrEqual(w.t, len(page.Changes), limit)
	listed := w.list(f.q)
	last := f.at
	for _, c := range page.Changes {
		uri := event.URI(c.DID, c.Rkey)
		require.Greater(w.t, c.Position.Change, last.Change)
		last = c.Position
		if c.Post == nil {
			require.NotContains(w.t, listed, uri, "it must be removed")
			require.True(w.t, slices.ContainsFunc(slices.Concat(f.q.Tags, f.q.All), func(tag string) bool { return w.seen[tag+" "+uri] }), "%s was never visible", uri)
			require.True(w.t, (len(f.q.Authors) == 0 || slices.Contains(f.q.Authors, c.DID)) && !slices.Contains(f.q.NotAuthors, c.DID), "%s is not in the query", uri)
			delete(f.held, uri)
			continue
		}
		require.Equal(w.t, uri, event.URI(c.Post.DID, c.Post.Rkey))
		require.Equal(w.t, listed[uri], shown(*c.Post))
		f.held[uri] = shown(*c.Post)
	}
	if page.HasNext {
		require.Greater(w.t, page.Next.Change, f.at.Change, "there must be progress")
	}
	require.GreaterOrEqual(w.t, page.Next.Change, last.Change)
	f.at = page.Next
	if n := len(page.Changes); n > 0 && w.rng.IntN(4) == 0 {
		f.at = page.Changes[w.rng.IntN(n)].Position // stop there, and read the rest again
		return true
	}
	return page.HasNext
}

// list returns the whole list, read once between two looks: it does not change in between.
func (w *followedIndex) list(q query.PostQuery) map[string]string {
	name := fmt.Sprintf("%+v", q)
	if all, ok := w.lists[name]; ok {
		return all
	}
	all := map[string]string{}
	w.lists[name] = all
	q.From, q.Limit = keyset.Start(), query.MaxLimit
	for more := true; more; {
		page, err := w.reader.Posts(w.t.Context(), q)
		require.NoError(w.t, err)
		for _, p := range page.Rows {
			all[event.URI(p.DID, p.Rkey)] = shown(p)
		}
		more, q.From = page.HasNext, page.Next
	}
	return all
}

func shown(p query.PostRow) string {
	return fmt.Sprint(p.Key, p.CID, p.Tags, p.Langs, string(p.Record))
}
