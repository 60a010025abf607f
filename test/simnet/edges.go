package simnet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// syncsEach bounds the #syncs of one account: a server fetches a repository at most five times a
// minute.
const syncsEach = 2

// Edges generates edge cases that are too rare in ordinary traffic: posts recreated immediately
// under the key of a deleted one; edits out of the index and back; every account status; #sync;
// malformed records; ties; times long ago and in the future; commits of several posts; media and
// labels, also changed by edits. Its actions follow from its seed and from the state of the
// network. It is not safe for concurrent use.
type Edges struct {
	// DeletedStay prevents deleted accounts from returning. It is for servers that are killed: a
	// killed server may repeat old events with new times, so a deletion would follow events that
	// came after it.
	DeletedStay bool

	network *Network
	rng     *rand.Rand
	syncs   map[string]int // by account, including those by others
}

// NewEdges returns a generator of edge cases for a network.
func NewEdges(n *Network, seed uint64) *Edges {
	return &Edges{network: n, rng: rand.New(rand.NewPCG(seed, 10)), syncs: map[string]int{}}
}

// Act does one of the edge cases.
func (e *Edges) Act() error {
	dids := e.active()
	if len(dids) < 5 {
		_, err := e.network.CreateAccount()
		return err
	}
	did := dids[e.rng.IntN(len(dids))]
	now := e.network.Now()
	switch e.rng.IntN(11) {
	case 0:
		return e.recreate(did, now)
	case 1:
		return e.leaveAndReturn(did, now)
	case 2:
		return e.deactivateAndReturn(did, now)
	case 3:
		return e.noChange(did)
	case 4:
		return e.sync(did, now)
	case 5:
		_, err := e.network.CreateMalformed(did, choose(e.rng, Malformations()...))
		return err
	case 6:
		return e.ties(dids, now)
	case 7:
		at := choose(e.rng, now.AddDate(-3, 0, 0), now.Add(time.Hour), now.AddDate(5, 0, 0), time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC))
		_, err := e.network.CreatePost(did, "", e.post(at, "art", "time"))
		return err
	case 8, 9:
		return e.editRandomPost(did, now)
	default:
		return e.mixed(did, now)
	}
}

// active returns the accounts that can write.
func (e *Edges) active() (dids []string) {
	away := map[string]bool{}
	clear(e.syncs)
	for _, entry := range e.network.Log() {
		switch entry.Kind {
		case KindAccount:
			away[entry.DID] = !entry.Active
		case KindSync:
			e.syncs[entry.DID]++
		}
	}
	for _, did := range e.network.DIDs() {
		if !away[did] {
			dids = append(dids, did)
		}
	}
	return dids
}

// post returns a post with random media and labels.
func (e *Edges) post(at time.Time, tags ...string) map[string]any {
	record := NewPost(at, fmt.Sprint("an edge, ", e.rng.IntN(1_000_000)), tags...)
	of := func(kind string) map[string]any { return map[string]any{"$type": "app.bsky.embed." + kind} }
	switch kind := choose(e.rng, "", "", "images", "video", "gallery", "external", "record", "recordWithMedia"); kind {
	case "":
	case "recordWithMedia":
		both := of(kind)
		both["record"], both["media"] = of("record"), of(choose(e.rng, "images", "video", "external"))
		record["embed"] = both
	default:
		record["embed"] = of(kind)
	}
	if n := e.rng.IntN(4); n < 2 {
		labels := []any{map[string]any{"val": "nudity"}}
		record["labels"] = map[string]any{"$type": "com.atproto.label.defs#selfLabels", "values": labels[:n]}
	}
	return record
}

// editRandomPost edits a random post of an account, once or several times: its tags, media and
// labels.
func (e *Edges) editRandomPost(did string, now time.Time) error {
	records, err := e.network.Records(did)
	if err != nil {
		return err
	}
	records = slices.DeleteFunc(records, func(r OpResult) bool { return r.Collection != PostCollection })
	if len(records) == 0 {
		_, err = e.network.CreatePost(did, "", e.post(now, "art", "dressed"))
		return err
	}
	for range 1 + e.rng.IntN(2) {
		tags := []string{"art", "photo", "dressed", "one", "more"}
		if _, err = e.network.UpdatePost(did, choose(e.rng, records...).Rkey, e.post(now, tags[:1+e.rng.IntN(len(tags))]...)); err != nil {
			return err
		}
	}
	return nil
}

