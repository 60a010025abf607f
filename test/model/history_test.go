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
//	account a suspended (or active, or active+suspended) at=2 seq=9
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
			case name == "seq":
				e.Source.Seq = uint64(number)
			case name == "created":
				e.CreatedAt = base.Add(time.Duration(number) * time.Second).Format(time.RFC3339)
			case name == "own": // the network's time of an account event, and its number
				e.Upstream = &event.Upstream{Seq: uint64(n), Time: base.Add(time.Duration(number) * time.Second)}
			case name == "ownseq":
				e.Upstream.Seq = uint64(number)
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

// number undoes tid, for messages and expectations that a person reads.
func number(rev string) int {
	for n := range 1000 {
		if tid(uint64(n)) == rev {
			return n
		}
	}
	return -1
}

// state writes all that the index knows, in short: posts in order as
// "a/1@rev~seconds", in brackets when hidden, then markers "-a/1@rev", then
// floors "a>rev".
func state(x *Index) string {
	short := func(uri string) string {
		return strings.Replace(strings.TrimPrefix(uri, "at://did:plc:"), collection+"/", "", 1)
	}
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

// dump writes everything that the index holds, in a fixed order.
func dump(x *Index) string {
	var lines []string
	for did, a := range x.accounts {
		lines = append(lines, fmt.Sprintf("account %s %+v", did, *a))
	}
	for uri, rev := range x.markers {
		lines = append(lines, fmt.Sprintf("marker %s %s", uri, rev))
	}
	slices.Sort(lines)
	for _, p := range x.All() {
		lines = append(lines, fmt.Sprintf("post %+v", p))
	}
	return strings.Join(lines, "\n")
}
