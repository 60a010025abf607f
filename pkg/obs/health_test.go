package obs_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/obs"
)

// record is a logger's output, safe for concurrent use.
type record struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

// take returns what was written since the last call, without times.
func (r *record) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.buf.Reset()
	return r.buf.String()
}

func (r *record) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func TestHealthSaysEachChangeOnce(t *testing.T) {
	t.Parallel()
	const away = "level=WARN msg=\"not ready\" component=nats err=away\n"
	const again = "level=INFO msg=\"ready again\" component=nats\n"
	var log record
	h := obs.NewHealth(log.logger(), "nats", "database")
	require.Equal(t, map[string]string{"nats": "starting", "database": "starting"}, h.NotReady())
	for i, step := range []struct {
		err  error
		says string
	}{
		{nil, ""},
		{nil, ""},
		{errors.New("away"), away},
		{errors.New("away"), ""},
		{errors.New("still away, for another reason"), ""},
		{nil, again},
		{nil, ""},
		{errors.New("away"), away},
		{nil, again},
	} {
		h.Set("nats", step.err)
		require.Equal(t, step.says, log.take(), "step %d", i)
		if step.err != nil {
			require.Equal(t, step.err.Error(), h.NotReady()["nats"], "the newest reason is told")
		} else {
			require.NotContains(t, h.NotReady(), "nats")
		}
	}
	require.Equal(t, map[string]string{"database": "starting"}, h.NotReady())
	h.Set("database", errors.New("refused"))
	require.Equal(t, "level=WARN msg=\"not ready\" component=database err=refused\n", log.take(), "also from the start")
	h.Set("new", errors.New("away"))
	require.Contains(t, log.take(), "component=new")
	require.Equal(t, []string{"database", "nats", "new"}, h.Components())
}

func TestHealthIsNotReadyWhileStopping(t *testing.T) {
	t.Parallel()
	var log record
	h := obs.NewHealth(log.logger(), "nats")
	h.Set("nats", nil)
	require.Empty(t, h.NotReady())
	h.Stop()
	h.Stop()
	h.Set("nats", errors.New("closed"))
	require.Equal(t, map[string]string{"service": "stopping", "nats": "closed"}, h.NotReady())
	require.Empty(t, log.take(), "what is closed on purpose is no news")
}

func TestHealthIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	var log record
	h := obs.NewHealth(log.logger())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 200 {
				h.Set("part", nil)
				h.Set("part", fmt.Errorf("%d %d", i, n))
				h.NotReady()
				h.Components()
			}
		})
	}
	wg.Wait()
	// In any interleaving the lines alternate.
	want := "not ready"
	for line := range strings.Lines(log.take()) {
		require.Contains(t, line, want)
		if want == "not ready" {
			want = "ready again"
		} else {
			want = "not ready"
		}
	}
}

// A standby is ready, and does not hide an instance that is not.
func TestStandingBy(t *testing.T) {
	t.Parallel()
	var log record
	h := obs.NewHealth(log.logger(), "stream")
	registry := obs.NewRegistry(h, "test")
	ready := func(want float64) {
		t.Helper()
		families, err := registry.Gather()
		require.NoError(t, err)
		for _, f := range families {
			if f.GetName() == "tagstream_component_ready" {
				require.Equal(t, want, f.GetMetric()[0].GetGauge().GetValue())
				return
			}
		}
		t.Fatal("no such metric")
	}
	h.Set("stream", obs.StandingBy(errors.New("another works")))
	h.Set("stream", obs.StandingBy(errors.New("yet another works")))
	require.Equal(t, "level=INFO msg=\"standing by\" component=stream why=\"another works\"\n", log.take())
	require.Empty(t, h.NotReady())
	require.Equal(t, map[string]string{"stream": "yet another works"}, h.StandsBy())
	ready(0)
	h.Set("stream", errors.New("away"))
	require.Equal(t, "level=WARN msg=\"not ready\" component=stream err=away\n", log.take())
	require.Equal(t, map[string]string{"stream": "away"}, h.NotReady())
	h.Set("stream", obs.StandingBy(errors.New("another works")))
	h.Set("stream", nil)
	require.NotContains(t, log.take(), "ready again")
	require.Empty(t, h.StandsBy())
	ready(1)
}
