package soak_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tagstream/tagstream/test/simnet"
)

const (
	trafficRate  = 120 // actions a second
	trafficSlice = 25  // actions between two edges
	trafficBurst = 300 // actions at once, now and then
	// syncsEach bounds the #syncs of one account: a server fetches a repository
	// five times a minute at most.
	syncsEach = 2
)

// traffic is what people do, most of it ordinary, with the edges that ordinary
// traffic is too rarely. It is used from one goroutine.
type traffic struct {
	network *simnet.Network
	seed    uint64
	rng     *rand.Rand
	slices  uint64
	syncs   map[string]int
}

func newTraffic(network *simnet.Network, seed uint64) *traffic {
	return &traffic{network: network, seed: seed, rng: rand.New(rand.NewPCG(seed, 10)), syncs: map[string]int{}}
}

// run goes on until ctx ends.
func (tr *traffic) run(ctx context.Context) error {
	for ctx.Err() == nil {
		tr.slices++
		slice := simnet.Traffic{Count: trafficSlice, Rate: trafficRate, Seed: tr.seed<<16 + tr.slices}
		if tr.rng.IntN(15) == 0 {
			slice.Count, slice.Rate = trafficBurst, 0
		}
		if err := slice.Run(ctx, tr.network); err != nil {
			return err
		}
		for range 2 {
			if err := tr.edge(); err != nil {
				return fmt.Errorf("edge after slice %d: %w", tr.slices, err)
			}
		}
	}
	return nil
}

// active are the accounts that can write.
func (tr *traffic) active() (dids []string) {
	away := map[string]bool{}
	for _, e := range tr.network.Log() {
		if e.Kind == simnet.KindAccount {
			away[e.DID] = !e.Active
		}
	}
	for _, did := range tr.network.DIDs() {
		if !away[did] {
			dids = append(dids, did)
		}
	}
	return dids
}

func (tr *traffic) post(at time.Time, tags ...string) map[string]any {
	return simnet.NewPost(at, fmt.Sprint("an edge, ", tr.rng.IntN(1_000_000)), tags...)
}

// edge does one thing that is rare.
func (tr *traffic) edge() error {
	dids := tr.active()
	if len(dids) < 5 {
		_, err := tr.network.CreateAccount()
		return err
	}
	did := dids[tr.rng.IntN(len(dids))]
	now := tr.network.Now()
	switch tr.rng.IntN(9) {
	case 0:
		return tr.recreate(did, now)
	case 1:
		return tr.leaveAndEnter(did, now)
	case 2:
		return tr.goAndComeBack(did, now)
	case 3:
		_, err := tr.network.SetAccountStatus(did, false, pick(tr.rng, "throttled", "desynchronized"))
		if err != nil {
			return err
		}
		_, err = tr.network.SetAccountStatus(did, true, "")
		return err
	case 4:
		return tr.sync(did, now)
	case 5:
		kinds := simnet.Malformations()
		_, err := tr.network.CreateMalformed(did, kinds[tr.rng.IntN(len(kinds))])
		return err
	case 6:
		return tr.ties(dids, now)
	case 7:
		at := pick(tr.rng, now.AddDate(-3, 0, 0), now.Add(time.Hour), now.AddDate(5, 0, 0), time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC))
		_, err := tr.network.CreatePost(did, "", tr.post(at, "art", "time"))
		return err
	default:
		return tr.mixed(did, now)
	}
}

// recreate deletes a post and makes others under its key, at once.
func (tr *traffic) recreate(did string, now time.Time) error {
	p, err := tr.network.CreatePost(did, "", tr.post(now, "art", "first"))
	for range 1 + tr.rng.IntN(3) {
		if err != nil {
			return err
		}
		if _, err = tr.network.DeletePost(did, p.Rkey); err != nil {
			return err
		}
		_, err = tr.network.CreatePost(did, p.Rkey, tr.post(now, "photo", "again"))
	}
	if err == nil && tr.rng.IntN(3) == 0 {
		_, err = tr.network.DeletePost(did, p.Rkey)
	}
	return err
}

// leaveAndEnter edits a post out of the index and, most times, in again.
func (tr *traffic) leaveAndEnter(did string, now time.Time) error {
	p, err := tr.network.CreatePost(did, "", tr.post(now, "art", "edited"))
	if err != nil {
		return err
	}
	if _, err = tr.network.UpdatePost(did, p.Rkey, tr.post(now)); err != nil {
		return err
	}
	if tr.rng.IntN(4) > 0 {
		_, err = tr.network.UpdatePost(did, p.Rkey, tr.post(now.Add(-time.Hour), "photo"))
	}
	return err
}

// goAndComeBack hides or erases an account that has posts.
func (tr *traffic) goAndComeBack(did string, now time.Time) error {
	if _, err := tr.network.CreatePost(did, "", tr.post(now, "art", "goes")); err != nil {
		return err
	}
	status := pick(tr.rng, "deactivated", "suspended", "takendown", "on-leave", "", "deleted")
	if _, err := tr.network.SetAccountStatus(did, false, status); err != nil {
		return err
	}
	if tr.rng.IntN(3) == 0 {
		return nil // ordinary traffic may bring it back, unless it was deleted
	}
	if _, err := tr.network.SetAccountStatus(did, true, ""); err != nil {
		return err
	}
	_, err := tr.network.CreatePost(did, "", tr.post(now, "art", "back"))
	return err
}

// sync rewrites a repository behind everybody's back.
func (tr *traffic) sync(did string, now time.Time) error {
	if tr.syncs[did]++; tr.syncs[did] > syncsEach {
		return nil
	}
	_, err := tr.network.Sync(did,
		simnet.Op{Action: simnet.Create, Record: tr.post(now, "art", "sync")},
		simnet.Op{Action: simnet.Create, Record: tr.post(now)})
	return err
}

// ties are posts of one moment.
func (tr *traffic) ties(dids []string, now time.Time) error {
	at := now.Truncate(time.Second)
	for range 4 {
		if _, err := tr.network.CreatePost(dids[tr.rng.IntN(len(dids))], "", tr.post(at, "art", "tie")); err != nil {
			return err
		}
	}
	return nil
}

// mixed changes several posts in one commit.
func (tr *traffic) mixed(did string, now time.Time) error {
	a, err := tr.network.CreatePost(did, "", tr.post(now, "art", "mixed"))
	if err != nil {
		return err
	}
	b, err := tr.network.CreatePost(did, "", tr.post(now, "photo", "mixed"))
	if err != nil {
		return err
	}
	_, err = tr.network.Commit(did,
		simnet.Op{Action: simnet.Delete, Rkey: a.Rkey},
		simnet.Op{Action: simnet.Create, Record: tr.post(now, "art", "one", "commit")},
		simnet.Op{Action: simnet.Update, Rkey: b.Rkey, Record: tr.post(now, "art")})
	return err
}

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }
