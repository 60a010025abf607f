package soak_test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/test/process"
)

// failure is something that goes wrong and is repaired in its last step.
type failure struct {
	kind string
	// uses are the parts that it needs exclusively until it is repaired.
	uses  []string
	steps []step
}

// step is done once after has passed since the previous step. do reports whether it is complete;
// otherwise it is called again soon.
type step struct {
	after time.Duration
	do    func() (done bool)
}

// maker makes a failure for a site, which has its own generator, so that its actions follow from
// the seed.
type maker struct {
	kind  string
	make  func(s *site, rng *rand.Rand) failure
	needs needs
}

// needs are the additional parts that a failure needs in a run.
type needs struct {
	pair    bool // a second Jetstream host
	cluster bool // a cluster instead of one NATS server
	single  bool // one NATS server
}

// once returns a step that is complete when do returns.
func once(after time.Duration, do func()) step {
	return step{after, func() bool { do(); return true }}
}

func between(rng *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(rng.Int64N(int64(high-low)))
}

// Statements that identify the programs' operations.
const (
	moveCheckpoint = "UPDATE checkpoint SET seq"
	acquireLease   = "SET epoch = epoch + 1"
	renewLease     = "= clock_timestamp() + $2 WHERE epoch"
	switchSchema   = "RENAME TO"
)

// catalogue lists every failure that a run may have.
func catalogue() []maker {
	var all []maker
	addWith := func(n needs, kind string, make func(s *site, rng *rand.Rand) failure) {
		all = append(all, maker{kind, func(s *site, rng *rand.Rand) failure {
			t := make(s, rng)
			t.kind = kind
			return t
		}, n})
	}
	add := func(kind string, make func(s *site, rng *rand.Rand) failure) { addWith(needs{}, kind, make) }
	for _, form := range fault.Forms {
		in := func(what string) string { return fmt.Sprintf("%s, %s", what, form) }
		add(in("batch publish"), func(s *site, rng *rand.Rand) failure {
			return s.strikes(s.ingestNATS, fault.Fault{Match: fault.Publish("posts."), Nth: 1 + rng.IntN(5), Break: anyBreak(rng)}, form, "batch publish")
		})
		add(in("writer's lease"), func(s *site, rng *rand.Rand) failure {
			return s.strikes(s.ingestNATS, fault.Fault{Match: fault.Publish("$KV." + stream.Leases), Break: anyBreak(rng)}, form, "writer's lease")
		})
		add(in("commit with checkpoint"), func(s *site, rng *rand.Rand) failure {
			return s.strikes(s.indexerPG, fault.Fault{Match: fault.CommitAfter(moveCheckpoint), Nth: 1 + rng.IntN(10), Break: loudBreak(rng)}, form, "commit with checkpoint")
		})
		add(in("indexer's lease taken"), func(s *site, rng *rand.Rand) failure {
			t := s.strikes(s.indexerPG, fault.Fault{Match: fault.Statement(acquireLease), Break: loudBreak(rng)}, form, "indexer's lease taken")
			t.uses = append(t.uses, "indexer")
			restart := s.restart(&s.indexer, syscall.SIGTERM)
			t.steps = append([]step{t.steps[0]}, append(restart, t.steps[1:]...)...)
			return t
		})
		add(in("indexer's lease renewed"), func(s *site, rng *rand.Rand) failure {
			// It is renewed if there is nothing to commit.
			t := s.strikes(s.indexerPG, fault.Fault{Match: fault.Statement(renewLease), Break: loudBreak(rng)}, form, "indexer's lease renewed")
			t.uses = append(t.uses, "indexer-nats")
			t.steps = append([]step{once(0, s.indexerNATS.Hold)}, append(t.steps, once(0, s.indexerNATS.Release))...)
			return t
		})
		add(in("ingest killed at a batch"), func(s *site, rng *rand.Rand) failure {
			t := s.strikes(s.ingestNATS, fault.Fault{Match: fault.Publish("posts."), Nth: 1 + rng.IntN(5), Then: s.killer(&s.ingest)}, form, "ingest killed at a batch")
			t.uses = append(t.uses, "ingest")
			t.steps = append(t.steps, s.restartAfterExit(&s.ingest))
			return t
		})
		add(in("indexer killed at a commit"), func(s *site, rng *rand.Rand) failure {
			t := s.strikes(s.indexerPG, fault.Fault{Match: fault.CommitAfter(moveCheckpoint), Nth: 1 + rng.IntN(10), Then: s.killer(&s.indexer)}, form, "indexer killed at a commit")
			t.uses = append(t.uses, "indexer")
			t.steps = append(t.steps, s.restartAfterExit(&s.indexer))
			return t
		})
		add(in("schema switch"), func(s *site, rng *rand.Rand) failure {
			return s.rebuild(fault.Fault{Match: fault.CommitAfter(switchSchema), Break: loudBreak(rng)}, form, "schema switch", false)
		})
		add(in("rebuild killed at the switch"), func(s *site, _ *rand.Rand) failure {
			return s.rebuild(fault.Fault{Match: fault.CommitAfter(switchSchema)}, form, "rebuild killed at the switch", true)
		})
		add(in("rebuild killed half-way"), func(s *site, rng *rand.Rand) failure {
			return s.rebuild(fault.Fault{Match: fault.CommitAfter(moveCheckpoint), Nth: 1 + rng.IntN(2)}, form, "rebuild killed half-way", true)
		})
	}
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		name := map[syscall.Signal]string{syscall.SIGKILL: "kill -9", syscall.SIGTERM: "SIGTERM"}[sig]
		for _, p := range []struct {
			name string
			of   func(s *site) **process.Program
		}{
			{"ingest", func(s *site) **process.Program { return &s.ingest }},
			{"indexer", func(s *site) **process.Program { return &s.indexer }},
			{"api", func(s *site) **process.Program { return &s.api }},
			{"nats", func(s *site) **process.Program { return &s.nats }},
		} {
			addWith(needs{single: p.name == "nats"}, name+" of "+p.name, func(s *site, rng *rand.Rand) failure {
				steps := s.restart(p.of(s), sig)
				steps[1].after = between(rng, 0, 1500*time.Millisecond)
				return failure{uses: []string{p.name}, steps: append(steps, s.counted(name+" of "+p.name))}
			})
		}
		add(name+" of postgres", func(s *site, rng *rand.Rand) failure { return s.postgresAway(sig, name, rng) })
		add(name+" of jetstream", func(s *site, rng *rand.Rand) failure { return s.jetstreamAway(sig, name, rng) })
	}
	for _, w := range wires {
		for _, how := range []string{"cut", "reset", "torn", "stalled", "slowed", "refused"} {
			add(w.name+" "+how, func(s *site, rng *rand.Rand) failure { return s.broken(w, how, rng) })
		}
	}
	addWith(needs{single: true}, "disk full under nats", (*site).diskFullNATS)
	add("disk full under postgres's tables", (*site).diskFullTables)
	add("disk full under postgres's log", (*site).diskFullLog)
	add("database read-only", (*site).readOnly)
	add("database in recovery", (*site).inRecovery)
	add("second ingest", func(s *site, rng *rand.Rand) failure { return s.second("ingest", rng) })
	add("second indexer", func(s *site, rng *rand.Rand) failure { return s.second("indexer", rng) })
	add("paused ingest wakes after losing its lease", func(s *site, rng *rand.Rand) failure { return s.paused("ingest", rng) })
	add("paused indexer wakes after losing its lease", func(s *site, rng *rand.Rand) failure { return s.paused("indexer", rng) })
	add("indexer paused in a transaction", (*site).pausedInTransaction)
	add(otherDenied, (*site).denies)
	add("database's clock steps ahead", (*site).clockAhead)
	add("network's clock steps back", (*site).clockBack)
	addWith(needs{pair: true}, relayAway, (*site).relayAway)
	addWith(needs{pair: true}, hostLagging, (*site).hostLagging)
	addWith(needs{pair: true}, importedTimes, (*site).importedTimes)
	addWith(needs{cluster: true}, lateReplica, (*site).lateReplica)
	return all
}

