package model

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

const propertySeeds = 20

func TestGenerateIsRepeatable(t *testing.T) {
	t.Parallel()
	require.Equal(t, GenerateMessages(7, 200), GenerateMessages(7, 200))
	require.NotEqual(t, Generate(7, 50), Generate(8, 50))
	require.GreaterOrEqual(t, len(Generate(7, 500)), 500)
}

// TestEveryStateIsSound holds after every event of histories in which places
// collide all the time.
func TestEveryStateIsSound(t *testing.T) {
	t.Parallel()
	for seed := range uint64(propertySeeds) {
		x := New()
		x.hash = func(uri string) uint64 { return uint64(len(uri)) % 3 }
		for i, e := range Generate(seed, 200) {
			x.ApplyEvent(uint64(i+1), e)
			if what := unsound(x); what != "" {
				t.Fatalf("seed %d, event %d: %s", seed, i, what)
			}
		}
	}
}

// unsound says what no index may hold and this one does.
func unsound(x *Index) string {
	if len(x.places) != len(x.posts) {
		return "two posts at one place, or none"
	}
	for uri, p := range x.posts {
		a := x.account(p.DID)
		stale := x.sync != nil && x.sync.did == p.DID && p.Rev < max(x.sync.rev, a.syncRev)
		switch {
		case x.places[p.Place] != uri:
			return uri + " is not at its place"
		case x.markers[uri] != "":
			return uri + " has a marker too"
		case p.Rev <= a.floor:
			return uri + " is below the floor"
		case p.Rev < a.syncRev && !stale:
			return uri + " is older than a sync"
		case p.Place.Micros < 0:
			return uri + " is before 1970"
		case len(p.Tags) == 0 || len(p.Tags) > tagsPerPost:
			return uri + " has no tags or too many"
		}
	}
	for uri, rev := range x.markers {
		if rev <= x.account(didOf(uri)).floor {
			return "marker of " + uri + " is below the floor"
		}
	}
	return ""
}

// TestEachMessageTwiceChangesNothing: but for a sync, whose second coming is a
// message that does not belong to the first.
func TestEachMessageTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(propertySeeds) {
		once, twice := New(), New()
		for i, e := range Generate(seed, 300) {
			once.ApplyEvent(uint64(i+1), e)
			twice.ApplyEvent(uint64(i+1), e)
			if e.Kind != event.KindSync {
				twice.ApplyEvent(uint64(i+1), e)
			}
		}
		require.Equal(t, dump(once), dump(twice), "seed %d", seed)
	}
}

// TestReplayOfAnyPrefixChangesNothing: a history in upstream order, and then
// any beginning of it again.
func TestReplayOfAnyPrefixChangesNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(propertySeeds) {
		events := generateOrdered(seed, 150)
		want := dump(fold(events))
		for n := 1; n <= len(events); n += 13 {
			x := fold(events)
			for i, e := range events[:n] {
				x.ApplyEvent(uint64(len(events)+i+1), e)
			}
			x.ApplyEvent(uint64(len(events)+n+1), events[len(events)-1])
			require.Equal(t, want, dump(x), "seed %d, prefix of %d", seed, n)
		}
	}
}

// TestRewindChangesNothing: a writer that goes back in upstream's history and
// on from there, except in the middle of what follows a sync.
func TestRewindChangesNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(propertySeeds) {
		events := generateOrdered(seed, 150)
		want := dump(fold(events))
		for n := 5; n < len(events); n += 17 {
			if fold(events[:n]).sync != nil {
				continue
			}
			again := slices.Concat(events[:n], events[n*2/3:])
			x := fold(again)
			for _, p := range x.posts {
				if p.Seq > uint64(n) {
					p.Seq -= uint64(n - n*2/3)
				}
			}
			require.Equal(t, want, dump(x), "seed %d, rewound at %d", seed, n)
		}
	}
}

