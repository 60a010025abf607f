package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/test/model"
)

var redriveSeeds = seedFlags("redrive", "TestRedrive", 4)

// poison makes Postgres refuse the content of the messages with these numbers, like data that it
// cannot store.
func (b *indexBench) poison(seqs ...int64) {
	b.t.Helper()
	pool := pgtest.Pool(b.t, b.owner.URL)
	_, err := pool.Exec(b.t.Context(), `
		CREATE TABLE IF NOT EXISTS public.poison (seq bigint PRIMARY KEY);
		GRANT SELECT ON public.poison TO PUBLIC;
		CREATE OR REPLACE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF EXISTS (SELECT FROM public.poison WHERE seq = NEW.seq) THEN
				RAISE EXCEPTION 'message % is poison', NEW.seq USING ERRCODE = '22000';
			END IF;
			RETURN NEW;
		END $$`)
	require.NoError(b.t, err)
	_, err = pool.Exec(b.t.Context(), `INSERT INTO public.poison SELECT unnest($1::bigint[])`, seqs)
	require.NoError(b.t, err)
	for _, table := range []string{"posts", "removed_posts", "accounts"} {
		_, err := pool.Exec(b.t.Context(), `CREATE OR REPLACE TRIGGER poison BEFORE INSERT OR UPDATE ON tagstream.`+table+`
			FOR EACH ROW EXECUTE FUNCTION public.refuse()`)
		require.NoError(b.t, err)
	}
}

// cure lets Postgres accept every message again.
func (b *indexBench) cure() {
	b.t.Helper()
	_, err := pgtest.Pool(b.t, b.owner.URL).Exec(b.t.Context(), `DELETE FROM public.poison`)
	require.NoError(b.t, err)
}

// letters returns the numbers of the dead letters.
func (b *indexBench) letters() []uint64 {
	b.t.Helper()
	seqs, err := stream.DeadLetterSeqs(b.t.Context(), b.js)
	require.NoError(b.t, err)
	slices.Sort(seqs)
	return seqs
}

// redrive redrives and returns the outcome of each dead letter.
func (b *indexBench) redrive(cfg indexer.RedriveConfig) map[uint64]error {
	b.t.Helper()
	b.runs++
	out := map[uint64]error{}
	cfg.Database, cfg.ID = b.writer, fmt.Sprint("redrive-", b.runs)
	cfg.OnResult = func(seq uint64, err error) {
		_, twice := out[seq]
		require.False(b.t, twice, "%d must be reported once", seq)
		out[seq] = err
	}
	applied, stayed, err := indexer.Redrive(b.t.Context(), cfg, b.nats.Conn(b.t), slog.New(slog.DiscardHandler), &steps{})
	require.NoError(b.t, err)
	require.Len(b.t, out, applied+stayed)
	return out
}

func (b *indexBench) status() query.Status {
	b.t.Helper()
	r, err := query.Open(b.t.Context(), b.reader)
	require.NoError(b.t, err)
	defer r.Close()
	st, err := r.Status(b.t.Context())
	require.NoError(b.t, err)
	return st
}

// TestRedrive lets Postgres refuse one message in ten of a history full of edge cases, and redrives
// the dead letters when it accepts them again: in parts, repeatedly, while an indexer runs. The
// resulting index is the same as without any dead letters, including keys.
func TestRedrive(t *testing.T) {
	t.Parallel()
	redriveSeeds.run(t, redrive)
}

func redrive(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	b, url := newIndex(t)
	want := model.New()
	history := model.GenerateMessages(seed, 800)
	var poison []int64
	for i, m := range history {
		want.Apply(uint64(i+1), m)
		if rng.IntN(10) == 0 {
			poison = append(poison, int64(i+1))
		}
	}
	b.poison(poison...)
	// One by one: otherwise a later message may undo the effect of a poisoned one before it is
	// written.
	b.indexer(1)
	half := len(history) / 2
	b.await(url, b.publish(history[:half]...))
	refused := b.letters()
	require.Greater(t, len(refused), want.DeadLetters()/2+10, "some poisoned messages must have an effect")

	// A failed redrive leaves the dead letter.
	tried := b.redrive(indexer.RedriveConfig{Seqs: refused[:10]})
	require.Len(t, tried, 10)
	refused = slices.DeleteFunc(refused, func(seq uint64) bool {
		err, was := tried[seq]
		return was && err == nil // it was superseded, so nothing of it is written
	})
	require.Equal(t, refused, b.letters())

	// Redrive some while more messages arrive.
	b.cure()
	b.poison(poison[len(poison)/2:]...)
	last := b.publish(history[half:]...)
	b.redrive(indexer.RedriveConfig{Seqs: refused[len(refused)/2:]})
	b.await(url, last)
	b.cure()
	applied := 0
	for _, err := range b.redrive(indexer.RedriveConfig{Reason: "rejected"}) {
		require.NoError(t, err)
		applied++
	}
	require.Positive(t, applied)
	model.CheckHTTP(t, url, want)
	require.Len(t, b.letters(), want.DeadLetters(), "messages that are not events must stay")
	require.EqualValues(t, want.DeadLetters(), b.status().DeadLetters)

	// Repeating it changes nothing; messages that are not events stay.
	for seq, err := range b.redrive(indexer.RedriveConfig{}) {
		require.Error(t, err, seq)
	}
	model.CheckHTTP(t, url, want)
	require.Len(t, b.letters(), want.DeadLetters())
}

