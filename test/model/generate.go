package model

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// Generate returns a history of at least n events, the same for the same
// seed, that is full of edges: few posts that come and go under the same keys,
// revs that repeat and go back, stretches replayed, every account status in
// any order and from hosts whose clocks are wrong, syncs of every kind, ties and
// oddities of time, odd tags. It ends with a position message, which ends a sync
// before it. event.Decode accepts each event; ingest could not have produced every
// sequence of them.
func Generate(seed uint64, n int) []*event.Event {
	return generate(seed, n, false)
}

// GenerateMessages is Generate encoded, with messages among the others that
// event.Decode refuses.
func GenerateMessages(seed uint64, n int) [][]byte {
	rng := rand.New(rand.NewPCG(seed, 2))
	var messages [][]byte
	for _, e := range Generate(seed, n) {
		if rng.IntN(25) == 0 {
			messages = append(messages, brokenMessage(rng, e))
		}
		messages = append(messages, mustEncode(e))
	}
	return messages
}

func mustEncode(e *event.Event) []byte {
	data, err := e.Encode()
	if err != nil {
		panic(fmt.Sprintf("model: %v", err))
	}
	return data
}

// brokenMessage is one that no reader can apply, made from e where that helps.
func brokenMessage(rng *rand.Rand, e *event.Event) []byte {
	bad := *e
	switch rng.IntN(6) {
	case 0:
		return []byte(`{"v":1,"kind":"create"`)
	case 1:
		return []byte(strings.Replace(string(mustEncode(e)), `"v":1`, `"v":999`, 1))
	case 2:
		return []byte("\x00\xff")
	case 3:
		bad.Kind = "rename"
	case 4:
		bad.Source.Host = ""
	default:
		bad.Kind, bad.DID, bad.Rkey, bad.Rev = event.KindDelete, "did:plc:x", "a/b", tid(1)
	}
	return mustEncode(&bad)
}

// generateOrdered is Generate with histories such as one host's own: revs and
// times go forward, nothing comes twice, and no posts of a deleted account.
func generateOrdered(seed uint64, n int) []*event.Event {
	return generate(seed, n, true)
}

func generate(seed uint64, n int, ordered bool) []*event.Event {
	g := &generator{
		rng:     rand.New(rand.NewPCG(seed, 1)),
		ordered: ordered,
		host:    "https://jetstream.one.example",
		now:     time.Date(2026, 8, 20, 12, 0, 0, 0, time.UTC),
		rev:     1_700_000_000_000_000,
	}
	for i := range 2 + g.rng.IntN(5) + n/200 {
		g.accounts = append(g.accounts, newGenAccount(i))
	}
	for len(g.events) < n {
		g.step()
	}
	g.emit(event.Event{Kind: event.KindPosition, Sync: event.SyncOver})
	return g.events
}

type generator struct {
	rng      *rand.Rand
	ordered  bool
	host     string
	seq      uint64
	network  uint64 // the network's own sequence number
	still    bool   // the host's clock stands
	now      time.Time
	rev      uint64
	accounts []*genAccount
	events   []*event.Event
}

type genAccount struct {
	did     string
	keys    []string
	here    map[string]bool // keys whose last event was a create or update
	lastRev uint64
	syncRev uint64
	away    bool
	deleted bool
}

func newGenAccount(i int) *genAccount {
	a := &genAccount{did: fmt.Sprintf("did:plc:%024d", i), here: map[string]bool{}}
	if i%3 == 2 {
		a.did = fmt.Sprintf("did:web:host%d.example%%3A8443", i)
	}
	for k := range 7 {
		a.keys = append(a.keys, tid(1_600_000_000_000_000+uint64(i*1000+k)))
	}
	a.keys = append(a.keys, "self", "a.b:c~d_-9", strings.Repeat("k", 512))
	return a
}

// tid is the TID of a time in microseconds.
func tid(micros uint64) string {
	const alphabet = "234567abcdefghijklmnopqrstuvwxyz"
	v := micros << 10
	var b [13]byte
	for i := 12; i >= 0; i-- {
		b[i] = alphabet[v&31]
		v >>= 5
	}
	return string(b[:])
}

func (g *generator) chance(percent int) bool { return g.rng.IntN(100) < percent }

func (g *generator) account() *genAccount {
	if g.chance(40) {
		return g.accounts[0]
	}
	return g.accounts[g.rng.IntN(len(g.accounts))]
}

