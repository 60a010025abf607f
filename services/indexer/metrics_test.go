package indexer

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
	"github.com/tagstream/tagstream/services/indexer/internal/prune"
)

func TestEverySeriesExistsAtZero(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m := newMetrics(reg, time.Hour)
	require.Equal(t, len(event.Kinds), testutil.CollectAndCount(m.events))
	require.Equal(t, len(apply.Reasons), testutil.CollectAndCount(m.deadLetters))
	require.Equal(t, len(prune.Tables), testutil.CollectAndCount(m.prunedRows))
	require.Equal(t, 3, testutil.CollectAndCount(m.erasedPayloads))
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
}