// Two concurrent redrives next to two indexers take the lease from the indexers, not from each
// other: the second one fails.
func TestConcurrentRedrives(t *testing.T) {
	t.Parallel()
	b, url := newIndex(t)
	want := model.New()
	history := model.GenerateMessages(11, 1000)
	var poison []int64
	for i, m := range history {
		want.Apply(uint64(i+1), m)
		if i%7 == 0 {
			poison = append(poison, int64(i+1))
		}
	}
	b.poison(poison...)
	b.indexer(1)
	b.indexer(1)
	b.await(url, b.publish(history...))
	b.cure()
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			for ctx := t.Context(); ctx.Err() == nil; {
				_, _, err := indexer.Redrive(ctx, indexer.RedriveConfig{Database: b.writer, ID: fmt.Sprint("redriver ", i, time.Now().UnixNano()), Reason: "rejected",
					OnResult: func(seq uint64, err error) {
						if err != nil {
							t.Errorf("%d stays: %v", seq, err)
						}
					}},
					b.nats.Conn(t), slog.New(slog.DiscardHandler), &steps{})
				if err == nil {
					return
				}
				if !errors.Is(err, write.ErrLeaseHeld) {
					t.Errorf("redrive: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.Len(t, b.letters(), want.DeadLetters())
	require.EqualValues(t, want.DeadLetters(), b.status().DeadLetters)
	model.CheckHTTP(t, url, want)
}

// A stream holds messages of every released version and of a future one. The released ones are
// folded in order. The future ones become dead letters, delay nothing, and stay unchanged if a
// program that cannot read them redrives them.
//
// Invariant: messages of a future version delay nothing and wait unchanged for a program that reads
// them. See also TestRedriveInOrder.
func TestVersions(t *testing.T) {
	t.Parallel()
	b, url := newIndex(t)
	stored, err := filepath.Glob("../../pkg/event/testdata/v*/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, stored)
	var history [][]byte
	present := model.GenerateMessages(5, 300)
	var future []uint64
	for i, m := range present {
		history = append(history, m)
		if i%20 != 0 {
			continue
		}
		old, err := os.ReadFile(stored[(i/20)%len(stored)])
		require.NoError(t, err)
		history = append(history, bytes.TrimSpace(old))
		coming := bytes.Replace(m, []byte(`"v":1`), []byte(`"v":3`), 1)
		if i%40 == 0 { // one with other meanings of the same names
			coming = []byte(`{"v":3,"kind":["create"],"source":"https://host 7","tags":{"art":1}}`)
		}
		if _, err := event.Decode(coming); err == nil { // the message is not valid
			continue
		}
		history = append(history, coming)
	}
	want := model.New()
	for i, m := range history {
		want.Apply(uint64(i+1), m)
		if bytes.Contains(m, []byte(`"v":3,`)) || bytes.Contains(m, []byte(`"v":999`)) { // those of the generator
			future = append(future, uint64(i+1))
		}
	}
	require.Greater(t, len(future), 5)
	b.indexer(50)
	b.await(url, b.publish(history...))
	model.CheckHTTP(t, url, want)
	for _, seq := range future {
		letter, err := stream.GetDeadLetter(t.Context(), b.js, seq)
		require.NoError(t, err)
		require.Equal(t, "unknown_version", letter.Reason)
		require.Equal(t, history[seq-1], letter.Payload, "it must stay unchanged for a program that can read it")
	}
	before := b.letters()
	tried := b.redrive(indexer.RedriveConfig{Reason: "unknown_version"})
	require.Len(t, tried, len(future))
	for seq, err := range tried {
		require.ErrorIs(t, err, event.ErrUnknownVersion, seq)
	}
	require.Equal(t, before, b.letters())
	model.CheckHTTP(t, url, want)
}