// TestGeneratorReaches counts the edges that the histories are for.
func TestGeneratorReaches(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for seed := range uint64(20) {
		x, syncs := New(), 0
		events := Generate(seed, 400)
		for i, e := range events {
			before := len(x.posts)
			syncDID, syncRepo := "", ""
			if x.sync != nil {
				syncDID, syncRepo = x.sync.did, x.sync.repo
			}
			uri := uriOf(e.DID, e.Rkey)
			_, had := x.posts[uri]
			_, marked := x.markers[uri]
			hidden := e.DID != "" && x.account(e.DID).inactive
			pending := x.sync != nil
			x.ApplyEvent(uint64(i+1), e)
			p, has := x.posts[uri]
			applied := has && p.Seq == uint64(i+1)
			seen[string(e.Kind)]++
			for what, is := range map[string]bool{
				"enters":                  applied && !had,
				"edited":                  applied && had,
				"comes back":              applied && marked,
				"leaves":                  had && !has,
				"stopped by rev":          e.IsPost() && had && has && !applied,
				"stopped by marker":       e.IsPost() && marked && !has && x.markers[uri] >= e.Rev,
				"stopped by floor":        e.IsPost() && e.Rev <= x.account(e.DID).floor,
				"stopped by sync":         e.IsPost() && e.Rev < x.account(e.DID).syncRev,
				"never had":               (e.Kind == event.KindDelete || e.Kind == event.KindRemove) && !had && !marked,
				"hidden":                  applied && hidden,
				"erased":                  e.Kind == event.KindAccount && len(x.posts) < before,
				"swept":                   pending && x.sync == nil && len(x.posts) < before,
				"place before 1970":       applied && p.Place.Micros == 0,
				"a hundred tags":          applied && len(p.Tags) == 100,
				"account event too late":  e.Kind == event.KindAccount && e.Upstream == nil && e.Source.Time.Before(x.account(e.DID).lastTime),
				"account event told late": e.Kind == event.KindAccount && e.Upstream != nil && e.Upstream.Time.Before(x.account(e.DID).lastTime) && e.Source.Time.After(x.account(e.DID).lastTime),
				"stamped early":           e.Kind == event.KindAccount && e.Upstream != nil && e.Upstream.Time.Equal(x.account(e.DID).lastTime) && i > 0 && e.Source.Time.Before(events[i-1].Source.Time),
				"replaced":                x.sync != nil && x.sync.repo == x.sync.rev && applied,
				"replaced at a later rev": x.sync != nil && x.sync.repo > x.sync.rev && applied,
				"interrupted":             pending && x.sync != nil && e.Kind == event.KindPosition,
				"ended by a position":     pending && x.sync == nil && e.Kind == event.KindPosition && e.Sync != "",
				"ended by an old one":     pending && x.sync == nil && e.Kind == event.KindPosition && e.Sync == "",
				"gone on at once":         pending && x.sync == nil && e.Kind == event.KindCreate && e.DID == syncDID && e.Rev > syncRepo && syncRepo != "",
			} {
				if is {
					seen[what]++
				}
			}
			if e.Kind == event.KindSync {
				syncs++
			}
		}
		ties := map[int64]bool{}
		for _, p := range x.Posts() {
			if ties[p.Place.Micros] {
				seen["tie"]++
			}
			ties[p.Place.Micros] = true
		}
	}
	for _, what := range []string{
		"create", "update", "remove", "delete", "account", "sync", "position",
		"enters", "edited", "comes back", "leaves", "stopped by rev", "stopped by marker", "stopped by floor", "stopped by sync",
		"never had", "hidden", "erased", "swept", "place before 1970", "a hundred tags", "account event too late", "tie",
		"account event told late", "stamped early", "replaced", "replaced at a later rev", "interrupted",
		"ended by a position", "ended by an old one", "gone on at once",
	} {
		require.GreaterOrEqual(t, seen[what], 5, what)
	}
}
