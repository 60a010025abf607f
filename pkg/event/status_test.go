package event_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

// TestStatusOrder has a case for each part of the order: the numbers of one host, or the upstream
// time and number of different hosts, for which the host's substitute if these are unknown.
func TestStatusOrder(t *testing.T) {
	t.Parallel()
	// status returns the order of a host's event seq, at the host's time, with an upstream time and
	// number.
	status := func(host string, seq, at int, upstream ...int) event.StatusOrder {
		second := func(n int) time.Time { return time.Unix(int64(n), 0).UTC() }
		ev := &event.Event{Kind: event.KindAccount, Source: event.Position{Host: host, Seq: uint64(seq), Time: second(at)}}
		if upstream != nil {
			ev.Upstream = &event.Upstream{Time: second(upstream[0]), Seq: uint64(upstream[1])}
		}
		return ev.StatusOrder()
	}
	old := func(at, seq int) event.StatusOrder { // from a row without a host
		return event.StatusOrder{Time: time.Unix(int64(at), 0).UTC(), Seq: uint64(seq)}
	}
	const newer, again, older = "newer", "again", "older"
	for _, c := range []struct {
		name       string
		last, next event.StatusOrder
		want       string
	}{
		{"anything after nothing", event.StatusOrder{}, status("a", 1, 0), newer},

		{"one host, by its numbers", status("a", 1, 1, 5, 1), status("a", 2, 2, 6, 2), newer},
		{"though the clock upstream went back", status("a", 474, 100, 100, 10), status("a", 2887, 40, 40, 60), newer},
		{"and the relay was exchanged in between", status("a", 474, 100, 100, 60), status("a", 2887, 40, 40, 10), newer},
		{"its past, whose time is later", status("a", 2887, 40, 40, 60), status("a", 474, 100, 100, 10), older},
		{"its past", status("a", 2, 2, 6, 2), status("a", 1, 1, 5, 1), older},
		{"by its numbers, without upstream's", status("a", 1, 9), status("a", 2, 7), newer},
		{"one with upstream's and one without", status("a", 1, 1, 5, 1), status("a", 2, 2), newer},
		{"the same event", status("a", 1, 1, 5, 1), status("a", 1, 1, 5, 1), again},
		{"the same event, without upstream's", status("a", 1, 1), status("a", 1, 1), again},
		{"the same upstream event under another number", status("a", 1, 1, 5, 1), status("a", 2, 2, 5, 1), again},

		{"a wiped host, that counts from the start", status("a", 2887, 40, 40, 60), status("a", 3, 50, 50, 70), newer},
		{"without upstream's", status("a", 2887, 40), status("a", 3, 50), newer},
		{"that repeats the last status", status("a", 2887, 40, 40, 60), status("a", 3, 50, 40, 60), again},
		{"or an older one", status("a", 2887, 40, 40, 60), status("a", 3, 50, 30, 50), older},

		{"two hosts, by the upstream time", status("a", 9, 9, 5, 1), status("b", 1, 1, 6, 1), newer},
		{"whatever their numbers", status("a", 1, 1, 6, 1), status("b", 9, 9, 5, 2), older},
		{"at one time by its number", status("a", 9, 9, 5, 1), status("b", 1, 1, 5, 2), newer},
		{"at one time by its number, older", status("a", 1, 1, 5, 2), status("b", 9, 9, 5, 1), older},
		{"the same upstream event", status("a", 1, 1, 5, 1), status("b", 9, 9, 5, 1), again},
		{"without upstream's by the hosts' times", status("a", 9, 1), status("b", 1, 2), newer},
		{"whose numbers say nothing", status("a", 1, 1), status("b", 2, 1), older},
		{"one with upstream's and one without, by time", status("b", 5, 9, 6, 9), status("a", 1, 7), newer},

		{"a row without a host, by time", old(5, 1), status("a", 1, 1, 6, 1), newer},
		{"then by number", old(5, 1), status("a", 1, 1, 5, 2), newer},
		{"else it stays", old(5, 1), status("a", 9, 9, 4, 9), older},
		{"its event, repeated", old(5, 1), status("a", 1, 1, 5, 1), again},
	} {
		got, at := older, c.last
		isNewer, isAgain := at.Advance(c.next)
		switch {
		case isNewer && isAgain:
			t.Error(c.name, "both newer and repeated")
		case isNewer:
			got = newer
		case isAgain:
			got = again
		}
		require.Equal(t, c.want, got, c.name)
		if got == older {
			require.Equal(t, c.last, at, c.name)
		} else {
			require.Equal(t, c.next, at, c.name)
		}
	}

	// The numbers of the host that last reported it count.
	at := status("a", 5, 100, 100, 10)
	at.Advance(status("b", 300, 100, 100, 10))
	isNewer, _ := at.Advance(status("b", 301, 40, 40, 11))
	require.True(t, isNewer)
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
