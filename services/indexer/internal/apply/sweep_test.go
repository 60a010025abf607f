package apply_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
)

// sweep does up to n steps, and returns the number of steps done.
func (x *index) sweep(n int) int {
	x.t.Helper()
	for i := range n {
		if !x.applier.Writer.Pending() {
			return i
		}
		require.NoError(x.t, x.applier.DoPending(x.t.Context()))
	}
	return n
}

// A big account is hidden and shown in pieces, which readers do not see: neither by tag, nor by
// address, nor in counts.
//
// Invariant: an account of any size is hidden, shown and erased in bounded transactions that
// readers cannot see before the last one. Accounts take turns, and a change of status does not
// restart a sweep. See also TestSweepsChangeNothing, TestSweepsTakeTurns and
// TestSweepContinuesAfterChange.
func TestSweepIsInvisible(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.applier.BigAccount = 100
	const posts = 1700
	var events []event.Event
	for i := range posts {
		events = append(events, create(fmt.Sprintf("p%04d", i), 1, "art", "t"+fmt.Sprint(i%7)))
	}
	other := create("other", 1, "art")
	other.DID = "did:plc:other"
	x.apply(append(events, other)...)
	x.sweep(1)
	require.False(t, x.applier.Writer.Pending())

	count := func() int64 {
		h, err := x.reader.TagHistory(t.Context(), "art")
		require.NoError(t, err)
		total := int64(0)
		for _, hour := range h.Hours {
			total += hour.Posts
		}
		require.Equal(t, h.Posts, total)
		s, err := x.reader.Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, h.Posts, s.VisiblePosts)
		return h.Posts
	}
	look := func(seen bool) {
		t.Helper()
		for _, q := range []query.PostQuery{
			{Tags: []string{"art"}},
			{Tags: []string{"art", "t0", "t1"}},
			{All: []string{"art", "t0"}},
			{Tags: []string{"art"}, None: []string{"t1"}},
		} {
			for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
				q.Limit, q.Direction, q.From = 100, direction, keyset.Start()
				if direction == keyset.Backward {
					q.From = keyset.End()
				}
				got := 0
				for more := true; more; {
					page, err := x.reader.Posts(t.Context(), q)
					require.NoError(t, err)
					for _, p := range page.Rows {
						if p.DID == did {
							got++
						}
					}
					more, q.From = page.HasNext, page.Next
					if direction == keyset.Backward {
						more, q.From = page.HasPrevious, page.Previous
					}
				}
				if seen {
					require.Positive(t, got)
				} else {
					require.Zero(t, got, "%+v", q)
				}
			}
		}
		_, err := x.reader.Post(t.Context(), did, "p0003")
		if seen {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, query.ErrNotFound)
		}
	}
	look(true)
	require.EqualValues(t, posts+1, count())

	x.apply(status(false, "suspended"))
	for x.applier.Writer.Pending() {
		look(false)
		x.sweep(1)
		// It is counted at once, when everything is done.
		require.Contains(t, []int64{1, posts + 1}, count())
	}
	look(false)
	require.EqualValues(t, 1, count())

	x.apply(status(true, ""))
	steps := 0
	for ; x.applier.Writer.Pending(); steps++ {
		if s, err := x.reader.Status(t.Context()); err == nil && s.Sweeps > 0 {
			look(false)
		}
		require.Contains(t, []int64{1, posts + 1}, count())
		x.sweep(1)
	}
	require.Greater(t, steps, 3, "it must be done in pieces")
	look(true)
	require.EqualValues(t, posts+1, count())

	x.apply(status(false, "deleted"))
	for x.applier.Writer.Pending() {
		look(false)
		x.sweep(1)
	}
	require.EqualValues(t, 1, count())
	// Its old posts stay removed, and newer ones enter.
	x.apply(status(true, ""), create("p0001", 1, "art"), create("p0002", 2, "art"))
	x.sweep(100)
	require.ElementsMatch(t, []string{"p0002", "other"}, x.posts("art"))
}

// Whatever happens between the steps of a sweep, the resulting index is the same as without sweeps.
func TestSweepsChangeNothing(t *testing.T) {
	t.Parallel()
	changeNothing(t, func(*index) {})
}

