package dlq_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/check"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/eventtest"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
	"github.com/tagstream/tagstream/services/indexer/internal/dlq"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// bench is a stream with two indexes: the live one, whose indexer could not read some of the
// messages, and one made by a newer indexer.
type bench struct {
	t        *testing.T
	js       jetstream.JetStream
	database store.Options
	live     *apply.Applier
	writer   *write.Writer // the writer of redrives
	seq      uint64
	dead     map[uint64]bool
	limit    int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, js: natstest.Server(t).JetStream(t), database: storetest.Database(t), dead: map[uint64]bool{}}
	require.NoError(t, stream.Ensure(t.Context(), b.js, stream.Config{}))
	b.live = &apply.Applier{Writer: storetest.Leader(t, b.database), Logger: storetest.Quiet}
	b.writer = storetest.Writer(t, b.database, "redrive")
	return b
}

// put stores events and folds them into the live index, which cannot read the messages in b.dead.
func (b *bench) put(events ...event.Event) {
	b.t.Helper()
	for _, ev := range events {
		b.seq++
		if ev.Source.IsZero() {
			ev.Source = eventtest.Position(int(b.seq))
		}
		b.store(eventtest.Encode(b.t, ev))
	}
}

func (b *bench) store(data []byte) {
	b.t.Helper()
	ack, err := b.js.Publish(b.t.Context(), "posts.test", data)
	require.NoError(b.t, err)
	b.seq = ack.Sequence
	b.apply(stream.Message{Seq: b.seq, Data: data})
}

func (b *bench) apply(m stream.Message) {
	b.t.Helper()
	data := m.Data
	b.live.PutDeadLetter = func(ctx context.Context, d stream.DeadLetter) error {
		d.Payload = data
		return stream.PutDeadLetter(ctx, b.js, d)
	}
	if b.dead[m.Seq] {
		m.Data = []byte(`{"v":999}`)
	}
	require.NoError(b.t, b.live.Apply(b.t.Context(), []stream.Message{m}))
}

type progress struct{}

func (progress) At(uint64, uint64) {}
func (progress) Say(string)        {}

// redrive returns the outcome of each dead letter, "" for one that was applied.
func (b *bench) redrive(sel dlq.Selection) map[uint64]string {
	b.t.Helper()
	out := map[uint64]string{}
	r := dlq.Redrive{JS: b.js, Writer: b.writer, Logger: storetest.Quiet, Progress: progress{}, MaxHistory: b.limit,
		OnResult: func(res dlq.Result) {
			require.NotContains(b.t, out, res.Seq)
			out[res.Seq] = ""
			if res.Err != nil {
				out[res.Seq] = res.Err.Error()
			}
		}}
	require.NoError(b.t, r.Run(b.t.Context(), sel))
	// Like the indexer when it has lost its lease.
	_, err := b.live.Writer.Acquire(b.t.Context())
	require.NoError(b.t, err)
	return out
}

func (b *bench) letters() []uint64 {
	b.t.Helper()
	seqs, err := stream.DeadLetterSeqs(b.t.Context(), b.js)
	require.NoError(b.t, err)
	return seqs
}

// requireRebuilt rebuilds the index with a program that can read everything except the remaining
// dead letters, and compares.
func (b *bench) requireRebuilt() {
	b.t.Helper()
	ctx := b.t.Context()
	require.NoError(b.t, write.NewOwner(b.database).Drop(ctx, store.Rebuilding))
	a := &apply.Applier{Writer: storetest.Rebuilding(b.t, b.database), Logger: storetest.Quiet,
		PutDeadLetter: func(context.Context, stream.DeadLetter) error { return nil }}
	dead := map[uint64]bool{}
	for _, seq := range b.letters() {
		dead[seq] = true
	}
	s, err := b.js.Stream(ctx, stream.Posts)
	require.NoError(b.t, err)
	var batch []stream.Message
	for seq := uint64(1); seq <= b.seq; seq++ {
		m, err := s.GetMsg(ctx, seq)
		if err != nil {
			require.ErrorIs(b.t, err, jetstream.ErrMsgNotFound)
			continue
		}
		if dead[seq] {
			m.Data = nil
		}
		batch = append(batch, stream.Message{Seq: seq, Data: m.Data})
	}
	require.NoError(b.t, a.Apply(ctx, batch))
	f, err := check.New(b.database).Compare(ctx, store.Live, store.Rebuilding, nil)
	require.NoError(b.t, err)
	require.Zero(b.t, f.N, f.String())
}

