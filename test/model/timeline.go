package model

import (
	"fmt"
	"math"
	"slices"

	"github.com/tagstream/tagstream/pkg/event"
)

// Timeline is what an index was at each sequence number, to judge readers that
// page through it while it changes.
type Timeline struct {
	index *Index
	seq   uint64
	spans map[string][]span // by at-uri, oldest first
	byTag map[string]map[string]bool
	used  map[string][]usage // by tag, oldest first
}

// span is how a post was from one sequence number to before another.
type span struct {
	from, to uint64
	post     Post
}

// NewTimeline returns the timeline of the empty history.
func NewTimeline() *Timeline {
	return &Timeline{index: New(), spans: map[string][]span{}, byTag: map[string]map[string]bool{}, used: map[string][]usage{}}
}

// Index is the index as it is now.
func (t *Timeline) Index() *Index { return t.index }

// ApplyEvent folds in one event, whose number is greater than all before.
func (t *Timeline) ApplyEvent(seq uint64, e *event.Event) {
	swept := t.index.sync
	t.index.ApplyEvent(seq, e)
	t.seq = seq
	if swept != nil || !e.IsPost() && e.DID != "" {
		for uri := range t.index.mentioned {
			if did := didOf(uri); did == e.DID || swept != nil && did == swept.did {
				t.note(uri)
			}
		}
	}
	if e.IsPost() {
		t.note(uriOf(e.DID, e.Rkey))
	}
}

// note begins a new span of a post if it is not as it was.
func (t *Timeline) note(uri string) {
	spans := t.spans[uri]
	p, ok := t.index.posts[uri]
	ok = ok && !t.index.account(p.DID).inactive
	if n := len(spans); n > 0 && spans[n-1].to == math.MaxUint64 {
		last := &spans[n-1]
		if ok && last.post.Place == p.Place && slices.Equal(last.post.Tags, p.Tags) && slices.Equal(last.post.Langs, p.Langs) {
			return
		}
		last.to = t.seq
		t.count(last.post.Tags, -1)
	}
	if !ok {
		return
	}
	t.count(p.Tags, +1)
	t.spans[uri] = append(spans, span{t.seq, math.MaxUint64, *p})
	for _, tag := range p.Tags {
		if t.byTag[tag] == nil {
			t.byTag[tag] = map[string]bool{}
		}
		t.byTag[tag][uri] = true
	}
}

// Walk is what one reader saw of a list, page after page in one direction.
type Walk struct {
	Query Query
	// The index was never older than First nor newer than Last meanwhile.
	First, Last uint64
	Newer       bool // the direction; else older
	Seen        []Seen
	// Ended says that the last page said that nothing follows. Else only what
	// lies before the last row is due.
	Ended bool
	// From is a row that the walk began at, in either direction; nil where it
	// began at the end of the list.
	From *Seen
}

// Seen is a row as a page showed it.
type Seen struct {
	URI    string
	Micros int64 // sortAt
}

func (s Seen) place() Place { return Place{s.Micros, hashOf(s.URI)} }

// Verdict counts what was wrong with walks.
type Verdict struct {
	Walks, Rows, Due int // Due are the rows that had to be there, and were or not
	// Repeated rows were seen before in the same walk, Missed ones existed and
	// matched throughout and were not seen, Foreign ones were seen and at no
	// time of the walk matched, Disordered ones came before their predecessor.
	Repeated, Missed, Foreign, Disordered int
}

// Wrong is how many rows were wrong in any way.
func (v Verdict) Wrong() int { return v.Repeated + v.Missed + v.Foreign + v.Disordered }

// Add adds up verdicts.
func (v *Verdict) Add(w Verdict) {
	v.Walks, v.Rows, v.Due = v.Walks+w.Walks, v.Rows+w.Rows, v.Due+w.Due
	v.Repeated, v.Missed = v.Repeated+w.Repeated, v.Missed+w.Missed
	v.Foreign, v.Disordered = v.Foreign+w.Foreign, v.Disordered+w.Disordered
}

// Judge compares a walk with the history, which must have come to the walk's
// Last. The error says what is wrong first; nil where nothing is.
func (t *Timeline) Judge(w Walk) (Verdict, error) {
	q := w.Query.normal()
	v := Verdict{Walks: 1, Rows: len(w.Seen)}
	var wrong error
	fault := func(count *int, format string, args ...any) {
		if *count++; wrong == nil {
			wrong = fmt.Errorf(format, args...)
		}
	}
	if w.Last > t.seq {
		return v, fmt.Errorf("the walk lasted until %d, and the history is known until %d", w.Last, t.seq)
	}
	seen := map[Seen]int{}
	for i, s := range w.Seen {
		seen[s]++
		if seen[s] > 1 {
			fault(&v.Repeated, "row %d, %s, was seen before", i, s.URI)
		} else if i > 0 && !w.follows(w.Seen[i-1], s) {
			fault(&v.Disordered, "row %d, %s, does not come after the row before it", i, s.URI)
		}
		if w.From != nil && !w.follows(*w.From, s) {
			fault(&v.Disordered, "row %d, %s, lies before where the walk began", i, s.URI)
		}
		if !t.ever(w, q, s) {
			fault(&v.Foreign, "row %d, %s, did not match at any time", i, s.URI)
		}
	}
	uris := map[string]bool{}
	for _, tag := range q.Tags {
		for uri := range t.byTag[tag] {
			uris[uri] = true
		}
	}
	for uri := range uris {
		s, ok := t.throughout(w, q, uri)
		if !ok || w.From != nil && !w.follows(*w.From, s) {
			continue
		}
		if n := len(w.Seen); !w.Ended && (n == 0 || w.follows(w.Seen[n-1], s)) {
			continue
		}
		v.Due++
		if seen[s] == 0 {
			fault(&v.Missed, "%s, at %s, matched from %d to %d and was not seen", uri, s.place().SortAt().Format(timeFormat), w.First, w.Last)
		}
	}
	return v, wrong
}

// follows reports whether b comes behind a in the walk's direction.
func (w *Walk) follows(a, b Seen) bool {
	c := a.place().Compare(b.place())
	if w.Newer {
		return c < 0
	}
	return c > 0
}

// throughout reports whether a post matched at one place during a whole walk.
func (t *Timeline) throughout(w Walk, q Query, uri string) (s Seen, ok bool) {
	since := w.First
	for _, sp := range t.spans[uri] {
		if sp.to <= since {
			continue
		}
		at := Seen{uri, sp.post.Place.Micros}
		if sp.from > since || !q.matches(&sp.post) || since > w.First && at != s {
			return s, false
		}
		if s = at; sp.to > w.Last {
			return s, true
		}
		since = sp.to
	}
	return s, false
}

// ever reports whether a row matched at some time of a walk.
func (t *Timeline) ever(w Walk, q Query, s Seen) bool {
	return slices.ContainsFunc(t.spans[s.URI], func(sp span) bool {
		return sp.from <= w.Last && sp.to > w.First && sp.post.Place.Micros == s.Micros && q.matches(&sp.post)
	})
}
