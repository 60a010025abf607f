package prune_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/check"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/eventtest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
	"github.com/tagstream/tagstream/services/indexer/internal/prune"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const age = 30 * 24 * time.Hour

var day0 = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

// index is an index in a separate schema.
type index struct {
	t            *testing.T
	writer       *write.Writer
	seq          uint64
	afterErasing bool // markers wait for erasing
	clock        time.Time
}

func open(t *testing.T, o store.Options) *index {
	t.Helper()
	return &index{t: t, writer: storetest.Index(t, o)}
}

// put folds events with one time.
func (x *index) put(at time.Time, events ...event.Event) {
	x.t.Helper()
	a := apply.Applier{Writer: x.writer, Logger: storetest.Quiet}
	var batch []stream.Message
	for _, ev := range events {
		x.seq++
		ev.Source = event.Position{Host: "https://host.example", Seq: x.seq, Time: at, Clock: x.clock}
		batch = append(batch, stream.Message{Seq: x.seq, Data: eventtest.Encode(x.t, ev)})
	}
	require.NoError(x.t, a.Apply(x.t.Context(), batch))
}

func create(rkey, rev string) event.Event {
	return event.Event{Kind: event.KindCreate, DID: "did:plc:a", Rkey: rkey, Rev: "3abcabcabcab" + rev, CID: "bafy", Tags: []string{"art"}, Record: []byte(`{}`)}
}

func gone(rkey, rev string) event.Event {
	return event.Event{Kind: event.KindDelete, DID: "did:plc:a", Rkey: rkey, Rev: "3abcabcabcab" + rev}
}

// sweep prunes until everything was examined once, and returns the number of deleted rows per
// table.
func (x *index) sweep() map[string]int64 {
	x.t.Helper()
	out := map[string]int64{}
	now := time.Unix(0, 0)
	p := prune.New(x.writer, prune.Ages{Markers: age, Changes: age}, x.afterErasing, func(table string, rows int64) { out[table] += rows })
	for range 20 {
		require.NoError(x.t, p.Step(x.t.Context(), now))
		require.NoError(x.t, p.Step(x.t.Context(), now), "nothing must be done before it is due")
		now = now.Add(time.Minute) // more than a pause, less than the time between sweeps
	}
	return out
}

func (x *index) count(o store.Options, table string) (n int) {
	x.t.Helper()
	require.NoError(x.t, pgtest.Pool(x.t, o.URL).QueryRow(x.t.Context(), "SELECT count(*) FROM tagstream."+table).Scan(&n))
	return n
}

// Markers are deleted at their age by upstream time, not earlier. Until then an older event does
// not restore a post. A rebuilt index shows the same.
func TestPruneMarkers(t *testing.T) {
	t.Parallel()
	o := store.Options{URL: pgtest.Database(t).URL}
	x := open(t, o)
	re := o
	re.Schema = store.Rebuilding
	y := open(t, re)
	both := func(at time.Time, events ...event.Event) {
		x.put(at, events...)
		y.put(at, events...)
	}
	same := func() {
		t.Helper()
		f, err := check.New(o).Compare(t.Context(), store.Live, store.Rebuilding, nil)
		require.NoError(t, err)
		require.Zero(t, f.N, f.String())
	}
	both(day0, create("old", "a"), create("new", "a"), create("stays", "a"))
	both(day0.Add(time.Hour), gone("old", "b"))
	both(day0.Add(50*time.Hour), gone("new", "b"))
	require.Equal(t, map[string]int64{prune.Markers: 0, prune.Changes: 0, prune.Hours: 0, prune.Tags: 0, prune.Langs: 0}, x.sweep())

	both(day0.Add(age+time.Hour), event.Event{Kind: event.KindPosition})
	require.Zero(t, x.sweep()[prune.Markers], "it has exactly the maximum age")
	both(day0.Add(age+time.Hour), create("old", "a"), create("new", "a"), gone("new", "a"))
	same()
	require.Equal(t, 2, x.count(o, "removed_posts"))

	both(day0.Add(age+2*time.Hour), event.Event{Kind: event.KindPosition})
	require.EqualValues(t, 1, x.sweep()[prune.Markers])
	require.Equal(t, 1, x.count(o, "removed_posts"))
	// Repeated events of the last days are still ignored, and indexes with and without pruning
	// agree on new events.
	both(day0.Add(age+2*time.Hour), create("new", "a"), create("old", "c"), gone("stays", "c"), create("stays", "b"))
	same()
	require.Equal(t, map[string]int64{prune.Markers: 0, prune.Changes: 0, prune.Hours: 0, prune.Tags: 0, prune.Langs: 0}, x.sweep())
}

