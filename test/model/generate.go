package model

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// Generate returns a history of at least n events that is full of edge cases and depends only on
// the seed: few posts that come and go under the same keys, revs that repeat and go back, replayed
// stretches, every account status in any order and from hosts with wrong clocks, syncs of every
// kind, ties and odd times, odd tags. It ends with a position message, which ends any open sync.
// event.Decode accepts each event, but ingest could not have produced every sequence of them.
func Generate(seed uint64, n int) []*event.Event {
	g := &generator{rng: rand.New(rand.NewPCG(seed, 1)), host: "https://jetstream.one.example", now: time.Date(2026, 8, 20, 12, 0, 0, 0, time.UTC), rev: 1_700_000_000_000_000}
	for i := range 2 + g.rng.IntN(5) + n/200 {
		g.accounts = append(g.accounts, newGenAccount(i))
	}
	for len(g.events) < n {
		g.step()
	}
	g.emit(event.Event{Kind: event.KindPosition, Sync: event.SyncOver})
	return g.events
}

// GenerateMessages returns the encoded events of Generate, mixed with messages that event.Decode
// refuses.
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

// brokenMessage returns a message that no reader can apply, some made from e.
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

const otherHost = "https://jetstream.two.example"

type generator struct {
	rng      *rand.Rand
	host     string
	seq      uint64 // the host's
	network  uint64 // the network's own sequence number
	now      time.Time
	still    bool // the host's clock does not advance
	rev      uint64
	accounts []*genAccount
	events   []*event.Event
}

type genAccount struct {
	did     string
	keys    []string
	lastRev uint64
	syncRev uint64
	away    bool
	revs    uint64 // if set, all revs are among the six from here on, in any order
}

func newGenAccount(i int) *genAccount {
	a := &genAccount{did: fmt.Sprintf("did:plc:%024d", i)}
	if i%3 == 2 {
		a.did = fmt.Sprintf("did:web:host%d.example%%3A8443", i)
	}
	for k := range 5 {
		a.keys = append(a.keys, tid(1_600_000_000_000_000+uint64(i*1000+k)))
	}
	a.keys = append(a.keys, "self", "a.b:c~d_-9", strings.Repeat("k", 512))
	return a
}

// tid returns the TID of a time in microseconds.
func tid(micros uint64) string {
	const alphabet = "234567abcdefghijklmnopqrstuvwxyz"
	var b [13]byte
	for i, v := 12, micros<<10; i >= 0; i, v = i-1, v>>5 {
		b[i] = alphabet[v&31]
	}
	return string(b[:])
}

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

func (g *generator) chance(percent int) bool { return g.rng.IntN(100) < percent }

// newRev returns a rev that is mostly greater than all before, and sometimes one that the account
// had, or a neighbor of it.
func (g *generator) newRev(a *genAccount) uint64 {
	switch {
	case a.revs != 0:
		return a.revs + uint64(g.rng.IntN(6))
	case g.chance(12) && a.lastRev != 0:
		return a.lastRev + uint64(g.rng.IntN(3)) - uint64(g.rng.IntN(6))
	}
	g.rev += 1 + uint64(g.rng.IntN(3))
	a.lastRev = g.rev
	return g.rev
}

// emit appends an event, with its source position and a status's order.
func (g *generator) emit(e event.Event) {
	if !g.still {
		g.now = g.now.Add(time.Duration(pick(g.rng, 0, 1, g.rng.IntN(3_000_000), g.rng.IntN(3_000_000))) * time.Microsecond)
	}
	g.seq += 1 + uint64(g.rng.IntN(3))
	e.V, e.Source = event.Version, event.Position{Host: g.host, Seq: g.seq, Time: g.now}
	if e.Kind == event.KindAccount {
		if g.chance(60) {
			g.network += 1 + uint64(g.rng.IntN(3))
			e.Upstream = &event.Upstream{Seq: g.network, Time: g.now}
			// One host stamps events late, another's clock is slow.
			e.Source.Time = g.now.Add(time.Duration(g.rng.IntN(81)-40) * time.Second)
			if g.chance(15) { // the network's clock stepped back
				e.Upstream.Time = g.now.Add(-time.Duration(g.rng.IntN(60)) * time.Second)
			}
		}
		if g.chance(25) {
			e.Source.Host = otherHost
		}
	}
	g.events = append(g.events, &e)
}

func (g *generator) step() {
	a := pick(g.rng, g.accounts...)
	if g.chance(40) {
		a = g.accounts[0]
	}
	switch p := g.rng.IntN(100); {
	case p < 75:
		g.change(a)
	case p < 81:
		g.resync(a)
	case p < 86:
		g.replay()
	default:
		g.scene()
	}
}

