package event_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

// syncEvent parses "kind account rev @second". Times matter only for old positions.
func syncEvent(t *testing.T, text string) *event.Event {
	t.Helper()
	ev := &event.Event{}
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0 && (word == "over" || word == "open"):
			ev.Kind, ev.Sync = event.KindPosition, event.SyncState(word)
		case i == 0 && word == "lookup":
			ev.Kind, ev.Source.Host = event.KindAuthor, "https://appview.example"
		case i == 0:
			ev.Kind = event.Kind(word)
		case i == 1 && ev.Kind != event.KindPosition:
			ev.DID = word
		case word[0] == '@':
			ev.Source.Time = time.Unix(int64(word[1]), 0)
		default:
			ev.Rev = word
		}
	}
	return ev
}

// Each event after a #sync at revision 3 either leaves it open (y) or ends it (n).
//
// Invariant: one rule says which events belong to a #sync, and it uses no time: the creates after
// it at the revision of the first one, until any other event or a position that ends it. See also
// TestEndOfSyncIsReported and TestFold.
func TestSyncRun(t *testing.T) {
	t.Parallel()
	require.False(t, event.SyncRun{}.Open())
	require.False(t, event.SyncRun{}.Continues(syncEvent(t, "open")))
	for name, c := range map[string]struct{ events, goes string }{
		"replacements at its revision":        {"create a 3; create a 3", "yy"},
		"at a later one":                      {"create a 5; create a 5", "yy"},
		"the first fixes it":                  {"create a 3; create a 5", "yn"},
		"the first fixes it, also downwards":  {"create a 5; create a 4", "yn"},
		"it is over once it is over":          {"create a 3; create b 3; create a 3", "ynn"},
		"an older create":                     {"create a 2; create a 3", "nn"},
		"no update":                           {"update a 3", "n"},
		"no deletion":                         {"delete a 3; create a 3", "nn"},
		"no removal":                          {"remove a 3", "n"},
		"its profile":                         {"author a 3; create a 3", "yy"},
		"another's profile":                   {"author b 3; create a 3", "nn"},
		"another's that was looked up":        {"lookup b 3; create a 3", "yy"},
		"no status":                           {"account a; create a 3", "nn"},
		"another account":                     {"create b 3; create a 3", "nn"},
		"another's #sync":                     {"sync b 4; create a 4; create b 4", "nnn"},
		"another's #sync, continued":          {"sync b 4; create b 4; create b 4", "nyy"},
		"itself again":                        {"create a 3; sync a 3; create a 5; create a 5", "yyyy"},
		"an older one of it":                  {"create a 5; sync a 2; create a 2", "yyy"},
		"times say nothing":                   {"create a 3 @7; create a 3 @2; create a 4 @1", "yyn"},
		"a position that says over":           {"create a 3; over @1; create a 3", "ynn"},
		"a position that says open":           {"open @9; create a 5; open @7; create a 5", "yyyy"},
		"an old position at its time":         {"create a 3 @9; position @1; create a 3", "yyy"},
		"an old position at another's":        {"create a 3 @9; position @9; create a 3", "ynn"},
		"an old position, times of their own": {"sync b 4 @5; position @5; create b 4", "nyy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run := event.SyncRun{}.After(syncEvent(t, "sync a 3 @1"))
			got := ""
			for text := range strings.SplitSeq(c.events, ";") {
				ev := syncEvent(t, text)
				if run.Open() && run.Continues(ev) {
					got += "y"
				} else {
					got += "n"
				}
				run = run.After(ev)
			}
			require.Equal(t, c.goes, got)
		})
	}
}
