package erase_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/eventtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
	"github.com/tagstream/tagstream/services/indexer/internal/erase"
)

// addAll stores events and folds them into the live index in one batch.
func (s *site) addAll(events []event.Event) {
	s.t.Helper()
	var batch []stream.Message
	for _, ev := range events {
		if ev.Source.IsZero() {
			ev.Source = second(int(s.last))
		}
		data := eventtest.Encode(s.t, ev)
		ack, err := s.js.Publish(s.t.Context(), "posts.test", data)
		require.NoError(s.t, err)
		s.last = ack.Sequence
		batch = append(batch, stream.Message{Seq: ack.Sequence, Data: data})
	}
	require.NoError(s.t, s.live.Apply(s.t.Context(), batch))
}

// A pass reads messages again only around versions of posts removed since the previous one,
// wherever these are. The result is the same index.
//
// Invariant: a pass reads new messages and those that can hold something to erase, not the whole
// history. See also TestErase.
func TestPassReadsOnlyDueMessages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	others := func(name string, n int) (events []event.Event) {
		for i := range n {
			events = append(events, create(fmt.Sprintf("did:plc:%s%d", name, i%7), fmt.Sprint(name, i), 'b'))
		}
		return events
	}
	// Two versions of x in one batch, so that the first never had a row, and far apart, so that
	// reading around one does not find the other.
	first := append([]event.Event{position, create(a, "x", 'b'), create(a, "y", 'b')}, others("m", 3000)...)
	s.addAll(append(first, update(a, "x", 'c')))
	s.addAll(append([]event.Event{create(b, "z", 'b'), update(a, "y", 'c'), update(a, "x", 'd')}, others("n", 3000)...))
	s.add(position)
	left, sum := s.pass()
	require.Len(t, left, int(s.last))
	require.EqualValues(t, s.last-1, sum.Messages, "the first pass must read everything")

	_, sum = s.pass()
	require.Less(t, sum.Messages, uint64(600), "nothing must be due")
	s.add(gone(a, "x", 'e'), gone(b, "z", 'c'), update(a, "y", 'd'), position)
	_, sum = s.pass()
	require.Equal(t, 4, sum.Erased[erase.Posts], "three versions of x and z must be erased")
	require.Less(t, sum.Messages, uint64(4200), "it must read around the first ones, around the others, and the end")
	_, sum = s.pass()
	require.Less(t, sum.Messages, uint64(600), "nothing must be due any more")
	s.add(status(a, "deleted"), position)
	_, sum = s.pass()
	require.Equal(t, 3, sum.Erased[erase.Posts], "three versions of y must be erased")

	s.add(named(b, 'b', false), named("did:plc:m1", 'b', false), handled("did:plc:m1", 1), position)
	_, sum = s.pass()
	require.Equal(t, 0, sum.Erased[erase.Posts], "b must be known because of the post that it removed")
	s.addAll(others("q", 1000)) // so that reading around the next messages does not find the handle
	_, _ = s.pass()
	s.add(handled("did:plc:m1", 2), position)
	_, sum = s.pass()
	require.Equal(t, 1, sum.Erased[erase.Posts], "the former handle must be erased")
	s.add(status("did:plc:m1", "deleted"), status(b, "deleted"), position)
	posts := 0
	for i := range 3000 {
		if i%7 == 1 {
			posts++
		}
	}
	_, sum = s.pass()
	require.Equal(t, posts+3, sum.Erased[erase.Posts], "posts, two names and a handle must be erased")

	e, err := s.writer.Erasure(t.Context())
	require.NoError(t, err)
	require.Equal(t, s.last-1, e.Looked)
	s.same()
}

var rateMessages = flag.Int("erase.messages", 20_000, "how many messages TestPassRate reads")

// TestPassRate measures the rate in docs/operations.md: a pass that reads everything and erases
// nothing.
func TestPassRate(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add(position)
	for n := 0; n < *rateMessages; n += 1000 {
		var batch []stream.Message
		for i := range 1000 {
			ev := create(fmt.Sprint("did:plc:m", (n+i)%1000), fmt.Sprint("r", n+i), 'b')
			ev.Source = second(n + i)
			data := eventtest.Encode(t, ev)
			_, err := s.js.PublishAsync("posts.test", data)
			require.NoError(t, err)
			s.last++
			batch = append(batch, stream.Message{Seq: s.last, Data: data})
		}
		<-s.js.PublishAsyncComplete()
		require.NoError(t, s.live.Apply(t.Context(), batch))
	}
	s.add(position)
	begun := time.Now()
	e := erase.Eraser{JS: s.js, Writer: s.writer, Logger: storetest.Quiet, Within: week}
	sum, err := e.Pass(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, s.last-1, sum.Messages)
	t.Logf("%d messages in %v: %.0f a second", sum.Messages, time.Since(begun), float64(sum.Messages)/time.Since(begun).Seconds())
}