// change changes an account, one of its posts, or several posts at one rev.
func (g *generator) change(a *genAccount) {
	if a.away && g.chance(30) {
		a.away = false
		g.emit(event.Event{Kind: event.KindAccount, DID: a.did, Active: true})
	}
	rev := g.newRev(a)
	for {
		key := pick(g.rng, a.keys...)
		switch p := g.rng.IntN(100); {
		case p < 40:
			g.put(event.KindCreate, a, key, rev)
		case p < 56:
			g.put(event.KindUpdate, a, key, rev)
		case p < 74:
			g.gone(a, key, rev)
		case p < 80: // deleted and recreated
			g.gone(a, key, rev)
			g.put(pick(g.rng, event.KindCreate, event.KindUpdate), a, key, g.newRev(a))
		case p < 88:
			g.status(a)
		case p < 92:
			g.author(a, rev)
		default:
			g.position()
		}
		if g.chance(80) {
			return
		}
	}
}

func (g *generator) gone(a *genAccount, key string, rev uint64) {
	g.emit(event.Event{Kind: pick(g.rng, event.KindDelete, event.KindDelete, event.KindRemove), DID: a.did, Rkey: key, Rev: tid(rev)})
}

func (g *generator) position() {
	g.emit(event.Event{Kind: event.KindPosition, Sync: pick(g.rng, event.SyncOver, event.SyncOver, event.SyncOpen, "", "")})
}

func (g *generator) status(a *genAccount) {
	e := event.Event{Kind: event.KindAccount, DID: a.did, Active: g.chance(40)}
	if !e.Active || g.chance(30) { // the status of an active account is ignored
		e.Status = pick(g.rng, "deleted", "deleted", "deactivated", "suspended", "takendown", "on-leave", "", "throttled", "desynchronized")
	}
	a.away = !e.Active
	g.emit(e)
	if a.revs == 0 && !g.chance(10) {
		return
	}
	// It arrives late, or with the time of a previous one.
	last := g.events[len(g.events)-1]
	at, seq := g.now.Add(-time.Duration(g.rng.IntN(3))*time.Second).Truncate(time.Second), uint64(1+g.rng.IntN(4))
	if last.Upstream != nil {
		last.Upstream = &event.Upstream{Seq: seq, Time: at}
	} else {
		last.Source.Time, last.Source.Seq = at, seq
	}
	if g.chance(30) { // from a host that started over, or from its past
		last.Source.Seq = uint64(1 + g.rng.IntN(4))
	}
}

// author emits a profile, which sometimes opts out, a handle, or both.
func (g *generator) author(a *genAccount, rev uint64) {
	e := event.Event{Kind: event.KindAuthor, DID: a.did}
	if g.chance(70) {
		e.Rev, e.Profile = tid(rev), &event.Profile{DisplayName: pick(g.rng, "", "Alice", "漢字 🏳️‍🌈", "<b>&"), OptedOut: g.chance(30)}
		if g.chance(70) {
			e.Profile.Avatar = fmt.Sprintf("bafkrei%d", g.rng.IntN(9))
		}
	}
	if e.Profile == nil || g.chance(30) {
		e.Handle = &event.Handle{Name: pick(g.rng, "", "alice.example", "bob.example"), Time: g.now.Add(-time.Duration(g.rng.IntN(3)) * time.Second)}
	}
	g.emit(e)
}

// resync emits a sync and a part of the repository, at the sync's rev or a later one, sometimes
// with other events in between.
func (g *generator) resync(a *genAccount) {
	rev := pick(g.rng, g.newRev(a), g.newRev(a), g.newRev(a)+2, max(a.syncRev, 1))
	repo := pick(g.rng, rev, rev, max(g.newRev(a), rev))
	a.syncRev = rev
	g.still = g.chance(30) // a host that stamps all of it with one time
	state := pick(g.rng, event.SyncOpen, "")
	g.emit(event.Event{Kind: event.KindSync, DID: a.did, Rev: tid(rev), Sync: state})
	for _, key := range a.keys {
		if g.chance(60) {
			g.put(event.KindCreate, a, key, repo)
		}
		switch p := g.rng.IntN(100); {
		case p < 6: // one writer stops within a sync, and another starts
			g.emit(event.Event{Kind: event.KindPosition, Sync: event.SyncOpen})
		case p < 8:
			g.emit(event.Event{Kind: event.KindSync, DID: a.did, Rev: tid(rev), Sync: state})
		case p < 16:
			g.position()
		case p < 19:
			g.put(pick(g.rng, event.KindCreate, event.KindUpdate), a, key, repo+uint64(g.rng.IntN(3))-1)
		case p < 21:
			g.gone(a, key, repo)
		case p < 23:
			g.change(pick(g.rng, g.accounts...))
		}
	}
	if state == event.SyncOpen && g.chance(80) { // otherwise the end is missing
		g.emit(event.Event{Kind: event.KindSync, DID: a.did, Rev: tid(repo), Sync: event.SyncOver})
	}
	for g.chance(40) { // the account continues to write
		g.put(pick(g.rng, event.KindCreate, event.KindCreate, event.KindUpdate), a, pick(g.rng, a.keys...), g.newRev(a))
	}
	g.still = false
}

