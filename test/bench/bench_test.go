package bench

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/pgserver"
)

// smokeLimit bounds the smoke run; it takes a good twenty seconds.
const smokeLimit = 2 * time.Minute

// TestBenchSmoke runs the benchmarks at a size that shows only that they work, and looks at what they report. It holds no
// figure to a limit: a machine that runs tests has other things to do.
func TestBenchSmoke(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), smokeLimit)
	defer cancel()
	cfg := Short()
	cfg.Dir, cfg.Progress = t.TempDir(), t.Output()
	r, err := Run(ctx, cfg)
	if errors.Is(err, pgserver.ErrNotFound) && os.Getenv("CI") != "true" {
		t.Skipf("SKIPPED, no Postgres for this test: %v", err)
	}
	require.NoError(t, err)

	require.Positive(t, r.Freshness.Posts)
	require.Positive(t, r.Freshness.Shown.P50)
	require.GreaterOrEqual(t, r.Freshness.Shown.Max, r.Freshness.Shown.P99)
	require.Len(t, r.Memory, len(cfg.Histories))
	for _, m := range r.Memory {
		require.Positive(t, m.Ingest)
		require.Positive(t, m.Indexer)
		require.Positive(t, m.API)
		require.Positive(t, m.Answers)
	}
	for name, pace := range map[string]Pace{"replay": r.Replay, "fold": r.Fold, "rebuild": r.Rebuild} {
		require.GreaterOrEqual(t, pace.Count, last(cfg.Histories), name)
		require.Positive(t, pace.PerSecond, name)
	}
	require.Len(t, r.Pages, 4)
	for _, p := range r.Pages {
		require.Positive(t, p.Requests, "%d tags, behind %d posts", p.Tags, p.Depth)
	}
	require.Positive(t, r.Pages[1].Depth)
	require.Positive(t, r.Pages[3].Depth)
	require.Positive(t, r.Cost.Stream)
	require.Positive(t, r.Cost.Postgres())

	var text bytes.Buffer
	require.NoError(t, r.Write(&text))
	t.Logf("report:\n%s", &text)
	require.NotContains(t, text.String(), "%!", "a format does not fit what it is given")
	require.NotContains(t, text.String(), "NaN")
	for _, chapter := range []string{"What is promised", "Freshness", "Memory", "Throughput", "Pages", "Cost of keeping"} {
		require.Equal(t, 1, strings.Count(text.String(), "\n## "+chapter+"\n"), chapter)
	}
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(100 - i)
	}
	for name, c := range map[string]struct {
		all  []time.Duration
		want Quantiles
	}{
		"none":    {nil, Quantiles{}},
		"one":     {[]time.Duration{7}, Quantiles{7, 7, 7, 7}},
		"two":     {[]time.Duration{9, 3}, Quantiles{3, 9, 9, 9}},
		"hundred": {hundred, Quantiles{50, 90, 99, 100}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, quantiles(c.all))
		})
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	began := time.Unix(1000, 0)
	after := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	for name, c := range map[string]struct {
		in   pacer
		want Pace
	}{
		"the start is left out": {pacer{began: began, first: after(4), last: after(6), from: 100, to: 1100}, Pace{1100, 6 * time.Second, 500}},
		"most came at once":     {pacer{began: began, first: after(4), last: after(5), from: 999, to: 1000}, Pace{1000, 5 * time.Second, 200}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, c.in.pace())
		})
	}
}
