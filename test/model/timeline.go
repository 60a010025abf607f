package model

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/tagstream/tagstream/pkg/event"
)

// Timeline holds the index at each sequence number, to judge readers that page through it while it
// changes.
type Timeline struct {
	index *Index
	seq   uint64
	posts map[string][]span // by at-uri, oldest first
	tags  map[string][]span // by tag, while visible posts carry it
}

// span is a row's state from one sequence number to before another.
type span struct {
	from, to uint64
	row      Row
	post     *Post // nil for a tag's row
}

// Row is a row of a page: a post's at-uri and its sortAt in microseconds, or a tag and the number
// of its posts.
type Row struct {
	Name   string
	Number int64
}

// NewTimeline returns the timeline of the empty history.
func NewTimeline() *Timeline {
	return &Timeline{index: New(), posts: map[string][]span{}, tags: map[string][]span{}}
}

// ApplyEvent folds one event, whose number must be greater than all before.
func (t *Timeline) ApplyEvent(seq uint64, e *event.Event) {
	dids := []string{e.DID}
	if t.index.sync != nil {
		dids = append(dids, t.index.sync.did)
	}
	t.index.ApplyEvent(seq, e)
	t.seq = seq
	touched := []string{uriOf(e.DID, e.Rkey)}
	if len(dids) > 1 || !e.IsPost() {
		for uri := range t.index.mentioned {
			if slices.Contains(dids, didOf(uri)) {
				touched = append(touched, uri)
			}
		}
	}
	used := map[string]int64{} // change in the number of posts, by tag
	for _, uri := range touched {
		was, now := current(t.posts[uri]), (*Post)(nil)
		if p := t.index.posts[uri]; p != nil && !t.index.hidden(p.DID) {
			seen := t.index.read(p)
			now = &seen
		}
		if was == nil && now == nil || was != nil && now != nil && was.post.Place == now.Place &&
			slices.Equal(was.post.Tags, now.Tags) && slices.Equal(was.post.Langs, now.Langs) {
			continue
		}
		var next *span
		if was != nil {
			count(used, was.post.Shown, -1)
		}
		if now != nil {
			count(used, now.Shown, +1)
			next = &span{row: Row{uri, now.Place.Micros}, post: now}
		}
		t.turn(t.posts, uri, next)
	}
	for tag, more := range used {
		if more == 0 {
			continue // the number of posts is unchanged
		}
		row := Row{tag, more}
		if was := current(t.tags[tag]); was != nil {
			row.Number += was.row.Number
		}
		next := &span{row: row}
		if row.Number == 0 {
			next = nil
		}
		t.turn(t.tags, tag, next)
	}
}

func count(used map[string]int64, tags []string, more int64) {
	for _, tag := range tags {
		used[tag] += more
	}
}

// current returns the span that has not ended, nil if there is none.
func current(spans []span) *span {
	if n := len(spans); n > 0 && spans[n-1].to == math.MaxUint64 {
		return &spans[n-1]
	}
	return nil
}

// turn ends a row's current span and begins the next one, if any.
func (t *Timeline) turn(rows map[string][]span, name string, next *span) {
	if was := current(rows[name]); was != nil {
		was.to = t.seq
	}
	if next != nil {
		next.from, next.to = t.seq, math.MaxUint64
		rows[name] = append(rows[name], *next)
	}
}

// Walk is what a reader saw of a list, page after page in one direction.
type Walk struct {
	Query Query
	Tags  bool // the list of tags, not the posts of a query
	// The index was between First and Last all the time.
	First, Last uint64
	Newer       bool // the direction: to newer posts, or to more frequent tags
	Seen        []Row
	// Ended reports that the last page had no successor. Otherwise only rows before the last seen
	// one are due.
	Ended bool
	From  *Row // the row at which the walk began; nil for the end of the list
}

// Verdict counts the errors of walks.
type Verdict struct {
	Walks, Rows, Due int // Due are the rows that had to be seen
	// Repeated rows were seen before in the same walk, Missed ones matched throughout but were not
	// seen, Foreign ones matched at no time of the walk, Disordered ones were out of order.
	Repeated, Missed, Foreign, Disordered int
}

// Add adds up verdicts.
func (v *Verdict) Add(w Verdict) {
	v.Walks, v.Rows, v.Due = v.Walks+w.Walks, v.Rows+w.Rows, v.Due+w.Due
	v.Repeated, v.Missed = v.Repeated+w.Repeated, v.Missed+w.Missed
	v.Foreign, v.Disordered = v.Foreign+w.Foreign, v.Disordered+w.Disordered
}

// Judge compares a walk with the history, which must have reached the walk's Last. The error
// describes the first problem.
func (t *Timeline) Judge(w Walk) (v Verdict, wrong error) {
	fault := func(n *int, format string, args ...any) {
		if *n++; wrong == nil {
			wrong = fmt.Errorf(format, args...)
		}
	}
	v = Verdict{Walks: 1, Rows: len(w.Seen)}
	if w.Last > t.seq {
		return v, fmt.Errorf("the walk lasted until %d, and the history is known until %d", w.Last, t.seq)
	}
	rows, q := t.posts, w.Query.normal()
	if w.Tags {
		rows = t.tags
	}
	matches := func(s span) bool { return w.Tags || q.matches(s.post) }
	seen := map[Row]bool{}
	for i, row := range w.Seen {
		switch {
		case seen[row]:
			fault(&v.Repeated, "row %d, %v, was seen before", i, row)
		case i > 0 && !w.follows(w.Seen[i-1], row):
			fault(&v.Disordered, "row %d, %v, does not come after the row before it", i, row)
		}
		seen[row] = true
		if w.From != nil && !w.follows(*w.From, row) {
			fault(&v.Disordered, "row %d, %v, lies before where the walk began", i, row)
		}
		if !slices.ContainsFunc(rows[row.Name], func(s span) bool {
			return s.row == row && s.from <= w.Last && s.to > w.First && matches(s)
		}) {
			fault(&v.Foreign, "row %d, %v, was not in the list at any time", i, row)
		}
	}
	for _, spans := range rows {
		row, throughout := w.throughout(spans, matches)
		if !throughout || w.From != nil && !w.follows(*w.From, row) {
			continue
		}
		if n := len(w.Seen); !w.Ended && (n == 0 || w.follows(w.Seen[n-1], row)) {
			continue
		}
		v.Due++
		if !seen[row] {
			fault(&v.Missed, "%v was in the list from %d to %d and was not seen", row, w.First, w.Last)
		}
	}
	return v, wrong
}

// follows reports whether b comes after a in the walk's direction.
func (w *Walk) follows(a, b Row) bool {
	down := cmp.Compare(b.Number, a.Number)
	if w.Tags {
		down = cmp.Or(down, cmp.Compare(a.Name, b.Name))
	} else {
		down = cmp.Or(down, cmp.Compare(hashOf(b.Name), hashOf(a.Name)))
	}
	return down < 0 != w.Newer && down != 0
}

// throughout returns the row if it matched and did not change during the whole walk.
func (w *Walk) throughout(spans []span, matches func(span) bool) (row Row, ok bool) {
	next := w.First // the number at which the next span must begin
	for _, s := range spans {
		if s.to <= next {
			continue
		}
		if s.from > next || !matches(s) || next > w.First && s.row != row {
			return row, false
		}
		if row, next = s.row, s.to; next > w.Last {
			return row, true
		}
	}
	return row, false
}
