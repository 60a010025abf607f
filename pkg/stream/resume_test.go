package stream_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
)

// Events of side work carry the position from which live reading continues, so that it is known
// whichever message is last.
func TestSideWorkKeepsResumePosition(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	w := openWriter(t, js)
	require.NoError(t, w.Append(t.Context(), numbered(100, 2)))
	past := numbered(1, 3)
	for _, ev := range past {
		live := w.ResumeAt()
		ev.Resume = &live
	}
	require.NoError(t, w.Append(t.Context(), past))
	require.Equal(t, sourceOf(101), w.ResumeAt())
	require.Equal(t, sourceOf(101), openWriter(t, js).ResumeAt())
	require.NoError(t, w.Append(t.Context(), numbered(102, 1)))
	require.Equal(t, sourceOf(102), openWriter(t, js).ResumeAt())
	// An index has the clock of a position, or the time if an older program wrote it.
	clocked := numbered(103, 1)[0]
	byTime := clocked.Source
	clocked.Source.Clock = clocked.Source.Time.Add(-time.Minute)
	byClock := event.Position{Host: byTime.Host, Seq: byTime.Seq, Time: clocked.Source.Clock}
	require.NoError(t, w.Append(t.Context(), []*event.Event{clocked}))

	for _, tt := range []struct {
		name string
		seq  uint64
		was  event.Position
		err  error
	}{
		{name: "a live one", seq: 2, was: sourceOf(101)},
		{name: "a past one, by its resume position", seq: 3, was: sourceOf(101)},
		{name: "a past one, by its source", seq: 3, was: sourceOf(1)},
		{name: "another", seq: 3, was: sourceOf(2), err: stream.ErrReplaced},
		{name: "another live one", seq: 6, was: sourceOf(101), err: stream.ErrReplaced},
		{name: "one by its clock", seq: 7, was: byClock},
		{name: "one by its time", seq: 7, was: byTime},
		{name: "one with another clock", seq: 7, was: event.Position{Host: byTime.Host, Seq: byTime.Seq, Time: byTime.Time.Add(time.Second)}, err: stream.ErrReplaced},
		{name: "one that is gone", seq: 60, was: sourceOf(101)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.ErrorIs(t, stream.CheckSource(t.Context(), js, tt.seq, tt.was), tt.err)
		})
	}
}
