package erase_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/check"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/eventtest"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
	"github.com/tagstream/tagstream/services/indexer/internal/erase"
	"github.com/tagstream/tagstream/services/indexer/internal/replay"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const week = 7 * 24 * time.Hour

// site is a stream with a live index.
type site struct {
	t      *testing.T
	o      store.Options
	js     jetstream.JetStream
	writer *write.Writer // without a lease
	live   *apply.Applier
	last   uint64
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, js: natstest.Server(t).JetStream(t), o: store.Options{URL: pgtest.Database(t).URL}}
	require.NoError(t, stream.Ensure(t.Context(), s.js, stream.Config{}))
	s.live = s.index(store.Live)
	s.writer = storetest.Writer(t, s.o, "erase")
	return s
}

// index creates an empty index.
func (s *site) index(schema string) *apply.Applier {
	s.t.Helper()
	o := s.o
	o.Schema = schema
	return &apply.Applier{Writer: storetest.Index(s.t, o), Logger: storetest.Quiet, PutDeadLetter: func(ctx context.Context, d stream.DeadLetter) error {
		return stream.PutDeadLetter(ctx, s.js, d)
	}}
}

// add stores events and folds them into the live index, one by one.
func (s *site) add(events ...event.Event) {
	s.t.Helper()
	for _, ev := range events {
		if ev.Source.IsZero() {
			ev.Source = second(int(s.last))
		}
		s.put(eventtest.Encode(s.t, ev))
	}
}

func (s *site) put(data []byte) {
	s.t.Helper()
	ack, err := s.js.Publish(s.t.Context(), "posts.test", data)
	require.NoError(s.t, err)
	s.last = ack.Sequence
	require.NoError(s.t, s.live.Apply(s.t.Context(), []stream.Message{{Seq: ack.Sequence, Data: data}}))
}

// pass makes a pass over everything, and returns the remaining numbers.
func (s *site) pass() (left []uint64, sum erase.Summary) {
	s.t.Helper()
	e := erase.Eraser{JS: s.js, Writer: s.writer, Logger: storetest.Quiet, Within: week}
	sum, err := e.Pass(s.t.Context())
	require.NoError(s.t, err)
	for _, m := range s.read() {
		left = append(left, m.Seq)
	}
	return left, sum
}

func (s *site) read() (all []stream.Message) {
	s.t.Helper()
	for batch, err := range stream.Range(s.t.Context(), s.js, 1, s.last) {
		require.NoError(s.t, err)
		all = append(all, batch...)
	}
	return all
}

// same folds the remaining stream into another index, and compares.
func (s *site) same() {
	s.t.Helper()
	a := s.index(store.Rebuilding)
	require.NoError(s.t, a.Apply(s.t.Context(), s.read()))
	f, err := check.New(s.o).Compare(s.t.Context(), store.Live, store.Rebuilding, nil)
	require.NoError(s.t, err)
	require.Zero(s.t, f.N, f.String())
}

func second(n int) event.Position {
	return event.Position{Host: "https://host.example", Seq: uint64(n + 1), Time: time.Date(2026, 11, 1, 0, 0, n, 0, time.UTC)}
}

const a, b = "did:plc:a", "did:plc:b"

func rev(r byte) string { return "3abcabcabcab" + string(r) }

func create(did, rkey string, r byte) event.Event {
	record, _ := json.Marshal(map[string]string{"text": did + rkey + string(r)})
	return event.Event{Kind: event.KindCreate, DID: did, Rkey: rkey, Rev: rev(r), CID: "bafy", Tags: []string{"art"}, Record: record}
}

func update(did, rkey string, r byte) event.Event {
	ev := create(did, rkey, r)
	ev.Kind = event.KindUpdate
	return ev
}

func gone(did, rkey string, r byte) event.Event {
	return event.Event{Kind: event.KindDelete, DID: did, Rkey: rkey, Rev: rev(r)}
}