// replay repeats some events: unchanged, from another host at the same times, or as new ones.
func (g *generator) replay() {
	if len(g.events) == 0 {
		return
	}
	from, how := g.rng.IntN(len(g.events)), g.rng.IntN(3)
	for _, old := range slices.Clone(g.events[from:min(len(g.events), from+1+g.rng.IntN(20))]) {
		e := *old
		switch how {
		case 0:
			g.events = append(g.events, &e)
		case 1:
			g.seq++
			e.Source.Host, e.Source.Seq = otherHost, g.seq
			g.events = append(g.events, &e)
		default:
			e.Upstream = nil
			g.emit(e)
		}
	}
}

// scene emits a short history of a new account, with two keys and six revs in any order, about its
// posts, its statuses or its syncs. Only a replay concerns that account later, so the effect of
// each event is visible at the end.
func (g *generator) scene() {
	a := newGenAccount(1_000 + len(g.events))
	a.keys, a.revs = a.keys[:2], g.rev+1
	g.rev += 10
	if g.chance(20) {
		g.author(a, g.newRev(a)) // before the index knows the account
	}
	about := g.rng.IntN(3)
	g.still = g.chance(50) // statuses with few different times
	g.put(event.KindCreate, a, a.keys[0], a.revs+2)
	for range 5 + g.rng.IntN(10) {
		key, rev := pick(g.rng, a.keys...), g.newRev(a)
		switch p := g.rng.IntN(100); {
		case about == 1 && p < 50:
			g.status(a)
		case about == 1 && p < 60:
			g.author(a, rev)
		case about == 2 && p < 30:
			g.emit(event.Event{Kind: event.KindSync, DID: a.did, Rev: tid(rev)})
		case about == 2 && p < 40:
			g.position()
		case p < 75:
			g.put(pick(g.rng, event.KindCreate, event.KindCreate, event.KindUpdate), a, key, rev)
		default:
			g.gone(a, key, rev)
		}
	}
	g.still = false
	if about != 0 && g.chance(50) { // so that others are visible, too
		g.emit(event.Event{Kind: event.KindAuthor, DID: a.did, Rev: tid(a.revs + 8), Profile: &event.Profile{}})
	}
	if about == 1 && g.chance(50) { // makes the account visible
		g.emit(event.Event{Kind: event.KindAccount, DID: a.did, Active: true})
	}
}

// put emits a create or an update with a new record.
func (g *generator) put(kind event.Kind, a *genAccount, key string, rev uint64) {
	e := event.Event{Kind: kind, DID: a.did, Rkey: key, Rev: tid(rev)}
	e.CID = fmt.Sprintf("bafyrei%s%d", e.Rev, g.rng.IntN(1000))
	raw := g.rawTags()
	e.Tags = normalTags(raw)
	if older := olderTags(raw); len(older) > 0 && (len(e.Tags) == 0 || g.chance(20)) {
		e.Tags = older // as an older ingest stored them
	}
	record := map[string]any{
		"$type": event.Collection, "tags": raw,
		"text": pick(g.rng, "a post", "", "nul \x00 inside", "quote \" back\\slash </script>", "漢字 🏳️‍🌈\u2028", strings.Repeat("long ", 400)),
	}
	if langs := g.rawLangs(); langs != nil {
		e.Langs, record["langs"] = keptLangs(langs), langs
	}
	if created := g.createdAt(); created != "-" {
		e.CreatedAt, record["createdAt"] = created, created
	} else if g.chance(50) {
		record["createdAt"] = 1234567890
	}
	if g.chance(30) {
		record["extra"] = map[string]any{"big": json.Number("12345678901234567890"), "small": 1e-7, "list": []any{nil, true, []any{}}}
	}
	attach(record, rev)
	var err error
	if e.Record, err = json.Marshal(record); err != nil {
		panic(fmt.Sprintf("model: %v", err))
	}
	g.emit(e)
}

