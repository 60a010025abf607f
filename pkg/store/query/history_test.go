package query_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// historySite is an index that is written through the writer, and the posts that should be visible
// in it.
type historySite struct {
	writer  *write.Writer
	account *write.Account
	posts   map[string]*write.Post // visible ones, by record key
}

// write applies changes and moves the checkpoint's time to at.
func (s *historySite) write(t *testing.T, at time.Time, changes ...write.PostChange) {
	t.Helper()
	require.NoError(t, s.writer.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		c := write.Changes{Posts: changes}
		if s.account.ID == 0 {
			c.Accounts = []*write.Account{s.account}
		}
		cp.Seq++
		cp.Source = event.Position{Host: "https://upstream.test", Seq: cp.Seq, Time: at}
		return cp, tx.Write(t.Context(), c)
	}))
	for _, c := range changes {
		if c.Old != nil && c.OldVisible {
			delete(s.posts, c.Old.Rkey)
		}
		if c.New != nil && c.NewVisible {
			s.posts[c.New.Rkey] = c.New
		}
	}
}

func (s *historySite) post(rkey string, at time.Time, tags ...string) write.PostChange {
	return write.PostChange{NewVisible: true, New: &write.Post{
		Key: event.NewKey(at, event.URI(s.account.DID, rkey)), Account: s.account, Rkey: rkey, Rev: "3abcdefghijkl", CID: "bafy",
		Tags: tags, IndexedAt: at, Seq: 1, Record: []byte(`{}`),
	}}
}

// requireHistory compares a tag's history with that counted from the posts.
func (s *historySite) requireHistory(t *testing.T, r *query.Reader, tag string, through time.Time) {
	t.Helper()
	want := query.TagHistory{TagCount: query.TagCount{Name: tag}}
	lastHour := through.Truncate(time.Hour)
	for i := range store.HistoryHours {
		want.Hours = append(want.Hours, query.HourCount{Hour: lastHour.Add(time.Duration(i-store.HistoryHours+1) * time.Hour)})
	}
	for _, p := range s.posts {
		if p.Tags[0] != tag {
			continue
		}
		at := p.Key.SortAt()
		want.Posts++
		if want.First.IsZero() || at.Before(want.First) {
			want.First = at
		}
		if at.After(want.Last) {
			want.Last = at
		}
		if i := int(at.Truncate(time.Hour).Sub(want.Hours[0].Hour) / time.Hour); !at.Before(want.Hours[0].Hour) && i < store.HistoryHours {
			want.Hours[i].Posts++
		}
	}
	got, err := r.TagHistory(t.Context(), tag)
	if want.Posts == 0 {
		require.ErrorIs(t, err, query.ErrNotFound)
		return
	}
	require.NoError(t, err)
	require.Equal(t, brief(want), brief(got))
}

// brief formats a history without the hours that have no posts, except for the last one.
func brief(h query.TagHistory) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d posts, %s to %s, %d hours from %s\n", h.Name, h.Posts, h.First, h.Last, len(h.Hours), h.Hours[0].Hour)
	for i, hour := range h.Hours {
		if hour.Posts > 0 || i == len(h.Hours)-1 {
			fmt.Fprintf(&b, "%s: %d\n", hour.Hour, hour.Posts)
		}
	}
	return b.String()
}

// Histories of tags with more and with fewer posts than hourly counts require, with posts around
// both ends of the window, while time passes and posts are removed.
func TestTagHistory(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	s := &historySite{writer: storetest.Leader(t, o), account: &write.Account{DID: "did:plc:author", Seq: 1}, posts: map[string]*write.Post{}}
	r := storetest.Reader(t, o)
	rnd := newRand(t)
	through := time.Date(2025, 11, 20, 21, 45, 3, 120455000, time.UTC)
	first := through.Truncate(time.Hour).Add(-(store.HistoryHours - 1) * time.Hour)
	check := func() {
		t.Helper()
		for _, tag := range []string{"big", "small", "old", "edges", "line", "none"} {
			s.requireHistory(t, r, tag, through)
		}
	}

	_, err := r.TagHistory(t.Context(), "small")
	require.ErrorIs(t, err, query.ErrNotFound)

	var changes []write.PostChange
	for i := range 1500 {
		// Some before the window, and some ahead of the network's time.
		at := through.Add(-time.Duration(rnd.Int64N(int64(200 * time.Hour)))).Add(time.Duration(rnd.Int64N(int64(2 * time.Hour))))
		changes = append(changes, s.post(fmt.Sprint("big", i), at, "big"))
	}
	for i := range store.HourlyTag - 1 {
		changes = append(changes, s.post(fmt.Sprint("line", i), through.Add(-time.Duration(rnd.Int64N(int64(190*time.Hour)))), "line"))
	}
	changes = append(changes,
		s.post("s1", through.Add(-time.Minute), "small"), s.post("s2", through.Add(-50*time.Hour), "small"), s.post("s3", time.Unix(0, 0), "small"),
		s.post("o1", first.Add(-time.Microsecond), "old"), s.post("o2", first.Add(-1000*time.Hour), "old"),
		s.post("e1", first, "edges"), s.post("e2", first.Add(-time.Microsecond), "edges"), s.post("e3", first.Add(time.Hour), "edges"),
		s.post("e4", first.Add(store.HistoryHours*time.Hour-time.Microsecond), "edges"), s.post("e5", first.Add(store.HistoryHours*time.Hour), "edges"))
	s.write(t, through, changes...)
	check()

	// The tag "line" reaches the number, and keeps its hourly counts when it falls below.
	for i := range 3 {
		s.write(t, through, s.post(fmt.Sprint("over", i), through.Add(-time.Duration(i)*time.Hour), "line"))
		check()
	}
	var gone []write.PostChange
	for _, p := range s.posts {
		if rnd.IntN(2) == 0 {
			gone = append(gone, write.PostChange{Old: p, OldVisible: true})
		}
	}
	s.write(t, through, gone...)
	check()

	// The window moves with the checkpoint, not with the clock, unless the
	// checkpoint is ahead of it.
	for _, by := range []time.Duration{15 * time.Minute, time.Hour, 30 * time.Hour, 500 * time.Hour} {
		through = through.Add(by)
		s.write(t, through)
		check()
	}

	gone = nil
	for _, p := range s.posts {
		if p.Tags[0] != "big" {
			gone = append(gone, write.PostChange{Old: p, New: p, OldVisible: true}) // hidden
		}
	}
	s.write(t, through, gone...)
	check()
}

