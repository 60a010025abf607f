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

// smokeLimit bounds the smoke run; it takes about half a minute.
const smokeLimit = 4 * time.Minute

// TestBenchSmoke runs the benchmarks at a size that only shows that they work, and checks their
// report. It ignores limits, since a machine that runs tests is busy.
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

	require.Len(t, r.Figures, 27)
	for _, f := range r.Figures {
		require.Len(t, f.Ours, cfg.Rounds, f.Name)
		require.Positive(t, f.Ratio(), f.Name)
		if f.Peer != "" {
			require.Len(t, f.Theirs, cfg.Rounds, f.Name)
		}
	}
	for _, p := range []string{"ingest", "indexer", "api"} {
		require.Positive(t, r.Peaks[p], p)
	}
	require.Positive(t, r.Size.Posts)

	var text bytes.Buffer
	require.NoError(t, r.Write(&text))
	t.Logf("report:\n%s", &text)
	require.NotContains(t, text.String(), "%!", "a format does not match its arguments")
	require.NotContains(t, text.String(), "NaN")
	for _, chapter := range []string{"Size", "Growth", "Processor time", "Figures"} {
		require.Equal(t, 1, strings.Count(text.String(), "\n## "+chapter+"\n"), chapter)
	}
}

func TestFigure(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		in    Figure
		ratio float64
		met   bool
	}{
		"the rounds' ratios, not that of the medians": {Figure{Ours: []float64{1, 4, 9}, Theirs: []float64{10, 8, 10}, Bar: .5}, .5, true},
		"below its bar":     {Figure{Ours: []float64{1}, Theirs: []float64{4}, Bar: .3}, .25, false},
		"at most, and more": {Figure{Ours: []float64{3}, Theirs: []float64{2}, Bar: 1.2, AtMost: true}, 1.5, false},
		"without a peer":    {Figure{Ours: []float64{80, 100}, Bar: 90, AtMost: true}, 90, true},
		"none":              {Figure{Bar: 1}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.InDelta(t, c.ratio, c.in.Ratio(), 1e-9)
			require.Equal(t, c.met, c.in.Met())
		})
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	began := time.Unix(1000, 0)
	after := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	for name, c := range map[string]struct {
		in   pace
		want float64
	}{
		"the start is left out": {pace{began: began, first: after(4), last: after(6), from: 100, to: 1100}, 500},
		"most came at once":     {pace{began: began, first: after(4), last: after(5), from: 999, to: 1000}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.InDelta(t, c.want, c.in.perSecond(), 1e-9)
		})
	}
}