// total returns the index's number of dead letters.
func (b *bench) total() int64 {
	b.t.Helper()
	r, err := query.Open(b.t.Context(), b.database)
	require.NoError(b.t, err)
	defer r.Close()
	st, err := r.Status(b.t.Context())
	require.NoError(b.t, err)
	require.Equal(b.t, b.seq, st.Checkpoint.Seq)
	return st.DeadLetters
}

// rev returns the nth revision, n up to 31.
func rev(n int) string { return "3abcabcabcab" + string("234567abcdefghijklmnopqrstuvwxyz"[n]) }

func put(kind event.Kind, did, rkey string, r int, created int, tags ...string) event.Event {
	record, _ := json.Marshal(map[string]any{"text": rkey, "tags": tags})
	ev := event.Event{Kind: kind, DID: "did:plc:" + did, Rkey: rkey, Rev: rev(r), CID: fmt.Sprintf("bafy%d", r), Tags: tags, Record: record}
	if created != 0 {
		ev.CreatedAt = eventtest.Time(created).Format(time.RFC3339)
	}
	return ev
}

func create(did, rkey string, r int) event.Event {
	return put(event.KindCreate, did, rkey, r, 0, "art")
}

func edit(did, rkey string, r int) event.Event {
	return put(event.KindUpdate, did, rkey, r, 0, "art", "edited")
}

func gone(did, rkey string, r int) event.Event {
	return event.Event{Kind: event.KindDelete, DID: "did:plc:" + did, Rkey: rkey, Rev: rev(r)}
}

func status(did, s string) event.Event {
	return event.Event{Kind: event.KindAccount, DID: "did:plc:" + did, Active: s == "", Status: s}
}

func sync(did string, r, second int) event.Event {
	return later(event.Event{Kind: event.KindSync, DID: "did:plc:" + did, Rev: rev(r)}, second)
}

func later(e event.Event, second int) event.Event {
	e.Source = eventtest.Position(second)
	return e
}

