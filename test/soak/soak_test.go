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
	soakRuns = flag.Uint64("soak.runs", 3, "how many seeds TestSoak runs")
	soakSeed = flag.Uint64("soak.seed", 1, "the first of them")
	soakOnly = flag.String("soak.only", "", "instead of what the seed chooses, have every trouble once whose name has this in it")
)

const (
	troublesEach = 5
	// mendLimit is how long a trouble may take to strike and be mended.
	mendLimit = 2 * time.Minute
	// settleLimit is how long the system may take to come to rest.
	settleLimit = 2 * time.Minute
	tick        = 20 * time.Millisecond
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// TestPlansHaveEverything: as many seeds as there are troubles have all of them.
func TestPlansHaveEverything(t *testing.T) {
	missing := map[string]bool{}
	for _, m := range catalogue() {
		missing[m.kind] = true
	}
	n := len(missing)
	require.Len(t, catalogue(), n, "each has its own name")
	for seed := range n {
		for _, m := range plan(uint64(seed)) {
			delete(missing, m.kind)
		}
	}
	require.Empty(t, missing)
	t.Log(n, "troubles")
}

// TestUntroubled is a run in which nothing goes wrong: with TestSoak it tells
// what a trouble does from what is wrong without any.
func TestUntroubled(t *testing.T) {
	soak(t, build(t), *soakSeed, []maker{{kind: "nothing", make: (*site).nothing}}, &totals{})
}

func (s *site) nothing(*rand.Rand) trouble {
	return trouble{steps: []step{once(3*time.Second, func() { s.log.Add("nothing") })}}
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

// totals are those of all runs.
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
	return fmt.Sprintf("%d runs, %d events upstream, %d messages in the streams, %d requests to the API (%d while it was away), %d troubles of %d kinds, %d differences\n%s",
		s.runs, s.events, s.messages, s.asked, s.away, all, len(s.struck), s.differ, b.String())
}

// plan chooses the troubles of a seed: the first in turn, so that enough seeds
// have all, the others at random, and in every run other things are denied.
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
	for len(chosen) < troublesEach {
		if m := all[rng.IntN(len(all))]; m.fits(chosen) {
			chosen = append(chosen, m)
		}
	}
	return chosen
}

// fits reports whether the trouble can strike where those others do: what is done
// to one NATS server has no place where there is a cluster.
func (m maker) fits(others []maker) bool {
	return !slices.ContainsFunc(others, func(o maker) bool { return m.needs.cluster && o.needs.single || m.needs.single && o.needs.cluster })
}

// needsOf is what any of the troubles needs.
func needsOf(chosen []maker) (all needs) {
	for _, m := range chosen {
		all.pair, all.cluster, all.single = all.pair || m.needs.pair, all.cluster || m.needs.cluster, all.single || m.needs.single
	}
	return all
}

// soak is one run with the troubles that were chosen.
func soak(t *testing.T, bin binaries, seed uint64, chosen []maker, sum *totals) {
	begun := time.Now()
	rng := rand.New(rand.NewPCG(seed, 11))
	dir, err := os.MkdirTemp("", fmt.Sprintf("tagstream-soak-%d-", seed)) //nolint:usetesting // kept where the run fails
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o711)) // Postgres, not root, has its disks in it
	var log fault.Log
	t.Cleanup(func() {
		if !t.Failed() {
			os.RemoveAll(dir)
			return
		}
		t.Logf("what struck: %v", log.Counts())
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

	s.haveTroubles(chosen, rng)
	for _, m := range chosen {
		if log.Counts()[m.kind] == 0 && (canMount() || !strings.HasPrefix(m.kind, "disk full")) {
			t.Errorf("%q was planned and did not strike", m.kind)
		}
	}
	phase("troubles")
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
	t.Logf("seed %d: %v %v, %d events upstream, %d messages, %d requests (%d while away), troubles %v, %d differences",
		seed, time.Since(begun).Round(100*time.Millisecond), phases, events, messages, r.asked, r.away, struck, len(found))
	for _, f := range found {
		t.Error(f)
	}
}

// haveTroubles lets troubles strike one after another, as a rule before the one
// before is mended, and returns when all are.
func (s *site) haveTroubles(chosen []maker, rng *rand.Rand) {
	s.t.Helper()
	type pending struct {
		trouble
		due, deadline time.Time
	}
	var waiting, open []*pending
	at := time.Now()
	for _, m := range chosen {
		own := rand.New(rand.NewPCG(rng.Uint64(), 12))
		at = at.Add(200*time.Millisecond + time.Duration(rng.Int64N(int64(1200*time.Millisecond))))
		waiting = append(waiting, &pending{trouble: m.make(s, own), due: at})
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
		// What needs a part that another has waits for it.
		if len(waiting) > 0 && now.After(waiting[0].due) {
			next := waiting[0]
			free := !slices.ContainsFunc(open, func(o *pending) bool {
				return slices.ContainsFunc(o.uses, func(part string) bool { return slices.Contains(next.uses, part) })
			})
			if free {
				next.due, next.deadline = now, now.Add(mendLimit)
				waiting, open = waiting[1:], append(open, next)
			}
		}
		open = slices.DeleteFunc(open, func(p *pending) bool {
			for len(p.steps) > 0 && !time.Now().Before(p.due.Add(p.steps[0].after)) {
				if !p.steps[0].do() {
					if now.After(p.deadline) {
						s.t.Fatalf("%q was planned and is not over after %v; %d steps are left", p.kind, mendLimit, len(p.steps))
					}
					return false
				}
				p.due, p.steps = time.Now(), p.steps[1:]
			}
			return len(p.steps) == 0
		})
	}
}

// settle returns when everything that happened on the network can be asked for.
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
	// The server orders the events of different accounts as it likes, but this
	// one comes after all that it has put out already.
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
	// And what a reader that came back told twice.
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
	// And what the operator denies.
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