// If payloads are erased, a marker stays until a complete pass has examined everything before the
// removal.
//
// Invariant: a marker stays until the payloads of the removed post are erased.
func TestPruneAfterErasing(t *testing.T) {
	t.Parallel()
	o := store.Options{URL: pgtest.Database(t).URL}
	x := open(t, o)
	x.afterErasing = true
	x.put(day0, create("first", "a"), gone("first", "b"), create("second", "a"), gone("second", "b"))
	x.put(day0.Add(2*age), event.Event{Kind: event.KindPosition})
	require.Zero(t, x.sweep()[prune.Markers], "no pass is complete")
	require.NoError(t, x.writer.SetErasure(t.Context(), write.Erasure{Through: 3, Begun: day0}))
	require.EqualValues(t, 1, x.sweep()[prune.Markers])
	require.Equal(t, 1, x.count(o, "removed_posts"))
	require.NoError(t, x.writer.SetErasure(t.Context(), write.Erasure{Through: 4, Begun: day0}))
	require.EqualValues(t, 1, x.sweep()[prune.Markers])
	x.afterErasing = false
	x.put(day0.Add(2*age), create("third", "a"), gone("third", "b"))
	x.put(day0.Add(4*age), event.Event{Kind: event.KindPosition})
	require.EqualValues(t, 1, x.sweep()[prune.Markers], "without erasing there is nothing to wait for")
}

// There are more markers than one transaction examines.
func TestPruneManyMarkers(t *testing.T) {
	t.Parallel()
	o := store.Options{URL: pgtest.Database(t).URL}
	x := open(t, o)
	x.put(day0, create("1", "a"))
	_, err := pgtest.Pool(t, o.URL).Exec(t.Context(), `
		INSERT INTO tagstream.removed_posts (account_id, rkey, rev, removed_at, seq)
		SELECT i % 7 + 1, 'r' || i, '3', $1::timestamptz - make_interval(days => i % 60), 1 FROM generate_series(0, 11999) AS i`, day0)
	require.NoError(t, err)
	require.EqualValues(t, 12000/60*29, x.sweep()[prune.Markers])
	require.Equal(t, 12000/60*31, x.count(o, "removed_posts"))
}

// An upstream host with a time far in the future does not make markers old.
func TestPruneWithWrongClock(t *testing.T) {
	t.Parallel()
	o := store.Options{URL: pgtest.Database(t).URL}
	x := open(t, o)
	now := time.Now()
	x.put(now, create("1", "a"), gone("1", "b"))
	x.put(now.Add(50*365*24*time.Hour), event.Event{Kind: event.KindPosition})
	require.Zero(t, x.sweep()[prune.Markers])
	require.Equal(t, 1, x.count(o, "removed_posts"))
}

// A host's operator may import any time for an event. It neither makes a removal old nor moves the
// index's clock.
func TestPruneUsesNetworkClock(t *testing.T) {
	t.Parallel()
	o := store.Options{URL: pgtest.Database(t).URL}
	x := open(t, o)
	x.clock = day0
	x.put(day0, create("1", "a"))
	x.put(day0.AddDate(-3, 0, 0), gone("1", "b"))
	require.Zero(t, x.sweep()[prune.Markers], "it was just removed")
	cp, err := x.writer.Checkpoint(t.Context())
	require.NoError(t, err)
	require.Equal(t, day0, cp.Source.Time)
	x.clock = day0.Add(age + time.Hour)
	x.put(day0.AddDate(-3, 0, 0), event.Event{Kind: event.KindPosition})
	require.EqualValues(t, 1, x.sweep()[prune.Markers])
}