// Whatever happens between a dead letter and its redrive, the index is then as if the message had
// been read in order.
//
// Invariant: a dead letter is removed only after the commit of its effect, so a redrive can be
// killed anywhere and repeated, and two redrives never write at once. See also
// TestConcurrentRedrives.
func TestRedriveInOrder(t *testing.T) {
	t.Parallel()
	x := create("b", "x", 1) // an event of another account
	for name, c := range map[string]struct {
		dead    uint64
		history []event.Event
	}{
		"nothing came":                  {1, []event.Event{create("a", "1", 1)}},
		"deleted since":                 {1, []event.Event{create("a", "1", 1), gone("a", "1", 2)}},
		"no root post since":            {1, []event.Event{create("a", "1", 1), {Kind: event.KindRemove, DID: "did:plc:a", Rkey: "1", Rev: rev(2)}}},
		"edited since":                  {1, []event.Event{create("a", "1", 1), x, edit("a", "1", 2)}},
		"deleted and made again":        {1, []event.Event{create("a", "1", 1), gone("a", "1", 2), create("a", "1", 3)}},
		"delete, made again since":      {2, []event.Event{create("a", "1", 1), gone("a", "1", 2), x, create("a", "1", 3)}},
		"delete":                        {2, []event.Event{create("a", "1", 1), gone("a", "1", 2)}},
		"edit, edited since":            {2, []event.Event{create("a", "1", 1), edit("a", "1", 2), edit("a", "1", 3)}},
		"erased since":                  {1, []event.Event{create("a", "1", 1), create("a", "2", 2), status("a", "deleted"), status("a", "")}},
		"erasure, back since":           {2, []event.Event{create("a", "1", 1), status("a", "deleted"), status("a", ""), create("a", "2", 2)}},
		"erasure, edited since":         {2, []event.Event{create("a", "1", 1), status("a", "deleted"), status("a", ""), edit("a", "1", 2)}},
		"hidden since":                  {1, []event.Event{create("a", "1", 1), create("a", "2", 2), status("a", "takendown")}},
		"hiding":                        {2, []event.Event{create("a", "1", 1), status("a", "takendown"), create("a", "2", 2)}},
		"hiding, shown since":           {2, []event.Event{create("a", "1", 1), status("a", "takendown"), status("a", "")}},
		"synced since":                  {1, []event.Event{create("a", "1", 1), create("a", "2", 2), sync("a", 9, 60), later(create("a", "2", 9), 60), x}},
		"sync":                          {3, []event.Event{create("a", "1", 1), create("a", "2", 2), sync("a", 9, 60), later(create("a", "2", 9), 60), x}},
		"in a sync":                     {4, []event.Event{create("a", "1", 1), create("a", "2", 2), sync("a", 9, 60), later(create("a", "2", 9), 60), later(create("a", "1", 9), 60), x}},
		"in a sync that is not over":    {3, []event.Event{create("a", "1", 1), sync("a", 9, 60), later(create("a", "2", 9), 60)}},
		"sync that is not over":         {2, []event.Event{create("a", "1", 1), sync("a", 9, 60), later(create("a", "2", 9), 60)}},
		"after another's sync":          {2, []event.Event{create("b", "1", 1), create("a", "1", 1), sync("b", 9, 60), later(create("b", "2", 9), 60)}},
		"a position within a sync":      {1, []event.Event{create("a", "1", 1), create("a", "2", 1), sync("a", 9, 60), later(event.Event{Kind: event.KindPosition}, 60), later(create("a", "1", 9), 60), x}},
		"a sync ended by others":        {1, []event.Event{create("a", "1", 1), create("a", "2", 1), sync("a", 9, 60), x, later(create("a", "2", 9), 60)}},
		"back-dated, edited since":      {1, []event.Event{put(event.KindCreate, "a", "1", 1, -500, "art"), put(event.KindUpdate, "a", "1", 2, -900, "art")}},
		"the same revision came again":  {1, []event.Event{create("a", "1", 1), later(create("a", "1", 1), 60)}},
		"the same came again in place":  {1, []event.Event{put(event.KindCreate, "a", "1", 1, -500, "art"), later(put(event.KindCreate, "a", "1", 1, -500, "art"), 60)}},
		"same again after it was gone":  {1, []event.Event{create("a", "1", 1), gone("a", "1", 2), create("a", "1", 1)}},
		"a position":                    {2, []event.Event{create("a", "1", 1), {Kind: event.KindPosition}}},
		"the account had nothing since": {1, []event.Event{gone("a", "1", 1), x}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.dead[c.dead] = true
			b.put(c.history...)
			require.Equal(t, []uint64{c.dead}, b.letters())
			require.EqualValues(t, 1, b.total())
			for range 2 {
				require.Equal(t, map[uint64]string{c.dead: ""}, b.redrive(dlq.Selection{}))
				require.Empty(t, b.letters())
				require.Zero(t, b.total())
				b.requireRebuilt()
				// As if it had been killed between the commit and the removal.
				s, err := b.js.Stream(t.Context(), stream.Posts)
				require.NoError(t, err)
				m, err := s.GetMsg(t.Context(), c.dead)
				require.NoError(t, err)
				require.NoError(t, stream.PutDeadLetter(t.Context(), b.js, stream.DeadLetter{Seq: c.dead, Payload: m.Data}))
			}
			// It continues from there.
			b.dead = nil
			b.put(create("b", "end", 20))
			require.NoError(t, stream.DeleteDeadLetter(t.Context(), b.js, c.dead))
			b.requireRebuilt()
		})
	}
}

