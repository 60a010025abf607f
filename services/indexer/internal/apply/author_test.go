package apply_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

func profile(r int, name string, optedOut bool) event.Event {
	return event.Event{Kind: event.KindAuthor, DID: did, Rev: rev(r), Profile: &event.Profile{DisplayName: name, Avatar: "bafy" + name, OptedOut: optedOut}}
}

func handle(second int, name string) event.Event {
	return event.Event{Kind: event.KindAuthor, DID: did, Handle: &event.Handle{Name: name, Time: at(second)}}
}

// author is what the index has of the account: "no row" or its name, avatar and handle.
func (x *index) author() string {
	x.t.Helper()
	says := "no row"
	rows, err := pgtest.Pool(x.t, x.url).Query(x.t.Context(), "SELECT display_name, avatar, handle FROM tagstream.accounts WHERE did = $1", did)
	require.NoError(x.t, err)
	defer rows.Close()
	for rows.Next() {
		var name, avatar, handle string
		require.NoError(x.t, rows.Scan(&name, &avatar, &handle))
		says = fmt.Sprintf("%s %s %s", name, avatar, handle)
	}
	require.NoError(x.t, rows.Err())
	return says
}

// settle ends the sweeps that there are.
func (x *index) settle() {
	x.t.Helper()
	for x.applier.Writer.Sweeping() {
		require.NoError(x.t, x.applier.Sweep(x.t.Context()))
	}
}

// TestAuthors: profiles by revision and handles by time, of accounts that the index knows.
//
// Invariant: of a profile the newest revision counts, of a handle the latest time; accounts that the
// index does not know are passed over unless they opt out; an account that opted out is as hidden.
func TestAuthors(t *testing.T) {
	t.Parallel()
	post := create("a", 1, "art")
	shown, hidden := []string{"a"}, []string{}
	for _, c := range []struct {
		name    string
		batches [][]event.Event
		author  string
		posts   []string
	}{
		{"of a known account", [][]event.Event{{post}, {profile(2, "A", false), handle(9, "a.example")}}, "A bafyA a.example", shown},
		{"in one batch", [][]event.Event{{post, profile(2, "A", false), handle(9, "a.example")}}, "A bafyA a.example", shown},
		{"an unknown one is passed over", [][]event.Event{{profile(2, "A", false), handle(9, "a.example")}}, "no row", hidden},
		{"also for the posts to come", [][]event.Event{{profile(2, "A", false)}, {handle(9, "a.example"), post}}, "  ", shown},
		{"one that was told a status is known", [][]event.Event{{status(true, "")}, {profile(2, "A", false)}}, "A bafyA ", hidden},
		{"the newest revision wins", [][]event.Event{{post, profile(3, "B", false)}, {profile(2, "A", false), profile(3, "C", false)}}, "B bafyB ", shown},
		{"the latest handle wins", [][]event.Event{{post, handle(9, "b.example")}, {handle(8, "a.example"), handle(9, "c.example")}}, "  b.example", shown},
		{"a handle that is lost", [][]event.Event{{post, handle(8, "a.example")}, {handle(9, "")}}, "  ", shown},
		{"a profile that is gone", [][]event.Event{{post, profile(2, "A", false)}, {{Kind: event.KindAuthor, DID: did, Rev: rev(3), Profile: &event.Profile{}}}}, "  ", shown},
		{"opted out", [][]event.Event{{post}, {profile(2, "A", true)}}, "A bafyA ", hidden},
		{"in one batch, and posts on", [][]event.Event{{post, profile(2, "A", true), create("b", 3, "art")}}, "A bafyA ", hidden},
		{"before the first post", [][]event.Event{{profile(2, "A", true), handle(9, "a.example")}, {post}}, "A bafyA a.example", hidden},
		{"and back in", [][]event.Event{{post}, {profile(2, "A", true)}, {profile(3, "A", false)}}, "A bafyA ", shown},
		{"and back in, in one batch", [][]event.Event{{post}, {profile(2, "A", true), profile(3, "B", false)}}, "B bafyB ", shown},
		{"not by an older profile", [][]event.Event{{post}, {profile(3, "A", true)}, {profile(2, "A", false)}}, "A bafyA ", hidden},
		{"before the first post, and back in", [][]event.Event{{profile(2, "A", true)}, {profile(3, "B", false)}, {post}}, "B bafyB ", shown},
		{"by the profile that goes", [][]event.Event{{post}, {profile(2, "A", true)}, {{Kind: event.KindAuthor, DID: did, Rev: rev(3), Profile: &event.Profile{}}}}, "  ", shown},
		{"active is no consent", [][]event.Event{{post, profile(2, "A", true)}, {status(false, "deactivated")}, {status(true, "")}}, "A bafyA ", hidden},
		{"consent is not active", [][]event.Event{{post, profile(2, "A", true)}, {status(false, "suspended")}, {profile(3, "A", false)}}, "A bafyA ", hidden},
		{"both", [][]event.Event{{post, profile(2, "A", true)}, {status(false, "suspended")}, {profile(3, "A", false)}, {status(true, "")}}, "A bafyA ", shown},
		{"a #sync without the profile", [][]event.Event{{post, profile(2, "A", false), handle(9, "a.example")}, {said(5, event.SyncOpen), create("a", 5, "art"), said(5, event.SyncOver)}, {profile(4, "B", false)}}, "  a.example", shown},
		{"one that brings it", [][]event.Event{{post, profile(2, "A", false)}, {said(5, event.SyncOpen), profile(5, "B", false), create("a", 5, "art"), said(5, event.SyncOver)}}, "B bafyB ", shown},
		{"one of before it", [][]event.Event{{post, profile(6, "A", false)}, {said(5, event.SyncOpen), create("a", 5, "art"), said(5, event.SyncOver)}}, "A bafyA ", shown},
		{"none opts in", [][]event.Event{{post, profile(2, "A", true)}, {said(5, event.SyncOpen), create("a", 5, "art"), said(5, event.SyncOver)}}, "A bafyA ", hidden},
		{"a deletion takes the names", [][]event.Event{{post, profile(2, "A", false), handle(9, "a.example")}, {status(false, "deleted")}}, "  ", hidden},
		{"which an older profile does not bring back", [][]event.Event{{post, profile(2, "A", false)}, {status(false, "deleted")}, {status(true, ""), profile(2, "A", false)}}, "  ", hidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, big := range []int{0, 1} { // with and without sweeps
				x := newIndex(t)
				x.applier.Big = big
				for _, b := range c.batches {
					x.apply(b...)
				}
				x.settle()
				require.Equal(t, c.author, x.author(), "big from %d", big)
				require.Equal(t, c.posts, x.posts("art"), "big from %d", big)
				require.Empty(t, x.dead)
				x.checkTotals()
			}
		})
	}
}

