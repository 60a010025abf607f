package forward

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
)

// empty removes all messages from the stream, like an operator's purge, or like trimming while
// there is no writer.
func empty(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	s, err := js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	require.NoError(t, s.Purge(t.Context()))
	st, err := stream.GetState(t.Context(), js)
	require.NoError(t, err)
	require.Greater(t, st.First, st.Last)
}

// If the stream no longer has the position, the separately stored one is used.
func TestEmptyStreamIsNotFirstStart(t *testing.T) {
	t.Parallel()
	forget := func(t *testing.T, js jetstream.JetStream) {
		kv, err := js.KeyValue(t.Context(), stream.Positions)
		require.NoError(t, err)
		require.NoError(t, kv.Purge(t.Context(), "ingest"))
		require.NoError(t, js.DeleteKeyValue(t.Context(), stream.Positions)) // as before the bucket existed
	}
	log := func(t *testing.T, js jetstream.JetStream, what string, p event.Position) {
		require.NoError(t, stream.PutLog(t.Context(), js, stream.LogEntry{What: what, Position: p}))
	}
	for name, c := range map[string]struct {
		beside func(t *testing.T, js jetstream.JetStream)
		from   event.Position
	}{
		"the position beside it": {func(*testing.T, jetstream.JetStream) {}, at(7)},
		"the ingest log": {func(t *testing.T, js jetstream.JetStream) {
			forget(t, js)
			log(t, js, "connected", at(3))
			log(t, js, "stopped", at(6))
			log(t, js, "backfill", at(99)) // not the live position
			log(t, js, "started", event.Position{})
		}, at(6)},
		"nothing": {forget, event.Position{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			js := natstest.Server(t).JetStream(t)
			u := newUpstream()
			u.set(7, true)
			require.NoError(t, start(t, js, "a", u.source, time.Hour).end())
			c.beside(t, js)
			empty(t, js)

			u.set(10, true)
			b := start(t, js, "b", u.source, time.Hour)
			require.NoError(t, b.end())
			require.Equal(t, []event.Position{{}, c.from}, u.begun())
			events, _ := stored(t, js)
			require.Equal(t, upTo(10)[c.from.Seq:], events)
			require.Equal(t, c.from.IsZero(), b.gaps.Load() == 1)
		})
	}
}

// The position of a stream that is never quiet for a heartbeat is kept, too, and is never ahead of
// the stream.
func TestPositionIsKeptWhileBusy(t *testing.T) {
	t.Parallel()
	js := natstest.Server(t).JetStream(t)
	u := newUpstream()
	start(t, js, "a", u.source, time.Nanosecond).await("the position to follow", func() bool {
		u.set(u.last+1, false)
		kept, err := stream.GetPosition(t.Context(), js)
		if err != nil || kept.IsZero() {
			return false
		}
		events, _ := stored(t, js)
		require.True(t, kept.Seq == 0 || slices.Contains(events, kept.Seq), "%d is kept, stored are %v", kept.Seq, events)
		return kept.Seq > 20
	})
}

// A standby's settings do not change the stream. The leader's settings do, and each change is
// logged.
func TestStandbyKeepsStreamSettings(t *testing.T) {
	t.Parallel()
	js := natstest.Server(t).JetStream(t)
	u := newUpstream()
	leader := startWith(t, js, Config{ID: "leader", Stream: stream.Config{MaxAge: 48 * time.Hour}}, u.source, slog.DiscardHandler)
	leader.await("the lease", leader.holding.Load)
	said := &records{}
	standby := startWith(t, js, Config{ID: "standby", Stream: stream.Config{MaxAge: 24 * time.Hour, MaxBytes: 1 << 30}}, u.source, said)
	standby.await("standing by", func() bool {
		c, _ := standby.condition.Load().(string)
		return c != "" && c != "<nil>"
	})
	bounds := func() stream.State {
		st, err := stream.GetState(t.Context(), js)
		require.NoError(t, err)
		return stream.State{MaxAge: st.MaxAge, MaxBytes: st.MaxBytes}
	}
	require.Equal(t, stream.State{MaxAge: 48 * time.Hour}, bounds(), "a standby must not change the live stream")
	require.Empty(t, said.changes())

	leader.stop()
	require.NoError(t, leader.end())
	standby.await("the lease", standby.holding.Load)
	require.Equal(t, stream.State{MaxAge: 24 * time.Hour, MaxBytes: 1 << 30}, bounds())
	require.Equal(t, []string{
		"stream=POSTS setting=discard from=new to=old",
		"stream=POSTS setting=max_age from=48h0m0s to=24h0m0s",
		"stream=POSTS setting=max_bytes from=-1 to=1073741824",
	}, said.changes())
}

// records is a log handler that keeps the lines about changes.
type records struct {
	mu  sync.Mutex
	all []string
}

func (*records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) WithAttrs([]slog.Attr) slog.Handler     { return r }
func (r *records) WithGroup(string) slog.Handler          { return r }
func (r *records) Handle(_ context.Context, rec slog.Record) error {
	if rec.Message != "changed a stream's setting" {
		return nil
	}
	var line []string
	rec.Attrs(func(a slog.Attr) bool { line = append(line, a.String()); return true })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, strings.Join(line, " "))
	return nil
}

func (r *records) changes() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}
