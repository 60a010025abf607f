package ingest

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/services/ingest/internal/decode"
	"github.com/tagstream/tagstream/services/ingest/internal/profiles"
)

func TestEverySeriesExistsAtZero(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m := newMetrics(reg)
	require.Equal(t, len(decode.DropReasons), testutil.CollectAndCount(m.dropped))
	require.Equal(t, len(event.Kinds), testutil.CollectAndCount(m.published))
	require.Equal(t, len(profiles.Fates), testutil.CollectAndCount(m.authors))
	require.Equal(t, len(profiles.Outcomes), testutil.CollectAndCount(m.lookUps))
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		require.True(t, strings.HasPrefix(f.GetName(), metricsPrefix), f.GetName())
	}
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)

	require.Panics(t, func() { newMetrics(reg) }, "a second ingest on one registry must panic")
}
