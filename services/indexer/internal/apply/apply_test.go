package apply_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/eventtest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// index is a separate index for one test.
type index struct {
	t       *testing.T
	reader  *query.Reader
	applier *apply.Applier
	dead    []stream.DeadLetter
	seq     uint64
	url     string
}

func newIndex(t *testing.T) *index {
	t.Helper()
	o := storetest.Database(t)
	x := &index{t: t, reader: storetest.Reader(t, o), url: o.URL}
	x.applier = &apply.Applier{
		Writer: storetest.Leader(t, o), Logger: storetest.Quiet,
		PutDeadLetter: func(_ context.Context, d stream.DeadLetter) error {
			x.dead = append(x.dead, d)
			return nil
		},
	}
	return x
}

// apply folds the events as one batch.
func (x *index) apply(events ...event.Event) {
	x.t.Helper()
	var batch []stream.Message
	for _, ev := range events {
		x.seq++
		if ev.Source.IsZero() {
			ev.Source = eventtest.Position(int(x.seq))
		}
		batch = append(batch, stream.Message{Seq: x.seq, Data: eventtest.Encode(x.t, ev)})
	}
	require.NoError(x.t, x.applier.Apply(x.t.Context(), batch))
}

// posts returns the record keys of the visible posts with a tag, newest first.
func (x *index) posts(tag string) []string {
	x.t.Helper()
	page, err := x.reader.Posts(x.t.Context(), query.PostQuery{Tags: []string{tag}, From: keyset.Start(), Limit: query.MaxLimit})
	require.NoError(x.t, err)
	rkeys := []string{}
	for _, p := range page.Rows {
		rkeys = append(rkeys, p.Rkey)
	}
	return rkeys
}

// rev returns the nth revision.
func rev(n int) string {
	return "3abc" + strings.Repeat("2", 9-len(strconv.FormatInt(int64(n), 6))) +
		strings.Map(func(r rune) rune { return r + 2 }, strconv.FormatInt(int64(n), 6))
}

const did = "did:plc:author"

func post(kind event.Kind, rkey string, r int, tags ...string) event.Event {
	record, _ := json.Marshal(map[string]any{"text": rkey, "tags": tags})
	return event.Event{Kind: kind, DID: did, Rkey: rkey, Rev: rev(r), CID: fmt.Sprintf("bafy%d", r), Tags: tags, Record: record}
}

func create(rkey string, r int, tags ...string) event.Event {
	return post(event.KindCreate, rkey, r, tags...)
}

func gone(rkey string, r int) event.Event {
	return event.Event{Kind: event.KindDelete, DID: did, Rkey: rkey, Rev: rev(r)}
}

func status(active bool, s string) event.Event {
	return event.Event{Kind: event.KindAccount, DID: did, Active: active, Status: s}
}

func syncAt(r, second int) event.Event {
	return later(event.Event{Kind: event.KindSync, DID: did, Rev: rev(r)}, second)
}

// syncState is the beginning or the reported end of a #sync.
func syncState(r int, state event.SyncState) event.Event {
	return event.Event{Kind: event.KindSync, DID: did, Rev: rev(r), Sync: state}
}

// own gives an account event its own upstream time.
func own(second int, e event.Event) event.Event {
	e.Upstream = &event.Upstream{Seq: uint64(second), Time: eventtest.Time(second)}
	return e
}

func later(e event.Event, second int) event.Event {
	e.Source = eventtest.Position(second)
	return e
}

// relayed gives an account event that upstream number.
func relayed(number uint64, e event.Event) event.Event {
	e.Upstream.Seq = number
	return e
}

// byOther is later for another host.
func byOther(e event.Event, second int) event.Event {
	e = later(e, second)
	e.Source.Host = "https://other.example"
	return e
}