// loudBreak returns a way to break a connection that the client notices immediately.
func loudBreak(rng *rand.Rand) fault.Break { return pick(rng, fault.Cut, fault.Reset, fault.Torn) }

// anyBreak returns any way to break a connection, including those that the client notices only by a
// timeout.
func anyBreak(rng *rand.Rand) fault.Break {
	if rng.IntN(6) == 0 {
		return fault.Silent
	}
	return loudBreak(rng)
}

// strikes returns the step of a fault at an operation, complete when it has fired.
func (s *site) strikes(p *fault.Proxy, f fault.Fault, form fault.Form, kind string) failure {
	f.Kind, f.Form = kind, form
	var armed *fault.Armed
	return failure{uses: []string{kind}, steps: []step{
		once(0, func() { armed = p.Arm(f) }),
		{0, func() bool {
			select {
			case <-armed.Fired():
				return true
			default:
				return false
			}
		}},
	}}
}

// counted counts a failure that no proxy counts.
func (s *site) counted(kind string) step {
	return once(0, func() { s.log.Add(kind) })
}

// killer kills the program that is then in the field.
func (s *site) killer(p **process.Program) func() {
	return func() { (*p).Kill() }
}

// restartAfterExit restarts a program once it has ended.
func (s *site) restartAfterExit(p **process.Program) step {
	return step{0, func() bool {
		if _, ended := (*p).Ended(); !ended {
			return false
		}
		s.must((*p).Start())
		return true
	}}
}

// restart stops a program with a signal and starts it again.
func (s *site) restart(p **process.Program, sig syscall.Signal) []step {
	return []step{
		once(0, func() {
			if sig == syscall.SIGTERM {
				s.must((*p).Terminate())
				return
			}
			(*p).Kill()
		}),
		s.restartAfterExit(p),
	}
}

// must ends the test on an error.
func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}
