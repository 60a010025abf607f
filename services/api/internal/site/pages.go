package site

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/store/query"
)

// Link is a link with its words.
type Link struct{ Name, URL string }

// List is a page of posts, Older and Newer being its neighbours, "" where there is none.
type List struct {
	Posts        []Card
	Older, Newer string
}

// Search is the search bar, whose state is the URL.
type Search struct {
	Chips []Chip
	// Typed is what was typed and is not understood.
	Typed string
	// Open shows the filters.
	Open   bool
	Fields []Field
}

// Chip is a chosen tag: a parameter of the URL, in words, and the URL without it.
type Chip struct{ Name, Value, Role, Without string }

// Field is a filter. With Options it is a choice.
type Field struct {
	Name, Label, Value, Type, Hint string
	Options                        []Option
}

// Option is one of a choice.
type Option struct{ Value, Label string }

// Home is the first page.
type Home struct {
	List
	Search Search
	Fresh  string
	// Title is that of Popular.
	Title           string
	Popular, Rising []Ranked
	// Among are the tags of the posts, More leads to more of these.
	Among []Tag
	More  string
}

// Ranked is a tag in a ranking.
type Ranked struct {
	Tag
	Posts int64
	// Share of the first one's posts, in percent.
	Share int
	// Factor is how much more than before, "" where that is not told.
	Factor string
}

// Found is the page of a search.
type Found struct {
	List
	Heading string
	Search  Search
	// Asked says that something was searched for, Problem what is wrong with it.
	Asked   bool
	Problem string
	Hints   []string
	Links   []Link
}

// Show is a list without the rest: a wall or an embed. Plain leads to the search.
type Show struct {
	List
	Plain string
}

// Status is the index's condition in words.
type Status struct {
	Fresh   string
	Words   []string
	Figures []Figure
}

// Figure is a number with its name.
type Figure struct{ Name, Value string }

// Route is a route of the API with a form that asks it.
type Route struct {
	Name, Path, About string
	// Asked is the path to ask, relative to the root.
	Asked  string
	Inputs []Input
}

// Input is a parameter in the form of a route.
type Input struct {
	Name, Value, Hint string
	Required          bool
	Options           []string
}

// TagPage is the page of a tag.
type TagPage struct {
	List
	Name        string
	Count       int64
	First, Last *Time
	Week        *Week
	Related     []Tag
	Links       []Link
}

// Week is a history as a drawing, a unit wide for each hour.
type Week struct {
	Line, Area, Words string
	Hours             []Hour
}

// Hour is an hour of a history.
type Hour struct {
	X     int
	Words string
}

const weekHeight, weekMargin = 40.0, 2.0

// DrawWeek draws a tag's history.
func DrawWeek(hours []query.HourCount) *Week {
	most, total := int64(1), int64(0)
	for _, h := range hours {
		most, total = max(most, h.Posts), total+h.Posts
	}
	w := &Week{Words: fmt.Sprintf("%s %s in the last %d days, at most %s an hour", Count(total), plural(total, "post"), len(hours)/24, Count(most))}
	if total == 0 {
		return nil
	}
	var line strings.Builder
	for i, h := range hours {
		y := weekHeight - weekMargin - (weekHeight-2*weekMargin)*float64(h.Posts)/float64(most)
		fmt.Fprintf(&line, "%s%d.5 %.1f", map[bool]string{true: "M", false: "L"}[i == 0], i, y)
		w.Hours = append(w.Hours, Hour{i, fmt.Sprintf("%s: %s", h.Hour.UTC().Format("Mon 2 Jan 15:04"), Count(h.Posts))})
	}
	w.Line = line.String()
	w.Area = fmt.Sprintf("%sL%d.5 %gL0.5 %gZ", w.Line, len(hours)-1, weekHeight, weekHeight)
	return w
}

// Factor says how many times as much as expected there is.
func Factor(posts int64, expected float64) string {
	switch f := float64(posts) / expected; {
	case expected < 0.5:
		return "new"
	case f >= 10:
		return "×" + Count(int64(math.Round(f)))
	default:
		return fmt.Sprintf("×%.1f", f)
	}
}

// Fresh says how fresh the index is: lag is how far behind the network, and negative before anything
// was indexed; silent says that nothing new comes in.
func Fresh(lag time.Duration, silent bool, posts, tags int64) string {
	size := fmt.Sprintf("%s %s with %s %s", Count(posts), plural(posts, "post"), Count(tags), plural(tags, "tag"))
	switch {
	case lag < 0:
		return "Nothing is indexed yet."
	case silent:
		return fmt.Sprintf("%s. Nothing new has arrived for %s.", size, Span(lag))
	}
	return fmt.Sprintf("%s, complete through %s ago.", size, Span(lag))
}
