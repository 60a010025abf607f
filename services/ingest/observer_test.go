package ingest

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/services/ingest/internal/forward"
)

// TestObserver checks how obstacles to writing appear in metrics, readiness and the ingest log.
func TestObserver(t *testing.T) {
	t.Parallel()
	ready := map[string]error{}
	s, err := New(Config{Hosts: []string{"a.example"}}, Deps{
		NATS: natstest.Server(t).Conn(t), Logger: slog.New(slog.DiscardHandler),
		Ready: func(component string, err error) { ready[component] = err },
	})
	require.NoError(t, err)
	o := &observer{Service: s}
	full := fmt.Errorf("append: %w", stream.ErrFull)
	for i, step := range []struct {
		condition             error
		full, retries, fenced float64
		logged                int
	}{
		{nil, 0, 0, 0, 0},
		{fmt.Errorf("%w: timeout", forward.ErrRetrying), 0, 1, 0, 0},
		{full, 1, 1, 0, 1},
		{full, 1, 1, 0, 1}, // logged once
		{fmt.Errorf("%w: timeout", forward.ErrRetrying), 1, 2, 0, 1},
		{full, 1, 2, 0, 1},
		{nil, 0, 2, 0, 1},
		{full, 1, 2, 0, 2},
		{nil, 0, 2, 0, 2},
		{fmt.Errorf("append: %w", stream.ErrFenced), 0, 2, 1, 3},
	} {
		o.Condition(step.condition)
		require.Equal(t, step.full, testutil.ToFloat64(s.metrics.full), "%d", i)
		require.Equal(t, step.retries, testutil.ToFloat64(s.metrics.retries), "%d", i)
		require.Equal(t, step.fenced, testutil.ToFloat64(s.metrics.fenced), "%d", i)
		require.Len(t, s.log.entries, step.logged, "%d", i)
		require.Equal(t, step.condition, ready[ComponentStream], "%d", i)
	}
	require.NotContains(t, ready, ComponentFirehose)
	o.Condition(fmt.Errorf("%w: held by another", forward.ErrStandingBy))
	require.ErrorIs(t, ready[ComponentStream], forward.ErrStandingBy)
	require.ErrorIs(t, ready[ComponentFirehose], forward.ErrStandingBy)
	require.Equal(t, "failed failed fenced", fmt.Sprint((<-s.log.entries).What, " ", (<-s.log.entries).What, " ", (<-s.log.entries).What))

	o.Stored([]*event.Event{{Kind: event.KindCreate}, {Kind: event.KindPosition}}, time.Second)
	o.Stored([]*event.Event{{Kind: event.KindCreate, Resume: &event.Position{}}}, time.Second)
	require.Equal(t, 1.0, testutil.ToFloat64(s.metrics.published.WithLabelValues("create")))
	require.Equal(t, 1.0, testutil.ToFloat64(s.metrics.backfilled))
}