// Payloads of removed posts are erased from the stream. The markers and floors of the removals
// still stop older events, in dead letters and later ones.
//
// Invariant: a redrive does not restore a post that was erased from the stream.
func TestRedriveRestoresNothingErased(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, seq := range []uint64{4, 8} {
		b.dead[seq] = true
	}
	b.put(create("b", "stays", 1),
		create("a", "x", 1), gone("a", "x", 3), create("a", "x", 2),
		create("c", "x", 5), status("c", "deleted"), status("c", ""), create("c", "x", 4), create("c", "stays", 6))
	s, err := b.js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	for _, seq := range []uint64{2, 5} {
		require.NoError(t, s.SecureDeleteMsg(t.Context(), seq))
	}
	db := pgtest.Pool(t, b.database.URL)
	check := func() {
		t.Helper()
		var posts, marker, floor string
		require.NoError(t, db.QueryRow(t.Context(), `SELECT (SELECT string_agg(rkey, ' ' ORDER BY rkey) FROM tagstream.posts),
			(SELECT max(rev) FROM tagstream.removed_posts), (SELECT max(erased_rev) FROM tagstream.accounts)`).Scan(&posts, &marker, &floor))
		require.Equal(t, []string{"stays stays", rev(3), rev(5)}, []string{posts, marker, floor})
	}
	check()
	require.Equal(t, map[uint64]string{4: "", 8: ""}, b.redrive(dlq.Selection{}))
	check()
	b.put(create("a", "x", 2), create("c", "x", 5))
	check()
}

// If the beginning of the stream is gone, a redrive does not restore posts removed since, and
// keeps posts from the trimmed part.
//
// Invariant: on a trimmed stream a redrive applies a message only if everything after it is
// still there.
func TestRedriveOfTrimmedStream(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, seq := range []uint64{2, 5, 6} {
		b.dead[seq] = true
	}
	b.put(create("a", "before", 1), create("a", "lost", 2), create("b", "1", 1), create("a", "2", 3), // 4
		create("a", "shown", 4), create("a", "deleted", 5), gone("a", "deleted", 6), create("b", "2", 2))
	s, err := b.js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	require.NoError(t, s.Purge(t.Context(), jetstream.WithPurgeSequence(4)))
	require.Equal(t, map[uint64]string{2: dlq.ErrTrimmed.Error(), 5: "", 6: ""}, b.redrive(dlq.Selection{}))
	require.Equal(t, []uint64{2}, b.letters())
	require.EqualValues(t, 1, b.total())
	var rkeys []string
	rows, err := pgtest.Pool(t, b.database.URL).Query(t.Context(), `
		SELECT rkey FROM tagstream.posts p JOIN tagstream.post_tags USING (key) ORDER BY rkey`)
	require.NoError(t, err)
	for rows.Next() {
		var rkey string
		require.NoError(t, rows.Scan(&rkey))
		rkeys = append(rkeys, rkey)
	}
	require.NoError(t, rows.Err())
	require.Equal(t, []string{"1", "2", "2", "before", "shown"}, rkeys)
	f, err := check.New(b.database).Check(t.Context(), store.Live)
	require.NoError(t, err)
	require.Zero(t, f.N, f.String())
}

// Only the selected dead letters are applied.
func TestRedriveSelection(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, seq := range []uint64{1, 2, 4} {
		b.dead[seq] = true
	}
	b.put(create("a", "1", 1), create("a", "2", 2), create("b", "1", 1), gone("b", "1", 2))
	b.store([]byte("never an event"))
	require.Equal(t, map[uint64]string{2: "", 77: "there is no such dead letter: 77"}, b.redrive(dlq.Selection{Seqs: []uint64{77, 2, 2}}))
	require.Equal(t, []uint64{5, 4, 1}, b.letters())
	require.EqualValues(t, 3, b.total())
	b.requireRebuilt()

	out := b.redrive(dlq.Selection{Reason: string(apply.ReasonInvalid)})
	require.Len(t, out, 1)
	require.Contains(t, out[5], "invalid event")
	require.Equal(t, map[uint64]string{1: "", 4: ""}, b.redrive(dlq.Selection{Reason: string(apply.ReasonVersion)}))
	require.Equal(t, []uint64{5}, b.letters())
	require.EqualValues(t, 1, b.total())
	b.requireRebuilt()
	require.Empty(t, b.redrive(dlq.Selection{Reason: "none"}))
}