// named is a profile at a revision, and handled a handle at a second.
func named(did string, r byte, optedOut bool) event.Event {
	return event.Event{Kind: event.KindAuthor, DID: did, Rev: rev(r), Profile: &event.Profile{DisplayName: "name " + string(r), OptedOut: optedOut}}
}

func handled(did string, n int) event.Event {
	return event.Event{Kind: event.KindAuthor, DID: did, Handle: &event.Handle{Name: fmt.Sprintf("h%d.example", n), Time: second(n).Time}}
}

func status(did, s string) event.Event {
	return event.Event{Kind: event.KindAccount, DID: did, Active: s == "", Status: s}
}

func syncAt(did string, r byte, at int) event.Event {
	return event.Event{Kind: event.KindSync, DID: did, Rev: rev(r), Source: second(at)}
}

// syncState is the beginning or the reported end of a #sync.
func syncState(did string, r byte, state event.SyncState) event.Event {
	return event.Event{Kind: event.KindSync, DID: did, Rev: rev(r), Sync: state}
}

// own gives an account event its own upstream time.
func own(n int, ev event.Event) event.Event {
	ev.Upstream = &event.Upstream{Seq: uint64(n), Time: second(n).Time}
	return ev
}

func at(n int, ev event.Event) event.Event {
	ev.Source = second(n)
	return ev
}

var position = event.Event{Kind: event.KindPosition}