// The same holds if an older program's index is rewritten with sweeps and #syncs in progress, while
// its posts change.
func TestRetagsChangeNothing(t *testing.T) {
	t.Parallel()
	changeNothing(t, func(x *index) {
		// A different old form each time.
		tag := "a" + strings.Repeat("\u00ad", int(x.seq)) + "rt"
		pool := pgtest.Pool(x.t, x.url)
		for _, sql := range []string{
			`UPDATE tagstream.tags SET name = $1 WHERE name = 'art'`,
			`UPDATE tagstream.posts SET tags = array_replace(tags, 'art', $1)`,
			`UPDATE tagstream.checkpoint SET retag_below = 'ffffffff-ffff-ffff-ffff-ffffffffffff' WHERE $1 <> ''`,
		} {
			_, err := pool.Exec(x.t.Context(), sql, tag)
			require.NoError(x.t, err)
		}
		_, err := x.applier.Writer.Acquire(x.t.Context())
		require.NoError(x.t, err)
	})
}

// changeNothing compares an index without sweeps with one that has them, and that is sometimes
// converted to an older form.
func changeNothing(t *testing.T, older func(*index)) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 5))
			plain, swept := newIndex(t), newIndex(t)
			plain.applier.BigAccount, swept.applier.BigAccount = 1<<30, 1+rng.IntN(5)
			r := 1
			second, steps := 0, 0
			for range 60 {
				var events []event.Event
				for range 1 + rng.IntN(8) {
					second += rng.IntN(2)
					r += rng.IntN(3)
					rkey := fmt.Sprint("p", rng.IntN(12))
					tags := []string{"art", fmt.Sprint("t", rng.IntN(3))}
					var ev event.Event
					switch rng.IntN(16) {
					case 0:
						ev = status(false, "suspended")
					case 1, 2:
						ev = status(true, "")
					case 3:
						ev = status(false, "deleted")
					case 4:
						ev = event.Event{Kind: event.KindSync, DID: did, Rev: rev(r)}
						for i := range 12 {
							if rng.IntN(3) > 0 {
								continue
							}
							again := later(create(fmt.Sprint("p", i), r, tags...), second)
							events = append(events, later(ev, second), again)
						}
					case 5, 6:
						ev = gone(rkey, r-rng.IntN(2))
					case 7:
						ev = create(rkey, max(1, r-rng.IntN(6)), tags...)
						ev.DID = "did:plc:other"
					default:
						ev = create(rkey, max(1, r-rng.IntN(6)), tags...)
						ev.Langs = []string{"en"}
					}
					events = append(events, later(ev, second))
				}
				plain.apply(events...)
				swept.apply(events...)
				if rng.IntN(4) == 0 {
					older(swept)
				}
				steps += swept.sweep(rng.IntN(3))
			}
			swept.sweep(1000)
			require.Greater(t, steps, 5)
			require.Equal(t, dump(t, plain), dump(t, swept))
		})
	}
}

// dump returns all of an index that does not depend on its history.
func dump(t *testing.T, x *index) []string {
	t.Helper()
	pool := pgtest.Pool(t, x.url)
	var out []string
	for _, sql := range []string{
		`SELECT 'account', did, state::text, erased_rev, sync_rev FROM tagstream.accounts ORDER BY did`,
		`SELECT 'post', did, rkey, rev, key::text, tags::text, p.seq::text FROM tagstream.posts p JOIN tagstream.accounts a ON a.id = account_id ORDER BY did, rkey`,
		`SELECT 'removed', did, rkey, rev FROM tagstream.removed_posts r JOIN tagstream.accounts a ON a.id = account_id ORDER BY did, rkey`,
		`SELECT 'tag', name, posts::text FROM tagstream.tags WHERE posts > 0 ORDER BY name`,
		`SELECT 'listed', name, key::text FROM tagstream.post_tags JOIN tagstream.tags ON id = tag_id ORDER BY name, key`,
		`SELECT 'spoken', name, key::text FROM tagstream.post_langs JOIN tagstream.langs ON id = lang_id ORDER BY name, key`,
		`SELECT 'lang', name, posts::text FROM tagstream.langs WHERE posts > 0 ORDER BY name`,
		`SELECT 'totals', posts::text, visible_posts::text, tags::text, sync_did, sync_rev FROM tagstream.checkpoint`,
		`SELECT 'sweeps', count(*)::text FROM tagstream.sweeps`,
		`SELECT 'sweep counts', count(*)::text FROM tagstream.sweep_counts`,
	} {
		rows, err := pool.Query(t.Context(), sql)
		require.NoError(t, err)
		for rows.Next() {
			values, err := rows.Values()
			require.NoError(t, err)
			out = append(out, fmt.Sprint(values...))
		}
		require.NoError(t, rows.Err())
	}
	return out
}