func TestRules(t *testing.T) {
	t.Parallel()
	nul := func(e event.Event) event.Event {
		e.Record = json.RawMessage(`{"text":"a\u0000b"}`)
		return e
	}
	tests := []struct {
		name    string
		batches [][]event.Event
		want    []string // posts with #art
	}{
		{"newest first", [][]event.Event{{create("a", 1, "art"), create("b", 2, "art")}}, []string{"b", "a"}},
		{"an edit keeps the place", [][]event.Event{{create("a", 1, "art"), create("b", 2, "art")}, {post(event.KindUpdate, "a", 3, "art", "x")}}, []string{"b", "a"}},
		{"an edit to other tags leaves", [][]event.Event{{create("a", 1, "art")}, {post(event.KindUpdate, "a", 2, "x")}}, []string{}},
		{"an older edit changes nothing", [][]event.Event{{create("a", 5, "art")}, {post(event.KindUpdate, "a", 4, "x")}}, []string{"a"}},
		{"deleted", [][]event.Event{{create("a", 1, "art")}, {gone("a", 2)}}, []string{}},
		{"deleted in the same batch", [][]event.Event{{create("a", 1, "art"), gone("a", 2)}}, []string{}},
		{"deleted and created in one batch", [][]event.Event{{create("a", 1, "art"), create("b", 1, "art")}, {gone("a", 2), create("a", 3, "art")}}, []string{"a", "b"}},
		{"a late create does not resurrect", [][]event.Event{{create("a", 1, "art")}, {gone("a", 3)}, {create("a", 2, "art")}}, []string{}},
		{"hidden", [][]event.Event{{create("a", 1, "art")}, {status(false, "takendown")}}, []string{}},
		{"hidden while posting", [][]event.Event{{status(false, "suspended")}, {create("a", 1, "art")}}, []string{}},
		{"shown again in place", [][]event.Event{{create("a", 1, "art"), create("b", 2, "art")}, {status(false, "deactivated")}, {create("c", 3, "art")}, {status(true, "")}}, []string{"c", "b", "a"}},
		{"throttled changes nothing", [][]event.Event{{create("a", 1, "art")}, {status(false, "throttled")}}, []string{"a"}},
		{"erased with a floor", [][]event.Event{{create("a", 4, "art")}, {status(false, "deleted")}, {status(true, "")}, {create("b", 4, "art"), create("c", 5, "art")}}, []string{"c"}},
		{"a repeated deletion after a later revision", [][]event.Event{
			{create("a", 1, "art")}, {own(50, status(false, "deleted"))}, {create("a", 2, "art"), own(50, status(false, "deleted"))},
			{create("b", 3, "art")}, {own(50, status(false, "deleted"))}, {own(60, status(true, ""))}}, []string{}},
		{"sync keeps repeated posts", [][]event.Event{
			{create("a", 1, "art"), create("b", 2, "art"), create("c", 3, "art")},
			{{Kind: event.KindSync, DID: did, Rev: rev(9)}, create("b", 9, "art")},
			{{Kind: event.KindPosition}}}, []string{"b"}},
		{"sync with a reported end keeps repeated posts, despite other events", [][]event.Event{
			{create("a", 1, "art"), create("b", 2, "art"), create("c", 3, "art")},
			{syncState(9, event.SyncOpen), create("b", 11, "art"), {Kind: event.KindPosition}, {Kind: event.KindCreate, DID: "did:plc:other", Rkey: "o", Rev: rev(5), CID: "bafy", Tags: []string{"x"}, Record: []byte("{}")}},
			{create("a", 11, "art"), syncState(11, event.SyncOver), create("d", 10, "art")}}, []string{"b", "a"}},
		{"sync without a reported end removes nothing", [][]event.Event{
			{create("a", 1, "art"), create("b", 2, "art")}, {syncState(9, event.SyncOpen), create("b", 9, "art")}, {create("c", 12, "art")}}, []string{"c", "b", "a"}},
		{"sync without a reported end ignores nothing", [][]event.Event{
			{create("a", 1, "art")}, {syncState(9, event.SyncOpen)}, {create("b", 5, "art")}}, []string{"b", "a"}},
		{"end of an older sync keeps posts for a newer one", [][]event.Event{
			{create("a", 1, "art"), create("b", 6, "art")}, {syncState(9, event.SyncOpen)}, {syncState(5, event.SyncOpen), syncState(5, event.SyncOver), create("b", 9, "art")}}, []string{"b"}},
		{"sync replaced at a newer revision", [][]event.Event{
			{create("a", 1, "art"), create("b", 2, "art")},
			{syncAt(9, 60), later(create("a", 11, "art"), 60)}, {later(create("b", 11, "art"), 60)},
			{{Kind: event.KindPosition}}}, []string{"b", "a"}},
		{"repeated sync with later replacements", [][]event.Event{
			{create("a", 1, "art"), syncAt(9, 60), later(create("a", 9, "art"), 60), later(create("b", 9, "art"), 60)},
			{{Kind: event.KindPosition}, syncAt(9, 70), later(create("a", 12, "art"), 70)}, {{Kind: event.KindPosition}},
			// A late event of a post that the repository did not have any more.
			{later(create("b", 11, "art"), 80)}}, []string{"a"}},
		{"interrupted sync repeated from an older copy", [][]event.Event{
			{create("a", 1, "art"), create("b", 2, "art")},
			{syncAt(9, 60), later(create("a", 12, "art"), 60)}, {syncAt(9, 50), later(create("a", 10, "art"), 50)}, {later(create("b", 10, "art"), 50)},
			{{Kind: event.KindPosition}}}, []string{"b", "a"}},
		{"an edit after a sync is not a replacement", [][]event.Event{
			{create("a", 1, "art"), create("b", 2, "art")},
			{syncAt(9, 60), later(post(event.KindUpdate, "c", 9, "art"), 60)}}, []string{"c"}},
		{"the first replacement fixes the revision", [][]event.Event{
			{syncAt(9, 60), later(create("a", 9, "art"), 60), later(create("b", 9, "art"), 60), later(create("c", 11, "art"), 60)},
			{{Kind: event.KindPosition}}}, []string{"c", "b", "a"}},
		{"the first replacement fixes the revision across batches", [][]event.Event{
			{syncAt(9, 60)}, {later(create("a", 9, "art"), 60)}, {later(create("b", 9, "art"), 60)}, {later(create("c", 11, "art"), 60)},
			{{Kind: event.KindPosition}}}, []string{"c", "b", "a"}},
		{"replacements with their own times", [][]event.Event{
			{create("a", 1, "art"), create("b", 2, "art"), create("c", 3, "art")},
			{syncAt(9, 60), later(create("a", 11, "art"), 20)}, {later(create("b", 11, "art"), 90)},
			{{Kind: event.KindPosition, Sync: event.SyncOver}}}, []string{"b", "a"}},
		{"an idle position ends a sync", [][]event.Event{
			{create("a", 1, "art"), create("b", 2, "art")},
			{syncAt(9, 60), later(create("a", 9, "art"), 60)},
			{later(event.Event{Kind: event.KindPosition, Sync: event.SyncOver}, 60)}}, []string{"a"}},
		{"position of a stopping or starting writer does not end a sync", [][]event.Event{
			{create("a", 1, "art"), create("b", 2, "art")},
			{syncAt(9, 60), later(create("a", 9, "art"), 60)},
			{later(event.Event{Kind: event.KindPosition, Sync: event.SyncOpen}, 70), later(event.Event{Kind: event.KindPosition, Sync: event.SyncOpen}, 70)},
			{later(create("b", 9, "art"), 60)}, {later(event.Event{Kind: event.KindPosition, Sync: event.SyncOver}, 70)}}, []string{"b", "a"}},
		{"take-down from a lagging host", [][]event.Event{
			{create("a", 1, "art")}, {own(40, later(status(true, ""), 150))}, {own(130, byOther(status(false, "takendown"), 130))}}, []string{}},
		{"old status repeated by a lagging host", [][]event.Event{
			{create("a", 1, "art")}, {own(130, later(status(false, "takendown"), 130))}, {own(40, byOther(status(true, ""), 150))}}, []string{}},
		{"the numbers of one host count, not the time", [][]event.Event{
			{create("a", 1, "art")}, {own(130, later(status(false, "takendown"), 60))}, {own(40, later(status(true, ""), 70))}}, []string{"a"}},
		{"the numbers of one host count in one batch, and its past is repeated", [][]event.Event{
			{create("a", 1, "art"), relayed(1, own(130, later(status(false, "deleted"), 60))), own(40, later(status(true, ""), 70))},
			{create("b", 2, "art")}, {relayed(1, own(130, later(status(false, "deleted"), 60)))}}, []string{"b"}},
		{"a position within a sync does not end it", [][]event.Event{
			{create("a", 1, "art"), create("b", 2, "art")},
			{syncAt(9, 60), later(create("a", 9, "art"), 60)}, {later(event.Event{Kind: event.KindPosition}, 60)}}, []string{"b", "a"}},
		{"sync shows no gap", [][]event.Event{
			{create("a", 1, "art"), create("b", 2, "art")},
			{{Kind: event.KindSync, DID: did, Rev: rev(9)}}}, []string{"b", "a"}},
		{"tags of an older ingest", [][]event.Event{{create("a", 1, "a\u00adrt"), create("b", 2, "x", "art\u2060", "\u200bart")}}, []string{"b", "a"}},
		{"tags of an older ingest that are not valid any more", [][]event.Event{
			{create("a", 1, "art"), create("b", 2, "art")}, {post(event.KindUpdate, "a", 4, "\u200b"), create("c", 1, "\u2800")}, {create("a", 3, "art")}}, []string{"b"}},
		{"replacement without a currently valid tag leaves the sync open", [][]event.Event{
			{create("a", 1, "art"), create("b", 2, "art")},
			{syncAt(9, 60), later(create("c", 9, "\u200b"), 60), later(create("a", 9, "art"), 60)}, {{Kind: event.KindPosition}}}, []string{"a"}},
		{"NUL in a record", [][]event.Event{{nul(create("a", 1, "art"))}}, []string{"a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x := newIndex(t)
			for _, b := range tt.batches {
				x.apply(b...)
			}
			require.Equal(t, tt.want, x.posts("art"))
			require.Empty(t, x.dead)
			x.checkTotals()
		})
	}
}

