// Package poll waits in tests for conditions that have no signal. It never sleeps for a guessed
// time: it checks repeatedly until the condition holds or the deadline passes, and then reports the
// last state.
package poll

import (
	"testing"
	"time"
)

// interval is the pause between two checks.
const interval = 5 * time.Millisecond

// Until calls check until it returns true, and fails the test if it has not within timeout. State
// is what check saw, for that failure. Until waits for a check that is running at the deadline, so
// give each check its own limit.
func Until(t testing.TB, timeout time.Duration, check func() (done bool, state string)) {
	t.Helper()
	start := time.Now()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		done, state := check()
		if done {
			return
		}
		if time.Since(start) >= timeout {
			t.Fatalf("not reached within %v; last seen: %s", timeout, state)
		}
		<-ticker.C
	}
}

// NoError calls check until it returns nil, and fails the test with its last error if it has not
// within timeout.
func NoError(t testing.TB, timeout time.Duration, check func() error) {
	t.Helper()
	Until(t, timeout, func() (bool, string) {
		err := check()
		if err != nil {
			return false, err.Error()
		}
		return true, ""
	})
}
