package model

import (
	"cmp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

func TestGeneratorsRepeat(t *testing.T) {
	t.Parallel()
	require.Equal(t, GenerateMessages(7, 200), GenerateMessages(7, 200))
	require.NotEqual(t, Generate(7, 50), Generate(8, 50))
	require.GreaterOrEqual(t, len(Generate(7, 500)), 500)
	require.Equal(t, NewCrowd(1, 100, base, time.Second).Take(200), NewCrowd(1, 100, base, time.Second).Take(200))
}

func TestModelAndDecoderRefuseTheSameMessages(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		messages, clean := New(), New()
		for i, data := range GenerateMessages(seed, 300) {
			messages.Apply(uint64(i+1), data)
		}
		for i, e := range Generate(seed, 300) {
			clean.Apply(uint64(i+1), mustEncode(e))
		}
		require.NotZero(t, messages.DeadLetters(), "seed %d", seed)
		require.Zero(t, clean.DeadLetters(), "seed %d", seed)
		require.Empty(t, clean.complaints, "seed %d", seed)
	}
}

// Repeated messages change nothing, except for syncs: a repeated sync does not belong to the first
// one.
func TestRepeatedMessagesChangeNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		once, twice := New(), New()
		for i, e := range Generate(seed, 300) {
			once.ApplyEvent(uint64(i+1), e)
			twice.ApplyEvent(uint64(i+1), e)
			if e.Kind != event.KindSync {
				twice.ApplyEvent(uint64(i+1), e)
			}
		}
		require.Equal(t, state(once), state(twice), "seed %d", seed)
	}
}

// TestGeneratorCoverage checks that the generated histories contain each edge case.
func TestGeneratorCoverage(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for seed := range uint64(20) {
		x := New()
		for i, e := range Generate(seed, 400) {
			posts, pending, repo := len(x.posts), x.sync != nil, ""
			if pending && x.sync.did == e.DID {
				repo = x.sync.repo
			}
			uri, a := uriOf(e.DID, e.Rkey), *x.account(e.DID)
			_, had := x.posts[uri]
			_, marked := x.markers[uri]
			x.ApplyEvent(uint64(i+1), e)
			p, has := x.posts[uri]
			applied := has && p.Seq == uint64(i+1)
			how, last := comparison(-1), cmp.Or(a.last, e)
			if e.ChangesStatus() && a.last != nil {
				how = compareStatuses(e, a.last)
			}
			oneHost, own, lastOwn := e.Source.Host == last.Source.Host, e.StatusOrder().Time, last.StatusOrder().Time
			for what, is := range map[string]bool{
				string(e.Kind): true, "enters": applied && !had, "edited": applied && had, "comes back": applied && marked, "leaves": had && !has,
				"stopped by rev":                  e.IsPost() && had && has && !applied,
				"stopped by marker":               e.IsPost() && marked && !has && x.markers[uri] >= e.Rev,
				"stopped by floor":                e.IsPost() && e.Rev <= a.floor,
				"stopped by sync":                 e.IsPost() && e.Rev < a.syncRev,
				"never had":                       (e.Kind == event.KindDelete || e.Kind == event.KindRemove) && !had && !marked,
				"hidden":                          applied && x.hidden(e.DID),
				"erased":                          e.Kind == event.KindAccount && len(x.posts) < posts,
				"swept":                           pending && x.sync == nil && len(x.posts) < posts,
				"place before 1970":               applied && p.Place.Micros == 0,
				"a hundred tags":                  applied && len(p.Tags) == 100,
				"opted out":                       e.Kind == event.KindAuthor && e.Profile != nil && e.Profile.OptedOut && !a.optedOut && x.account(e.DID).optedOut,
				"opted in":                        e.Kind == event.KindAuthor && a.optedOut && !x.account(e.DID).optedOut,
				"opted out, unknown":              e.Kind == event.KindAuthor && !a.known && x.account(e.DID).known,
				"named":                           e.Kind == event.KindAuthor && a.author != x.account(e.DID).author,
				"named, unknown":                  e.Kind == event.KindAuthor && !x.account(e.DID).known,
				"named too late":                  e.Kind == event.KindAuthor && a.known && a.author == x.account(e.DID).author,
				"status too late":                 how == olderStatus && !oneHost && e.Upstream == nil,
				"status reported late":            how == olderStatus && !oneHost && e.Upstream != nil && e.Source.Time.After(lastOwn),
				"status after a step":             how == newerStatus && oneHost && own.Before(lastOwn),
				"status of the past":              how == olderStatus && oneHost && own.After(lastOwn),
				"status of a wiped host":          how == newerStatus && oneHost && e.Source.Seq < last.Source.Seq,
				"status repeated by another host": how == repeatedStatus && !oneHost,
				"replaced":                        x.sync != nil && x.sync.repo == x.sync.rev && applied,
				"replaced at a later rev":         x.sync != nil && x.sync.repo > x.sync.rev && applied,
				"interrupted":                     pending && x.sync != nil && e.Kind == event.KindPosition,
				"ended by a position":             pending && x.sync == nil && e.Kind == event.KindPosition && e.Sync != "",
				"ended by an old one":             pending && x.sync == nil && e.Kind == event.KindPosition && e.Sync == "",
				"gone on at once":                 pending && x.sync == nil && e.Kind == event.KindCreate && repo != "" && e.Rev > repo,
			} {
				n := seen[what]
				if seen[what] = n; is {
					seen[what]++
				}
			}
		}
		at := map[int64]int{}
		for _, p := range x.Posts() {
			at[p.Place.Micros]++
		}
		seen["ties"] += len(x.Posts()) - len(at)
	}
	for what, n := range seen {
		require.GreaterOrEqual(t, n, 5, what)
	}
}

// The lists of a crowd are long and have ties, and posts enter everywhere.
func TestCrowdCoverage(t *testing.T) {
	t.Parallel()
	events := NewCrowd(2, 1000, base, time.Second).Take(5000)
	x := New()
	counts := map[string]int{}
	for i, e := range events {
		require.NoError(t, e.Validate())
		x.ApplyEvent(uint64(i+1), e)
		counts[string(e.Kind)]++
	}
	require.Empty(t, x.complaints)
	posts := x.Posts()
	require.Greater(t, len(posts), 700)
	require.NotEmpty(t, x.Hidden())
	ties, middle := 0, 0
	for i := range posts[1:] {
		if posts[i].Place.Micros == posts[i+1].Place.Micros {
			ties++
		}
		if posts[i].Seq < posts[i+1].Seq {
			middle++
		}
	}
	require.Greater(t, ties, 50)
	require.Greater(t, middle, 200)
	require.Greater(t, len(Query{Tags: []string{"art"}}.list(posts)), len(posts)/3)
	require.Greater(t, len(Query{All: []string{"art", "photo"}}.list(posts)), len(posts)/10)
	for _, kind := range []string{"create", "update", "delete", "remove", "account"} {
		require.NotZero(t, counts[kind], kind)
	}
}
