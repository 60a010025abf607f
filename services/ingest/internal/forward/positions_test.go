package forward

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// The end is written if nothing is read for a while within a #sync, but not if ingest starts, stops
// or continues there.
func TestEndOfSyncIsReported(t *testing.T) {
	t.Parallel()
	js := natstest.Server(t).JetStream(t)
	const did = "did:plc:a"
	run := syncOf(testHost, 10, did, 3)
	for i, e := range run {
		e.Source.Sync = event.OpenSync{DID: did, Rev: run[0].Rev}
		if i > 0 {
			e.Source.Sync.Fixed = e.Rev
		}
	}
	said := func() string {
		var out strings.Builder
		for _, e := range all(t, js) {
			switch {
			case e.Kind == event.KindSync && e.Sync == event.SyncOver:
				require.Equal(t, run[3].Rev, e.Rev)
				require.Equal(t, event.OpenSync{}, e.Source.Sync)
				out.WriteString("E")
			case e.Kind == event.KindSync:
				out.WriteString("S")
			case e.Kind == event.KindPosition:
				out.WriteString(map[event.SyncState]string{event.SyncOver: ")", event.SyncOpen: "("}[e.Sync])
			default:
				out.WriteString("c")
			}
		}
		return out.String()
	}
	batches := make(chan Batch)
	source := func(ctx context.Context, _ event.Position, _ int, emit func(context.Context, Batch) error) error {
		for {
			select {
			case b := <-batches:
				if err := emit(ctx, b); err != nil {
					return err
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	give := func(events ...*event.Event) { batches <- Batch{Events: events, Position: events[len(events)-1].Source} }
	await := func(want string) {
		t.Helper()
		poll.Until(t, waitLimit, func() (bool, string) { return said() == want, said() })
	}
	a := start(t, js, "a", source, time.Hour)
	give(run[:2]...)
	await("Sc(")
	a.stop()
	require.NoError(t, a.end())
	await("Sc((")
	b := start(t, js, "b", source, time.Hour)
	give(run[2])
	await("Sc((c(")
	give(deletion(21))
	await("Sc((c(c")
	b.stop()
	require.NoError(t, b.end())
	await("Sc((c(c)")

	// Dropped events may belong to the same #sync; silence ends it.
	c := start(t, js, "c", source, 300*time.Millisecond)
	give(run[:2]...)
	reading, stop := context.WithCancel(t.Context())
	var giving sync.WaitGroup
	giving.Go(func() {
		for reading.Err() == nil {
			select {
			case batches <- Batch{Position: run[3].Source}:
			case <-reading.Done():
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-reading.Done():
			}
		}
	})
	poll.Until(t, waitLimit, func() (bool, string) {
		return strings.HasSuffix(said(), "Sc((((") || strings.Contains(said(), "E"), said()
	})
	require.NotContains(t, said(), "E")
	stop()
	giving.Wait()
	poll.Until(t, waitLimit, func() (bool, string) { return strings.HasSuffix(said(), "(E))"), said() })
	c.stop()
	require.NoError(t, c.end())
}