func TestPass(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		events []event.Event // with a position before and after
		left   []uint64
	}{
		{"shown", []event.Event{create(a, "x", 'b')}, []uint64{1, 2, 3}},
		{"deleted", []event.Event{create(a, "x", 'b'), update(a, "x", 'c'), gone(a, "x", 'd')}, []uint64{1, 4, 5}},
		{"an edit keeps the first version, which determines the place", []event.Event{create(a, "x", 'b'), create(a, "y", 'b'), update(a, "x", 'c')}, []uint64{1, 2, 3, 4, 5}},
		{"recreated under its key", []event.Event{create(a, "x", 'b'), gone(a, "x", 'c'), create(a, "x", 'd')}, []uint64{1, 3, 4, 5}},
		{"former versions repeated", []event.Event{create(a, "x", 'b'), gone(a, "x", 'c'), create(a, "x", 'b'), create(a, "x", 'd'), update(a, "x", 'e')}, []uint64{1, 3, 5, 6, 7}},
		{"deleted again", []event.Event{create(a, "x", 'b'), gone(a, "x", 'c'), create(a, "x", 'd'), gone(a, "x", 'e')}, []uint64{1, 3, 5, 6}},
		{"deleted before it arrived", []event.Event{gone(a, "x", 'c'), create(a, "x", 'b')}, []uint64{1, 2, 3, 4}},
		{"late versions of a deleted post", []event.Event{create(a, "x", 'b'), gone(a, "x", 'e'), create(a, "x", 'c'), update(a, "x", 'd')}, []uint64{1, 3, 6}},
		{"hidden", []event.Event{create(a, "x", 'b'), status(a, "takendown"), create(a, "y", 'c')}, []uint64{1, 2, 3, 4, 5}},
		{"erased account", []event.Event{create(a, "x", 'b'), create(b, "x", 'b'), status(a, "deleted")}, []uint64{1, 3, 4, 5}},
		{"erased account that returned", []event.Event{create(a, "x", 'b'), status(a, "deleted"), status(a, ""), create(a, "x", 'c'), create(a, "y", 'b')}, []uint64{1, 3, 4, 5, 7}},
		{"an author", []event.Event{create(a, "x", 'b'), named(a, 'c', false), handled(a, 1)}, []uint64{1, 2, 3, 4, 5}},
		{"author with another profile and handle", []event.Event{create(a, "x", 'b'), named(a, 'c', false), handled(a, 1), handled(a, 2), named(a, 'd', true)}, []uint64{1, 2, 5, 6, 7}},
		{"author with older profile and handle", []event.Event{create(a, "x", 'b'), named(a, 'c', true), handled(a, 2), handled(a, 1), named(a, 'b', false)}, []uint64{1, 2, 3, 4, 7}},
		{"unknown author", []event.Event{named(a, 'c', false), handled(a, 1), named(b, 'c', true), handled(b, 1), create(b, "x", 'd')}, []uint64{1, 4, 5, 6, 7}},
		{"author unknown at that time", []event.Event{named(a, 'c', false), handled(a, 1), create(a, "x", 'b'), create(a, "y", 'b')}, []uint64{1, 4, 5, 6}},
		{"deleted author", []event.Event{create(a, "x", 'b'), named(a, 'c', true), handled(a, 1), create(b, "x", 'b'), status(a, "deleted")}, []uint64{1, 5, 6, 7}},
		{"deleted author who returns", []event.Event{create(a, "x", 'b'), named(a, 'c', false), handled(a, 1), status(a, "deleted"), status(a, "")}, []uint64{1, 5, 6, 7}},
		{"opted-out, deleted author who returns", []event.Event{create(a, "x", 'b'), named(a, 'c', true), status(a, "deleted"), status(a, "")}, []uint64{1, 3, 4, 5, 6}},
		{"deleted author who returns with the same profile", []event.Event{create(a, "x", 'b'), named(a, 'c', false), status(a, "deleted"), status(a, ""), named(a, 'c', false), named(a, 'd', false)}, []uint64{1, 4, 5, 7, 8}},
		{"hidden author", []event.Event{create(a, "x", 'b'), named(a, 'c', false), handled(a, 1), status(a, "takendown")}, []uint64{1, 2, 3, 4, 5, 6}},
		{"a #sync", []event.Event{create(a, "lost", 'b'), create(a, "kept", 'b'), create(a, "more", 'b'), syncAt(a, 'd', 30), at(30, create(a, "kept", 'd')), at(30, create(a, "more", 'd'))}, []uint64{1, 3, 4, 5, 6, 7, 8}},
		{"a #sync with a reported end",
			[]event.Event{
				create(a, "lost", 'b'), syncState(a, 'd', event.SyncOpen), create(a, "x", 'e'), create(b, "y", 'c'), create(a, "z", 'e'),
				syncState(a, 'e', event.SyncOver), create(b, "w", 'c'), gone(a, "x", 'f'), gone(b, "y", 'd'), gone(b, "w", 'd'), create(a, "v", 'f'),
			}, []uint64{1, 3, 6, 7, 9, 10, 11, 12, 13}},
		{"the event that ended a #sync stays",
			[]event.Event{create(a, "x", 'b'), create(b, "y", 'b'), syncAt(a, 'd', 30), at(31, create(b, "z", 'c')), at(30, create(a, "x", 'd')), gone(b, "z", 'd')}, []uint64{1, 2, 3, 4, 5, 6, 7, 8}},
		{"it stays despite the account's own removals",
			[]event.Event{create(a, "x", 'b'), create(b, "y", 'b'), syncAt(a, 'd', 30), create(b, "z", 'c'), gone(a, "x", 'e'), gone(b, "z", 'd')}, []uint64{1, 3, 4, 5, 6, 7, 8}},
		{"the first replacement of an older #sync",
			[]event.Event{
				create(a, "x", 'b'), syncAt(a, 'e', 29), syncAt(a, 'c', 30), at(31, create(a, "y", 'd')),
				at(31, update(a, "x", 'e')),
			}, []uint64{1, 2, 3, 4, 5, 6, 7}},
		{"the event that fixes the replacements' revision stays",
			[]event.Event{
				create(a, "x", 'b'), create(a, "w", 'e'), syncAt(a, 'c', 30), at(30, create(a, "y", 'e')), at(30, create(a, "z", 'f')),
				create(b, "v", 'b'), gone(a, "y", 'g'),
			}, []uint64{1, 3, 4, 5, 6, 7, 8, 9}},
		{"it stays if all other replacements are gone",
			[]event.Event{
				create(a, "x", 'd'), syncAt(a, 'c', 30), at(30, create(a, "y", 'e')), at(30, create(a, "z", 'e')),
				update(a, "w", 'f'), gone(a, "y", 'g'), gone(a, "z", 'g'), create(a, "x", 'h'),
			}, []uint64{1, 2, 3, 4, 6, 7, 8, 9, 10}},
		{"it stays with the event that ended the #sync",
			[]event.Event{
				create(a, "x", 'd'), syncAt(a, 'c', 30), at(30, create(a, "y", 'e')), create(b, "z", 'e'),
				create(b, "w", 'f'), gone(a, "y", 'g'), gone(b, "z", 'g'), create(a, "x", 'h'),
			}, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{"nothing is assumed about a #sync that may be over",
			[]event.Event{
				create(a, "x", 'b'), create(a, "q", 'd'), syncAt(a, 'c', 30), at(31, create(b, "w", 'b')), at(30, create(a, "y", 'g')),
				syncAt(a, 'e', 40), at(41, create(b, "v", 'b')), at(41, create(a, "u", 'e')), at(40, create(a, "q", 'f')),
				gone(b, "w", 'd'), gone(b, "v", 'd'),
			}, []uint64{1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.add(position)
			s.add(tt.events...)
			s.add(position)
			left, sum := s.pass()
			require.Equal(t, tt.left, left)
			require.Equal(t, len(tt.events)+2-len(left), sum.Erased[erase.Posts])
			require.Equal(t, s.last-1, sum.Through)
			s.same()
			again, sum := s.pass()
			require.Equal(t, left, again)
			require.Zero(t, sum.Erased[erase.Posts])
		})
	}
}

