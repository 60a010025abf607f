package backfill

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

var begin = time.Date(2026, 8, 31, 12, 0, 0, 0, time.UTC)

// ev is an event at a second, with the revision of that second.
func ev(second int, kind event.Kind, did, rkey string) *event.Event {
	e := &event.Event{V: event.Version, Kind: kind, DID: "did:plc:" + did, Rkey: rkey, Source: event.Position{
		Host: "https://host.example", Seq: uint64(second), Time: begin.Add(time.Duration(second) * time.Second),
	}}
	if kind != event.KindAccount {
		e.Rev = fmt.Sprintf("3l3qo2vut%04d", second)
	}
	return e
}

func account(second int, did string, active bool, status string) *event.Event {
	e := ev(second, event.KindAccount, did, "")
	e.Active, e.Status = active, status
	return e
}

// by gives an account event its own upstream time.
func by(second int, e *event.Event) *event.Event {
	e.Upstream = &event.Upstream{Seq: 1, Time: begin.Add(time.Duration(second) * time.Second)}
	return e
}

// at gives an event another time.
func at(second int, e *event.Event) *event.Event {
	e.Source.Time = begin.Add(time.Duration(second) * time.Second)
	return e
}

func TestSurvey(t *testing.T) {
	t.Parallel()
	const until = 10
	post := func() *event.Event { return ev(1, event.KindCreate, "a", "p") }
	tests := map[string]struct {
		history  []*event.Event // after post
		ask      *event.Event   // post if nil
		gone     bool
		outdated bool
		hidden   bool // its account is hidden
		ignored  bool // because it is after the window
	}{
		"still there":                  {},
		"deleted later":                {history: []*event.Event{ev(20, event.KindDelete, "a", "p")}, gone: true},
		"deleted in the window":        {history: []*event.Event{ev(5, event.KindDelete, "a", "p")}, gone: true},
		"edited to no tags":            {history: []*event.Event{ev(20, event.KindRemove, "a", "p")}, gone: true},
		"edited":                       {history: []*event.Event{ev(20, event.KindUpdate, "a", "p")}},
		"another was deleted":          {history: []*event.Event{ev(20, event.KindDelete, "a", "q"), ev(20, event.KindDelete, "b", "p")}},
		"recreated under its key":      {history: []*event.Event{ev(5, event.KindDelete, "a", "p")}, ask: ev(6, event.KindCreate, "a", "p")},
		"erased":                       {history: []*event.Event{account(20, "a", false, "deleted")}, gone: true},
		"erased and back":              {history: []*event.Event{account(20, "a", false, "deleted"), account(21, "a", true, "")}, gone: true},
		"written after that":           {history: []*event.Event{account(5, "a", false, "deleted"), account(6, "a", true, ""), ev(7, event.KindCreate, "a", "q")}, ask: ev(7, event.KindCreate, "a", "q")},
		"taken down":                   {history: []*event.Event{account(20, "a", false, "takendown")}, hidden: true},
		"taken down and back":          {history: []*event.Event{account(20, "a", false, "takendown"), account(21, "a", true, "")}},
		"throttled":                    {history: []*event.Event{account(20, "a", false, "throttled")}},
		"outdated status":              {history: []*event.Event{account(5, "b", false, "deleted"), account(20, "b", true, "")}, ask: account(5, "b", false, "deleted"), outdated: true},
		"a clock that goes back":       {history: []*event.Event{by(30, account(20, "a", false, "deleted")), by(25, account(21, "a", true, ""))}, ask: by(30, account(20, "a", false, "deleted")), outdated: true},
		"the last status":              {history: []*event.Event{account(5, "b", true, ""), account(20, "b", false, "new")}, ask: account(20, "b", false, "new"), hidden: true},
		"replaced without it":          {history: []*event.Event{ev(20, event.KindSync, "a", ""), ev(21, event.KindCreate, "a", "q")}, gone: true},
		"replaced with it":             {history: []*event.Event{ev(20, event.KindSync, "a", ""), at(20, ev(21, event.KindCreate, "a", "p"))}},
		"replaced, then written again": {history: []*event.Event{ev(20, event.KindSync, "a", ""), ev(20, event.KindCreate, "a", "q"), ev(21, event.KindCreate, "a", "p")}, gone: true},
		"replaced at a later revision": {history: []*event.Event{ev(20, event.KindSync, "a", ""), ev(23, event.KindCreate, "a", "p")}},
		"of another's #sync":           {history: []*event.Event{ev(20, event.KindSync, "a", ""), ev(21, event.KindSync, "z", ""), ev(23, event.KindCreate, "a", "p")}, gone: true},
		"replaced twice":               {history: []*event.Event{ev(20, event.KindSync, "a", ""), at(20, ev(20, event.KindCreate, "a", "p")), ev(22, event.KindSync, "a", "")}, gone: true},
		"a post of another time":       {ask: ev(20, event.KindCreate, "a", "later"), ignored: true},
		"an account of another time":   {history: []*event.Event{account(20, "z", false, "deleted")}, ask: account(20, "z", false, "deleted"), ignored: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSurvey()
			var run event.SyncRun
			for _, e := range append([]*event.Event{post()}, tt.history...) {
				require.NoError(t, s.note(e, e.Source.Seq < until, e.Kind == event.KindCreate && run.Continues(e)))
				run = run.After(e)
			}
			if tt.ask == nil {
				tt.ask = post()
			}
			require.Equal(t, tt.gone, s.gone(tt.ask), "gone")
			require.Equal(t, tt.outdated, s.outdated(tt.ask), "outdated")
			require.Equal(t, tt.hidden, s.hidden[tt.ask.DID] != nil, "hidden")
			require.Equal(t, tt.ignored, !s.concerns(tt.ask), "ignored")
		})
	}
}

func TestSurveyIsBounded(t *testing.T) {
	t.Parallel()
	s := newSurvey()
	s.limit = 1000
	for i := range 2 * s.limit {
		require.NoError(t, s.note(ev(1, event.KindCreate, "a", fmt.Sprint(i)), true, false), "posts must be in the filter")
	}
	var err error
	n := 0
	for ; err == nil && n < 2*s.limit; n++ {
		err = s.note(ev(2, event.KindDelete, "a", fmt.Sprint(n)), false, false)
	}
	require.ErrorIs(t, err, ErrTooMuch)
	require.Equal(t, s.limit+1, n)
}

func TestBloom(t *testing.T) {
	t.Parallel()
	b := newBloom()
	const n = 100_000
	for i := range n {
		b.add(fmt.Sprint("in ", i))
	}
	wrong := 0
	for i := range n {
		require.True(t, b.has(fmt.Sprint("in ", i)))
		if b.has(fmt.Sprint("out ", i)) {
			wrong++
		}
	}
	require.Less(t, wrong, n/1000)
}