// An account's row that a rebuild carried over is ahead of the stream. The statuses before it are
// not folded over it: the order of three of them can be circular.
func TestStatusesBeforeCarriedRow(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	events := []event.Event{
		create("a", 1, "art"),
		relayed(1, own(90, later(status(false, "deactivated"), 10))),
		relayed(1, own(50, byOther(status(false, "deactivated"), 11))), // older than the previous one, newer than the next
		relayed(2, own(40, later(status(true, ""), 20))),
	}
	x.apply(events...)
	require.Equal(t, []string{"a"}, x.posts("art"))
	require.NoError(t, x.applier.Writer.Apply(t.Context(), func(_ *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		cp.Seq = 0
		return cp, nil
	}))
	x.seq = 0
	x.apply(events...)
	require.Equal(t, []string{"a"}, x.posts("art"))
	x.checkTotals()
}

// The replacements that determined a #sync's revision were deleted and erased from the stream.
// Events below that revision are still ignored.
func TestRedriveBelowErasedFloor(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.apply(create("a", 1, "art"), create("b", 10, "art"))
	x.apply(syncAt(9, 60), later(create("a", 11, "art"), 60))
	x.apply(later(gone("a", 12), 70), later(create("c", 13, "art"), 71))
	x.apply(later(create("b", 10, "art"), 72))
	require.Equal(t, []string{"c"}, x.posts("art"))
	h := apply.History{DID: did, Through: x.seq, Whole: true}
	for _, s := range []struct {
		seq uint64
		ev  event.Event
	}{{3, syncAt(9, 60)}, {5, later(gone("a", 12), 70)}, {6, later(create("c", 13, "art"), 71)}, {7, later(create("b", 10, "art"), 72)}} {
		h.Steps = append(h.Steps, apply.Step{Seq: s.seq, Event: &s.ev})
	}
	require.NoError(t, x.applier.Redrive(t.Context(), h))
	require.Equal(t, []string{"c"}, x.posts("art"))
	x.checkTotals()
}

