package soak_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tagstream/tagstream/pkg/testkit/fault"
)

// wire is a connection between two parts.
type wire struct {
	name string
	of   func(s *site) *fault.Proxy
}

var wires = []wire{
	{"ingest to jetstream", func(s *site) *fault.Proxy { return s.toHost }},
	{"ingest to nats", func(s *site) *fault.Proxy { return s.ingestNATS }},
	{"indexer to nats", func(s *site) *fault.Proxy { return s.indexerNATS }},
	{"indexer to postgres", func(s *site) *fault.Proxy { return s.indexerPG }},
	{"api to postgres", func(s *site) *fault.Proxy { return s.apiPG }},
}

const slowRate = 40_000 // bytes a second

// broken breaks a connection, or stalls it for a while.
func (s *site) broken(w wire, how string, rng *rand.Rand) failure {
	p, kind := w.of(s), w.name+" "+how
	t := failure{uses: []string{w.name}}
	if w.name == "indexer to nats" {
		t.uses = append(t.uses, "indexer-nats")
	}
	lasting := func(begin, end func()) {
		// Sometimes longer than any lease.
		d := 300*time.Millisecond + time.Duration(rng.Int64N(int64(2*time.Second)))
		if rng.IntN(6) == 0 {
			d += 7 * time.Second
		}
		t.steps = []step{once(0, begin), once(d, end), s.counted(kind)}
	}
	breaking := func(b fault.Break) {
		t.steps = []step{{0, func() bool { return p.Break(b) > 0 }}, s.counted(kind)}
	}
	switch how {
	case "cut":
		breaking(fault.Cut)
	case "reset":
		breaking(fault.Reset)
	case "torn":
		breaking(fault.Torn)
	case "stalled":
		lasting(p.Hold, p.Release)
	case "slowed":
		lasting(func() { p.Slow(slowRate) }, func() { p.Slow(0) })
	case "refused":
		lasting(func() { p.Refuse(true); p.Break(fault.Cut) }, func() { p.Refuse(false) })
	}
	return t
}

// postgresAway stops Postgres and restarts it.
func (s *site) postgresAway(sig syscall.Signal, name string, rng *rand.Rand) failure {
	return failure{uses: []string{"postgres"}, steps: []step{
		once(0, func() {
			if sig == syscall.SIGKILL {
				s.pg.Kill(s.t)
			} else {
				s.pg.Stop(s.t)
			}
		}),
		once(time.Duration(rng.Int64N(int64(2*time.Second))), func() { s.pg.Start(s.t) }),
		s.counted(name + " of postgres"),
	}}
}

// jetstreamAway stops the Jetstream server and restarts it. A server killed before it has stored
// anything starts at the newest frame and loses events, which is not our fault: so it is first
// stopped cleanly once.
func (s *site) jetstreamAway(sig syscall.Signal, name string, rng *rand.Rand) failure {
	t := failure{uses: []string{"jetstream"}}
	again := func() { s.must(s.host.Restart(s.t.Context())) }
	if sig == syscall.SIGKILL {
		t.steps = []step{
			once(0, func() { s.must(s.host.Stop()) }), once(0, again),
			once(500*time.Millisecond+time.Duration(rng.Int64N(int64(time.Second))), s.host.Kill),
		}
	} else {
		t.steps = []step{once(0, func() { s.must(s.host.Stop()) })}
	}
	t.steps = append(t.steps, once(time.Duration(rng.Int64N(int64(2*time.Second))), again), s.counted(name+" of jetstream"))
	return t
}

// readOnly makes every transaction of Postgres read-only for a while.
func (s *site) readOnly(rng *rand.Rand) failure {
	return failure{uses: []string{"postgres"}, steps: []step{
		once(0, func() {
			s.exec("ALTER SYSTEM SET default_transaction_read_only = on")
			s.exec("SELECT pg_reload_conf()")
		}),
		once(time.Second+time.Duration(rng.Int64N(int64(2*time.Second))), func() {
			s.exec("ALTER SYSTEM RESET default_transaction_read_only") // which is allowed without a write
			s.exec("SELECT pg_reload_conf()")
		}),
		s.counted("database read-only"),
	}}
}

// inRecovery restarts Postgres as a standby, which answers but refuses writes, and promotes it.
func (s *site) inRecovery(rng *rand.Rand) failure {
	return failure{uses: []string{"postgres"}, steps: []step{
		once(0, func() {
			dir := s.dataDir()
			s.pg.Stop(s.t)
			signal := filepath.Join(dir, "standby.signal")
			s.must(os.WriteFile(signal, nil, 0o600))
			s.must(os.Chmod(signal, 0o644))
			s.must(sameOwner(dir, signal))
			s.pg.Start(s.t)
		}),
		once(time.Second+time.Duration(rng.Int64N(int64(2*time.Second))), func() { s.exec("SELECT pg_promote()") }),
		s.counted("database in recovery"),
	}}
}

// dataDir returns the cluster's folder: data_directory is the path as seen by Postgres, which is
// not root.
func (s *site) dataDir() (dir string) {
	s.scan("SELECT current_setting('tagstream.dir')", &dir)
	return dir
}

// clockAhead ends the indexer's lease early, as a step of the database's clock does, while another
// indexer waits for it.
func (s *site) clockAhead(rng *rand.Rand) failure {
	t := s.second("indexer", rng)
	t.uses = append(t.uses, "postgres")
	t.steps = append([]step{t.steps[0], once(time.Second, func() {
		s.exec("UPDATE tagstream.checkpoint SET lease_until = lease_until - interval '1 hour'")
	})}, t.steps[1:]...)
	t.steps[len(t.steps)-1] = s.counted("database's clock steps ahead")
	return t
}

// clockBack sets the network's clock back, so that the next posts claim to be older.
func (s *site) clockBack(rng *rand.Rand) failure {
	return failure{uses: []string{"clock"}, steps: []step{
		once(0, func() { s.clock.set(time.Hour) }),
		once(time.Second+time.Duration(rng.Int64N(int64(time.Second))), func() { s.clock.set(0) }),
		s.counted("network's clock steps back"),
	}}
}
