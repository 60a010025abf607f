package soak_test

import (
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/test/process"
)

// longerThanLease exceeds both leases.
const longerThanLease = 7 * time.Second

// rebuildTries bounds how often a failed rebuild is repeated, with a pause of one second.
const rebuildTries = 20

// place returns the field with the first program of a kind.
func (s *site) place(name string) **process.Program {
	if name == "ingest" {
		return &s.ingest
	}
	return &s.indexer
}

// begin starts a second program of a kind.
func (s *site) begin(name string) step {
	return once(0, func() {
		s.standby = map[string]func() *process.Program{"ingest": s.newIngest, "indexer": s.newIndexer}[name]()
		s.must(s.standby.Start())
	})
}

// second runs a second program next to the first, and then ends one of them.
func (s *site) second(name string, rng *rand.Rand) failure {
	first, sig := rng.IntN(2) == 0, pick(rng, syscall.SIGKILL, syscall.SIGTERM)
	return failure{uses: []string{name, "standby"}, steps: []step{
		s.begin(name),
		once(time.Second+time.Duration(rng.Int64N(int64(2*time.Second))), func() { s.endOne(name, first, sig) }),
		s.counted("second " + name),
	}}
}

// endOne ends one of two programs; the other becomes the first.
func (s *site) endOne(name string, first bool, sig syscall.Signal) {
	place := s.place(name)
	leaves, stays := s.standby, *place
	if first {
		leaves, stays = stays, leaves
	}
	if sig == syscall.SIGTERM {
		s.must(leaves.Terminate())
	} else {
		leaves.End()
	}
	*place, s.standby = stays, nil
}

// paused suspends a program until another has taken over, and resumes it.
func (s *site) paused(name string, rng *rand.Rand) failure {
	first, sig := rng.IntN(2) == 0, pick(rng, syscall.SIGKILL, syscall.SIGTERM)
	place := s.place(name)
	return failure{uses: []string{name, "standby"}, steps: []step{
		s.begin(name),
		once(500*time.Millisecond, func() { (*place).Signal(syscall.SIGSTOP) }),
		once(longerThanLease+time.Duration(rng.Int64N(int64(2*time.Second))), func() { (*place).Signal(syscall.SIGCONT) }),
		once(time.Second+time.Duration(rng.Int64N(int64(time.Second))), func() { s.endOne(name, first, sig) }),
		s.counted("paused " + name + " wakes after losing its lease"),
	}}
}

// pausedInTransaction suspends the indexer between the checkpoint's update and the commit, with the
// row locked, for longer than the server allows.
func (s *site) pausedInTransaction(rng *rand.Rand) failure {
	t := s.strikes(s.indexerPG, fault.Fault{
		Match: fault.Statement(moveCheckpoint), Nth: 1 + rng.IntN(5), Break: fault.Nothing,
		Then: func() { s.indexer.Signal(syscall.SIGSTOP) },
	}, fault.Failed, "indexer paused in a transaction")
	const idleLimit = 15 * time.Second // the limit of the writer's transactions
	t.uses = append(t.uses, "indexer", "standby")
	t.steps = append([]step{s.begin("indexer")}, append(t.steps,
		once(idleLimit+longerThanLease, func() { s.indexer.Signal(syscall.SIGCONT) }),
		once(time.Second, func() { s.endOne("indexer", rng.IntN(2) == 0, syscall.SIGTERM) }))...)
	return t
}

// rebuild rebuilds the index with a fault, and repeats the command until it succeeds, as an
// operator does.
func (s *site) rebuild(f fault.Fault, form fault.Form, kind string, kill bool) failure {
	tool := s.ownerTool("rebuild")
	if kill {
		f.Then = tool.Kill
	}
	t := s.strikes(s.ownerPG, f, form, kind)
	t.uses = append(t.uses, "owner", "postgres", "nats")
	tries, next := 0, time.Time{}
	again := func() {
		if time.Now().Before(next) {
			return
		}
		// The lease of a killed one must expire first.
		if tries++; tries > rebuildTries {
			s.t.Fatalf("the rebuild keeps failing: %s", tool.Tail())
		}
		next = time.Now().Add(time.Second)
		s.must(tool.Start())
	}
	arm, fired := t.steps[0], t.steps[1].do
	t.steps = []step{
		arm,
		once(0, func() { s.must(tool.Start()) }),
		{0, func() bool {
			if fired() {
				return true
			}
			// For example, there may be no stream yet.
			if _, ended := tool.Ended(); ended {
				again()
			}
			return false
		}},
		{0, func() bool {
			code, ended := tool.Ended()
			if ended && code == 0 {
				return true
			}
			if ended {
				again()
			}
			return false
		}},
	}
	return t
}

const otherDenied = "other accounts and tags denied"

// denies denies some accounts and tags, others a moment later, and finally none or others again.
func (s *site) denies(rng *rand.Rand) failure {
	some := func(from []string) []string {
		var chosen []string
		for range rng.IntN(4) {
			chosen = append(chosen, pick(rng, from...))
		}
		slices.Sort(chosen)
		return slices.Compact(chosen)
	}
	deny := func(dids, tags []string) {
		s.deniedDIDs, s.deniedTags = dids, tags
		s.must(process.WriteDenyFile(s.deny, process.DenyFile(dids, tags)))
	}
	var steps []step
	for range 3 {
		steps = append(steps, once(between(rng, 0, 3*time.Second), func() {
			deny(some(s.network.DIDs()), some([]string{"art", "photo", "first", "again", "back", "tie"}))
		}))
	}
	if rng.IntN(2) == 0 {
		steps = append(steps, once(time.Second, func() { deny(nil, nil) }))
	}
	return failure{uses: []string{"deny file"}, steps: append(steps, s.counted(otherDenied))}
}

// migrate migrates the schema. It kills the command half-way, and then repeats it as an operator
// would.
func (s *site) migrate(rng *rand.Rand) {
	s.t.Helper()
	places := []string{
		"CREATE TABLE IF NOT EXISTS accounts", "CREATE TABLE IF NOT EXISTS langs", "CREATE INDEX IF NOT EXISTS tags_posts_idx",
		"schema_migrations",
	}
	form := pick(rng, fault.Forms...)
	tool := s.ownerTool("migrate")
	a := s.ownerPG.Arm(fault.Fault{
		Kind: "migration killed", Match: fault.Statement(pick(rng, places...)), Nth: 1, Form: form, Then: tool.Kill,
	})
	s.must(tool.Start())
	<-tool.Done()
	select {
	case <-a.Fired(): // a moment after the kill
	case <-time.After(failureLimit):
		s.t.Fatalf("the migration ended before it was killed: %s", tool.Tail())
	}
	s.must(tool.Start())
	<-tool.Done()
	if code, _ := tool.Ended(); code != 0 {
		s.t.Fatalf("the migration cannot continue after a kill: %s", tool.Tail())
	}
}