// checkTotals compares the counters with the rows that they count.
func (x *index) checkTotals() {
	x.t.Helper()
	st, err := x.reader.Status(x.t.Context())
	require.NoError(x.t, err)
	require.Equal(x.t, x.seq, st.Checkpoint.Seq)
	pool := pgtest.Pool(x.t, x.url)
	var posts, visible, tags, wrong int64
	require.NoError(x.t, pool.QueryRow(x.t.Context(), `
		SELECT (SELECT count(*) FROM tagstream.posts),
		       (SELECT count(DISTINCT key) FROM tagstream.post_tags),
		       (SELECT count(*) FROM tagstream.tags WHERE posts > 0),
		       (SELECT count(*) FROM tagstream.tags t WHERE posts <> (SELECT count(*) FROM tagstream.post_tags WHERE tag_id = t.id))`).
		Scan(&posts, &visible, &tags, &wrong))
	require.Equal(x.t, []int64{posts, visible, tags, 0}, []int64{st.Posts, st.VisiblePosts, st.Tags, wrong})
}

// A checkpoint at a dead letter states nothing about that message: a newer program may be able to
// read it, and would mistake the stream for another one.
func TestCheckpointAtDeadLetter(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	source := func() event.Position {
		st, err := x.reader.Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, x.seq, st.Checkpoint.Seq)
		return st.Checkpoint.Source
	}
	x.apply(create("a", 1, "art"))
	require.Equal(t, uint64(1), source().Seq)
	x.seq++
	require.NoError(t, x.applier.Apply(t.Context(), []stream.Message{{Seq: x.seq, Data: []byte(`{"v":999}`)}}))
	require.Len(t, x.dead, 1)
	require.Zero(t, source().Seq)
	require.Equal(t, eventtest.Time(1), source().Time, "the time must be that of the last event")
	x.apply(create("b", 2, "art"))
	require.Equal(t, uint64(3), source().Seq)
}

// Batches grow until one takes too long. Its size is not tried again soon, even in another term.
func TestBatchesFitTimeLimit(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.applier.Batch = 2
	x.apply(create("a", 1, "art"))
	require.Equal(t, 2, x.applier.Batch)
	for _, grown := range []int{4, 8} {
		var batch []event.Event
		for range x.applier.Batch {
			batch = append(batch, create("b", int(x.seq), "art"))
		}
		x.apply(batch...)
		require.Equal(t, grown, x.applier.Batch)
	}
	waits := true
	x.applier.PutDeadLetter = func(ctx context.Context, _ stream.DeadLetter) error {
		if waits {
			waits = false
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	x.applier.Timeout = 200 * time.Millisecond
	var batch []stream.Message
	for i := range x.applier.Batch {
		x.seq++
		ev := event.Event{Kind: event.KindPosition, Source: eventtest.Position(i + 1)}
		batch = append(batch, stream.Message{Seq: x.seq, Data: eventtest.Encode(t, ev)})
	}
	batch[3].Data = []byte("no event")
	require.NoError(t, x.applier.Apply(t.Context(), batch))
	require.False(t, waits)
	require.Positive(t, x.applier.Batch)
	require.Less(t, x.applier.Batch, 8)
}
