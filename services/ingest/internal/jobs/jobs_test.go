package jobs_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/services/ingest/internal/jobs"
)

const wait = time.Minute

var (
	errKnown = errors.New("known")
	codes    = map[string]error{"known": errKnown, "stopped": jobs.ErrStopped}
)

type done struct{ N int }

// steps is a Progress that forwards steps.
type steps chan string

func (steps) At(uint64, uint64) {}
func (s steps) Say(step string) { s <- step }

func ensure(t *testing.T) jetstream.JetStream {
	t.Helper()
	js := natstest.Server(t).JetStream(t)
	require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}))
	return js
}

// lead does jobs like a leading ingest, until stop.
func lead(t *testing.T, js jetstream.JetStream, do jobs.Func) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		(&jobs.Runner{JS: js, ID: "a", Logger: slog.New(slog.DiscardHandler), Codes: codes}).Run(ctx, do)
	})
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

func asker(js jetstream.JetStream) (*jobs.Asker, steps) {
	said := make(steps, 100)
	return &jobs.Asker{JS: js, Progress: said, Patience: wait, Codes: codes}, said
}

// The next leading ingest does the rest, and the requester gets the progress and result of
// everything.
//
// Invariant: a requested job is done once, even if the ingest that does it ends.
func TestJobContinuesAfterRestart(t *testing.T) {
	t.Parallel()
	js := ensure(t)
	a, said := asker(js)
	ended := make(chan error, 1)
	var sum done
	go func() { ended <- a.Ask(t.Context(), jobs.Backfill, "window", &sum) }()
	first := lead(t, js, func(ctx context.Context, j jobs.Job, r *jobs.Run) (any, error) {
		require.Empty(t, j.Summary)
		r.Save(done{N: 1})
		r.Say("half")
		<-ctx.Done()
		return done{N: 7}, context.Cause(ctx)
	})
	require.Equal(t, "half", <-said)
	first()
	j, _, err := jobs.Get(t.Context(), js)
	require.NoError(t, err)
	require.Equal(t, jobs.Running, j.State, "it must not have ended")
	lead(t, js, func(_ context.Context, j jobs.Job, _ *jobs.Run) (any, error) {
		require.JSONEq(t, `{"N":1}`, string(j.Summary), "it must continue from there")
		return done{N: 2}, nil
	})
	require.NoError(t, <-ended)
	require.Equal(t, done{N: 2}, sum)
}

// A job ends with errors that callers know, or when it is canceled.
func TestJobEnds(t *testing.T) {
	t.Parallel()
	js := ensure(t)
	a, _ := asker(js)
	began := make(chan struct{}, 1)
	stop := lead(t, js, func(ctx context.Context, j jobs.Job, _ *jobs.Run) (any, error) {
		if j.Kind == jobs.Reconcile {
			return done{N: 3}, errors.Join(errKnown, errors.New("for a reason"))
		}
		began <- struct{}{}
		<-ctx.Done()
		return done{N: 4}, context.Cause(ctx)
	})
	var sum done
	err := a.Ask(t.Context(), jobs.Reconcile, 1, &sum)
	require.ErrorIs(t, err, errKnown)
	require.ErrorContains(t, err, "for a reason")
	require.Equal(t, done{N: 3}, sum)

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Ask(ctx, jobs.Backfill, 2, &sum) }()
	<-began
	other, _ := asker(js)
	require.ErrorIs(t, other.Ask(t.Context(), jobs.Backfill, 3, &sum), jobs.ErrBusy)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.Equal(t, done{N: 4}, sum)
	j, _, err := jobs.Get(t.Context(), js)
	require.NoError(t, err)
	require.Equal(t, jobs.Ended, j.State)
	require.Equal(t, "stopped", j.Code)

	// Without a leading ingest.
	stop()
	a.Patience = 300 * time.Millisecond
	require.ErrorIs(t, a.Ask(t.Context(), jobs.Backfill, 4, &sum), jobs.ErrNoWriter)
	j, _, err = jobs.Get(t.Context(), js)
	require.NoError(t, err)
	require.Equal(t, jobs.Ended, j.State, "no later ingest must start it")
}