// Hourly counts are deleted a day after the last batch can change them.
func TestPruneHours(t *testing.T) {
	t.Parallel()
	o := store.Options{URL: pgtest.Database(t).URL}
	x := open(t, o)
	x.put(day0, event.Event{Kind: event.KindPosition})
	_, err := pgtest.Pool(t, o.URL).Exec(t.Context(), `
		INSERT INTO tagstream.tag_hours (hour, tag_id, posts)
		SELECT $1 - i, tag, 5 FROM generate_series(0, 299) AS i, generate_series(1, 100) AS tag`, day0.Unix()/3600)
	require.NoError(t, err)
	const kept = 168 + 24 + 24
	require.EqualValues(t, (300-kept-1)*100, x.sweep()[prune.Hours])
	require.Equal(t, (kept+1)*100, x.count(o, "tag_hours"))
	require.Zero(t, x.sweep()[prune.Hours])
}

// A program that has lost the lease prunes nothing.
//
// Invariant: pruning happens under the lease, and readers never see what is pruned. See also
// TestPruneHours, TestPruneMarkers and TestPruneTags.
func TestPruneFenced(t *testing.T) {
	t.Parallel()
	o := store.Options{URL: pgtest.Database(t).URL}
	x := open(t, o)
	x.put(day0, create("1", "a"))
	x.put(day0, gone("1", "b"))
	x.put(day0.Add(2*age), event.Event{Kind: event.KindPosition})
	_, err := storetest.Writer(t, o, "other").Seize(t.Context())
	require.NoError(t, err)
	p := prune.New(x.writer, prune.Ages{Markers: age, Changes: age}, x.afterErasing, func(table string, rows int64) { require.Fail(t, fmt.Sprint(table, rows)) })
	require.ErrorIs(t, p.Step(t.Context(), time.Unix(0, 0)), write.ErrLeaseLost)
	_, _, _, err = x.writer.PruneTags(t.Context(), 0, 100)
	require.ErrorIs(t, err, write.ErrLeaseLost)
	require.Equal(t, 1, x.count(o, "removed_posts"))
	require.Equal(t, 1, x.count(o, "tags"))
}

// A name is deleted with its last visible post, and returns with the next one. Tokens of a deleted
// tag stay valid, and miss no later post.
func TestPruneTags(t *testing.T) {
	t.Parallel()
	o := store.Options{URL: pgtest.Database(t).URL}
	x := open(t, o)
	r, err := query.Open(t.Context(), o)
	require.NoError(t, err)
	defer r.Close()
	with := func(ev event.Event, did string, tags ...string) event.Event {
		ev.DID, ev.Tags, ev.Langs = did, tags, []string{"x-" + did[len("did:plc:"):]}
		return ev
	}
	names := func(table string) (all []string) {
		rows, err := pgtest.Pool(t, o.URL).Query(t.Context(), "SELECT name FROM tagstream."+table+" ORDER BY name")
		require.NoError(t, err)
		all, err = pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		return all
	}
	page := func(tag string, from keyset.Position, direction keyset.Direction) query.PostPage {
		p, err := r.Posts(t.Context(), query.PostQuery{Tags: []string{tag}, From: from, Direction: direction, Limit: 10})
		require.NoError(t, err)
		return p
	}
	x.put(day0, with(create("1", "a"), "did:plc:a", "art", "secret"), with(create("2", "a"), "did:plc:b", "art", "their-own-words"),
		with(create("3", "a"), "did:plc:c", "hidden"))
	before := page("secret", keyset.Start(), keyset.Forward)
	require.Len(t, before.Rows, 1)
	require.EqualValues(t, 0, x.sweep()[prune.Tags])

	x.put(day0, gone("1", "b"),
		event.Event{Kind: event.KindAccount, DID: "did:plc:b", Status: "deleted"}, event.Event{Kind: event.KindAccount, DID: "did:plc:c", Status: "suspended"},
		with(create("4", "a"), "did:plc:d", "art"))
	pruned := x.sweep()
	require.EqualValues(t, 3, pruned[prune.Tags])
	require.EqualValues(t, 3, pruned[prune.Langs])
	require.Equal(t, []string{"x", "x-d"}, names("langs"))
	require.Equal(t, []string{"art"}, names("tags"))
	require.Empty(t, page("secret", before.Next, keyset.Forward).Rows)
	require.Empty(t, page("secret", before.Previous, keyset.Backward).Rows)

	// The writer made their rows and remembers the ids, which are deleted now.
	x.put(day0.Add(time.Hour), with(create("5", "a"), "did:plc:d", "secret"), event.Event{Kind: event.KindAccount, DID: "did:plc:c", Active: true})
	later := page("secret", before.Previous, keyset.Backward)
	require.Len(t, later.Rows, 1)
	require.Equal(t, "5", later.Rows[0].Rkey)
	require.Len(t, page("hidden", keyset.Start(), keyset.Forward).Rows, 1)
	require.Equal(t, []string{"art", "hidden", "secret"}, names("tags"))
	f, err := check.New(o).Check(t.Context(), store.Live)
	require.NoError(t, err)
	require.Zero(t, f.N, f.String())
}