// A pass keeps the first message, which distinguishes gaps from trimming, the last one, after which
// ingest resumes, and messages that are not folded yet.
func TestPassKeepsStreamEnds(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add(create(a, "x", 'b'), gone(a, "x", 'd'), create(a, "x", 'c'))
	left, _ := s.pass()
	require.Equal(t, []uint64{1, 2, 3}, left)
	data, err := json.Marshal(create(a, "x", 'b'))
	require.NoError(t, err)
	for range 2 {
		_, err = s.js.Publish(t.Context(), "posts.test", data)
		require.NoError(t, err)
	}
	_, sum := s.pass()
	require.EqualValues(t, 3, sum.Through, "the pass must end where the index ends")
}

// trimmed is a stream that is trimmed after it was first opened.
type trimmed struct {
	jetstream.JetStream
	after func()
}

func (s trimmed) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	defer s.after()
	return s.JetStream.Stream(ctx, name) //nolint:wrapcheck // unchanged
}

// A stream that is constantly trimmed has lost its first message by the time it is read.
func TestPassDuringTrimming(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add(position, position, position, create(a, "x", 'b'), gone(a, "x", 'd'), position)
	trim := sync.OnceFunc(func() {
		posts, err := s.js.Stream(t.Context(), stream.Posts)
		require.NoError(t, err)
		require.NoError(t, posts.Purge(t.Context(), jetstream.WithPurgeSequence(3)))
	})
	e := erase.Eraser{JS: trimmed{s.js, trim}, Writer: s.writer, Logger: storetest.Quiet, Within: week}
	sum, err := e.Pass(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, sum.Erased[erase.Posts])
	require.Equal(t, s.last-1, sum.Through)
}

// An index of another stream proves nothing.
func TestPassOfAnotherStream(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add(position, create(a, "x", 'b'), gone(a, "x", 'c'), position)
	other := natstest.Server(t).JetStream(t)
	require.NoError(t, stream.Ensure(t.Context(), other, stream.Config{}))
	e := erase.Eraser{JS: other, Writer: s.writer, Logger: storetest.Quiet, Within: week}
	_, err := e.Pass(t.Context())
	require.ErrorIs(t, err, stream.ErrBehind)
	for range 5 {
		ev := position
		ev.V, ev.Source = event.Version, second(1000)
		_, err = other.Publish(t.Context(), "posts.test", eventtest.Encode(t, ev))
		require.NoError(t, err)
	}
	_, err = e.Pass(t.Context())
	require.ErrorIs(t, err, stream.ErrReplaced)
}

