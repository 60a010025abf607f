package model

import (
	"testing"

	"github.com/stretchr/testify/require"
)

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
		{"posts of one rev do not meet", "create a/1 @2; create a/2 @2; create b/1 @2", "b/1@2~3 a/2@2~2 a/1@2~1"},

		// Removal and deletion.
		{"delete leaves a marker", "create a/1 @1; delete a/1 @2", "-a/1@2"},
		{"remove leaves a marker", "create a/1 @1; remove a/1 @2", "-a/1@2"},
		{"marker stops an older create", "create a/1 @1; delete a/1 @3; create a/1 @2", "-a/1@3"},
		{"marker stops an equal create", "create a/1 @1; remove a/1 @3; create a/1 @3", "-a/1@3"},
		{"newer create passes the marker at a new place", "create a/1 @1; delete a/1 @2; create a/1 @3", "a/1@3~3"},
		{"so does an update that qualifies again", "create a/1 @1; remove a/1 @2; update a/1 @3", "a/1@3~3"},
		{"marker rises", "create a/1 @1; delete a/1 @2; delete a/1 @5; create a/1 @4", "-a/1@5"},
		{"marker does not fall", "create a/1 @1; delete a/1 @5; delete a/1 @2; create a/1 @4", "-a/1@5"},
		{"nothing is left of a post never had", "delete a/1 @5; remove a/2 @5", ""},
		{"so an older create of it enters", "delete a/1 @5; create a/1 @4", "a/1@4~2"},

		// Places.
		{"the author's time", "create a/1 @1 created=-100", "a/1@1~-100"},
		{"not the future", "create a/1 @1 created=100", "a/1@1~1"},
		{"an edit's own times do not move it", "create a/1 @1 created=0; update a/1 @2 created=-50", "a/1@2~0"},
		{"a post that comes back is placed by its new times", "create a/1 @1 created=0; delete a/1 @2; create a/1 @3 created=-50", "a/1@3~-50"},

		// Accounts.
		{"deactivated hides", "create a/1 @1; account a deactivated", "(a/1@1~1)"},
		{"suspended hides", "create a/1 @1; account a suspended", "(a/1@1~1)"},
		{"takendown hides", "create a/1 @1; account a takendown", "(a/1@1~1)"},
		{"an unknown status hides", "create a/1 @1; account a on-leave", "(a/1@1~1)"},
		{"only that account", "create a/1 @1; create b/1 @1; account a suspended", "b/1@1~2 (a/1@1~1)"},
		{"throttled changes nothing", "create a/1 @1; account a throttled", "a/1@1~1"},
		{"desynchronized changes nothing", "create a/1 @1; account a suspended; account a active+desynchronized", "(a/1@1~1)"},
		{"throttled does not count as applied", "create a/1 @1; account a throttled at=9; account a suspended at=5", "(a/1@1~1)"},
		{"active shows in the old place", "create a/1 @1; account a suspended; account a active", "a/1@1~1"},
		{"active counts before the status", "create a/1 @1; account a active+deleted", "a/1@1~1"},
		{"posts arrive hidden", "account a suspended; create a/1 @1", "(a/1@1~2)"},
		{"and are edited and deleted hidden", "account a suspended; create a/1 @1; create a/2 @1; update a/1 @2; delete a/2 @2; account a active", "a/1@2~2 -a/2@2"},
		{"an earlier account event changes nothing", "account a suspended at=9; account a active at=8; create a/1 @1", "(a/1@1~3)"},
		{"nor the same one", "account a active at=9 seq=5; account a suspended at=9 seq=5; create a/1 @1", "a/1@1~3"},
		{"at one time the sequence number decides", "account a suspended at=9 seq=5; account a active at=9 seq=6; account a suspended at=9 seq=4; create a/1 @1", "a/1@1~4"},
		{"the network's time counts before the host's", "account a active own=9 at=50; account a suspended own=12 at=13; create a/1 @1", "(a/1@1~3)"},
		{"so what a host tells late changes nothing", "account a suspended own=12 at=13; account a active own=9 at=50; create a/1 @1", "(a/1@1~3)"},
		{"nor the same from another host", "account a suspended own=9 ownseq=5 at=9; account a active own=9 ownseq=5 at=50; create a/1 @1", "(a/1@1~3)"},
		{"at one time the network's number decides", "account a suspended own=9 ownseq=6; account a active own=9 ownseq=5; create a/1 @1", "(a/1@1~3)"},
		{"the host's where there is no other", "account a suspended own=12 at=50; account a active at=20; create a/1 @1", "a/1@1~3"},
		{"each account has its own clock", "account a suspended at=9; account b suspended at=3; create a/1 @1; create b/1 @1", "(b/1@1~4) (a/1@1~3)"},
		{"deleted erases posts and leaves a floor", "create a/1 @1; create a/2 @3; account a deleted", "a>3"},
		{"markers count for the floor", "create a/1 @1; create a/2 @3; delete a/1 @7; account a deleted", "a>7"},
		{"the floor stops what is not newer", "create a/1 @3; account a deleted; create a/2 @2; create a/3 @3; account a active", "a>3"},
		{"posts after a deletion wait hidden", "create a/1 @3; account a deleted; create a/1 @4", "(a/1@4~3) a>3"},
		{"until an active event", "create a/1 @3; account a deleted; create a/1 @4; account a active", "a/1@4~3 a>3"},
		{"the floor rises", "create a/1 @3; account a deleted; create a/1 @4; account a active; account a deleted", "a>4"},
		{"the floor does not fall", "create a/1 @3; account a deleted; account a active; account a deleted", "a>3"},
		{"deleted of an account without posts leaves no floor", "account a deleted; create a/1 @1", "(a/1@1~2)"},
		{"a deletion told again erases what came before it", "create a/1 @1; account a deleted own=9 ownseq=5; create a/1 @2; account a deleted own=9 ownseq=5; account a active own=10", "a>2"},
		{"which a hidden account's is not", "create a/1 @1; account a suspended own=9 ownseq=5; account a deleted own=9 ownseq=5", "(a/1@1~1)"},
		{"an earlier deleted erases nothing", "create a/1 @1; account a active at=9; account a deleted at=8", "a/1@1~1"},

		// Sync.
		{"before the next message the stale post is there", "create a/1 @1; sync a @5", "a/1@1~1"},
		{"the next message removes it", "create a/1 @1; sync a @5; position", ""},
		{"so does one of another account", "create a/1 @1; sync a @5; create b/1 @5", "b/1@5~3"},
		{"so does another sync", "create a/1 @1; sync a @5; sync b @5", ""},
		{"so does the account's delete at that rev", "create a/1 @1; create a/2 @1; sync a @5; delete a/2 @5", "-a/2@5"},
		{"a create at its rev keeps the place", "create a/1 @1; sync a @5; create a/1 @5; position", "a/1@5~1"},
		{"an update is none of them", "create a/1 @1; sync a @5; update a/1 @5; position", "a/1@5~3"},
		{"a run of them", "create a/1 @1; create a/2 @1; create a/3 @1; sync a @5; create a/1 @5; create a/2 @5; position", "a/2@5~2 a/1@5~1"},
		{"they may be of a later rev", "create a/1 @1; create a/2 @1; sync a @5; create a/1 @6; create a/2 @6; position", "a/2@6~2 a/1@6~1"},
		{"below which nothing is left", "create a/1 @1; create a/2 @5; sync a @5; create a/1 @6; position", "a/1@6~1"},
		{"nor comes late", "create a/1 @1; sync a @5; create a/1 @7; position; create a/2 @6", "a/1@7~1"},
		{"the first tells the rev of all", "create a/1 @1; create a/2 @1; sync a @5; create a/1 @5; create a/2 @6; position", "a/2@6~5 a/1@5~1"},
		{"so what comes next removes none of them", "sync a @9; create a/1 @9; create a/2 @9; create a/3 @11; position", "a/3@11~4 a/2@9~3 a/1@9~2"},
		{"whatever its time", "sync a @9; create a/1 @9 at=1; create a/2 @9 at=1; create a/3 @11 at=1; position", "a/1@9~1 a/2@9~1 a/3@11~1"},
		{"an older one is none of them", "create a/1 @1; create a/2 @5; sync a @5; create a/3 @7; create a/2 @6", "a/3@7~4"},
		{"times of their own say nothing", "create a/1 @1; create a/2 @1; sync a @5 at=7; create a/1 @5 at=2; create a/2 @5 at=9; position", "a/2@5~2 a/1@5~1"},
		{"a position within them", "create a/1 @1; create a/2 @1; sync a @5; create a/1 @5; position open; position open; create a/2 @5; position over", "a/2@5~2 a/1@5~1"},
		{"also before the first", "create a/1 @1; sync a @5; position open; create a/1 @6; position over", "a/1@6~1"},
		{"a position behind them", "create a/1 @1; create a/2 @1; sync a @5; create a/1 @5; position over; create a/2 @5", "a/2@5~6 a/1@5~1"},
		{"though its time is the sync's", "create a/1 @1; create a/2 @1; sync a @5; create a/1 @5 at=3; position over at=3; create a/2 @5", "a/2@5~6 a/1@5~1"},
		{"an old position at its time", "create a/1 @1; sync a @5; position at=2; create a/1 @5", "a/1@5~1"},
		{"posts at the rev are not stale", "create a/1 @5; sync a @5; position", "a/1@5~1"},
		{"nor newer ones", "create a/1 @6; sync a @5; position", "a/1@6~1"},
		{"new posts enter", "create a/1 @1; sync a @5; create a/2 @5; position", "a/2@5~3"},
		{"also once the run has ended", "create a/1 @1; sync a @5; position; create a/2 @5", "a/2@5~4"},
		{"older events change nothing from then on", "sync a @5; create a/1 @4; create a/2 @5", "a/2@5~3"},
		{"older deletes too", "sync a @5; create a/1 @5; delete a/1 @4", "a/1@5~2"},
		{"an older sync changes nothing", "create a/1 @3; sync a @5; position; create a/1 @6; sync a @4; create a/2 @5", "a/2@5~6 a/1@6~4"},
		{"an older sync within one begins it again", "create a/1 @3; sync a @5; create a/1 @6; sync a @4; create a/2 @5; position", "a/2@5~5 a/1@6~1"},
		{"nor the same one again", "sync a @5; create a/1 @5; sync a @5; position", "a/1@5~2"},
		{"hidden posts are synced hidden", "create a/1 @1; create a/2 @1; account a suspended; sync a @5; create a/1 @5; position; account a active", "a/1@5~1"},
		{"other accounts keep theirs", "create b/1 @1; sync a @5; position", "b/1@1~1"},
		{"deleted straight after a sync", "create a/1 @1; create a/2 @1; sync a @5; create a/1 @5; account a deleted", "a>5"},
		{"a create at its rev that comes late is a fresh entry", "create a/1 @1; sync a @5; position; create a/1 @5", "a/1@5~4"},
		{"the delete of a stale post leaves its marker", "create a/1 @1; sync a @5; delete a/1 @7; create a/1 @6", "-a/1@7"},
		{"at the sync's rev too", "create a/1 @1; sync a @5; remove a/1 @5; create a/1 @5", "-a/1@5"},
		{"an older one stays out", "create a/1 @1; sync a @5; position; create a/1 @4", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, state(fold(parseHistory(t, c.history))))
		})
	}
}
