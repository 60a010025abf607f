package site

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/store/query"
)

// Link is a link with its text.
type Link struct{ Name, URL string }

// List is a page of posts. Older and Newer are the URLs of the adjacent pages, "" if there is none.
type List struct {
	Posts        []Card
	Older, Newer string
}

// Search is the search bar. Its state is in the URL.
type Search struct {
	Chips []Chip
	// Typed is typed text that was not understood.
	Typed string
	// Open shows the filters.
	Open   bool
	Fields []Field
}

// Chip is a chosen tag: a parameter of the URL, its role in words, and the URL without it.
type Chip struct{ Name, Value, Role, Without string }

// Field is a filter. With Options it is a select box.
type Field struct {
	Name, Label, Value, Type, Hint string
	Options                        []Option
}

// Option is one option of a select box.
type Option struct{ Value, Label string }

// Home is the home page.
type Home struct {
	List
	Search Search
	Fresh  string
	// Title is the title of Popular.
	Title           string
	Popular, Rising []Ranked
	// TimelineTags are the tags whose posts are shown, More is the URL of their list.
	TimelineTags []Tag
	More         string
}

// Ranked is a tag in a ranking.
type Ranked struct {
	Tag
	Posts int64
	// Share is the number of posts in percent of the first tag's.
	Share int
	// Factor is how much more the tag is used than before, "" if that is not shown.
	Factor string
}

// Found is the search page.
type Found struct {
	List
	Heading string
	Search  Search
	// Searched reports that a search was made, Problem says what is wrong with the query.
	Searched bool
	Problem  string
	Hints    []string
	Links    []Link
}

// Frame is a page with only a list: a wall or an embed.
type Frame struct {
	List
	SearchURL string
}

// Status is the state of the index in words.
type Status struct {
	Fresh   string
	Notes   []string
	Figures []Figure
}

// Figure is a number with its name.
type Figure struct{ Name, Value string }

// Route is a route of the API with a form that requests it.
type Route struct {
	Name, Path, About string
	// Target is the path to request, relative to the root.
	Target string
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

// Week is a chart of a tag's history, one unit wide for each hour. Line and Area are SVG paths.
type Week struct {
	Line, Area, Summary string
	Hours               []Hour
}

// Hour is an hour of a chart.
type Hour struct {
	X     int
	Label string
}

const weekHeight, weekMargin = 40.0, 2.0

// DrawWeek draws a tag's history. It returns nil if there are no posts.
func DrawWeek(hours []query.HourCount) *Week {
	most, total := int64(1), int64(0)
	for _, h := range hours {
		most, total = max(most, h.Posts), total+h.Posts
	}
	w := &Week{Summary: fmt.Sprintf("%s %s in the last %d days, at most %s an hour", Count(total), plural(total, "post"), len(hours)/24, Count(most))}
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

// Factor returns how many times more posts there are than expected, such as "×2.5".
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

// Freshness says how fresh the index is. lag is how far it is behind the network, negative before
// anything was indexed; silent means that nothing new arrives.
func Freshness(lag time.Duration, silent bool, posts, tags int64) string {
	size := fmt.Sprintf("%s %s with %s %s", Count(posts), plural(posts, "post"), Count(tags), plural(tags, "tag"))
	switch {
	case lag < 0:
		return "Nothing is indexed yet."
	case silent:
		return fmt.Sprintf("%s. Nothing new has arrived for %s.", size, Span(lag))
	}
	return fmt.Sprintf("%s, complete through %s ago.", size, Span(lag))
}