// An upstream clock far ahead does not empty the history.
func TestTagHistoryOfTheFuture(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	s := &historySite{writer: storetest.Leader(t, o), account: &write.Account{DID: "did:plc:author", Seq: 1}, posts: map[string]*write.Post{}}
	s.write(t, time.Now().AddDate(50, 0, 0), s.post("now", time.Now().Add(-time.Hour), "small"))
	before := time.Now()
	h, err := storetest.Reader(t, o).TagHistory(t.Context(), "small")
	require.NoError(t, err)
	require.Len(t, h.Hours, store.HistoryHours)
	last := h.Hours[store.HistoryHours-1].Hour
	require.False(t, last.Before(before.UTC().Truncate(time.Hour)) || last.After(time.Now()), "the last hour is %s", last)
	posts := int64(0)
	for _, hour := range h.Hours {
		posts += hour.Posts
	}
	require.EqualValues(t, 1, posts)
}

// How much a history reads does not depend on the tag's number of posts.
func TestTagHistoryPlan(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	s := &historySite{writer: storetest.Leader(t, o), account: &write.Account{DID: "did:plc:author", Seq: 1}, posts: map[string]*write.Post{}}
	var changes []write.PostChange
	for i := range 6000 {
		changes = append(changes, s.post(fmt.Sprint("big", i), storetest.Epoch.Add(-time.Duration(i)*time.Minute), "big"))
		if i < store.HourlyTag-1 {
			changes = append(changes, s.post(fmt.Sprint("line", i), storetest.Epoch.Add(-time.Duration(i)*time.Minute), "line"))
		}
	}
	s.write(t, storetest.Epoch, changes...)
	vacuum(t, o)
	r := storetest.Reader(t, o)
	for tag, want := range map[string]struct{ hours, posts float64 }{
		"big": {store.HistoryHours, 2}, "line": {0, store.HourlyTag - 1 + 2}, "none": {0, 0},
	} {
		got := planOf(t, r, query.HistoryQuery, tag, store.HistoryHours, query.HistoryScan, query.HistoryEnds)
		require.LessOrEqual(t, got.byTable["tag_hours"], want.hours, "%s: counts read", tag)
		require.Equal(t, want.posts, got.byTable["post_tags"], "%s: rows of post_tags", tag)
		require.LessOrEqual(t, got.byTable["tags"], 1.0)
		require.NotContains(t, got.types, "Sort")
		require.NotContains(t, got.types, "Seq Scan")
		require.Zero(t, got.filtered)
		require.Zero(t, got.heap)
		require.LessOrEqual(t, got.blocks, store.HistoryHours*3+30)
	}
}

