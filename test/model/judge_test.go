package model

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

func timelineOf(events []*event.Event) *Timeline {
	t := NewTimeline()
	for i, e := range events {
		t.ApplyEvent(uint64(i+1), e)
	}
	return t
}

// judged is a walk and its expected verdict.
type judged struct {
	name string
	walk Walk
	rows string
	want Verdict
	says string
}

func (c judged) run(t *testing.T, line *Timeline) {
	t.Run(c.name, func(t *testing.T) {
		t.Parallel()
		got, err := line.Judge(c.walk)
		c.want.Walks, c.want.Rows = 1, len(c.walk.Seen)
		require.Equal(t, c.want, got)
		if c.says == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, c.says)
		}
	})
}

func TestJudge(t *testing.T) {
	t.Parallel()
	line := timelineOf(parseHistory(t, "create a/1 @1; create a/2 @1; create b/3 @1; create a/4 @1 #cats; create a/5 @1; "+
		"account b suspended; delete a/2 @2; account b active; create a/2 @3; update a/5 @2 #cats; update a/5 @3"))
	seen := func(rkeys string) []Row {
		var rows []Row
		for _, word := range strings.Fields(rkeys) {
			rkey, at, _ := strings.Cut(word, "~")
			did := "did:plc:a"
			if rkey == "3" {
				did = "did:plc:b"
			}
			second := int(rkey[0] - '0')
			if at != "" {
				second = int(at[0] - '0')
			}
			rows = append(rows, Row{uriOf(did, rkey), base.Add(time.Duration(second) * time.Second).UnixMicro()})
		}
		return rows
	}
	from := func(rkey string) *Row { return &seen(rkey)[0] }
	for _, c := range []judged{
		{"all there", Walk{First: 5, Last: 5, Ended: true}, "5 3 2 1", Verdict{Due: 4}, ""},
		{"one missed", Walk{First: 5, Last: 5, Ended: true}, "5 2 1", Verdict{Due: 4, Missed: 1}, "in the list from 5 to 5"},
		{"hidden meanwhile, seen or not", Walk{First: 5, Last: 6, Ended: true}, "5 2 1", Verdict{Due: 3}, ""},
		{"hidden and back", Walk{First: 5, Last: 8, Ended: true}, "5 1", Verdict{Due: 2}, ""},
		{"hidden throughout", Walk{First: 6, Last: 7, Ended: true}, "5 3 2 1", Verdict{Due: 2, Foreign: 1}, "was not in the list"},
		{"deleted before", Walk{First: 7, Last: 7, Ended: true}, "5 2 1", Verdict{Due: 2, Foreign: 1}, "was not in the list"},
		{"deleted and back elsewhere, both seen", Walk{First: 5, Last: 9, Newer: true, Ended: true}, "1 2 5 2~9", Verdict{Due: 2}, ""},
		{"another tag", Walk{First: 4, Last: 4, Ended: true}, "4 3 2 1", Verdict{Due: 3, Foreign: 1}, "was not in the list"},
		{"edited out for a moment", Walk{First: 9, Last: 11, Ended: true}, "2~9 3 1", Verdict{Due: 3}, ""},
		{"edited, and there again", Walk{First: 10, Last: 11, Ended: true}, "2~9 5 3 1", Verdict{Due: 3}, ""},
		{"twice", Walk{First: 5, Last: 5, Ended: true}, "5 3 3 2 1", Verdict{Due: 4, Repeated: 1}, "seen before"},
		{"out of order", Walk{First: 5, Last: 5, Ended: true}, "5 2 3 1", Verdict{Due: 4, Disordered: 1}, "does not come after"},
		{"newer", Walk{First: 5, Last: 5, Newer: true, Ended: true}, "1 2 3 5", Verdict{Due: 4}, ""},
		{"newer, out of order", Walk{First: 5, Last: 5, Newer: true, Ended: true}, "5 3 2 1", Verdict{Due: 4, Disordered: 3}, "does not come after"},
		{"not to the end", Walk{First: 5, Last: 5}, "5 3", Verdict{Due: 2}, ""},
		{"a gap before the end", Walk{First: 5, Last: 5}, "5 2", Verdict{Due: 3, Missed: 1}, "was not seen"},
		{"nothing yet", Walk{First: 5, Last: 5}, "", Verdict{}, ""},
		{"from a row", Walk{First: 5, Last: 5, From: from("3"), Ended: true}, "2 1", Verdict{Due: 2}, ""},
		{"from a row that is there again", Walk{First: 5, Last: 5, From: from("3"), Ended: true}, "3 2 1", Verdict{Due: 2, Disordered: 1}, "before where the walk began"},
		{"newer from a row", Walk{First: 5, Last: 5, From: from("2"), Newer: true, Ended: true}, "3", Verdict{Due: 2, Missed: 1}, "was not seen"},
		{"too early to tell", Walk{First: 5, Last: 12}, "5", Verdict{}, "known until 11"},
	} {
		c.walk.Query, c.walk.Seen = Query{Tags: []string{"#Art"}}, seen(c.rows)
		c.run(t, line)
	}
}

func TestJudgeTags(t *testing.T) {
	t.Parallel()
	line := timelineOf(parseHistory(t, "create a/1 @1 #b #a; create a/2 @1 #b #c; create a/3 @1 #d; delete a/3 @2; update a/1 @2 #a #b; create a/4 @1 #c"))
	for _, c := range []judged{
		{"all there", Walk{First: 2, Last: 2, Ended: true}, "b=2 a=1 c=1", Verdict{Due: 3}, ""},
		{"upwards", Walk{First: 2, Last: 2, Newer: true, Ended: true}, "c=1 a=1 b=2", Verdict{Due: 3}, ""},
		{"came and went", Walk{First: 2, Last: 4, Ended: true}, "b=2 a=1 c=1 d=1", Verdict{Due: 3}, ""},
		{"an edit that keeps the tags", Walk{First: 4, Last: 5, Ended: true}, "b=2 c=1", Verdict{Due: 3, Missed: 1}, "{a 1} was in the list"},
		{"moved and missed", Walk{First: 5, Last: 6, Ended: true}, "b=2 a=1", Verdict{Due: 2}, ""},
		{"moved and seen twice", Walk{First: 5, Last: 6, Newer: true, Ended: true}, "c=1 a=1 c=2 b=2", Verdict{Due: 2}, ""},
		{"twice", Walk{First: 2, Last: 2, Ended: true}, "b=2 b=2 a=1 c=1", Verdict{Due: 3, Repeated: 1}, "seen before"},
		{"names downwards", Walk{First: 2, Last: 2, Ended: true}, "b=2 c=1 a=1", Verdict{Due: 3, Disordered: 1}, "does not come after"},
		{"a wrong count", Walk{First: 2, Last: 2, Ended: true}, "b=2 a=1 c=0", Verdict{Due: 3, Missed: 1, Foreign: 1}, "{c 0}, was not in the list"},
		{"not to the end", Walk{First: 2, Last: 2}, "b=2 a=1", Verdict{Due: 2}, ""},
	} {
		c.walk.Tags = true
		for _, word := range strings.Fields(c.rows) { // one-letter tags with one-digit counts
			c.walk.Seen = append(c.walk.Seen, Row{word[:1], int64(word[2] - '0')})
		}
		c.run(t, line)
	}
}
