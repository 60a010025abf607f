// Package eventtest makes events for tests.
package eventtest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

// Time returns a time that many seconds after a fixed one.
func Time(second int) time.Time {
	return time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(second) * time.Second)
}

// Position returns the position of a host's event with that number, a second after the previous one.
func Position(seq int) event.Position {
	return event.Position{Host: "https://host.example", Seq: uint64(seq), Time: Time(seq)}
}

// Encode returns the event as a message.
func Encode(t testing.TB, ev event.Event) []byte {
	t.Helper()
	data, err := ev.Encode()
	require.NoError(t, err)
	return data
}
