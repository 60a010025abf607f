package event_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

// TestStatusOrder: what an account event says of itself counts before what the host
// that told it says.
func TestStatusOrder(t *testing.T) {
	t.Parallel()
	at := func(second int) time.Time { return time.Unix(int64(second), 0).UTC() }
	status := func(seen, seq int, upstream ...int) event.StatusOrder {
		ev := &event.Event{Kind: event.KindAccount, Source: event.Position{Seq: uint64(seq), Time: at(seen)}}
		if upstream != nil {
			ev.Upstream = &event.Upstream{Time: at(upstream[0]), Seq: uint64(upstream[1])}
		}
		return ev.StatusOrder()
	}
	for name, c := range map[string]struct{ newer, older event.StatusOrder }{
		"by the host's time":             {status(2, 1), status(1, 2)},
		"by its number at one time":      {status(1, 2), status(1, 1)},
		"by the upstream time":           {status(1, 1, 6, 1), status(2, 2, 5, 2)},
		"by its number at one time, too": {status(1, 1, 5, 2), status(2, 2, 5, 1)},
		"an old message by the host's":   {status(7, 1), status(9, 2, 6, 9)},
		"a new one, of an older message": {status(9, 2, 6, 9), status(5, 1)},
		"any is newer than none":         {status(0, 1), event.StatusOrder{}},
	} {
		require.True(t, c.newer.After(c.older), name)
		require.False(t, c.older.After(c.newer), name)
	}
	require.False(t, status(1, 1, 5, 2).After(status(3, 3, 5, 2)), "the same, by two hosts")
}

func TestStatusMeaning(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ev              event.Event
		changes, erases bool
	}{
		{event.Event{Kind: event.KindAccount, Active: true}, true, false},
		{event.Event{Kind: event.KindAccount, Active: true, Status: "deleted"}, true, false},
		{event.Event{Kind: event.KindAccount, Status: "deleted"}, true, true},
		{event.Event{Kind: event.KindAccount, Status: "to come"}, true, false},
		{event.Event{Kind: event.KindAccount, Status: "throttled"}, false, false},
		{event.Event{Kind: event.KindAccount, Active: true, Status: "desynchronized"}, false, false},
		{event.Event{Kind: event.KindDelete, Status: "deleted"}, false, false},
	} {
		require.Equal(t, c.changes, c.ev.ChangesStatus(), c.ev)
		require.Equal(t, c.erases, c.ev.Erases(), c.ev)
	}
}