// While an account is swept, none of its changing posts are seen, and finding out reads a bounded
// amount.
func TestTagHistoryWhileSweeping(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	w := storetest.Leader(t, o)
	loud := &historySite{writer: w, account: &write.Account{DID: "did:plc:loud", Seq: 1}, posts: map[string]*write.Post{}}
	calm := &historySite{writer: w, account: &write.Account{DID: "did:plc:calm", Seq: 1}, posts: map[string]*write.Post{}}
	var changes []write.PostChange
	for i := range 12_000 {
		tag := "shared"
		if i%20 == 0 {
			tag = "own"
		}
		changes = append(changes, loud.post(fmt.Sprint("p", i), storetest.Epoch.Add(-time.Duration(i)*time.Minute), tag))
	}
	loud.write(t, storetest.Epoch, changes...)
	calm.write(t, storetest.Epoch, calm.post("first", storetest.Epoch.Add(-20_000*time.Minute), "shared"), calm.post("last", storetest.Epoch.Add(-90*time.Second), "shared"), calm.post("own", storetest.Epoch.Add(-7*time.Minute), "calm"))
	r := storetest.Reader(t, o)
	before, err := r.TagHistory(t.Context(), "shared")
	require.NoError(t, err)
	require.Equal(t, storetest.Epoch.Add(-time.Minute), before.Last)

	pool := pgtest.Pool(t, o.URL)
	_, err = pool.Exec(t.Context(), "INSERT INTO tagstream.sweeps (account_id, hidden) SELECT id, true FROM tagstream.accounts WHERE did = 'did:plc:loud'")
	require.NoError(t, err)
	hidden, err := r.TagHistory(t.Context(), "own")
	require.NoError(t, err)
	require.EqualValues(t, 600, hidden.Posts, "counts change when the sweep ends")
	require.True(t, hidden.First.IsZero() && hidden.Last.IsZero(), "no post is visible: %s to %s", hidden.First, hidden.Last)
	for _, hour := range hidden.Hours {
		require.Zero(t, hour.Posts)
	}
	shared, err := r.TagHistory(t.Context(), "shared")
	require.NoError(t, err)
	require.Equal(t, storetest.Epoch.Add(-90*time.Second), shared.Last)
	require.Equal(t, storetest.Epoch.Add(-20_000*time.Minute), shared.First)
	require.Equal(t, before.Hours, shared.Hours, "counts change when the sweep ends")
	calm.requireHistory(t, r, "calm", storetest.Epoch)
	for tag, most := range map[string]float64{"own": 600 + 2*query.HistoryEnds, "shared": 2 * query.HistoryEnds} {
		got := planOf(t, r, query.HistoryQuery, tag, store.HistoryHours, query.HistoryScan, query.HistoryEnds)
		require.LessOrEqual(t, got.byTable["post_tags"], most, tag)
		require.LessOrEqual(t, got.byTable["posts"], most, tag)
		require.NotContains(t, got.types, "Hash", tag)
	}

	// A #sync removes the half of its posts below a revision.
	_, err = pool.Exec(t.Context(), "UPDATE tagstream.sweeps SET hidden = false, gone_below = '3b'; UPDATE tagstream.posts SET rev = '3c' WHERE key > (SELECT key FROM tagstream.posts WHERE rkey = 'p6000')")
	require.NoError(t, err)
	own, err := r.TagHistory(t.Context(), "own")
	require.NoError(t, err)
	require.Equal(t, storetest.Epoch.Add(-5980*time.Minute), own.First)
	require.Equal(t, storetest.Epoch, own.Last)
}

// A history is from one schema even if a rebuild is switched in while its statement is planned,
// when half of its tables have been found.
func TestTagHistoryAroundSwitch(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	live, rebuilt := storetest.Leader(t, o), storetest.Rebuilding(t, o)
	// The same two posts, but the tags get each other's ids.
	require.NoError(t, storetest.Add(t, live, "did:plc:a", "art", 1))
	require.NoError(t, storetest.Add(t, live, "did:plc:b", "photo", 2))
	require.NoError(t, storetest.Add(t, rebuilt, "did:plc:b", "photo", 2))
	require.NoError(t, storetest.Add(t, rebuilt, "did:plc:a", "art", 1))
	require.NoError(t, rebuilt.Apply(t.Context(), func(_ *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		cp.Seq = 2
		return cp, nil
	}))
	other := storetest.Reader(t, o)
	want, err := other.TagHistory(t.Context(), "art")
	require.NoError(t, err)

	// A reader that has found the table tags waits for post_tags.
	conn, err := pgx.Connect(t.Context(), o.URL)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	_, err = conn.Exec(t.Context(), "BEGIN; LOCK TABLE tagstream.post_tags IN ACCESS EXCLUSIVE MODE")
	require.NoError(t, err)
	r := storetest.Reader(t, o)
	type answer struct {
		history query.TagHistory
		err     error
	}
	answered := make(chan answer, 1)
	go func() {
		h, err := r.TagHistory(context.WithoutCancel(t.Context()), "art")
		answered <- answer{h, err}
	}()
	pool := pgtest.Pool(t, o.URL)
	poll.Until(t, time.Minute, func() (bool, string) {
		var n int
		require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE wait_event_type = 'Lock' AND datname = current_database()`).Scan(&n))
		return n == 1, fmt.Sprint(n, " wait")
	})
	require.NoError(t, write.NewOwner(o).Switch(t.Context(), true, nothingMissing))
	_, err = conn.Exec(t.Context(), "COMMIT")
	require.NoError(t, err)
	got := <-answered
	require.NoError(t, got.err)
	require.Equal(t, brief(want), brief(got.history))
	again, err := r.TagHistory(t.Context(), "art")
	require.NoError(t, err)
	require.Equal(t, brief(want), brief(again))
}