// Posts that a sweep has listed but not counted yet keep their tags.
func TestPruneTagsDuringSweep(t *testing.T) {
	t.Parallel()
	o := store.Options{URL: pgtest.Database(t).URL}
	x := open(t, o)
	a := apply.Applier{Writer: x.writer, Logger: storetest.Quiet}
	x.put(day0, create("1", "a"))
	pool := pgtest.Pool(t, o.URL)
	// As within a sweep: unlisted, and listed again.
	_, err := pool.Exec(t.Context(), `
		INSERT INTO tagstream.sweeps (account_id, hidden) SELECT id, true FROM tagstream.accounts;
		INSERT INTO tagstream.sweep_counts (account_id, tag_id, hour, posts) SELECT a.id, t.id, -1, 1 FROM tagstream.accounts a, tagstream.tags t;
		UPDATE tagstream.sweeps SET visible = 1; UPDATE tagstream.checkpoint SET visible_posts = 0, tags = 0;
		UPDATE tagstream.tags SET posts = 0; DELETE FROM tagstream.post_tags;`)
	require.NoError(t, err)
	require.Zero(t, x.sweep()[prune.Tags])
	_, err = pool.Exec(t.Context(), `INSERT INTO tagstream.post_tags SELECT t.id, p.key FROM tagstream.tags t, tagstream.posts p`)
	require.NoError(t, err)
	_, err = x.writer.Acquire(t.Context())
	require.NoError(t, err)
	for x.writer.Pending() {
		require.NoError(t, a.DoPending(t.Context()))
	}
	f, err := check.New(o).Check(t.Context(), store.Live)
	require.NoError(t, err)
	require.Zero(t, f.N, f.String())
}

// Changes are deleted at their age by the database's clock, oldest first, and a follower from
// before gets an error.
func TestPruneChanges(t *testing.T) {
	t.Parallel()
	o := store.Options{URL: pgtest.Database(t).URL}
	x := open(t, o)
	r, err := query.Open(t.Context(), o)
	require.NoError(t, err)
	defer r.Close()
	follow := func(after *query.FeedPosition) (query.ChangePage, error) {
		return r.Changes(t.Context(), query.ChangeQuery{List: query.PostQuery{Tags: []string{"art"}}, After: after, Limit: 10})
	}
	begin, err := follow(nil)
	require.NoError(t, err)
	x.put(day0, create("1", "a"), create("2", "a"))
	x.put(day0, create("3", "a"))
	require.Zero(t, x.sweep()[prune.Changes])
	_, err = pgtest.Pool(t, o.URL).Exec(t.Context(), "UPDATE tagstream.changes SET at = at - $1::interval WHERE pos < 3", age)
	require.NoError(t, err)
	require.EqualValues(t, 2, x.sweep()[prune.Changes])
	require.Equal(t, 1, x.count(o, "changes"))
	require.Equal(t, 1, x.count(o, "change_tags"))
	_, err = follow(&begin.Next)
	require.ErrorIs(t, err, query.ErrExpired)
	page, err := follow(&query.FeedPosition{Change: 2, Run: begin.Next.Run})
	require.NoError(t, err)
	require.Len(t, page.Changes, 1)
	require.Equal(t, "3", page.Changes[0].Rkey)
}