// sweeps returns the number of accounts being swept.
func (x *index) sweeps() int64 {
	x.t.Helper()
	s, err := x.reader.Status(x.t.Context())
	require.NoError(x.t, err)
	return s.Sweeps
}

// manyPosts returns n creates by an account.
func manyPosts(author string, n int) (events []event.Event) {
	for i := range n {
		ev := create(fmt.Sprintf("p%05d", i), 1, "art")
		ev.DID = author
		events = append(events, ev)
	}
	return events
}

// An account that changes its state at every step of its sweep delays neither another account's
// sweep nor the end of the account's sweep: a sweep is not restarted.
func TestSweepsTakeTurns(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.applier.BigAccount = 100
	const posts = 2600 // six steps
	toggling, erased := "did:plc:toggling", "did:plc:zerased"
	x.apply(manyPosts(toggling, posts)...)
	x.apply(manyPosts(erased, posts)...)
	x.sweep(1)
	of := func(ev event.Event, author string) event.Event {
		ev.DID = author
		return ev
	}
	x.apply(of(status(false, "suspended"), toggling), of(status(false, "deleted"), erased))
	left := func() (n int) {
		require.NoError(t, pgtest.Pool(t, x.url).QueryRow(t.Context(),
			`SELECT count(*) FROM tagstream.posts JOIN tagstream.accounts a ON a.id = account_id WHERE did = $1`, erased).Scan(&n))
		return n
	}
	ended := 0
	for i := range 30 {
		x.sweep(1)
		if n := x.sweeps(); n == 0 || n == 1 && left() > 0 {
			ended++
		}
		x.apply(of(status(i%2 == 0, "suspended"), toggling))
		if i == 13 {
			require.Zero(t, left(), "two accounts of six steps each must take turns")
		}
	}
	require.Positive(t, ended, "its own sweep must end")
	x.sweep(100)
	require.Empty(t, x.posts("art"), "its last state is suspended")
	x.apply(of(status(true, ""), toggling))
	x.sweep(100)
	require.Len(t, x.posts("art"), 100)
}

// If a state changes and changes back, the sweep keeps its progress.
func TestSweepContinuesAfterChange(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.applier.BigAccount = 100
	x.apply(manyPosts(did, 4600)...) // ten steps
	x.sweep(1)
	x.apply(status(false, "suspended"))
	require.Equal(t, 5, x.sweep(5))
	x.apply(status(true, ""))
	x.apply(status(false, "suspended"))
	require.LessOrEqual(t, x.sweep(100), 6, "five steps, and one that finds nothing")
	require.Empty(t, x.posts("art"))
}

// Accounts that are small, but not together, are not all loaded at once: some are swept.
func TestManySmallAccounts(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.applier.BigAccount = 4 // at most 40 posts and markers together
	const accounts = 20
	var all, gone []event.Event
	for i := range accounts {
		author := fmt.Sprintf("did:plc:author%02d", i)
		all = append(all, manyPosts(author, 3)...)
		deleted := status(false, "deleted")
		deleted.DID = author
		gone = append(gone, deleted)
	}
	x.apply(all...)
	x.apply(gone...)
	require.EqualValues(t, accounts-40/3, x.sweeps())
	require.Empty(t, x.posts("art"))
	x.sweep(100)
	s, err := x.reader.Status(t.Context())
	require.NoError(t, err)
	require.Zero(t, s.Posts+s.VisiblePosts+s.Sweeps)
}
