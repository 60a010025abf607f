package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/eventtest"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/test/model"
)

var eraseSeeds = seedFlags("erase", "TestErase", 6)

// erase makes a pass over everything except the stream's last message.
func (b *indexBench) erase(within time.Duration) (posts, letters int) {
	b.t.Helper()
	b.runs++
	posts, letters, err := indexer.Erase(b.t.Context(), indexer.EraseConfig{Database: b.writer, Within: within, ID: fmt.Sprint("erase-", b.runs)},
		b.nats.Conn(b.t), slog.New(slog.DiscardHandler))
	require.NoError(b.t, err)
	return posts, letters
}

const week = 7 * 24 * time.Hour

// stored returns the stream's messages by number.
func (b *indexBench) stored(last uint64) map[uint64][]byte {
	b.t.Helper()
	out := map[uint64][]byte{}
	for batch, err := range stream.Range(b.t.Context(), b.js, 1, last) {
		require.NoError(b.t, err)
		for _, m := range batch {
			out[m.Seq] = m.Data
		}
	}
	return out
}

// TestErase erases repeatedly while a history full of edge cases arrives: recreated posts, hidden
// and erased accounts, syncs, late events. The live index does not change, and one rebuilt from the
// remaining stream is the same, including keys. Readers in the middle of the stream continue.
func TestErase(t *testing.T) {
	t.Parallel()
	eraseSeeds.run(t, eraseAlong)
}

func eraseAlong(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 9))
	b, url := newIndex(t)
	b.big = []int{0, 3, 20}[rng.IntN(3)]
	b.indexer(100)
	want := model.New()
	var all []*event.Event
	seq, erased := uint64(0), 0
	add := func(events ...*event.Event) {
		seq = b.feed(want, encoded(t, events)...)
		all = append(all, events...)
		require.Len(t, all, int(seq))
	}
	history := model.Generate(seed, 600)
	at := history[0].Source
	add(&event.Event{V: event.Version, Kind: event.KindPosition, Source: at}) // like ingest when it starts
	for len(history) > 0 {
		n := min(len(history), 50+rng.IntN(250))
		add(history[:n]...)
		history = history[n:]
		b.await(url, seq)
		// One reader has already read a part, the other has not.
		reader, err := stream.OpenReader(t.Context(), b.js, 1+rng.Uint64N(seq))
		require.NoError(t, err)
		got, err := reader.Next(t.Context(), 10, time.Millisecond)
		require.NoError(t, err)
		posts, _ := b.erase(week)
		erased += posts
		for at := got[len(got)-1].Seq; at < seq; {
			batch, err := reader.Next(t.Context(), 1000, time.Millisecond)
			require.NoError(t, err)
			require.Greater(t, batch[0].Seq, at)
			at = batch[len(batch)-1].Seq
		}
		reader.Close()
		if rng.IntN(3) == 0 {
			b.rebuild()
			b.await(url, seq)
			model.CheckHTTP(t, url, want)
		}
	}
	add(&event.Event{V: event.Version, Kind: event.KindPosition, Source: all[len(all)-1].Source})
	b.await(url, seq)
	posts, _ := b.erase(week)
	erased += posts
	model.CheckHTTP(t, url, want)

	// Exactly the right messages were erased.
	left := b.stored(seq)
	kept := map[string]bool{}
	for _, p := range want.All() {
		kept[p.URI] = true
		require.Contains(t, left, p.Seq, "the visible version of %s must stay", p.URI)
	}
	removed := map[string]string{}
	called := map[string]bool{} // names of authors, and whether a message has them
	payloads, stale := 0, 0
	for i := len(all) - 1; i >= 0; i-- {
		ev := all[i]
		data, stays := left[uint64(i+1)]
		if stays {
			require.Contains(t, string(data), ev.DID)
		}
		switch ev.Kind {
		case event.KindDelete, event.KindRemove:
			require.True(t, stays)
			removed[ev.URI()] = max(removed[ev.URI()], ev.Rev)
		case event.KindCreate, event.KindUpdate:
			payloads++
			if stays && !kept[ev.URI()] && removed[ev.URI()] >= ev.Rev {
				stale++
			}
		case event.KindAuthor:
			payloads++
			for _, is := range want.IsCalled(ev) {
				called[is] = called[is] || stays
			}
			if stays && len(want.IsCalled(ev)) == 0 {
				stale++
			}
		default:
			require.True(t, stays)
		}
	}
	t.Logf("of %d payloads %d were erased; %d of removed posts are left", payloads, erased, stale)
	require.Equal(t, payloads+len(all)-len(left), payloads+erased)
	require.Positive(t, erased)
	require.NotContains(t, slices.Collect(maps.Values(called)), false, "a message with each current name must stay: %v", called)
	require.LessOrEqual(t, stale, payloads/20, "only messages that may end a #sync must stay")

	// Compare the index of an interrupted rebuild with the live one, then make it live.
	rebuilding, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	_, err := b.tryRebuild(rebuilding, indexer.RebuildConfig{Restart: true}, &steps{at: func(done uint64) {
		if done == seq {
			interrupt()
		}
	}})
	// On a slow machine the rebuild may finish before it is stopped. Then the new index is live,
	// and only the API's answers are compared.
	if err != nil {
		did, findings, err := indexer.Verify(t.Context(), indexer.VerifyConfig{Database: b.owner, ID: "verify"}, slog.New(slog.DiscardHandler), &steps{})
		require.NoError(t, err)
		require.Contains(t, did, "tagstream_rebuild")
		require.Zero(t, findings.N, findings.String())
		b.rebuild()
	}
	b.await(url, seq)
	model.CheckHTTP(t, url, want)
}

