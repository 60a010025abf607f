package stream

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"
)

// At the stream's end, a single message hardly waits for another. One of a burst waits as long as
// the previous batch took, within bounds.
func TestWaitAtTip(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		messages   int
		busy, want time.Duration
	}{
		{1, time.Second, tipWaitMin},
		{2, 0, tipWaitMin},
		{2, 7 * time.Millisecond, 7 * time.Millisecond},
		{2, time.Second, tipWaitMax},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &Reader{messages: make(chan message, c.messages), room: semaphore.NewWeighted(queueBytes), returned: time.Now()}
			for range c.messages {
				r.messages <- message{tip: true}
			}
			time.Sleep(c.busy)
			begun := time.Now()
			require.NoError(t, r.gather(t.Context(), 10, time.Minute))
			require.Len(t, r.batch, c.messages)
			require.Equal(t, c.want, time.Since(begun), "%+v", c)
		})
	}
}