// key prefers posts that are in the index, where present is set, or are not.
func (g *generator) key(a *genAccount, present bool) string {
	key := a.keys[g.rng.IntN(len(a.keys))]
	for range 3 {
		if a.here[key] == present {
			break
		}
		key = a.keys[g.rng.IntN(len(a.keys))]
	}
	return key
}

// newRev is greater than every rev before; where revs need not be in order,
// sometimes it is one that the account had, or one near it.
func (g *generator) newRev(a *genAccount) uint64 {
	if !g.ordered && g.chance(12) && a.lastRev != 0 {
		return a.lastRev + uint64(g.rng.IntN(3)) - uint64(g.rng.IntN(6))
	}
	g.rev += 1 + uint64(g.rng.IntN(3))
	a.lastRev = g.rev
	return g.rev
}

// emit gives the event its source position and appends it.
func (g *generator) emit(e event.Event) {
	switch {
	case g.still:
	case g.chance(50):
		g.now = g.now.Add(time.Duration(g.rng.IntN(3_000_000)) * time.Microsecond)
	case g.chance(50):
		g.now = g.now.Add(time.Microsecond)
	}
	g.seq += 1 + uint64(g.rng.IntN(3))
	e.Source = event.Position{Host: g.host, Seq: g.seq, Time: g.now}
	if e.Kind == event.KindAccount && (g.ordered || g.chance(60)) {
		g.network += 1 + uint64(g.rng.IntN(3))
		e.Upstream = &event.Upstream{Seq: g.network, Time: g.now}
		// One host stamps it late, another's clock is behind.
		e.Source.Time = g.now.Add(time.Duration(g.rng.IntN(81)-40) * time.Second)
	}
	e.V = event.Version
	g.events = append(g.events, &e)
}

// stamp gives an account event other times and numbers: those that it is ordered by,
// and those of a host that has nothing to do with them, where it has both.
func (g *generator) stamp(e *event.Event, at time.Time, seq uint64) {
	if e.Upstream == nil {
		e.Source.Time, e.Source.Seq = at, seq
		return
	}
	e.Upstream = &event.Upstream{Seq: seq, Time: at}
	e.Source.Time = at.Add(time.Duration(g.rng.IntN(5)-2) * time.Second)
}

func (g *generator) step() {
	a := g.account()
	// Upstream, an account that was deleted has no posts until it is active again.
	if a.away && (g.chance(20) || g.ordered && a.deleted) {
		a.away, a.deleted = false, false
		g.emit(event.Event{Kind: event.KindAccount, DID: a.did, Active: true})
	}
	switch p := g.rng.IntN(100); {
	case p < 34:
		g.put(event.KindCreate, a, g.key(a, false), g.newRev(a))
	case p < 46:
		g.put(event.KindUpdate, a, g.key(a, true), g.newRev(a))
	case p < 51:
		g.gone(event.KindRemove, a, g.key(a, true), g.newRev(a))
	case p < 58:
		g.gone(event.KindDelete, a, g.key(a, !g.chance(20)), g.newRev(a))
	case p < 63:
		g.recreate(a)
	case p < 67:
		g.commit(a)
	case p < 74:
		g.status(a)
	case p < 80:
		g.resync(a)
	case p < 84:
		g.position()
	case g.ordered:
	case p < 85:
		g.emitAgain(len(g.events)-1, len(g.events))
	case p < 88:
		g.late()
	case p < 90:
		from := g.rng.IntN(len(g.events) + 1)
		g.emitAgain(from, min(len(g.events), from+1+g.rng.IntN(20)))
	default:
		g.scene()
	}
}

func (g *generator) position() {
	g.emit(event.Event{Kind: event.KindPosition, Sync: pick(g.rng, event.SyncOver, event.SyncOver, event.SyncOpen, "", "")})
}

// gone emits a removal or a deletion.
func (g *generator) gone(kind event.Kind, a *genAccount, key string, rev uint64) {
	delete(a.here, key)
	g.emit(event.Event{Kind: kind, DID: a.did, Rkey: key, Rev: tid(rev)})
}