// A dead letter that fails again stays, with the new reason.
func TestRedriveFailsAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.store([]byte(`{"v":1}`))
	before, err := stream.GetDeadLetter(t.Context(), b.js, 1)
	require.NoError(t, err)
	b.redrive(dlq.Selection{})
	same, err := stream.GetDeadLetter(t.Context(), b.js, 1)
	require.NoError(t, err)
	require.Equal(t, before, same)

	before.Reason, before.Error, before.At = string(apply.ReasonVersion), "unknown event version 1", eventtest.Time(0)
	require.NoError(t, stream.PutDeadLetter(t.Context(), b.js, before))
	b.redrive(dlq.Selection{})
	after, err := stream.GetDeadLetter(t.Context(), b.js, 1)
	require.NoError(t, err)
	require.Equal(t, same.Reason, after.Reason)
	require.Equal(t, same.Error, after.Error)
	require.Equal(t, same.Payload, after.Payload)
	require.WithinDuration(t, time.Now(), after.At, time.Minute)
}

// Dead letters of a former stream are never applied, and do not block those of this one.
func TestRedriveOfForeignLetters(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.dead[3] = true
	b.put(create("a", "1", 1), create("a", "2", 2), create("a", "3", 3))
	for _, seq := range []uint64{1, 99} {
		require.NoError(t, stream.PutDeadLetter(t.Context(), b.js, stream.DeadLetter{Seq: seq, Payload: []byte("other")}))
	}
	require.Equal(t, map[uint64]string{3: ""}, b.redrive(dlq.Selection{Seqs: []uint64{3}}))
	require.Equal(t, map[uint64]string{1: dlq.ErrForeign.Error(), 99: dlq.ErrForeign.Error()}, b.redrive(dlq.Selection{}))
	require.Equal(t, []uint64{99, 1}, b.letters())
	require.NoError(t, stream.DeleteDeadLetter(t.Context(), b.js, 1))
	b.requireRebuilt()
}

// A message that was erased from the stream is not applied, and its dead letter is removed.
func TestRedriveOfErasedMessage(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.dead[2] = true
	b.put(create("a", "1", 1), create("a", "2", 2), gone("a", "2", 3))
	s, err := b.js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	require.NoError(t, s.SecureDeleteMsg(t.Context(), 2))
	require.Equal(t, map[uint64]string{2: ""}, b.redrive(dlq.Selection{}))
	require.Empty(t, b.letters())
	b.requireRebuilt()

	// The last message that the index has seen may also be gone.
	b.dead[5] = true
	b.put(create("a", "4", 4), create("a", "5", 5), create("b", "1", 1))
	require.NoError(t, s.SecureDeleteMsg(t.Context(), 6))
	require.Equal(t, map[uint64]string{5: ""}, b.redrive(dlq.Selection{}))
}

// A dead letter that the indexer has stored, but not passed yet, waits.
func TestRedriveAheadOfIndexer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.put(create("a", "1", 1))
	data := eventtest.Encode(t, later(create("a", "2", 2), 2))
	_, err := b.js.Publish(t.Context(), "posts.test", data)
	require.NoError(t, err)
	require.NoError(t, stream.PutDeadLetter(t.Context(), b.js, stream.DeadLetter{Seq: 2, Payload: data}))
	require.Equal(t, map[uint64]string{2: dlq.ErrAhead.Error()}, b.redrive(dlq.Selection{}))
	require.Zero(t, b.total())
	b.dead[2] = true
	b.seq = 2
	b.apply(stream.Message{Seq: 2, Data: data})
	require.EqualValues(t, 1, b.total())
	require.Equal(t, map[uint64]string{2: ""}, b.redrive(dlq.Selection{}))
	b.requireRebuilt()
}

// Histories that are too big to be held together are processed one after the other. One that is too
// big by itself is skipped.
func TestRedriveInManyPasses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.limit = 4000
	dids := strings.Split("abcdefg", "")
	for i, did := range dids {
		b.dead[uint64(i+1)] = true
		b.put(create(did, "1", 1))
	}
	for range 5 {
		for r, did := range dids {
			b.put(edit(did, "1", 2+r))
		}
	}
	for i := range 30 {
		b.put(create("g", fmt.Sprint(i), 20))
	}
	out := b.redrive(dlq.Selection{})
	require.Len(t, out, len(dids))
	for seq, why := range out {
		if seq == uint64(len(dids)) {
			require.Equal(t, dlq.ErrTooBig.Error(), why)
			continue
		}
		require.Empty(t, why, cmp.Or(seq))
	}
	require.Equal(t, []uint64{7}, b.letters())
	b.requireRebuilt()
}
