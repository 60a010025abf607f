package forward

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
)

// Invariant: events of a past window move neither the live position nor a #sync in progress, and
// restore nothing that was removed. See also TestRules and TestBackfillAfterLateStart.
func TestSideWorkKeepsLivePosition(t *testing.T) {
	t.Parallel()
	js := natstest.Server(t).JetStream(t)
	u := newUpstream()
	u.set(3, false)
	const n = 2500
	stored := make(chan error, 1)
	job := func(ctx context.Context, to *SideWriter) {
		stored <- func() error {
			for seq := uint64(1); seq <= n; seq++ {
				if seq == 2 {
					// The live events have arrived by then.
					for to.Live() != at(3) {
						if err := to.Flush(ctx); err != nil {
							return err
						}
					}
				}
				if err := to.Put(ctx, past(seq)); err != nil {
					return err
				}
			}
			return to.Flush(ctx)
		}()
	}
	a := startWith(t, js, Config{ID: "a", Heartbeat: time.Hour, SideWork: []func(context.Context, *SideWriter){job}}, u.source, slog.DiscardHandler)
	require.NoError(t, <-stored)
	names, events := contents(t, js)
	require.Equal(t, n+3, len(names))
	var last uint64
	for _, e := range events {
		if e.Source.Host == pastHost {
			require.Equal(t, last+1, e.Source.Seq, "in order, once")
			last++
		}
	}
	for _, e := range events[n:] {
		require.Equal(t, at(3), e.ResumeAt())
	}
	require.Equal(t, int32(n), a.past.Load())
	require.Equal(t, int32(4), a.published.Load(), "three events and the position of the first connection")

	// Without the position that a clean stop writes, like after a crash.
	w, err := stream.OpenWriter(t.Context(), js, "b", nil)
	require.NoError(t, err)
	require.Equal(t, at(3), w.ResumeAt())
	u.set(4, false)
	awaitStored(t, js, n+4)
	a.stop()
	require.NoError(t, a.end())
	u.set(5, true)
	b := start(t, js, "b", u.source, time.Hour)
	require.NoError(t, b.end())
	names, _ = contents(t, js)
	require.Equal(t, []string{"host 4", "host 5"}, names[n+3:])
	require.Equal(t, []event.Position{{}, at(4)}, u.begun())
}

// A job waits for live reading to have a position, and ends with the term.
func TestJobsTerm(t *testing.T) {
	t.Parallel()
	js := natstest.Server(t).JetStream(t)
	ended := make(chan error, 1)
	emit := make(chan struct{})
	source := func(ctx context.Context, _ event.Position, _ int, give func(context.Context, Batch) error) error {
		select {
		case <-emit:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := give(ctx, Batch{Position: at(1)}); err != nil {
			return err
		}
		<-ctx.Done()
		return context.Cause(ctx)
	}
	begun, flushed := make(chan struct{}), make(chan struct{})
	a := startWith(t, js, Config{ID: "a", Heartbeat: time.Hour, SideWork: []func(context.Context, *SideWriter){func(ctx context.Context, to *SideWriter) {
		close(begun)
		if err := to.Flush(ctx); err != nil {
			ended <- err
			return
		}
		if to.Live() != at(1) {
			t.Error("a job started before live reading had a position")
		}
		close(flushed)
		<-ctx.Done()
		ended <- to.Flush(ctx)
	}}}, source, slog.DiscardHandler)
	<-begun
	close(emit)
	<-flushed
	a.stop()
	require.NoError(t, a.end())
	require.ErrorIs(t, <-ended, context.Canceled)
}