// recreate deletes a post and creates another under its key, at once.
func (g *generator) recreate(a *genAccount) {
	key, rev := g.key(a, true), g.newRev(a)
	g.gone(pick(g.rng, event.KindDelete, event.KindRemove), a, key, rev)
	if !g.chance(15) || g.ordered {
		rev = g.newRev(a)
	}
	g.put(pick(g.rng, event.KindCreate, event.KindUpdate), a, key, rev)
	if g.chance(30) {
		g.gone(event.KindDelete, a, key, g.newRev(a))
	}
}

// commit changes several posts at one rev.
func (g *generator) commit(a *genAccount) {
	rev := g.newRev(a)
	first := g.rng.IntN(len(a.keys))
	for i := range 2 + g.rng.IntN(3) {
		key := a.keys[(first+i)%len(a.keys)]
		switch g.rng.IntN(3) {
		case 0:
			g.gone(event.KindDelete, a, key, rev)
		case 1:
			g.put(event.KindUpdate, a, key, rev)
		default:
			g.put(event.KindCreate, a, key, rev)
		}
	}
}

// status emits an account event, or two at nearly one time.
func (g *generator) status(a *genAccount) {
	e := event.Event{Kind: event.KindAccount, DID: a.did}
	e.Status = pick(g.rng, "deleted", "deactivated", "suspended", "takendown", "on-leave", "", "throttled", "desynchronized")
	switch {
	case a.away && g.chance(70):
		e.Active, e.Status = true, ""
	case g.chance(15):
		e.Active = true // and a status: the first counts
	}
	if e.Status != "throttled" && e.Status != "desynchronized" {
		a.away, a.deleted = !e.Active, !e.Active && e.Status == "deleted"
		if a.deleted {
			clear(a.here)
		}
	}
	g.emit(e)
	if a.away && g.chance(60) && !(g.ordered && a.deleted) {
		g.put(event.KindCreate, a, g.key(a, false), g.newRev(a))
	}
	last := g.events[len(g.events)-1]
	if g.ordered || !g.chance(25) || last.Kind != event.KindAccount {
		return
	}
	// The opposite, at the same time or earlier, and with a sequence number
	// before or after.
	again := *last
	again.Active, again.Status = !again.Active, pick(g.rng, "", "suspended", "deleted")
	at, seq := last.Source.Time, last.Source.Seq
	if last.Upstream != nil {
		at, seq = last.Upstream.Time, last.Upstream.Seq
	}
	g.stamp(&again, at.Add(-time.Duration(g.rng.IntN(2))*time.Second), seq+uint64(g.rng.IntN(3))-1)
	g.events = append(g.events, &again)
}

// resync emits a sync and some of what follows it.
func (g *generator) resync(a *genAccount) {
	rev := g.newRev(a)
	if !g.ordered {
		switch g.rng.IntN(6) {
		case 0:
			rev += 2 // the account's next revs are older
		case 1:
			rev = max(a.syncRev, 1)
		}
	}
	a.syncRev = rev
	g.still = g.chance(30) // a host that stamps all of it at once
	g.emit(event.Event{Kind: event.KindSync, DID: a.did, Rev: tid(rev)})
	repo := rev // of the repository as it is fetched
	if g.chance(40) {
		repo = max(g.newRev(a), rev)
	}
	before := a.here
	a.here = map[string]bool{}
	stop := g.rng.IntN(2 * len(a.keys))
	for i, key := range a.keys {
		switch {
		case i == stop && g.chance(40):
			g.restart(a)
		case i == stop && !g.ordered:
			g.interrupt(a, key, repo)
		case before[key] && g.chance(70), g.chance(10):
			g.put(event.KindCreate, a, key, repo)
		}
	}
	if g.chance(40) { // the account goes on at once
		for range 1 + g.rng.IntN(3) {
			g.put(pick(g.rng, event.KindCreate, event.KindCreate, event.KindUpdate), a, g.key(a, false), g.newRev(a))
		}
	}
	g.still = false
}

// restart is a writer that stops within a sync, and another that starts.
func (g *generator) restart(a *genAccount) {
	for range 1 + g.rng.IntN(2) {
		g.emit(event.Event{Kind: event.KindPosition, Sync: event.SyncOpen})
	}
	if !g.ordered && g.chance(20) { // it begins with the sync
		g.emit(event.Event{Kind: event.KindSync, DID: a.did, Rev: tid(a.syncRev)})
	}
}

