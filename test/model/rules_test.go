package model

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

// base is the time from which the histories of the tables count seconds.
var base = time.Date(2026, 8, 20, 12, 0, 0, 0, time.UTC)

// parseHistory reads events separated by semicolons. The n-th one, from 1, has
// source sequence n and the time n seconds after base. Examples:
//
//	create a/1 @3 #art #photo created=2 (key 1 of did:plc:a, rev 3, two seconds after base)
//	delete a/1 @4
//	account a suspended (or active, or active+suspended) at=2 seq=9 host=two
//	sync a @5
//	position
func parseHistory(t testing.TB, text string) []*event.Event {
	t.Helper()
	var events []*event.Event
	for i, line := range strings.Split(text, ";") {
		words := strings.Fields(line)
		n := i + 1
		e := &event.Event{V: event.Version, Kind: event.Kind(words[0])}
		e.Source = event.Position{Host: "h", Seq: uint64(n), Time: base.Add(time.Duration(n) * time.Second)}
		for _, w := range words[1:] {
			name, value, _ := strings.Cut(w, "=")
			number, _ := strconv.Atoi(value)
			switch {
			case strings.HasPrefix(w, "@"):
				rev, err := strconv.Atoi(w[1:])
				require.NoError(t, err, line)
				e.Rev = tid(uint64(rev))
			case strings.HasPrefix(w, "#"):
				e.Tags = append(e.Tags, w[1:])
			case name == "at":
				e.Source.Time = base.Add(time.Duration(number) * time.Second)
			case name == "host":
				e.Source.Host = value
			case name == "seq":
				e.Source.Seq = uint64(number)
			case name == "created":
				e.CreatedAt = base.Add(time.Duration(number) * time.Second).Format(time.RFC3339)
			case name == "own": // the network's time of an account event, and its number
				e.Upstream = &event.Upstream{Seq: uint64(n), Time: base.Add(time.Duration(number) * time.Second)}
			case name == "ownseq":
				e.Upstream.Seq = uint64(number)
			case name == "name": // of a profile; handle= is of n seconds after base, or named= says
				e.Profile = &event.Profile{DisplayName: value}
			case w == "out":
				e.Profile.OptedOut = true
			case name == "handle":
				e.Handle = &event.Handle{Name: value, Time: e.Source.Time}
			case name == "named":
				e.Handle.Time = base.Add(time.Duration(number) * time.Second)
			case e.Kind == event.KindPosition:
				e.Sync = event.SyncState(w)
			case e.DID == "":
				did, rkey, _ := strings.Cut(w, "/")
				e.DID, e.Rkey = "did:plc:"+did, rkey
			default:
				e.Status, e.Active = strings.CutPrefix(w, "active")
				e.Status = strings.TrimPrefix(e.Status, "+")
				if !e.Active {
					e.Status = w
				}
			}
		}
		if e.Kind == event.KindCreate || e.Kind == event.KindUpdate {
			if e.Tags == nil {
				e.Tags = []string{"art"}
			}
			e.CID = fmt.Sprintf("cid%d", n)
			e.Record = fmt.Appendf(nil, `{"n":%d}`, n)
		}
		require.NoError(t, e.Validate(), line)
		events = append(events, e)
	}
	return events
}

func fold(events []*event.Event) *Index {
	x := New()
	for i, e := range events {
		x.ApplyEvent(uint64(i+1), e)
	}
	return x
}

var revWord = regexp.MustCompile(`[2-7a-z]{13}`)

// number is the inverse of tid, to make messages and expectations readable.
func number(rev string) int {
	for n := range 1000 {
		if tid(uint64(n)) == rev {
			return n
		}
	}
	return -1
}

// state returns all that the index knows in a short form: posts in order as "a/1@rev~seconds", in
// parentheses if hidden, then markers "-a/1@rev", then floors "a>rev".
func state(x *Index) string {
	short := strings.NewReplacer("at://did:plc:", "", "app.bsky.feed.post/", "").Replace
	var words []string
	for _, p := range x.All() {
		w := fmt.Sprintf("%s@%s~%d", short(p.URI), p.Rev, (p.Place.Micros-base.UnixMicro())/1e6)
		if p.Hidden {
			w = "(" + w + ")"
		}
		words = append(words, w)
	}
	var rest []string
	for uri, rev := range x.markers {
		rest = append(rest, fmt.Sprintf("-%s@%s", short(uri), rev))
	}
	for did, a := range x.accounts {
		if a.floor != "" {
			rest = append(rest, fmt.Sprintf("%s>%s", strings.TrimPrefix(did, "did:plc:"), a.floor))
		}
	}
	slices.Sort(rest)
	text := strings.Join(append(words, rest...), " ")
	return revWord.ReplaceAllStringFunc(text, func(rev string) string { return strconv.Itoa(number(rev)) })
}

// TestFoldRules has a case for each rule of the fold.
func TestFoldRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, history, want string }{
		// Newest rev wins.
		{"create enters at its time", "create a/1 @1", "a/1@1~1"},
		{"update enters too", "update a/1 @1", "a/1@1~1"},
		{"edit keeps the place", "create a/1 @1; update a/1 @2", "a/1@2~1"},
		{"create of an indexed post is an edit", "create a/1 @1; create a/1 @2", "a/1@2~1"},
		{"older edit changes nothing", "create a/1 @2; update a/1 @1", "a/1@2~1"},
		{"equal edit changes nothing", "create a/1 @2; update a/1 @2 #x", "a/1@2~1"},
		{"older delete changes nothing", "create a/1 @2; delete a/1 @1", "a/1@2~1"},
		{"equal delete changes nothing", "create a/1 @2; delete a/1 @2", "a/1@2~1"},
		{"posts of one rev are independent", "create a/1 @2; create a/2 @2; create b/1 @2", "b/1@2~3 a/2@2~2 a/1@2~1"},

		// Removal and deletion.
		{"delete leaves a marker", "create a/1 @1; delete a/1 @2", "-a/1@2"},
		{"remove leaves a marker", "create a/1 @1; remove a/1 @2", "-a/1@2"},
		{"marker stops an older create", "create a/1 @1; delete a/1 @3; create a/1 @2", "-a/1@3"},
		{"marker stops an equal create", "create a/1 @1; remove a/1 @3; create a/1 @3", "-a/1@3"},
		{"newer create passes the marker at a new place", "create a/1 @1; delete a/1 @2; create a/1 @3", "a/1@3~3"},
		{"newer update that qualifies again passes the marker", "create a/1 @1; remove a/1 @2; update a/1 @3", "a/1@3~3"},
		{"marker rises", "create a/1 @1; delete a/1 @2; delete a/1 @5; create a/1 @4", "-a/1@5"},
		{"marker does not fall", "create a/1 @1; delete a/1 @5; delete a/1 @2; create a/1 @4", "-a/1@5"},
		{"unknown post leaves no marker", "delete a/1 @5; remove a/2 @5", ""},
		{"older create of an unknown post enters", "delete a/1 @5; create a/1 @4", "a/1@4~2"},

		// Places.
		{"place by createdAt", "create a/1 @1 created=-100", "a/1@1~-100"},
		{"no place in the future", "create a/1 @1 created=100", "a/1@1~1"},
		{"times of an edit do not move a post", "create a/1 @1 created=0; update a/1 @2 created=-50", "a/1@2~0"},
		{"recreated post gets a new place", "create a/1 @1 created=0; delete a/1 @2; create a/1 @3 created=-50", "a/1@3~-50"},

		// Accounts.
		{"deactivated hides", "create a/1 @1; account a deactivated", "(a/1@1~1)"},
		{"suspended hides", "create a/1 @1; account a suspended", "(a/1@1~1)"},
		{"takendown hides", "create a/1 @1; account a takendown", "(a/1@1~1)"},
		{"an unknown status hides", "create a/1 @1; account a on-leave", "(a/1@1~1)"},
		{"other accounts stay visible", "create a/1 @1; create b/1 @1; account a suspended", "b/1@1~2 (a/1@1~1)"},
		{"throttled changes nothing", "create a/1 @1; account a throttled", "a/1@1~1"},
		{"desynchronized changes nothing", "create a/1 @1; account a suspended; account a active+desynchronized", "(a/1@1~1)"},
		{"throttled does not count as applied", "create a/1 @1; account a throttled at=9; account a suspended at=5", "(a/1@1~1)"},
		{"active shows in the old place", "create a/1 @1; account a suspended; account a active", "a/1@1~1"},
		{"active counts before the status", "create a/1 @1; account a active+deleted", "a/1@1~1"},
		{"posts arrive hidden", "account a suspended; create a/1 @1", "(a/1@1~2)"},
		{"posts are edited and deleted while hidden", "account a suspended; create a/1 @1; create a/2 @1; update a/1 @2; delete a/2 @2; account a active", "a/1@2~2 -a/2@2"},
		{"earlier account event changes nothing", "account a suspended at=9; account a active at=8 host=two; create a/1 @1", "(a/1@1~3)"},
		{"same account event changes nothing", "account a active at=9 seq=5; account a suspended at=9 seq=5; create a/1 @1", "a/1@1~3"},
		{"at one time the sequence number decides", "account a suspended at=9 seq=5; account a active at=9 seq=6; account a suspended at=9 seq=4; create a/1 @1", "a/1@1~4"},
		{"the network's time counts before the host's", "account a active own=9 at=50; account a suspended own=12 at=13; create a/1 @1", "(a/1@1~3)"},
		{"late report of a host changes nothing", "account a suspended own=12 at=13; account a active own=9 at=50 host=two; create a/1 @1", "(a/1@1~3)"},
		{"same event from another host changes nothing", "account a suspended own=9 ownseq=5 at=9; account a active own=9 ownseq=5 at=50 host=two; create a/1 @1", "(a/1@1~3)"},
		{"at one time the network's number decides", "account a suspended own=9 ownseq=6; account a active own=9 ownseq=5 host=two; create a/1 @1", "(a/1@1~3)"},
		{"the host's time counts if the network's is unknown", "account a suspended own=12 at=50; account a active at=20 host=two; create a/1 @1", "a/1@1~3"},
		{"within one host its numbers decide", "account a deactivated own=12; account a active own=9; create a/1 @1", "a/1@1~3"},
		{"within one host numbers decide before its own times", "account a deactivated at=12; account a active at=9; create a/1 @1", "a/1@1~3"},
		{"past event of a host changes nothing", "account a deactivated own=12; account a active own=9; account a deactivated own=12 ownseq=1 seq=1; create a/1 @1", "a/1@1~4"},
		{"later event of another host counts", "account a deactivated own=12; account a active own=9 host=two; create a/1 @1", "(a/1@1~3)"},
		{"host that started over is detected by network time and number", "account a deactivated own=12 seq=90; account a active own=13 seq=2; create a/1 @1", "a/1@1~3"},
		{"host that started over is detected by its time if the network's is unknown", "account a deactivated at=12 seq=90; account a active at=13 seq=2; create a/1 @1", "a/1@1~3"},
		{"numbers count of the host that repeated a status", "account a deactivated own=12 ownseq=7; account a deactivated own=12 ownseq=7 host=two; account a active own=9 host=two; create a/1 @1", "a/1@1~4"},
		{"each account has its own clock", "account a suspended at=9; account b suspended at=3; create a/1 @1; create b/1 @1", "(b/1@1~4) (a/1@1~3)"},
		{"deleted erases posts and leaves a floor", "create a/1 @1; create a/2 @3; account a deleted", "a>3"},
		{"markers count for the floor", "create a/1 @1; create a/2 @3; delete a/1 @7; account a deleted", "a>7"},
		{"the floor stops what is not newer", "create a/1 @3; account a deleted; create a/2 @2; create a/3 @3; account a active", "a>3"},
		{"posts after a deletion wait hidden", "create a/1 @3; account a deleted; create a/1 @4", "(a/1@4~3) a>3"},
		{"until an active event", "create a/1 @3; account a deleted; create a/1 @4; account a active", "a/1@4~3 a>3"},
		{"the floor rises", "create a/1 @3; account a deleted; create a/1 @4; account a active; account a deleted", "a>4"},
		{"the floor does not fall", "create a/1 @3; account a deleted; account a active; account a deleted", "a>3"},
		{"deleted of an account without posts leaves no floor", "account a deleted; create a/1 @1", "(a/1@1~2)"},
		{"repeated deletion erases what came before it", "create a/1 @1; account a deleted own=9 ownseq=5; create a/1 @2; account a deleted own=9 ownseq=5; account a active own=10", "a>2"},
		{"repetition of a hidden status as a deletion does not erase", "create a/1 @1; account a suspended own=9 ownseq=5; account a deleted own=9 ownseq=5", "(a/1@1~1)"},
		{"earlier deletion erases nothing", "create a/1 @1; account a active at=9; account a deleted at=8 host=two", "a/1@1~1"},

		// Authors.
		{"opted out hides", "create a/1 @1; author a @2 name=A out", "(a/1@1~1)"},
		{"opted out hides later posts", "author a @2 name=A out; create a/1 @1", "(a/1@1~2)"},
		{"visible once the label is gone", "create a/1 @1; author a @2 name=A out; author a @3 name=A", "a/1@1~1"},
		{"older profile does not opt in", "create a/1 @1; author a @3 name=A out; author a @2 name=A", "(a/1@1~1)"},
		{"active status does not opt in", "create a/1 @1; author a @2 name=A out; account a active", "(a/1@1~1)"},
		{"opting in does not activate", "create a/1 @1; account a suspended; author a @2 name=A out; author a @3 name=A", "(a/1@1~1)"},
		{"a name does not hide", "create a/1 @1; author a @2 name=A handle=a.example", "a/1@1~1"},
		{"a profile does not end a sync", "create a/1 @1; create a/2 @1; sync a @5; author a @5 name=A; create a/2 @5; position", "a/2@5~2"},

		// Sync.
		{"stale post stays until the next message", "create a/1 @1; sync a @5", "a/1@1~1"},
		{"next message removes the stale post", "create a/1 @1; sync a @5; position", ""},
		{"message of another account ends the sync", "create a/1 @1; sync a @5; create b/1 @5", "b/1@5~3"},
		{"another sync ends the sync", "create a/1 @1; sync a @5; sync b @5", ""},
		{"delete at the sync's rev ends the sync", "create a/1 @1; create a/2 @1; sync a @5; delete a/2 @5", "-a/2@5"},
		{"create at the sync's rev keeps the place", "create a/1 @1; sync a @5; create a/1 @5; position", "a/1@5~1"},
		{"update does not belong to a sync", "create a/1 @1; sync a @5; update a/1 @5; position", "a/1@5~3"},
		{"several creates at the sync's rev", "create a/1 @1; create a/2 @1; create a/3 @1; sync a @5; create a/1 @5; create a/2 @5; position", "a/2@5~2 a/1@5~1"},
		{"creates of a later rev", "create a/1 @1; create a/2 @1; sync a @5; create a/1 @6; create a/2 @6; position", "a/2@6~2 a/1@6~1"},
		{"posts below the repository's rev are removed", "create a/1 @1; create a/2 @5; sync a @5; create a/1 @6; position", "a/1@6~1"},
		{"late create below the repository's rev is ignored", "create a/1 @1; sync a @5; create a/1 @7; position; create a/2 @6", "a/1@7~1"},
		{"the first create fixes the repository's rev", "create a/1 @1; create a/2 @1; sync a @5; create a/1 @5; create a/2 @6; position", "a/2@6~5 a/1@5~1"},
		{"event after the repository removes none of its posts", "sync a @9; create a/1 @9; create a/2 @9; create a/3 @11; position", "a/3@11~4 a/2@9~3 a/1@9~2"},
		{"event after the repository, at any time", "sync a @9; create a/1 @9 at=1; create a/2 @9 at=1; create a/3 @11 at=1; position", "a/1@9~1 a/2@9~1 a/3@11~1"},
		{"create of an older rev does not belong to a sync", "create a/1 @1; create a/2 @5; sync a @5; create a/3 @7; create a/2 @6", "a/3@7~4"},
		{"times of creates do not matter", "create a/1 @1; create a/2 @1; sync a @5 at=7; create a/1 @5 at=2; create a/2 @5 at=9; position", "a/2@5~2 a/1@5~1"},
		{"position within a sync", "create a/1 @1; create a/2 @1; sync a @5; create a/1 @5; position open; position open; create a/2 @5; position over", "a/2@5~2 a/1@5~1"},
		{"position before the first create", "create a/1 @1; sync a @5; position open; create a/1 @6; position over", "a/1@6~1"},
		{"position after a sync", "create a/1 @1; create a/2 @1; sync a @5; create a/1 @5; position over; create a/2 @5", "a/2@5~6 a/1@5~1"},
		{"position after a sync at the sync's time", "create a/1 @1; create a/2 @1; sync a @5; create a/1 @5 at=3; position over at=3; create a/2 @5", "a/2@5~6 a/1@5~1"},
		{"old position at the sync's time", "create a/1 @1; sync a @5; position at=2; create a/1 @5", "a/1@5~1"},
		{"posts at the rev are not stale", "create a/1 @5; sync a @5; position", "a/1@5~1"},
		{"newer posts are not stale", "create a/1 @6; sync a @5; position", "a/1@6~1"},
		{"new posts of a sync enter", "create a/1 @1; sync a @5; create a/2 @5; position", "a/2@5~3"},
		{"new posts enter after the sync ended", "create a/1 @1; sync a @5; position; create a/2 @5", "a/2@5~4"},
		{"older creates are ignored after a sync", "sync a @5; create a/1 @4; create a/2 @5", "a/2@5~3"},
		{"older deletes are ignored after a sync", "sync a @5; create a/1 @5; delete a/1 @4", "a/1@5~2"},
		{"older sync changes nothing", "create a/1 @3; sync a @5; position; create a/1 @6; sync a @4; create a/2 @5", "a/2@5~6 a/1@6~4"},
		{"older sync within a sync restarts it", "create a/1 @3; sync a @5; create a/1 @6; sync a @4; create a/2 @5; position", "a/2@5~5 a/1@6~1"},
		{"repeated sync changes nothing", "sync a @5; create a/1 @5; sync a @5; position", "a/1@5~2"},
		{"hidden posts are synced hidden", "create a/1 @1; create a/2 @1; account a suspended; sync a @5; create a/1 @5; position; account a active", "a/1@5~1"},
		{"other accounts keep their posts", "create b/1 @1; sync a @5; position", "b/1@1~1"},
		{"deleted straight after a sync", "create a/1 @1; create a/2 @1; sync a @5; create a/1 @5; account a deleted", "a>5"},
		{"late create at the sync's rev enters again", "create a/1 @1; sync a @5; position; create a/1 @5", "a/1@5~4"},
		{"delete of a stale post leaves a marker", "create a/1 @1; sync a @5; delete a/1 @7; create a/1 @6", "-a/1@7"},
		{"remove at the sync's rev leaves a marker", "create a/1 @1; sync a @5; remove a/1 @5; create a/1 @5", "-a/1@5"},
		{"older create stays out after a sync", "create a/1 @1; sync a @5; position; create a/1 @4", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, state(fold(parseHistory(t, c.history))))
		})
	}
}

// TestAuthorRules has a case for each rule of authors.
func TestAuthorRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, history, want string }{
		{"of a known account", "create a/1 @1; author a @2 name=A handle=a.example", "A a.example"},
		{"of an unknown one", "author a @2 name=A handle=a.example; create a/1 @1", " "},
		{"that opts out, and in", "author a @2 name=A out handle=a.example; author a @3 name=B; create a/1 @1", "B a.example"},
		{"the newest profile", "create a/1 @1; author a @3 name=B; author a @2 name=A; author a @3 name=C", "B "},
		{"the latest handle", "create a/1 @1; author a handle=b.example named=9; author a handle=a.example named=8; author a handle=c.example named=9", " b.example"},
		{"a handle that is lost", "create a/1 @1; author a handle=b.example named=8; author a handle= named=9", " "},
		{"taken by a deletion", "create a/1 @1; author a @2 name=A handle=a.example; account a deleted; account a active; create a/1 @9", " "},
	} {
		x := fold(parseHistory(t, c.history))
		a := x.account("did:plc:a").author
		require.Equal(t, c.want, a.DisplayName+" "+a.Handle, c.name)
		for _, p := range x.All() {
			require.Equal(t, a, p.Author, c.name)
		}
	}
}

// A refused message is ignored, also within a sync. Tags that ingest cannot have written are a
// complaint.
func TestFoldOfMessages(t *testing.T) {
	t.Parallel()
	x := fold(parseHistory(t, "create a/1 @1; sync a @5"))
	x.Apply(3, []byte("not an event"))
	require.Equal(t, "a/1@1~1", state(x))
	require.Equal(t, 1, x.DeadLetters())
	e := parseHistory(t, "create b/1 @1")[0]
	e.Tags = []string{"Art"}
	x.ApplyEvent(4, e)
	require.Len(t, x.complaints, 1)
}

func TestCollisionTakesNextPlace(t *testing.T) {
	t.Parallel()
	const last = 1<<64 - 1
	x := New()
	x.hash = func(string) uint64 { return last - 1 }
	at := func(history string) map[string]uint64 {
		for i, e := range parseHistory(t, history) {
			e.Source.Time = base
			x.ApplyEvent(uint64(i+1), e)
		}
		hashes := map[string]uint64{}
		for _, p := range x.All() {
			hashes[p.Rkey] = p.Place.Hash
		}
		return hashes
	}
	require.Equal(t, map[string]uint64{"1": last - 1, "2": last, "3": 0},
		at("create a/1 @1; create a/2 @1; create a/3 @1"), "it must count up and wrap within the microsecond")
	require.Equal(t, map[string]uint64{"2": last, "3": 0},
		at("delete a/1 @2; update a/2 @2"), "an edit must not move to the free place")
	require.Equal(t, map[string]uint64{"1": 1, "2": last, "3": 0, "4": last - 1},
		at("create a/4 @1; create a/1 @3"), "the next new post must take it")
}