// TestConsent: where the setting changes, accounts that are there are decided again, and others
// stay as they are.
func TestConsent(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	of := func(who string, ev event.Event) event.Event {
		ev.DID = did + who
		return ev
	}
	x.apply(create("plain", 1, "art"), of("1", create("out", 1, "art")), of("1", profile(2, "A", true)),
		of("2", create("away", 1, "art")), of("2", profile(2, "B", true)), of("2", status(false, "suspended")))
	require.Equal(t, []string{"plain"}, x.posts("art"))
	for range 2 { // again, it changes nothing
		require.NoError(t, x.applier.Consent(t.Context(), true, apply.Deny{}))
		x.settle()
		require.Equal(t, []string{"out", "plain"}, x.posts("art"))
		x.checkTotals()
	}
	x.apply(of("3", create("new", 1, "art")), of("3", profile(2, "C", true)))
	require.Equal(t, []string{"new", "out", "plain"}, x.posts("art"), "the index keeps the setting")

	require.NoError(t, x.applier.Consent(t.Context(), false, apply.Deny{}))
	require.Equal(t, []string{"plain"}, x.posts("art"), "at once")
	x.settle()
	require.Equal(t, []string{"plain"}, x.posts("art"))
	x.checkTotals()
}

// TestRedriveKeepsAuthors: the names and the consent of an account whose history is folded again.
func TestRedriveKeepsAuthors(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	told := []event.Event{create("a", 1, "art"), profile(2, "A", true), handle(9, "a.example"), profile(3, "B", false)}
	h := apply.History{DID: did, Whole: true}
	for i := range told {
		told[i].Source = event.Position{Host: "https://host.example", Seq: uint64(i + 1), Time: at(i + 1)}
		h.Steps = append(h.Steps, apply.Step{Seq: uint64(i + 1), Event: &told[i]})
	}
	x.apply(told[0], told[1], told[2], told[3])
	h.Through = x.seq
	require.NoError(t, x.applier.Redrive(t.Context(), h))
	require.Equal(t, "B bafyB a.example", x.author())
	require.Equal(t, []string{"a"}, x.posts("art"))

	h.Steps = h.Steps[:2] // the stream lost the last ones; the index knows better
	require.NoError(t, x.applier.Redrive(t.Context(), h))
	require.Equal(t, "B bafyB a.example", x.author())
	require.Equal(t, []string{"a"}, x.posts("art"))
	x.checkTotals()
}

// TestDeny: an account on the deny list is hidden, whether the index knows it or not and whatever
// it says itself, and comes back in its old places when it leaves the list.
//
// Invariant: a denied account is as hidden as one that opted out, by the same state, and nothing
// that the network tells shows it.
func TestDeny(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	of := func(who string, ev event.Event) event.Event {
		ev.DID = did + who
		return ev
	}
	decide := func(ignore bool, accounts ...string) {
		t.Helper()
		require.NoError(t, x.applier.Consent(t.Context(), ignore, apply.Deny{Accounts: accounts}))
		x.settle()
		x.checkTotals()
	}
	x.apply(create("plain", 1, "art"), of("1", create("known", 1, "art")), of("2", create("out", 1, "art")), of("2", profile(2, "A", true)))
	for range 2 {
		decide(false, did+"1", did+"2", did+"3")
		require.Equal(t, []string{"plain"}, x.posts("art"))
	}
	decide(true, did+"1", did+"2", did+"3")
	require.Equal(t, []string{"plain"}, x.posts("art"), "no consent undoes it")

	x.apply(of("1", create("more", 2, "art")), of("1", status(false, "suspended")), of("1", status(true, "")), of("1", profile(3, "B", false)),
		of("3", create("unknown", 1, "art")), of("3", create("again", 2, "art")))
	x.settle()
	x.checkTotals()
	require.Equal(t, []string{"plain"}, x.posts("art"))

	told := of("1", create("known", 1, "art"))
	told.Source = event.Position{Host: "https://host.example", Seq: 1, Time: at(1)}
	require.NoError(t, x.applier.Redrive(t.Context(), apply.History{DID: did + "1", Through: x.seq, Steps: []apply.Step{{Seq: 1, Event: &told}}}))
	require.Equal(t, []string{"plain"}, x.posts("art"))

	decide(true, did+"2")
	require.ElementsMatch(t, []string{"again", "known", "more", "plain", "unknown"}, x.posts("art"))
	decide(false)
	require.ElementsMatch(t, []string{"again", "known", "more", "plain", "unknown"}, x.posts("art"), "one opted out")
	decide(true)
	require.ElementsMatch(t, []string{"again", "known", "more", "out", "plain", "unknown"}, x.posts("art"))
}
