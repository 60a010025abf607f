package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

// plantedBug is a wrong fold, made of the right one and of what spoils its
// state before or after.
type plantedBug struct {
	name  string
	apply func(x *Index, seq uint64, e *event.Event)
}

const lowestRev = "2222222222222"

var plantedBugs = []plantedBug{
	{"an older rev wins", func(x *Index, seq uint64, e *event.Event) {
		if p := post(x, e); p != nil {
			p.Rev = lowestRev
		}
		x.ApplyEvent(seq, e)
	}},
	{"an equal rev wins", func(x *Index, seq uint64, e *event.Event) {
		if p := post(x, e); p != nil && p.Rev == e.Rev {
			p.Rev = lowestRev
		}
		x.ApplyEvent(seq, e)
	}},
	{"no markers", func(x *Index, seq uint64, e *event.Event) {
		x.ApplyEvent(seq, e)
		clear(x.markers)
	}},
	{"no marker for a removal", func(x *Index, seq uint64, e *event.Event) {
		x.ApplyEvent(seq, e)
		if e.Kind == event.KindRemove {
			delete(x.markers, uriOf(e.DID, e.Rkey))
		}
	}},
	{"a marker that does not rise", func(x *Index, seq uint64, e *event.Event) {
		uri := uriOf(e.DID, e.Rkey)
		old, marked := x.markers[uri]
		x.ApplyEvent(seq, e)
		if _, still := x.markers[uri]; marked && still {
			x.markers[uri] = old
		}
	}},
	{"a marker that falls", func(x *Index, seq uint64, e *event.Event) {
		x.ApplyEvent(seq, e)
		if uri := uriOf(e.DID, e.Rkey); e.Kind == event.KindDelete && x.markers[uri] > e.Rev {
			x.markers[uri] = e.Rev
		}
	}},
	{"a marker for a post never had", func(x *Index, seq uint64, e *event.Event) {
		if e.Kind == event.KindDelete || e.Kind == event.KindRemove {
			if uri := uriOf(e.DID, e.Rkey); x.posts[uri] == nil && x.markers[uri] == "" {
				x.markers[uri] = e.Rev
			}
		}
		x.ApplyEvent(seq, e)
	}},
	{"an edit moves the post", func(x *Index, seq uint64, e *event.Event) {
		if p := post(x, e); p != nil && puts(e) && x.isNews(p.URI, e) {
			x.drop(p)
		}
		x.ApplyEvent(seq, e)
	}},
	{"createdAt of an edit moves the post", func(x *Index, seq uint64, e *event.Event) {
		before := post(x, e)
		x.ApplyEvent(seq, e)
		if p := post(x, e); before != nil && p != nil && p.Seq == seq {
			p.Place.Micros = sortMicros(e.CreatedAt, before.IndexedAt)
		}
	}},
	{"indexedAt stays that of the entry", func(x *Index, seq uint64, e *event.Event) {
		before := post(x, e)
		x.ApplyEvent(seq, e)
		if p := post(x, e); before != nil && p != nil {
			p.IndexedAt = before.IndexedAt
		}
	}},
	{"createdAt of the future is believed", entering(func(p *Post) {
		if created, ok := createdMicros(p.CreatedAt); ok {
			p.Place.Micros = max(created, 0)
		}
	})},
	{"createdAt counts for nothing", entering(func(p *Post) { p.Place.Micros = p.IndexedAt.UnixMicro() })},
	{"a missing createdAt is 1970", entering(func(p *Post) {
		if _, ok := createdMicros(p.CreatedAt); !ok {
			p.Place.Micros = 0
		}
	})},
	{"a time before 1970 is believed", entering(func(p *Post) {
		if created, ok := createdMicros(p.CreatedAt); ok && created < 0 {
			p.Place.Micros = created
		}
	})},
	{"the zone is ignored", entering(func(p *Post) {
		if _, ok := createdMicros(p.CreatedAt); ok {
			p.Place.Micros = sortMicros(p.CreatedAt[:19]+"Z", p.IndexedAt)
		}
	})},
	{"a time without zone is believed", entering(func(p *Post) {
		if _, ok := createdMicros(p.CreatedAt); !ok {
			p.Place.Micros = sortMicros(p.CreatedAt+"Z", p.IndexedAt)
		}
	})},
	{"milliseconds", entering(func(p *Post) { p.Place.Micros -= p.Place.Micros % 1000 })},
	{"rounded up", entering(func(p *Post) {
		if t, err := time.Parse(time.RFC3339Nano, p.CreatedAt); err == nil && t.Before(p.IndexedAt) {
			p.Place.Micros = max(t.Round(time.Microsecond).UnixMicro(), 0)
		}
	})},
	{"ties by uri", entering(func(p *Post) {
		p.Place.Hash = 0
		for _, c := range []byte(p.URI[len(p.URI)-8:]) {
			p.Place.Hash = p.Place.Hash<<8 | uint64(c)
		}
	})},
	{"the last 8 bytes of the hash's first 16", entering(func(p *Post) { p.Place.Hash = hashOf(p.URI + " ") })},

	{"unknown inactive statuses show", status(func(_ *Index, e *event.Event) bool {
		return !slices.Contains([]string{"deleted", "deactivated", "suspended", "takendown"}, e.Status) && !e.Active
	})},
	{"suspended does not hide", status(func(_ *Index, e *event.Event) bool { return e.Status == "suspended" })},
	{"throttled counts", status(func(x *Index, e *event.Event) bool {
		if e.Status == "throttled" {
			x.account(e.DID).inactive = !e.Active
		}
		return false
	})},
	{"desynchronized and active shows", status(func(x *Index, e *event.Event) bool {
		if e.Status == "desynchronized" && e.Active {
			x.account(e.DID).inactive = false
		}
		return false
	})},
	{"account events in stream order", status(func(x *Index, e *event.Event) bool {
		x.account(e.DID).lastTime, x.account(e.DID).lastSeq = time.Time{}, 0
		return false
	})},
	{"account events of one time in stream order", status(func(x *Index, e *event.Event) bool {
		if x.account(e.DID).lastTime.Equal(e.Source.Time) {
			x.account(e.DID).lastSeq = 0
		}
		return false
	})},
	{"the first account event of a time wins", status(func(x *Index, e *event.Event) bool {
		return x.account(e.DID).lastTime.Equal(e.Source.Time)
	})},
	{"never shown again", status(func(x *Index, e *event.Event) bool { return e.Active && x.account(e.DID).inactive })},
	{"deleted hides", func(x *Index, seq uint64, e *event.Event) {
		if c := *e; c.Status == "deleted" && c.Kind == event.KindAccount {
			c.Status = "suspended"
			e = &c
		}
		x.ApplyEvent(seq, e)
	}},
	{"active and deleted erases", func(x *Index, seq uint64, e *event.Event) {
		if c := *e; c.Status == "deleted" && c.Kind == event.KindAccount {
			c.Active = false
			e = &c
		}
		x.ApplyEvent(seq, e)
	}},
	{"posts after a deletion show", func(x *Index, seq uint64, e *event.Event) {
		x.ApplyEvent(seq, e)
		if e.Kind == event.KindAccount && e.Status == "deleted" {
			x.account(e.DID).inactive = false
		}
	}},
	{"no floor", func(x *Index, seq uint64, e *event.Event) {
		x.ApplyEvent(seq, e)
		accountOf(x, e).floor = ""
	}},
	{"a floor that falls", func(x *Index, seq uint64, e *event.Event) {
		if a := accountOf(x, e); e.Status == "deleted" {
			a.floor = ""
		}
		x.ApplyEvent(seq, e)
	}},
	{"a floor of posts alone", func(x *Index, seq uint64, e *event.Event) {
		if e.Kind == event.KindAccount && e.Status == "deleted" && !e.Active {
			for uri := range x.markers {
				if didOf(uri) == e.DID {
					delete(x.markers, uri)
				}
			}
		}
		x.ApplyEvent(seq, e)
	}},
	{"posts of hidden accounts are not stored", func(x *Index, seq uint64, e *event.Event) {
		if !e.IsPost() || !accountOf(x, e).inactive {
			x.ApplyEvent(seq, e)
		}
	}},
	{"deletes of hidden accounts are not followed", func(x *Index, seq uint64, e *event.Event) {
		if e.Kind != event.KindDelete || !accountOf(x, e).inactive {
			x.ApplyEvent(seq, e)
		}
	}},

	{"sync ignored", func(x *Index, seq uint64, e *event.Event) {
		if e.Kind != event.KindSync {
			x.ApplyEvent(seq, e)
		}
	}},
	{"sync removes at once", func(x *Index, seq uint64, e *event.Event) {
		x.ApplyEvent(seq, e)
		if e.Kind == event.KindSync {
			x.endSync(&event.Event{})
		}
	}},
	{"sync removes posts at its rev", func(x *Index, seq uint64, e *event.Event) {
		for _, p := range x.posts {
			if e.Kind == event.KindSync && p.DID == e.DID && p.Rev == e.Rev {
				p.Rev = lowestRev
			}
		}
		x.ApplyEvent(seq, e)
	}},
	{"sync removes newer posts", func(x *Index, seq uint64, e *event.Event) {
		for _, p := range x.posts {
			if e.Kind == event.KindSync && p.DID == e.DID && p.Rev > e.Rev {
				p.Rev = lowestRev
			}
		}
		x.ApplyEvent(seq, e)
	}},
	{"an older sync counts", func(x *Index, seq uint64, e *event.Event) {
		if a := accountOf(x, e); e.Kind == event.KindSync {
			a.syncRev = ""
		}
		x.ApplyEvent(seq, e)
	}},
	{"older events pass a sync", func(x *Index, seq uint64, e *event.Event) {
		a := accountOf(x, e)
		rev := a.syncRev
		if e.IsPost() {
			a.syncRev = ""
		}
		x.ApplyEvent(seq, e)
		if e.IsPost() {
			a.syncRev = rev
		}
	}},
	{"a position message does not end a sync", func(x *Index, seq uint64, e *event.Event) {
		if e.Kind != event.KindPosition || seq == lastSeq {
			x.ApplyEvent(seq, e)
		}
	}},
	{"another account does not end a sync", func(x *Index, seq uint64, e *event.Event) {
		s := x.sync
		if s != nil && e.DID != s.did && seq != lastSeq {
			x.sync = nil
			x.ApplyEvent(seq, e)
			if x.sync == nil {
				x.sync = s
			}
			return
		}
		x.ApplyEvent(seq, e)
	}},
	{"updates belong to a sync", func(x *Index, seq uint64, e *event.Event) {
		if s := x.sync; s != nil && e.Kind == event.KindUpdate && e.DID == s.did && e.Rev == max(s.rev, s.repo) {
			x.sync = nil
			x.ApplyEvent(seq, e)
			x.sync = s
			return
		}
		x.ApplyEvent(seq, e)
	}},
	{"only the first create belongs to a sync", func(x *Index, seq uint64, e *event.Event) {
		x.ApplyEvent(seq, e)
		if puts(e) {
			x.endSync(&event.Event{})
		}
	}},
	{"a later rev than the first belongs to a sync", func(x *Index, seq uint64, e *event.Event) {
		if s := x.sync; s != nil && e.Kind == event.KindCreate && e.DID == s.did && e.Rev > s.repo {
			s.repo = ""
		}
		x.ApplyEvent(seq, e)
	}},
	{"only its own rev belongs to a sync", func(x *Index, seq uint64, e *event.Event) {
		if s := x.sync; s != nil && s.repo == "" {
			s.repo = s.rev
		}
		x.ApplyEvent(seq, e)
	}},
	{"the time of a sync tells what belongs to it", func(x *Index, seq uint64, e *event.Event) {
		if s := x.sync; s != nil && e.Kind == event.KindCreate && e.DID == s.did && e.Source.Time.Equal(s.time) {
			s.repo = e.Rev
		}
		x.ApplyEvent(seq, e)
	}},
	{"every position ends a sync", func(x *Index, seq uint64, e *event.Event) {
		if e.Kind == event.KindPosition {
			x.endSync(&event.Event{})
		}
		x.ApplyEvent(seq, e)
	}},
	{"a position ends no sync at whose time it is", func(x *Index, seq uint64, e *event.Event) {
		if s := x.sync; s != nil && e.Kind == event.KindPosition && e.Source.Time.Equal(s.time) && seq != lastSeq {
			return
		}
		x.ApplyEvent(seq, e)
	}},
	{"statuses by the time of the host", func(x *Index, seq uint64, e *event.Event) {
		told := *e
		told.Upstream = nil
		x.ApplyEvent(seq, &told)
	}},
	{"markers for stale posts", func(x *Index, seq uint64, e *event.Event) {
		s, before := x.sync, maps.Clone(x.posts)
		x.ApplyEvent(seq, e)
		for uri, p := range before {
			if s != nil && p.DID == s.did && p.Rev < s.rev && x.posts[uri] == nil {
				x.markers[uri] = s.rev
			}
		}
	}},

	{"a create of an indexed post is ignored", func(x *Index, seq uint64, e *event.Event) {
		if e.Kind != event.KindCreate || post(x, e) == nil {
			x.ApplyEvent(seq, e)
		}
	}},
	{"an update of a post not indexed is ignored", func(x *Index, seq uint64, e *event.Event) {
		if e.Kind != event.KindUpdate || post(x, e) != nil {
			x.ApplyEvent(seq, e)
		}
	}},
	{"removals are ignored", func(x *Index, seq uint64, e *event.Event) {
		if e.Kind != event.KindRemove {
			x.ApplyEvent(seq, e)
		}
	}},
	{"an edit keeps the old tags", func(x *Index, seq uint64, e *event.Event) {
		before := post(x, e)
		x.ApplyEvent(seq, e)
		if p := post(x, e); p != nil && before != nil {
			p.Tags = before.Tags
		}
	}},
	{"ten tags at most", entering(func(p *Post) { p.Tags = p.Tags[:min(len(p.Tags), 10)] })},
}

