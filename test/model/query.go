package model

import (
	"math"
	"slices"
	"strings"
	"time"
)

const collection = "app.bsky.feed.post"

func uriOf(did, rkey string) string { return "at://" + did + "/" + collection + "/" + rkey }

func didOf(uri string) string {
	did, _, _ := strings.Cut(strings.TrimPrefix(uri, "at://"), "/")
	return did
}

// All returns every post, hidden ones too, newest place first.
func (x *Index) All() []Post {
	var all []Post
	for _, p := range x.posts {
		c := *p
		c.Hidden = x.account(p.DID).inactive
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Post) int { return b.Place.Compare(a.Place) })
	return all
}

// Posts returns the visible posts, newest place first.
func (x *Index) Posts() []Post {
	return slices.DeleteFunc(x.All(), func(p Post) bool { return p.Hidden })
}

// Hidden returns the posts that readers do not see because of their account,
// newest place first.
func (x *Index) Hidden() []Post {
	return slices.DeleteFunc(x.All(), func(p Post) bool { return !p.Hidden })
}

// Absent returns the at-uris, in order, of all posts that any event was about
// and that are not in the index now.
func (x *Index) Absent() []string {
	var absent []string
	for uri := range x.mentioned {
		if _, ok := x.posts[uri]; !ok {
			absent = append(absent, uri)
		}
	}
	slices.Sort(absent)
	return absent
}

// DeadLetters is how many messages could not be applied.
func (x *Index) DeadLetters() int { return x.deadLetters }

// Complaints are the things that events said and the contract forbids, though
// event.Decode let them pass. A history of Tagstream's own has none.
func (x *Index) Complaints() []string { return slices.Clone(x.complaints) }

// Query says which posts a list holds. Tags are raw: they are normalized here.
// Empty fields ask for nothing, except that a query without a tag in Tags
// matches no post.
type Query struct {
	Tags  []string
	All   bool // all of Tags rather than any
	None  []string
	Langs []string  // basic ranges of RFC 4647 other than "*", any of them
	Since time.Time // of sortAt, inclusive
	Until time.Time // exclusive
}

// normal is the query with its tags normalized; one that cannot be a tag is
// left as it is, and matches nothing.
func (q Query) normal() Query {
	all := func(raw []string) []string {
		tags := slices.Clone(raw)
		for i := range tags {
			if tag, ok := normalTag(tags[i]); ok {
				tags[i] = tag
			}
		}
		return tags
	}
	q.Tags, q.None = all(q.Tags), all(q.None)
	return q
}

func (q Query) matches(p *Post) bool {
	has := func(tag string) bool { return slices.Contains(p.Tags, tag) }
	if !slices.ContainsFunc(q.Tags, has) || slices.ContainsFunc(q.None, has) {
		return false
	}
	if q.All && slices.ContainsFunc(q.Tags, func(tag string) bool { return !has(tag) }) {
		return false
	}
	speaks := func(want string) bool {
		return slices.ContainsFunc(p.Langs, func(lang string) bool { return inRange(want, lang) })
	}
	if len(q.Langs) > 0 && !slices.ContainsFunc(q.Langs, speaks) {
		return false
	}
	at := p.SortAt()
	return (q.Since.IsZero() || !at.Before(q.Since)) && (q.Until.IsZero() || at.Before(q.Until))
}

// inRange is the basic filtering of RFC 4647, section 3.3.1. Language tags are
// ASCII, and so is the case that is ignored: a Kelvin sign is no k.
func inRange(want, lang string) bool {
	want, lang = lowerASCII(want), lowerASCII(lang)
	return lang == want || strings.HasPrefix(lang, want+"-")
}

func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// Position is a place to go on from: exactly at a row, which is then left out
// in both directions, or just above or below it.
type Position struct {
	Place Place
	Side  int // 0: at the row; +1: between it and the next newer; -1: the next older
}

func (pos Position) compare(p *Post) int { // positive where the post is newer
	if c := p.Place.Compare(pos.Place); c != 0 {
		return c
	}
	return -pos.Side
}

// Page is one page of a list, newest first.
type Page struct {
	Posts       []Post
	HasNext     bool // older ones follow
	HasPrevious bool // newer ones precede
	// Next and Previous are the ends of the page: the positions just below its
	// last and just above its first row, or where an empty page was asked for.
	Next, Previous Position
}

// List is what a query matches, newest first.
type List []Post

// List returns all visible posts that the query matches.
func (x *Index) List(q Query) List { return List(x.Posts()).Of(q) }

// Of returns those of the list that the query matches.
func (l List) Of(q Query) List {
	q = q.normal()
	var out List
	for i := range l {
		if q.matches(&l[i]) {
			out = append(out, l[i])
		}
	}
	return out
}

// The positions that all posts are between.
var (
	top    = Position{Place{math.MaxInt64, math.MaxUint64}, +1}
	bottom = Position{Place{}, -1}
)

// Page is List(q).Page.
func (x *Index) Page(q Query, after, before *Position, limit int) Page {
	return x.List(q).Page(after, before, limit)
}

// Page returns at most limit posts: the newest of the list, or those that
// follow after (older), or those directly before a position (newer). At most
// one of after and before is set.
func (l List) Page(after, before *Position, limit int) Page {
	if before != nil {
		return l.newer(*before, limit)
	}
	if after == nil {
		after = &top
	}
	return l.older(*after, limit)
}

// older is the page that follows a position. Empty, it lies beyond the row that
// it was asked for from, so that turning back gives the row; newer likewise.
func (l List) older(at Position, limit int) Page {
	if at.Side == 0 {
		at.Side = -1
	}
	from := 0
	for from < len(l) && at.compare(&l[from]) >= 0 {
		from++
	}
	return l.slice(at, from, min(from+limit, len(l)))
}

// newer is the page directly before a position.
func (l List) newer(at Position, limit int) Page {
	if at.Side == 0 {
		at.Side = +1
	}
	to := len(l)
	for to > 0 && at.compare(&l[to-1]) <= 0 {
		to--
	}
	return l.slice(at, max(to-limit, 0), to)
}

func (l List) slice(at Position, from, to int) Page {
	page := Page{Next: at, Previous: at}
	page.Posts = l[from:to]
	page.HasPrevious, page.HasNext = from > 0, to < len(l)
	if from < to {
		page.Previous = Position{l[from].Place, +1}
		page.Next = Position{l[to-1].Place, -1}
	}
	return page
}