// createdAt returns the record's createdAt, "-" if it is not a string.
func (g *generator) createdAt() string {
	tie := time.Date(2026, 8, 20, 11, 59, g.rng.IntN(3), 0, time.UTC)
	ago := pick(g.rng, -time.Hour, time.Duration(g.rng.IntN(5000))*time.Millisecond, time.Duration(g.rng.IntN(100_000))*time.Hour)
	switch p := g.rng.IntN(100); {
	case p < 35:
		return g.now.Add(-ago).Format("2006-01-02T15:04:05.000Z")
	case p < 65:
		return tie.Format(time.RFC3339)
	case p < 70:
		return tie.In(time.FixedZone("", 5*3600+1800)).Format(time.RFC3339)
	}
	return pick(g.rng, "-", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00.000001Z", "0000-01-01T00:00:00+00:00",
		"", "yesterday", "2026-08-20", "2026-08-20T11:59:00", "2026-08-20 11:59:00Z", "2026-02-30T11:59:00Z",
		"2026-08-20T11:59:60Z", "2026-08-20T11:59:00,5Z", "2026-08-20T24:00:00Z", "2026-08-20T11:59:00.Z", " 2026-08-20T11:59:00Z",
		"2026-08-20t11:59:00z", "2026-08-20T11:59:00.123456789Z", "2026-08-20T11:59:00.9999999-00:00", "9999-12-31T23:59:59Z")
}

// rawLangs returns languages as a record may declare them, nil for none.
func (g *generator) rawLangs() []string {
	var many []string // more than are kept
	for i := range 15 + g.rng.IntN(10) {
		many = append(many, fmt.Sprintf("q%c-X%d", 'a'+i, i%3))
	}
	return pick(g.rng, nil, nil, nil, nil, nil, []string{"en"}, []string{"en"}, []string{"ja"}, []string{"pt-BR", "en"}, []string{"en-GB", "EN-us", "ja-JP"},
		[]string{"zh-Hant-TW"}, []string{"ZH-hANT", "zh"}, []string{"EN-us", "x"}, []string{"x-Klingon", "i-enochian"},
		[]string{"eng"}, []string{"ENM", "pt-br-x-en"}, []string{}, []string{"", "pt"}, []string{"en", "en", "EN"},
		[]string{"en_US"}, []string{"en-US_x"}, []string{"en--us", "-en", "en-"}, []string{"*", "en-*"}, []string{" en"}, []string{"e\x00n"},
		[]string{"\u212ao"}, []string{"ko-\u212ar"}, // the Kelvin sign is not a k
		[]string{"es-abcdefgh", "fr-abcdefghi"}, []string{"de-1996", "sl-1994-rozaj"}, []string{"419-es", "es-419"},
		[]string{"en-" + strings.Repeat("x", 67)},          // of 70 bytes, too long to keep
		[]string{"nl" + strings.Repeat("-abc", 15) + "-x"}, // 64 bytes, the longest that is kept
		[]string{"日本語", "ja-日本"}, many)
}

// rawTags returns tags as a record may contain them. At least one of them is kept, or was by an
// older ingest.
func (g *generator) rawTags() []string {
	var raw []string
	if g.chance(2) {
		for i := range 90 + g.rng.IntN(25) {
			raw = append(raw, fmt.Sprintf("#Bulk%02d", i))
		}
		return raw
	}
	for range 1 + g.rng.IntN(5) {
		tag := pick(g.rng, "art", "art", "Art", "#art", "photo", "photo", "cats", "cats", "猫", "film", "a\u00adrt", "photo\u2060", "c\u115fats")
		if g.chance(25) {
			tag = pick(g.rng, "$TSLA", "a,b", "c++", "c/d", "..", ".", "%2F", "50%", "#️⃣", "❤", "❤\ufe0f", "❤\ufe0f\u200d🔥\u200d", "\u200b", "\u2800\ufe0f",
				"👩‍👩‍👧‍👦", "ÉTÉ", "e\u0301te\u0301", "Straße", "İ", "Σίσυφος", "two words", "line\nbreak", "\u200bzero", "\x01", "\u202eright",
				"NULL", "'; --", `back\slash"quote`, "# # deep", "ﬁ", "①", "Å", "nul\x00tag", "", "###", strings.Repeat("x", 64),
				strings.Repeat("x", 65), strings.Repeat("🏳️‍🌈", 45), strings.Repeat("👩‍👩‍👧‍👦", 26), strings.Repeat("e\u0301\u0302\u0303", 60))
		}
		raw = append(raw, tag)
	}
	if len(normalTags(raw)) == 0 && (len(olderTags(raw)) == 0 || g.chance(50)) {
		raw = append(raw, "art")
	}
	return raw
}
