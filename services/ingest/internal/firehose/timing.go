package firehose

import "time"

// Timing has the reader's time limits.
type Timing struct {
	// Dial bounds the opening of a probe, Listing the fetching of one page of the archive's list.
	Dial    time.Duration
	Listing time.Duration
	// Verify is how long a host may be silent at a cursor that it should know.
	Verify time.Duration
	// Quiet is how long to wait for the first event of a host that has none if there are other
	// hosts; QuietAlone if there are none.
	Quiet      time.Duration
	QuietAlone time.Duration
	// Tick is the interval of the watchdog.
	Tick time.Duration
	// Idle is how long the live tail may be silent before the host is asked whether it has
	// anything; Troubled is the same after an error. Idle is also how long a host may deliver
	// nothing new before the other hosts are asked.
	Idle     time.Duration
	Troubled time.Duration
	// Replay is how long the archive may deliver nothing.
	Replay time.Duration
	// Ask is how long a probe waits for an event that the client lacks, at its own host or at
	// another, and how long the client then has to deliver it.
	Ask time.Duration
	// Settle is how long after the end of the time to read events may still arrive.
	Settle time.Duration
	// Gap is how long hosts that lack the history after the last position are skipped in favor of
	// others.
	Gap time.Duration
	// Margin is how far before the last position's clock reading begins on another host, whose
	// relay may have passed on accounts' events in another order. It need not include the hosts'
	// lag: that is not in the clock.
	Margin time.Duration
	// BackoffMin and BackoffMax bound the pause after all hosts were tried.
	BackoffMin time.Duration
	BackoffMax time.Duration
}

// DefaultTiming returns time limits that suit public hosts.
func DefaultTiming() Timing {
	return Timing{
		Dial:       10 * time.Second,
		Listing:    30 * time.Second,
		Verify:     10 * time.Second,
		Quiet:      20 * time.Second,
		QuietAlone: 5 * time.Minute,
		Tick:       time.Second,
		Idle:       30 * time.Second,
		Troubled:   15 * time.Second,
		Replay:     5 * time.Minute,
		Ask:        5 * time.Second,
		Settle:     2 * time.Second,
		Gap:        5 * time.Minute,
		Margin:     time.Minute,
		BackoffMin: 500 * time.Millisecond,
		BackoffMax: time.Minute,
	}
}

func (t Timing) withDefaults() Timing {
	d := DefaultTiming()
	for _, f := range []struct{ have, want *time.Duration }{
		{&t.Dial, &d.Dial}, {&t.Listing, &d.Listing}, {&t.Verify, &d.Verify}, {&t.Quiet, &d.Quiet},
		{&t.QuietAlone, &d.QuietAlone}, {&t.Tick, &d.Tick}, {&t.Idle, &d.Idle}, {&t.Troubled, &d.Troubled},
		{&t.Replay, &d.Replay}, {&t.Ask, &d.Ask}, {&t.Settle, &d.Settle}, {&t.Gap, &d.Gap}, {&t.Margin, &d.Margin},
		{&t.BackoffMin, &d.BackoffMin}, {&t.BackoffMax, &d.BackoffMax},
	} {
		if *f.have == 0 {
			*f.have = *f.want
		}
	}
	return t
}

// inWords formats a time for a person. A position before all history has none.
func inWords(t time.Time) string {
	if !t.After(time.Unix(0, 0)) {
		return "an unknown time"
	}
	return t.Format(time.RFC3339Nano)
}