// interrupt emits something that does not belong to the sync under way.
func (g *generator) interrupt(a *genAccount, key string, rev uint64) {
	switch g.rng.IntN(9) {
	case 0, 1, 2, 3:
		g.position()
	case 4:
		g.gone(event.KindDelete, a, key, rev)
	case 5:
		g.put(pick(g.rng, event.KindCreate, event.KindUpdate), a, key, rev+1)
	case 6:
		g.put(pick(g.rng, event.KindCreate, event.KindUpdate), a, key, rev-1)
	case 7:
		g.put(event.KindUpdate, a, key, rev)
	default:
		b := g.account()
		g.put(event.KindCreate, b, g.key(b, false), g.newRev(b))
	}
}

// emitAgain replays events[from:to]: as they were, from another host at the
// same times, or as new ones.
func (g *generator) emitAgain(from, to int) {
	if from < 0 || from >= to {
		return
	}
	stretch := slices.Clone(g.events[from:to])
	how := g.rng.IntN(3)
	if how == 1 {
		g.host = pick(g.rng, "https://jetstream.one.example", "https://jetstream.two.example")
	}
	for _, old := range stretch {
		e := *old
		switch how {
		case 0:
			g.events = append(g.events, &e)
		case 1:
			g.seq++
			e.Source.Host, e.Source.Seq = g.host, g.seq
			g.events = append(g.events, &e)
		default:
			g.emit(e)
		}
	}
}

// late emits an event that is older than what came of its account.
func (g *generator) late() {
	a := g.account()
	rev := a.lastRev - uint64(g.rng.IntN(60))
	if a.lastRev == 0 {
		return
	}
	switch key := g.key(a, g.chance(50)); g.rng.IntN(4) {
	case 0:
		g.gone(event.KindDelete, a, key, rev)
	case 1:
		g.gone(event.KindRemove, a, key, rev)
	case 2:
		g.put(event.KindUpdate, a, key, rev)
	default:
		g.put(event.KindCreate, a, key, rev)
	}
}

// scene plays a short history of one more account, of very few keys, revs and
// times in any order: about posts, about the account's events in order or not,
// or about its syncs. Nothing but a replay comes to that account later, so what
// an event did is seen at the end.
func (g *generator) scene() {
	a := newGenAccount(1_000 + len(g.events))
	a.keys = a.keys[:2]
	low, start, seq := g.rev, g.now, g.seq
	g.rev += 10
	about := g.rng.IntN(4)
	for i := range 5 + g.rng.IntN(10) {
		key, rev := pick(g.rng, a.keys...), low+1+uint64(g.rng.IntN(6))
		switch p := g.rng.IntN(100); {
		case i == 0:
			g.put(event.KindCreate, a, a.keys[0], low+3)
		case i == 1 && about == 3 && g.chance(50): // its removal is the newest of what is erased
			g.gone(event.KindDelete, a, a.keys[0], low+5)
			g.emit(event.Event{Kind: event.KindAccount, DID: a.did, Status: "deleted"})
		case about == 1 && p < 65:
			e := event.Event{Kind: event.KindAccount, DID: a.did, Active: g.chance(50)}
			if !e.Active || g.chance(30) {
				e.Status = pick(g.rng, "deleted", "suspended", "on-leave", "throttled", "desynchronized")
			}
			g.emit(e)
			g.stamp(g.events[len(g.events)-1], start.Add(time.Duration(g.rng.IntN(2))*time.Second), seq+1+uint64(g.rng.IntN(4)))
		case about == 3 && p < 40:
			g.emit(pick(g.rng,
				event.Event{Kind: event.KindAccount, DID: a.did, Active: true},
				event.Event{Kind: event.KindAccount, DID: a.did, Active: true, Status: "desynchronized"},
				event.Event{Kind: event.KindAccount, DID: a.did, Status: "deleted"},
				event.Event{Kind: event.KindAccount, DID: a.did, Status: "takendown"}))
		case about == 2 && p < 10:
			g.position()
		case about == 2 && p < 40:
			g.emit(event.Event{Kind: event.KindSync, DID: a.did, Rev: tid(rev)})
		case p < 50+10*about:
			g.put(pick(g.rng, event.KindCreate, event.KindCreate, event.KindUpdate), a, key, rev)
		default:
			g.gone(pick(g.rng, event.KindDelete, event.KindDelete, event.KindRemove), a, key, rev)
		}
	}
	if about == 3 { // what came of the account is seen
		g.emit(event.Event{Kind: event.KindAccount, DID: a.did, Active: true})
	}
}

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }
