package query_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// now returns the current position in the change feed.
func now(t testing.TB, r *query.Reader, tags ...string) query.FeedPosition {
	t.Helper()
	page, err := r.Changes(t.Context(), query.ChangeQuery{List: query.PostQuery{Tags: tags}, Limit: 1})
	require.NoError(t, err)
	return page.Next
}

// The plan of a page of changes has no sort, at any depth, and reads only changes of the query's
// tags, however many others there are. For a rare tag it reads only the changes of that tag.
func TestChangesPlan(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	r, w := storetest.Reader(t, o), storetest.Leader(t, o)
	begin := now(t, r, "common")
	const posts, rare = 6000, 40
	storetest.SeedPosts(t, w, storetest.Seed{
		Posts: posts, Second: func(i int) int { return i },
		Tags: func(i int) []string {
			tags := []string{"common", fmt.Sprint("tenth", i%10)}
			if i%(posts/rare) == 0 {
				tags = append(tags, "rare")
			}
			return tags
		},
	})
	vacuum(t, o)
	read := func(q query.PostQuery, after query.FeedPosition) (page query.ChangePage, feed, changes, posts float64) {
		t.Helper()
		page, err := r.TraceChanges(t.Context(), query.ChangeQuery{List: q, After: &after, Limit: 50}, func(s query.Statement) {
			explain(t, r, s).each(func(n node) {
				require.NotContains(t, n.Type, "Sort")
				require.NotContains(t, n.Type, "Seq Scan")
				switch n.Relation {
				case "change_tags":
					require.Equal(t, "Index Only Scan", n.Type)
					feed += n.Rows * n.Loops
				case "changes":
					changes += n.Rows * n.Loops
				case "posts":
					posts += n.Rows * n.Loops
				}
			})
		})
		require.NoError(t, err)
		return page, feed, changes, posts
	}
	for _, depth := range []int64{0, 100, 4000} {
		after := begin
		after.Change += depth
		for _, c := range []struct {
			q    query.PostQuery
			most float64 // changes read
		}{
			{query.PostQuery{Tags: []string{"common"}}, query.MaxChanges},
			{query.PostQuery{Tags: []string{"tenth3", "tenth5", "rare"}}, query.MaxChanges},
			{query.PostQuery{All: []string{"common", "rare"}}, rare},
			{query.PostQuery{Tags: []string{"common"}, None: []string{"tenth1", "tenth2"}}, query.MaxChanges},
			{query.PostQuery{Tags: []string{"rare"}}, rare},
			{query.PostQuery{Tags: []string{"rare"}, Media: event.HasImage, MaxTags: 2}, rare},
			{query.PostQuery{Tags: []string{"unused"}}, 0},
		} {
			_, feed, changes, posts := read(c.q, after)
			require.LessOrEqual(t, changes, c.most, "%+v", c.q)
			require.LessOrEqual(t, feed, changes+20, "%+v: entries of the feed", c.q)
			require.LessOrEqual(t, posts, changes+50, "%+v: one post for each change, and the page", c.q)
		}
	}
	// A page that reads many changes and finds no match makes progress.
	q := query.PostQuery{Tags: []string{"common"}, Langs: []string{"xx"}}
	page, _, changes, _ := read(q, begin)
	require.Empty(t, page.Changes)
	require.True(t, page.HasNext)
	require.Equal(t, query.CutByWork, page.Cut)
	require.EqualValues(t, query.MaxChanges, changes)
	require.Equal(t, begin.Change+query.MaxChanges, page.Next.Change)
}

// A page of changes with very big records is short, and the next page continues after them.
func TestChangesOfBigRecords(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	r, w := storetest.Reader(t, o), storetest.Leader(t, o)
	at := now(t, r, "big")
	var c write.Changes
	account := &write.Account{DID: "did:plc:author", Seq: 1}
	c.Accounts = append(c.Accounts, account)
	for i := range 5 {
		p := &write.Post{
			Key: event.NewKey(storetest.Epoch, fmt.Sprint(i)), Account: account, Rkey: fmt.Sprint("r", i), Rev: "3abcdefghijkl", CID: "bafy",
			Tags: []string{"big"}, IndexedAt: storetest.Epoch, Seq: 1, Record: fmt.Appendf(nil, `"%0600000d"`, i),
		}
		c.Posts = append(c.Posts, write.PostChange{New: p, NewVisible: true})
	}
	require.NoError(t, w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) { return cp, tx.Write(t.Context(), c) }))
	var got []string
	for more, pages := true, 0; more; pages++ {
		page, err := r.Changes(t.Context(), query.ChangeQuery{List: query.PostQuery{Tags: []string{"big"}}, After: &at, Limit: 100})
		require.NoError(t, err)
		if page.HasNext {
			require.Equal(t, query.CutByBytes, page.Cut)
		}
		require.LessOrEqual(t, len(page.Changes), 2)
		for _, c := range page.Changes {
			got = append(got, c.Post.Rkey)
		}
		at, more = page.Next, page.HasNext
		require.Less(t, pages, 5)
	}
	require.Equal(t, []string{"r0", "r1", "r2", "r3", "r4"}, got)
}

// A database that was restored from an older copy, or a standby that was promoted before it had all
// changes, assigns numbers of lost changes again. A follower with such a number starts over. One
// with a number from before the loss continues, as does one that reads from a lagging standby.
func TestChangesOfARestoredIndex(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	r, w := storetest.Reader(t, o), storetest.Leader(t, o)
	post := func(rkey string) {
		t.Helper()
		require.NoError(t, w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
			rows, err := tx.Accounts(t.Context(), []string{"did:plc:author"})
			if err != nil {
				return cp, err
			}
			var c write.Changes
			account := rows["did:plc:author"]
			if account == nil {
				account = &write.Account{DID: "did:plc:author", Seq: 1}
				c.Accounts = append(c.Accounts, account)
			}
			c.Posts = []write.PostChange{{NewVisible: true, New: &write.Post{
				Key: event.NewKey(storetest.Epoch, rkey), Account: account, Rkey: rkey, Rev: "3abcdefghijkl", CID: "bafy",
				Tags: []string{"art"}, IndexedAt: storetest.Epoch, Seq: 1, Record: []byte(`{}`),
			}}}
			return cp, tx.Write(t.Context(), c)
		}))
	}
	ask := func(after query.FeedPosition) (rkeys []string, err error) {
		t.Helper()
		page, err := r.Changes(t.Context(), query.ChangeQuery{List: query.PostQuery{Tags: []string{"art"}}, After: &after, Limit: 10})
		for _, c := range page.Changes {
			rkeys = append(rkeys, c.Rkey)
		}
		return rkeys, err
	}
	first := now(t, r, "art")
	post("one")
	common := now(t, r, "art")
	post("two")
	lost := now(t, r, "art")
	pool := pgtest.Pool(t, o.URL)
	for _, sql := range []string{
		"DELETE FROM tagstream.changes WHERE pos = 2", "DELETE FROM tagstream.change_tags WHERE pos = 2",
		"DELETE FROM tagstream.post_tags USING tagstream.posts p WHERE p.key = post_tags.key AND rkey = 'two'", "DELETE FROM tagstream.posts WHERE rkey = 'two'",
		"UPDATE tagstream.checkpoint SET changes = 1",
	} {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	got, err := ask(lost)
	require.NoError(t, err, "the index looks like a lagging standby")
	require.Empty(t, got)
	require.ErrorIs(t, w.Apply(context.WithoutCancel(t.Context()), func(_ *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) { return cp, nil }), write.ErrLeaseLost)
	_, err = w.Acquire(t.Context())
	require.NoError(t, err)
	post("three")
	post("four")
	_, err = ask(lost)
	require.ErrorIs(t, err, query.ErrExpired)
	for _, good := range []query.FeedPosition{common, {Change: common.Change, Run: first.Run}} {
		got, err = ask(good)
		require.NoError(t, err)
		require.Equal(t, []string{"three", "four"}, got)
	}
	got, err = ask(first)
	require.NoError(t, err)
	require.Equal(t, []string{"one", "three", "four"}, got)
	_, err = ask(query.FeedPosition{Change: 1, Run: first.Run + 1})
	require.ErrorIs(t, err, query.ErrExpired, "a position of another index")
}

// A standby that does not have the run of a position yet returns no changes after it, and later
// those that follow. A position of a replaced index has expired on a standby, too.
func TestChangesOfALaterRun(t *testing.T) {
	t.Parallel()
	primary := pgtest.Server(t)
	standby := primary.Standby(t)
	o := store.Options{URL: primary.URL}
	require.NoError(t, store.Migrate(t.Context(), o, storetest.Quiet))
	first := storetest.Leader(t, o)
	require.NoError(t, storetest.Add(t, first, "did:plc:a", "art", 1))
	here, there := storetest.Reader(t, o), storetest.Reader(t, store.Options{URL: standby.URL})
	old := now(t, here, "art")
	ask := func(r *query.Reader, after query.FeedPosition) (dids []string, next query.FeedPosition, err error) {
		page, err := r.Changes(t.Context(), query.ChangeQuery{List: query.PostQuery{Tags: []string{"art"}}, After: &after, Limit: 10})
		for _, c := range page.Changes {
			dids = append(dids, c.DID)
		}
		return dids, page.Next, err
	}
	poll.NoError(t, time.Minute, func() error {
		_, next, err := ask(there, old)
		if err == nil && next != old {
			err = fmt.Errorf("the standby is at %v", next)
		}
		return err
	})
	pool := standby.Pool(t)
	_, err := pool.Exec(t.Context(), "SELECT pg_wal_replay_pause()")
	require.NoError(t, err)
	poll.Until(t, time.Minute, func() (bool, string) {
		var state string
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT pg_get_wal_replay_pause_state()").Scan(&state))
		return state == "paused", state
	})
	_, err = first.Acquire(t.Context()) // like an indexer that restarts
	require.NoError(t, err)
	begun := now(t, here, "art")
	require.NotEqual(t, old.Run, begun.Run)
	require.NoError(t, storetest.Add(t, first, "did:plc:b", "art", 2))
	later := now(t, here, "art")
	for _, after := range []query.FeedPosition{begun, later, {Change: 0, Run: later.Run}} {
		dids, next, err := ask(there, after)
		require.NoError(t, err, "%v", after)
		require.Empty(t, dids)
		require.Equal(t, after, next)
	}
	replaced := []query.FeedPosition{{Change: 1, Run: old.Run - 1<<40}, {Change: 1, Run: later.Run + 1<<50}, {Change: 1, Run: -5}}
	for _, after := range replaced {
		for _, r := range []*query.Reader{here, there} {
			_, _, err = ask(r, after)
			require.ErrorIs(t, err, query.ErrExpired)
		}
	}
	_, err = pool.Exec(t.Context(), "SELECT pg_wal_replay_resume()")
	require.NoError(t, err)
	poll.Until(t, time.Minute, func() (bool, string) {
		dids, next, err := ask(there, begun)
		require.NoError(t, err)
		return len(dids) == 1 && dids[0] == "did:plc:b" && next == later, fmt.Sprint(dids, next)
	})
}