// grep reports whether one of the server's files contains a text.
func grep(t *testing.T, dir, text string) bool {
	t.Helper()
	found := false
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // the server removes files
		}
		data, err := os.ReadFile(path)
		if err == nil && bytes.Contains(data, []byte(text)) {
			found = true
		}
		return nil
	}))
	return found
}

// secret returns a text that survives compression unchanged.
func secret(rng *rand.Rand) string {
	var b strings.Builder
	for range 24 {
		b.WriteByte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"[rng.IntN(62)])
	}
	return b.String()
}

// TestErasedBytes searches the server's files for payloads. Those of removed posts must be gone,
// from the stream and the dead letters. Those of hidden and current posts, of dead letters that can
// still be applied, and of recent messages must be there.
func TestErasedBytes(t *testing.T) {
	t.Parallel()
	var dir string
	b := newIndexBench(t, natstest.Server(t, natstest.With(func(o *server.Options) { dir = o.StoreDir })))
	url := b.api()
	rng := rand.New(rand.NewPCG(1, 2))
	at := time.Now().Add(-time.Hour).UTC().Truncate(time.Microsecond)
	texts := map[string]string{}
	var raw [][]byte
	want := model.New()
	rev := 0
	put := func(ev event.Event) uint64 {
		rev++
		at = at.Add(time.Second)
		ev.Source = event.Position{Host: "https://host.example", Seq: uint64(len(raw) + 1), Time: at}
		if ev.IsPost() || ev.Kind == event.KindSync {
			// In the order of their numbers.
			ev.Rev = "3abcabcabc" + string([]byte{byte('a' + rev/400%20), byte('a' + rev/20%20), byte('a' + rev%20)})
		}
		raw = append(raw, eventtest.Encode(t, ev))
		return uint64(len(raw))
	}
	create := func(name, did, rkey string) uint64 {
		texts[name] = secret(rng)
		record, _ := json.Marshal(map[string]any{"text": texts[name]})
		return put(event.Event{Kind: event.KindCreate, DID: did, Rkey: rkey, CID: "bafy", Tags: []string{"art"}, Record: record})
	}
	filler := func() {
		for i := range 40 {
			create(fmt.Sprint("filler", i), "did:plc:filler", fmt.Sprint("f", rng.Uint32()))
		}
	}
	del := func(did, rkey string) { put(event.Event{Kind: event.KindDelete, DID: did, Rkey: rkey}) }

	put(event.Event{Kind: event.KindPosition})
	filler()
	create("deleted", "did:plc:a", "deleted")
	create("edited", "did:plc:a", "edited")
	create("present", "did:plc:a", "present")
	create("former life", "did:plc:a", "again")
	create("hidden", "did:plc:hidden", "x")
	create("erased", "did:plc:erased", "x")
	create("erased too", "did:plc:erased", "y")
	create("lost in a sync", "did:plc:sync", "lost")
	create("kept in a sync", "did:plc:sync", "kept")
	poison := []int64{
		int64(create("dead", "did:plc:dead", "x")),
		int64(create("dead and deleted", "did:plc:dead", "y")),
		int64(create("dead and erased", "did:plc:erased", "z")),
	}
	filler()
	del("did:plc:a", "deleted")
	put(event.Event{Kind: event.KindRemove, DID: "did:plc:a", Rkey: "edited"})
	del("did:plc:a", "again")
	del("did:plc:dead", "y")
	put(event.Event{Kind: event.KindAccount, DID: "did:plc:hidden", Status: "suspended"})
	put(event.Event{Kind: event.KindAccount, DID: "did:plc:erased", Status: "deleted"})
	put(event.Event{Kind: event.KindSync, DID: "did:plc:sync"})
	rev-- // the replacement has the #sync's revision
	create("kept in a sync, again", "did:plc:sync", "kept")
	create("again", "did:plc:a", "again")
	filler()
	put(event.Event{Kind: event.KindPosition})

	b.poison(poison...)
	b.indexer(1)
	last := b.publish(raw...)
	broken := b.publish([]byte(`{"v":7,"text":"` + secret(rng) + `"`))
	raw = append(raw, nil)
	last = b.publish(eventtest.Encode(t, event.Event{Kind: event.KindPosition, Source: event.Position{Host: "https://host.example", Seq: last + 9, Time: at}}))
	b.await(url, last)
	require.Equal(t, []uint64{uint64(poison[0]), uint64(poison[1]), uint64(poison[2]), broken}, b.letters())
	present := func() (names []string) {
		for name, text := range texts {
			if grep(t, dir, text) && !strings.HasPrefix(name, "filler") {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	require.Len(t, present(), len(texts)-40, "before")

	posts, letters := b.erase(week)
	require.Equal(t, []int{8, 2}, []int{posts + 2, letters}, "including the messages of two dead letters")
	require.Equal(t, []string{"again", "dead", "hidden", "kept in a sync", "kept in a sync, again", "present"}, present())
	require.Equal(t, []uint64{uint64(poison[0]), broken}, b.letters())
	require.EqualValues(t, 2, b.status().DeadLetters)
	posts, letters = b.erase(week)
	require.Zero(t, posts+letters, "a second pass must find nothing")

	// An unreadable dead letter is erased after the configured time.
	_, letters = b.erase(time.Nanosecond)
	require.Equal(t, 1, letters)

	// Build another index from the rest, with the dead letter applied.
	b.cure()
	results := b.redrive(indexer.RedriveConfig{})
	require.Equal(t, map[uint64]error{uint64(poison[0]): nil}, results)
	for i, data := range raw[:len(raw)-1] {
		if !slices.Contains(poison[1:], int64(i+1)) {
			want.Apply(uint64(i+1), data)
		}
	}
	b.rebuild()
	b.await(url, last)
	require.EqualValues(t, len(want.All()), b.status().Posts)
	var keys int
	require.NoError(t, pgtest.Pool(t, b.owner.URL).QueryRow(t.Context(), `SELECT count(*) FROM tagstream.posts WHERE rkey IN ('again', 'kept', 'present', 'x')`).Scan(&keys))
	require.Equal(t, 5, keys)
}

// The live index remembers which repeated events of erased posts must be ignored.
func TestRebuildAfterErasing(t *testing.T) {
	t.Parallel()
	at := func(n int, ev event.Event) event.Event {
		ev.Source = event.Position{Host: "https://host.example", Seq: uint64(n), Time: time.Date(2026, 11, 1, 0, 0, n, 0, time.UTC)}
		if ev.Kind != event.KindPosition {
			ev.DID = "did:plc:a"
		}
		return ev
	}
	create := func(rkey, rev, createdAt string) event.Event {
		return event.Event{
			Kind: event.KindCreate, Rkey: rkey, Rev: "3abcabcabcab" + rev, CID: "bafy", Tags: []string{"art"},
			CreatedAt: createdAt, Record: fmt.Appendf(nil, `{"createdAt":%q}`, createdAt),
		}
	}
	gone := func(rkey, rev string) event.Event {
		return event.Event{Kind: event.KindDelete, Rkey: rkey, Rev: "3abcabcabcab" + rev}
	}
	position := event.Event{Kind: event.KindPosition}
	for name, c := range map[string]struct{ before, after []event.Event }{
		// A recreated post has a new key, not that of the deleted one.
		"a removal that a post replaced": {
			[]event.Event{at(1, position), at(2, create("x", "b", "2026-10-31T00:00:00Z")), at(3, gone("x", "c")), at(4, position)},
			[]event.Event{at(2, create("x", "b", "2026-10-31T00:00:00Z")), at(5, create("x", "d", "2026-10-30T00:00:00Z"))},
		},
		// No posts are below the revision of the replacements, although these are gone.
		"the floor of a #sync": {
			[]event.Event{
				at(1, position), at(2, create("lost", "c", "")), at(3, event.Event{Kind: event.KindSync, Rev: "3abcabcabcabb"}),
				at(3, create("x", "e", "")), at(4, gone("x", "f")), at(5, position),
			},
			[]event.Event{at(2, create("lost", "c", "")), at(6, create("y", "g", ""))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, url := newIndex(t)
			b.indexer(1)
			want := model.New()
			last := uint64(0)
			add := func(events []event.Event) {
				for _, ev := range events {
					data := eventtest.Encode(t, ev)
					last = b.publish(data)
					want.Apply(last, data)
				}
				b.await(url, last)
			}
			add(c.before)
			posts, _ := b.erase(week)
			require.Positive(t, posts)
			add(c.after)
			model.CheckHTTP(t, url, want)
			b.rebuild()
			b.await(url, last)
			model.CheckHTTP(t, url, want)
		})
	}
}

// Recent messages stay for the next pass, and so do the markers that allow erasing them.
func TestEraseKeepsRecentMessages(t *testing.T) {
	t.Parallel()
	b, url := newIndex(t)
	b.indexer(100)
	history := model.GenerateMessages(3, 200)
	last := b.publish(history...)
	b.await(url, last)
	for _, minAge := range []time.Duration{time.Hour, -time.Hour} {
		posts, _, err := indexer.Erase(t.Context(), indexer.EraseConfig{Database: b.writer, Within: week, MinAge: minAge, ID: "erase"},
			b.nats.Conn(t), slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		require.Equal(t, minAge > 0, posts == 0)
		var through uint64
		require.NoError(t, pgtest.Pool(t, b.owner.URL).QueryRow(t.Context(), `SELECT erased_through FROM tagstream.heartbeat`).Scan(&through))
		require.Equal(t, minAge > 0, through == 0, through)
	}
	// The last message is never erased: ingest continues after it.
	s, err := b.js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	_, err = s.GetMsg(t.Context(), last)
	require.NoError(t, err)
	_, err = s.GetMsg(t.Context(), 1)
	require.NoError(t, err)
	_, err = s.GetMsg(t.Context(), last+1)
	require.ErrorIs(t, err, jetstream.ErrMsgNotFound)
}