// recreate deletes a post and immediately creates others under its key.
func (e *Edges) recreate(did string, now time.Time) error {
	p, err := e.network.CreatePost(did, "", e.post(now, "art", "first"))
	for range 1 + e.rng.IntN(3) {
		if err != nil {
			return err
		}
		if _, err = e.network.DeletePost(did, p.Rkey); err != nil {
			return err
		}
		_, err = e.network.CreatePost(did, p.Rkey, e.post(now, "photo", "again"))
	}
	if err == nil && e.rng.IntN(3) == 0 {
		_, err = e.network.DeletePost(did, p.Rkey)
	}
	return err
}

// leaveAndReturn edits a post out of the index and usually back in.
func (e *Edges) leaveAndReturn(did string, now time.Time) error {
	p, err := e.network.CreatePost(did, "", e.post(now, "art", "edited"))
	if err != nil {
		return err
	}
	if _, err = e.network.UpdatePost(did, p.Rkey, e.post(now)); err != nil {
		return err
	}
	if e.rng.IntN(4) > 0 {
		_, err = e.network.UpdatePost(did, p.Rkey, e.post(now.Add(-time.Hour), "photo"))
	}
	return err
}

// deactivateAndReturn hides or erases an account with posts, and usually reactivates it.
func (e *Edges) deactivateAndReturn(did string, now time.Time) error {
	if _, err := e.network.CreatePost(did, "", e.post(now, "art", "goes")); err != nil {
		return err
	}
	statuses := []string{"deactivated", "suspended", "takendown", "on-leave", "", "deleted"}
	if e.syncs[did] > 0 {
		// A server fetches the repository for a #sync some time later, and delivers a deletion from
		// before the fetch only after it. Consumers of the server cannot know which of the two is
		// newer.
		statuses = statuses[:len(statuses)-1]
	}
	status := choose(e.rng, statuses...)
	if _, err := e.network.SetAccountStatus(did, false, status); err != nil {
		return err
	}
	if e.rng.IntN(3) == 0 || status == "deleted" && e.DeletedStay {
		return nil // ordinary traffic may reactivate it, unless it was deleted
	}
	if _, err := e.network.SetAccountStatus(did, true, ""); err != nil {
		return err
	}
	_, err := e.network.CreatePost(did, "", e.post(now, "art", "back"))
	return err
}

// noChange gives an account a status that hides nothing, and removes it again.
func (e *Edges) noChange(did string) error {
	if _, err := e.network.SetAccountStatus(did, false, choose(e.rng, "throttled", "desynchronized")); err != nil {
		return err
	}
	_, err := e.network.SetAccountStatus(did, true, "")
	return err
}

// sync rewrites a repository and announces only the result.
func (e *Edges) sync(did string, now time.Time) error {
	if e.syncs[did] >= syncsEach {
		return nil
	}
	_, err := e.network.Sync(did,
		Op{Action: Create, Record: e.post(now, "art", "sync")},
		Op{Action: Create, Record: e.post(now)})
	return err
}

// ties creates posts with the same time.
func (e *Edges) ties(dids []string, now time.Time) error {
	at := now.Truncate(time.Second)
	for range 4 {
		if _, err := e.network.CreatePost(choose(e.rng, dids...), "", e.post(at, "art", "tie")); err != nil {
			return err
		}
	}
	return nil
}

// mixed changes several posts in one commit.
func (e *Edges) mixed(did string, now time.Time) error {
	a, err := e.network.CreatePost(did, "", e.post(now, "art", "mixed"))
	if err != nil {
		return err
	}
	b, err := e.network.CreatePost(did, "", e.post(now, "photo", "mixed"))
	if err != nil {
		return err
	}
	_, err = e.network.Commit(did,
		Op{Action: Delete, Rkey: a.Rkey},
		Op{Action: Create, Record: e.post(now, "art", "one", "commit")},
		Op{Action: Update, Rkey: b.Rkey, Record: e.post(now, "art")})
	return err
}

func choose[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }
