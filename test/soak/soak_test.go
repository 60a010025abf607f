package soak_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/simnet"
)

var (
	soakRuns = flag.Uint64("soak.runs", 3, "number of seeds that TestSoak runs")
	soakSeed = flag.Uint64("soak.seed", 1, "the first seed")
	soakOnly = flag.String("soak.only", "", "run each failure whose name contains this once, instead of those that the seed chooses")
)

const (
	failuresEach = 5
	// failureLimit bounds the time in which a failure must happen and be repaired.
	failureLimit = 2 * time.Minute
	// settleLimit bounds the time until the system is at rest.
	settleLimit = 2 * time.Minute
	tick        = 20 * time.Millisecond
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// As many seeds as there are failures cover all of them.
func TestPlansCoverAllFailures(t *testing.T) {
	missing := map[string]bool{}
	for _, m := range catalogue() {
		missing[m.kind] = true
	}
	n := len(missing)
	require.Len(t, catalogue(), n, "names must be unique")
	for seed := range n {
		for _, m := range plan(uint64(seed)) {
			delete(missing, m.kind)
		}
	}
	require.Empty(t, missing)
	t.Log(n, "failures")
}

// TestNoFailure is a run without failures: it finds what is wrong even without them.
func TestNoFailure(t *testing.T) {
	soak(t, build(t), *soakSeed, []maker{{kind: "nothing", make: (*site).nothing}}, &totals{})
}

func (s *site) nothing(*rand.Rand) failure {
	return failure{steps: []step{once(3*time.Second, func() { s.log.Add("nothing") })}}
}

// TestSoak runs seeds; see the package comment.
func TestSoak(t *testing.T) {
	bin := build(t)
	var sum totals
	t.Run("runs", func(t *testing.T) {
		for seed := *soakSeed; seed < *soakSeed+*soakRuns; seed++ {
			t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
				t.Parallel()
				soak(t, bin, seed, plan(seed), &sum)
			})
		}
	})
	t.Log(sum.String())
}

// totals sums up all runs.
type totals struct {
	mu                                          sync.Mutex
	runs, events, messages, asked, away, differ int
	struck                                      map[string]int
}

func (s *totals) add(events, messages int, r *reader, struck map[string]int, differ int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs++
	s.events += events
	s.messages += messages
	s.asked += r.asked
	s.away += r.away
	s.differ += differ
	if s.struck == nil {
		s.struck = map[string]int{}
	}
	for kind, n := range struck {
		s.struck[kind] += n
	}
}

func (s *totals) String() string {
	var b strings.Builder
	all := 0
	for _, kind := range slices.Sorted(maps.Keys(s.struck)) {
		fmt.Fprintf(&b, "%6d  %s\n", s.struck[kind], kind)
		all += s.struck[kind]
	}
	return fmt.Sprintf("%d runs, %d events upstream, %d messages in the streams, %d requests to the API (%d while it was away), %d failures of %d kinds, %d differences\n%s",
		s.runs, s.events, s.messages, s.asked, s.away, all, len(s.struck), s.differ, b.String())
}

// plan chooses the failures of a seed: the first one in turn, so that enough seeds cover all, and
// the others at random. Every run also changes the deny file.
func plan(seed uint64) []maker {
	rng := rand.New(rand.NewPCG(seed, 13))
	all := catalogue()
	if *soakOnly != "" {
		all = slices.DeleteFunc(all, func(m maker) bool { return !strings.Contains(m.kind, *soakOnly) })
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		return slices.DeleteFunc(all, func(m maker) bool { return !m.fits(all[:1]) })
	}
	chosen := []maker{all[seed%uint64(len(all))]}
	for _, m := range all {
		if m.kind == otherDenied && chosen[0].kind != m.kind {
			chosen = append(chosen, m)
		}
	}
	for len(chosen) < failuresEach {
		if m := all[rng.IntN(len(all))]; m.fits(chosen) {
			chosen = append(chosen, m)
		}
	}
	return chosen
}

// fits reports whether a failure can occur in the same run as the others: one needs a single NATS
// server, another a cluster.
func (m maker) fits(others []maker) bool {
	return !slices.ContainsFunc(others, func(o maker) bool { return m.needs.cluster && o.needs.single || m.needs.single && o.needs.cluster })
}

// needsOf returns the combined needs of the failures.
func needsOf(chosen []maker) (all needs) {
	for _, m := range chosen {
		all.pair, all.cluster, all.single = all.pair || m.needs.pair, all.cluster || m.needs.cluster, all.single || m.needs.single
	}
	return all
}

// soak does one run with the chosen failures.
func soak(t *testing.T, bin binaries, seed uint64, chosen []maker, sum *totals) {
	begun := time.Now()
	rng := rand.New(rand.NewPCG(seed, 11))
	dir, err := os.MkdirTemp("", fmt.Sprintf("tagstream-soak-%d-", seed)) //nolint:usetesting // kept if the run fails
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o711)) // Postgres, which is not root, has its disks in it
	var log fault.Log
	t.Cleanup(func() {
		if !t.Failed() {
			os.RemoveAll(dir)
			return
		}
		t.Logf("failures: %v", log.Counts())
		t.Logf("everything is kept in %s; repeat with: go test ./test/soak -run '^TestSoak$' -count=1 -soak.runs=1 -soak.seed=%d -soak.only=%q", dir, seed, *soakOnly)
	})
	var phases []string
	phase := func(name string) {
		phases = append(phases, fmt.Sprintf("%s %v", name, time.Since(begun).Round(100*time.Millisecond)))
	}
	s := openSite(t, bin, seed, dir, &log, needsOf(chosen))
	phase("open")
	s.migrate(rng)
	s.startPrograms()
	phase("start")

	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	defer stop()
	tr, r := newTraffic(s.network, seed), &reader{}
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	var trafficErr error
	running.Go(func() { trafficErr = tr.run(ctx) })
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	var readers sync.WaitGroup
	readers.Go(func() { r.run(reading, s.apiURL) })

	s.injectFailures(chosen, rng)
	for _, m := range chosen {
		if log.Counts()[m.kind] == 0 && (canMount() || !strings.HasPrefix(m.kind, "disk full")) {
			t.Errorf("%q was planned and did not happen", m.kind)
		}
	}
	phase("failures")
	stop()
	running.Wait()
	require.NoError(t, trafficErr)
	s.settle()
	phase("settle")
	stopReading()
	readers.Wait()

	found, messages := s.differences(t.Context(), seed)
	found = append(found, r.wrong...)
	phase("compare")
	for _, p := range s.programs() {
		if err := p.Alive(); err != nil {
			found = append(found, err.Error())
		} else if err := p.Terminate(); err != nil {
			found = append(found, err.Error())
		}
	}
	events, struck := len(s.network.Log()), log.Counts()
	sum.add(events, int(messages), r, struck, len(found))
	t.Logf("seed %d: %v %v, %d events upstream, %d messages, %d requests (%d while away), failures %v, %d differences",
		seed, time.Since(begun).Round(100*time.Millisecond), phases, events, messages, r.asked, r.away, struck, len(found))
	for _, f := range found {
		t.Error(f)
	}
}

// injectFailures starts failures one after another, usually before the previous one is repaired,
// and returns when all are.
func (s *site) injectFailures(chosen []maker, rng *rand.Rand) {
	s.t.Helper()
	type pending struct {
		failure
		due, deadline time.Time
	}
	var waiting, open []*pending
	at := time.Now()
	for _, m := range chosen {
		own := rand.New(rand.NewPCG(rng.Uint64(), 12))
		at = at.Add(200*time.Millisecond + time.Duration(rng.Int64N(int64(1200*time.Millisecond))))
		waiting = append(waiting, &pending{failure: m.make(s, own), due: at})
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for len(waiting)+len(open) > 0 {
		now := <-ticker.C
		for _, p := range s.programs() {
			if err := p.Alive(); err != nil {
				s.t.Fatal(err)
			}
		}
		// A failure waits for a part that another one uses.
		if len(waiting) > 0 && now.After(waiting[0].due) {
			next := waiting[0]
			free := !slices.ContainsFunc(open, func(o *pending) bool {
				return slices.ContainsFunc(o.uses, func(part string) bool { return slices.Contains(next.uses, part) })
			})
			if free {
				next.due, next.deadline = now, now.Add(failureLimit)
				waiting, open = waiting[1:], append(open, next)
			}
		}
		open = slices.DeleteFunc(open, func(p *pending) bool {
			for len(p.steps) > 0 && !time.Now().Before(p.due.Add(p.steps[0].after)) {
				if !p.steps[0].do() {
					if now.After(p.deadline) {
						s.t.Fatalf("%q was planned and is not over after %v; %d steps are left", p.kind, failureLimit, len(p.steps))
					}
					return false
				}
				p.due, p.steps = time.Now(), p.steps[1:]
			}
			return len(p.steps) == 0
		})
	}
}

// settle returns when the API serves everything that happened on the network.
func (s *site) settle() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), settleLimit)
	defer cancel()
	for _, host := range []*simnet.Jetstream{s.host, s.other} {
		if host != nil {
			err := s.network.Await(ctx, host)
			warnings := host.Warnings()
			require.NoError(s.t, err, "the host's newest warnings: %s", warnings[max(0, len(warnings)-10):])
		}
	}
	// The server orders the events of different accounts arbitrarily, but this one comes after
	// everything that it has delivered already.
	did, err := s.network.CreateAccount()
	require.NoError(s.t, err)
	last, err := s.network.CreatePost(did, "", simnet.NewPost(s.network.Now(), "the end", "settled"))
	require.NoError(s.t, err)
	url := fmt.Sprintf("%s/v1/posts/%s/%s", s.apiURL, last.DID, last.Rkey)
	poll.Until(s.t, settleLimit, func() (bool, string) {
		for _, p := range s.programs() {
			if err := p.Alive(); err != nil {
				s.t.Fatal(err)
			}
		}
		status, body := process.Fetch(url)
		return status == 200, fmt.Sprintf("the last post: %d %s", status, body)
	})
	for _, p := range s.programs() {
		poll.Until(s.t, settleLimit, p.Ready)
	}
	// Also wait for events that ingest repeated after a reconnect.
	poll.Until(s.t, settleLimit, func() (bool, string) {
		state, err := s.streamState(ctx)
		if err != nil {
			return false, err.Error()
		}
		var seq uint64
		if err := s.super.QueryRow(ctx, "SELECT seq FROM tagstream.checkpoint").Scan(&seq); err != nil {
			return false, err.Error()
		}
		return seq == state.Last, fmt.Sprintf("checkpoint %d of %d", seq, state.Last)
	})
	// Also wait for the deny list to be applied.
	poll.Until(s.t, settleLimit, func() (bool, string) {
		var dids, tags []string
		var left int
		err := s.super.QueryRow(ctx, `SELECT ARRAY(SELECT did FROM tagstream.denied_accounts), ARRAY(SELECT name FROM tagstream.denied_tags),
			(SELECT count(*) FROM tagstream.sweeps)`).Scan(&dids, &tags, &left)
		slices.Sort(dids)
		slices.Sort(tags)
		same := err == nil && slices.Equal(dids, s.deniedDIDs) && slices.Equal(tags, s.deniedTags)
		return same && left == 0, fmt.Sprintf("denied are %v, %v and should be %v, %v; %d accounts are being swept: %v", dids, tags, s.deniedDIDs, s.deniedTags, left, err)
	})
}