// lastSeq stands for the number of a history's last message, which tests give.
const lastSeq = 1 << 40

func post(x *Index, e *event.Event) *Post         { return x.posts[uriOf(e.DID, e.Rkey)] }
func accountOf(x *Index, e *event.Event) *account { return x.account(e.DID) }
func puts(e *event.Event) bool                    { return e.Kind == event.KindCreate || e.Kind == event.KindUpdate }

// entering spoils posts that enter the index.
func entering(spoil func(p *Post)) func(*Index, uint64, *event.Event) {
	return func(x *Index, seq uint64, e *event.Event) {
		before := post(x, e)
		x.ApplyEvent(seq, e)
		if p := post(x, e); p != nil && p.Seq == seq && before == nil {
			spoil(p)
		}
	}
}

// status looks at account events before they apply; drop keeps them from it.
func status(drop func(x *Index, e *event.Event) bool) func(*Index, uint64, *event.Event) {
	return func(x *Index, seq uint64, e *event.Event) {
		if e.Kind == event.KindAccount && drop(x, e) {
			x.endSync(e)
			return
		}
		x.ApplyEvent(seq, e)
	}
}

// answers is what readers can see of an index.
func answers(x *Index) string {
	var b strings.Builder
	for _, p := range x.Posts() {
		fmt.Fprintln(&b, p.URI, p.CID, p.Tags, p.Langs, p.CreatedAt, p.IndexedAt, p.SortAt())
	}
	return b.String()
}

// TestHistoriesTellPlantedBugs: each wrong fold gives readers other answers
// than the right one, within a few seeds.
func TestHistoriesTellPlantedBugs(t *testing.T) {
	t.Parallel()
	const seeds, events = 60, 600
	var histories [][]*event.Event
	var want []string
	for seed := range uint64(seeds) {
		h := Generate(seed, events)
		histories = append(histories, h)
		want = append(want, answers(foldWith(h, (*Index).ApplyEvent)))
	}
	for _, bug := range plantedBugs {
		t.Run(bug.name, func(t *testing.T) {
			t.Parallel()
			var told []int
			for seed, h := range histories {
				if answers(foldWith(h, bug.apply)) != want[seed] {
					told = append(told, seed)
				}
			}
			t.Logf("told apart by %d of %d seeds", len(told), seeds)
			require.NotEmpty(t, told, "no seed of %d tells this bug from the right fold", seeds)
		})
	}
}

func foldWith(events []*event.Event, apply func(*Index, uint64, *event.Event)) *Index {
	x := New()
	for i, e := range events {
		seq := uint64(i + 1)
		if i == len(events)-1 {
			seq = lastSeq
		}
		apply(x, seq, e)
	}
	return x
}