// errorLog collects what is logged as an error.
type errorLog struct {
	slog.Handler
	mu       sync.Mutex
	messages []string
}

func (h *errorLog) Enabled(context.Context, slog.Level) bool { return true }
func (h *errorLog) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *errorLog) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.messages = append(h.messages, r.Message)
	}
	return nil
}

// Run makes passes, and logs an error if none was complete in time.
func TestRun(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		last   time.Duration
		errors int
	}{{0, 0}, {6 * 24 * time.Hour, 0}, {8 * 24 * time.Hour, 1}} {
		t.Run(fmt.Sprint(tt.last), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.add(position, create(a, "x", 'b'), gone(a, "x", 'c'), position)
			if tt.last > 0 {
				require.NoError(t, s.writer.SetErasure(t.Context(), write.Erasure{Through: 1, Begun: time.Now().Add(-tt.last)}))
			}
			log := &errorLog{}
			began := time.Now().Add(-time.Second)
			passed := make(chan time.Time, 10)
			e := erase.Eraser{JS: s.js, Writer: s.writer, Logger: slog.New(log), Within: week, FirstAfter: time.Millisecond,
				OnPass: func(begun time.Time) { passed <- begun }}
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { e.Run(ctx) })
			for begun := range passed {
				if begun.After(began) {
					break
				}
			}
			cancel()
			running.Wait()
			require.Len(t, log.messages, tt.errors)
			last, err := s.writer.Erasure(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, s.last-1, last.Through)
			require.True(t, last.Begun.After(began))
		})
	}
}

// A rebuild that was interrupted after the last message folds nothing after its resumption.
func TestFloorsOfResumedRebuild(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add(position, at(2, create(a, "lost", 'c')), syncAt(a, 'b', 3), at(3, create(a, "x", 'e')), at(4, gone(a, "x", 'f')), at(5, position))
	s.pass()
	// Passes that left nothing at the floor's revision also erased the replacement.
	posts, err := s.js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	require.NoError(t, posts.DeleteMsg(t.Context(), 4))
	s.add(at(2, create(a, "lost", 'c')), at(6, create(a, "y", 'g')))
	other := s.index(store.Rebuilding)
	require.NoError(t, other.Apply(t.Context(), s.read()))
	differences := func() int {
		f, err := check.New(s.o).Compare(t.Context(), store.Live, store.Rebuilding, nil)
		require.NoError(t, err)
		return f.N
	}
	require.Equal(t, 1, differences())
	r, err := replay.Open(t.Context(), replay.Config{JS: s.js, Writer: other.Writer, Logger: storetest.Quiet, Database: s.o, Reference: store.Live}, s.last)
	require.NoError(t, err)
	defer r.Close()
	require.NoError(t, r.FoldTo(t.Context(), s.last))
	require.NoError(t, r.RecallFloors(t.Context()))
	require.Zero(t, differences())
}

// Wherever a pass ends, the remaining stream folds to the same index.
func TestInterruptedPass(t *testing.T) {
	t.Parallel()
	for n := range 3 {
		t.Run(fmt.Sprint(n, " of 2"), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.add(position)
			s.add(create(a, "q", 'g'), syncState(a, 'c', event.SyncOpen), create(b, "w", 'b'), create(a, "y", 'g'), syncState(a, 'g', event.SyncOver),
				gone(b, "w", 'c'), gone(a, "y", 'h'))
			s.add(position)
			ctx, end := context.WithCancel(t.Context())
			defer end()
			erased := 0
			e := erase.Eraser{JS: s.js, Writer: s.writer, Logger: storetest.Quiet, Within: week, OnErased: func(string) {
				if erased++; erased == n && n < 2 {
					end()
				}
			}}
			if n == 0 {
				end()
			}
			_, err := e.Pass(ctx)
			require.Equal(t, n < 2, err != nil, err)
			require.Equal(t, n, erased)
			s.same()
		})
	}
}
