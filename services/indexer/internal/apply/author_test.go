package apply_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/testkit/eventtest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

func profile(r int, name string, optedOut bool) event.Event {
	return event.Event{Kind: event.KindAuthor, DID: did, Rev: rev(r), Profile: &event.Profile{DisplayName: name, Avatar: "bafy" + name, OptedOut: optedOut}}
}

func handle(second int, name string) event.Event {
	return event.Event{Kind: event.KindAuthor, DID: did, Handle: &event.Handle{Name: name, Time: eventtest.Time(second)}}
}

// author returns the account's name, avatar and handle in the index, or "no row".
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

// finishSweeps finishes all sweeps.
func (x *index) finishSweeps() {
	x.t.Helper()
	for x.applier.Writer.Pending() {
		require.NoError(x.t, x.applier.DoPending(x.t.Context()))
	}
}

// TestAuthors has a case for each rule of profiles and handles.
//
// Invariant: the newest revision of a profile and the latest handle win; unknown accounts are
// skipped unless they opt out; an account that has opted out is hidden.
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
		{"known account", [][]event.Event{{post}, {profile(2, "A", false), handle(9, "a.example")}}, "A bafyA a.example", shown},
		{"in one batch", [][]event.Event{{post, profile(2, "A", false), handle(9, "a.example")}}, "A bafyA a.example", shown},
		{"unknown account is skipped", [][]event.Event{{profile(2, "A", false), handle(9, "a.example")}}, "no row", hidden},
		{"unknown account is skipped before its posts", [][]event.Event{{profile(2, "A", false)}, {handle(9, "a.example"), post}}, "  ", shown},
		{"account with a status is known", [][]event.Event{{status(true, "")}, {profile(2, "A", false)}}, "A bafyA ", hidden},
		{"the newest revision wins", [][]event.Event{{post, profile(3, "B", false)}, {profile(2, "A", false), profile(3, "C", false)}}, "B bafyB ", shown},
		{"the latest handle wins", [][]event.Event{{post, handle(9, "b.example")}, {handle(8, "a.example"), handle(9, "c.example")}}, "  b.example", shown},
		{"lost handle", [][]event.Event{{post, handle(8, "a.example")}, {handle(9, "")}}, "  ", shown},
		{"deleted profile", [][]event.Event{{post, profile(2, "A", false)}, {{Kind: event.KindAuthor, DID: did, Rev: rev(3), Profile: &event.Profile{}}}}, "  ", shown},
		{"opted out", [][]event.Event{{post}, {profile(2, "A", true)}}, "A bafyA ", hidden},
		{"opted out in one batch, and continues to post", [][]event.Event{{post, profile(2, "A", true), create("b", 3, "art")}}, "A bafyA ", hidden},
		{"opted out before the first post", [][]event.Event{{profile(2, "A", true), handle(9, "a.example")}, {post}}, "A bafyA a.example", hidden},
		{"opted in again", [][]event.Event{{post}, {profile(2, "A", true)}, {profile(3, "A", false)}}, "A bafyA ", shown},
		{"opted in again in one batch", [][]event.Event{{post}, {profile(2, "A", true), profile(3, "B", false)}}, "B bafyB ", shown},
		{"not opted in by an older profile", [][]event.Event{{post}, {profile(3, "A", true)}, {profile(2, "A", false)}}, "A bafyA ", hidden},
		{"opted out before the first post, and in again", [][]event.Event{{profile(2, "A", true)}, {profile(3, "B", false)}, {post}}, "B bafyB ", shown},
		{"opted in by deleting the profile", [][]event.Event{{post}, {profile(2, "A", true)}, {{Kind: event.KindAuthor, DID: did, Rev: rev(3), Profile: &event.Profile{}}}}, "  ", shown},
		{"active status does not opt in", [][]event.Event{{post, profile(2, "A", true)}, {status(false, "deactivated")}, {status(true, "")}}, "A bafyA ", hidden},
		{"opting in does not activate", [][]event.Event{{post, profile(2, "A", true)}, {status(false, "suspended")}, {profile(3, "A", false)}}, "A bafyA ", hidden},
		{"opted in and active", [][]event.Event{{post, profile(2, "A", true)}, {status(false, "suspended")}, {profile(3, "A", false)}, {status(true, "")}}, "A bafyA ", shown},
		{"a #sync without the profile", [][]event.Event{{post, profile(2, "A", false), handle(9, "a.example")}, {syncState(5, event.SyncOpen), create("a", 5, "art"), syncState(5, event.SyncOver)}, {profile(4, "B", false)}}, "  a.example", shown},
		{"a #sync with the profile", [][]event.Event{{post, profile(2, "A", false)}, {syncState(5, event.SyncOpen), profile(5, "B", false), create("a", 5, "art"), syncState(5, event.SyncOver)}}, "B bafyB ", shown},
		{"a #sync from before the profile", [][]event.Event{{post, profile(6, "A", false)}, {syncState(5, event.SyncOpen), create("a", 5, "art"), syncState(5, event.SyncOver)}}, "A bafyA ", shown},
		{"a #sync without the profile does not opt in", [][]event.Event{{post, profile(2, "A", true)}, {syncState(5, event.SyncOpen), create("a", 5, "art"), syncState(5, event.SyncOver)}}, "A bafyA ", hidden},
		{"a deletion removes the names", [][]event.Event{{post, profile(2, "A", false), handle(9, "a.example")}, {status(false, "deleted")}}, "  ", hidden},
		{"an older profile does not restore deleted names", [][]event.Event{{post, profile(2, "A", false)}, {status(false, "deleted")}, {status(true, ""), profile(2, "A", false)}}, "  ", hidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, big := range []int{0, 1} { // with and without sweeps
				x := newIndex(t)
				x.applier.BigAccount = big
				for _, b := range c.batches {
					x.apply(b...)
				}
				x.finishSweeps()
				require.Equal(t, c.author, x.author(), "big from %d", big)
				require.Equal(t, c.posts, x.posts("art"), "big from %d", big)
				require.Empty(t, x.dead)
				x.checkTotals()
			}
		})
	}
}

// After the setting changes, the affected accounts are decided again, and others stay unchanged.
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
	for range 2 { // repeating it changes nothing
		require.NoError(t, x.applier.Consent(t.Context(), true, apply.Deny{}))
		x.finishSweeps()
		require.Equal(t, []string{"out", "plain"}, x.posts("art"))
		x.checkTotals()
	}
	x.apply(of("3", create("new", 1, "art")), of("3", profile(2, "C", true)))
	require.Equal(t, []string{"new", "out", "plain"}, x.posts("art"), "the index must keep the setting")

	require.NoError(t, x.applier.Consent(t.Context(), false, apply.Deny{}))
	require.Equal(t, []string{"plain"}, x.posts("art"), "a new account must be decided immediately")
	x.finishSweeps()
	require.Equal(t, []string{"plain"}, x.posts("art"))
	x.checkTotals()
}

// A redrive keeps the names and the consent of an account whose history is folded again.
func TestRedriveKeepsAuthors(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	events := []event.Event{create("a", 1, "art"), profile(2, "A", true), handle(9, "a.example"), profile(3, "B", false)}
	h := apply.History{DID: did, Whole: true}
	for i := range events {
		events[i].Source = eventtest.Position(i + 1)
		h.Steps = append(h.Steps, apply.Step{Seq: uint64(i + 1), Event: &events[i]})
	}
	x.apply(events[0], events[1], events[2], events[3])
	h.Through = x.seq
	require.NoError(t, x.applier.Redrive(t.Context(), h))
	require.Equal(t, "B bafyB a.example", x.author())
	require.Equal(t, []string{"a"}, x.posts("art"))

	h.Steps = h.Steps[:2] // the stream lost the last ones, but the index has them
	require.NoError(t, x.applier.Redrive(t.Context(), h))
	require.Equal(t, "B bafyB a.example", x.author())
	require.Equal(t, []string{"a"}, x.posts("art"))
	x.checkTotals()
}

// An account on the deny list is hidden, known or not, whatever its status and profile, and returns
// at its old places when it leaves the list.
//
// Invariant: a denied account is hidden like one that opted out, with the same state, and no event
// from the network shows it.
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
		x.finishSweeps()
		x.checkTotals()
	}
	x.apply(create("plain", 1, "art"), of("1", create("known", 1, "art")), of("2", create("out", 1, "art")), of("2", profile(2, "A", true)))
	for range 2 {
		decide(false, did+"1", did+"2", did+"3")
		require.Equal(t, []string{"plain"}, x.posts("art"))
	}
	decide(true, did+"1", did+"2", did+"3")
	require.Equal(t, []string{"plain"}, x.posts("art"), "consent must not show it")

	x.apply(of("1", create("more", 2, "art")), of("1", status(false, "suspended")), of("1", status(true, "")), of("1", profile(3, "B", false)),
		of("3", create("unknown", 1, "art")), of("3", create("again", 2, "art")))
	x.finishSweeps()
	x.checkTotals()
	require.Equal(t, []string{"plain"}, x.posts("art"))

	events := of("1", create("known", 1, "art"))
	events.Source = eventtest.Position(1)
	require.NoError(t, x.applier.Redrive(t.Context(), apply.History{DID: did + "1", Through: x.seq, Steps: []apply.Step{{Seq: 1, Event: &events}}}))
	require.Equal(t, []string{"plain"}, x.posts("art"))

	decide(true, did+"2")
	require.ElementsMatch(t, []string{"again", "known", "more", "plain", "unknown"}, x.posts("art"))
	decide(false)
	require.ElementsMatch(t, []string{"again", "known", "more", "plain", "unknown"}, x.posts("art"), "one has opted out")
	decide(true)
	require.ElementsMatch(t, []string{"again", "known", "more", "out", "plain", "unknown"}, x.posts("art"))
}
