package model

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
)

// Limits of a query, from the contract.
const (
	maxQueryTags         = 20
	maxQueryTagsTogether = 40
	maxQueryLangs        = 20
	maxQueryTagBytes     = 4 << 10
	maxLimit             = 100
	defaultLimit         = 50
)

// maxEmptyPages bounds the number of consecutive pages without rows, to detect a list that never
// ends.
const maxEmptyPages = 1000

// maxPageBytes is the size after which a page ends: that of its records, plus maxTagBytes for each
// tag. The post that exceeds it is the last one.
const (
	maxPageBytes = 1 << 20
	maxTagBytes  = 640
)

// list is one list of the API: the posts of a query, or the tags. Its rows are numbered from 0, the
// newest post or the most frequent tag. A place in it is the number of rows before it.
type list struct {
	*checker
	path   string
	n      int
	params func() url.Values // of a request for it, in one of many spellings
	limit  int
	row    func(p *page, i int, got int) error // compares row i of the list with row got of a page

	q     Query  // for a list of posts
	posts []Post // its rows
	cost  int    // upper bound of the work plus 1, 0 if unknown

	first, last *page // of the forward walk
}

// Limits on the work of one request: for its page, and to find out whether rows precede it. If a
// list costs less, the request examines all of it.
const (
	workAhead  = 60_000
	workBehind = 10_000
)

// mayRunOut reports whether a request may reach this limit in the list. Without filters that read
// rows of posts, no list of a small index costs that much.
func (l *list) mayRunOut(work int) bool {
	if l.short != nil {
		return true
	}
	if len(l.q.NotBy)+len(l.q.Media) == 0 && l.q.MaxTags == 0 && l.q.SelfLabels == "" {
		return false
	}
	if l.cost == 0 {
		l.cost = 1 + l.q.normal().cost(l.checker.posts)
	}
	return l.cost > work
}

// cost bounds the work for a whole query: posts are read from one or two of its clauses, at a cost
// of 1 for each list that has them, and looked up in the others, for 6, and in their own rows, for
// 12.
func (q Query) cost(posts []Post) (most int) {
	lookUps, lists, several := len(q.None)+2, 1, 0
	clause := func(n int, in func(*Post) bool) {
		size := 0
		for i := range posts {
			if in(&posts[i]) {
				size++
			}
		}
		most, several, lists = max(most, size), several+n, max(lists, n)
	}
	tagged := func(tags ...string) func(*Post) bool {
		return func(p *Post) bool {
			return slices.ContainsFunc(tags, func(tag string) bool { return slices.Contains(p.Tags, tag) })
		}
	}
	if len(q.Tags) > 0 {
		clause(len(q.Tags), tagged(q.Tags...))
	}
	for _, tag := range q.All {
		clause(0, tagged(tag))
	}
	if len(q.Langs) > 0 {
		clause(len(q.Langs), q.speaks)
	}
	if len(q.By) > 0 {
		clause(len(q.By), func(p *Post) bool { return slices.Contains(q.By, p.DID) })
	}
	return most * (2*lists + 6*(lookUps+several+min(len(q.All), 2)))
}

// page is one page of a list.
type page struct {
	Posts []postAnswer `json:"posts"`
	Tags  []TagCount   `json:"tags"`
	Page  struct {
		HasNext     bool   `json:"hasNext"`
		HasPrevious bool   `json:"hasPrevious"`
		Next        string `json:"next"`
		Previous    string `json:"previous"`
	} `json:"page"`
	Paginator *string  `json:"paginator"` // only of getRecentRootPostsWithTags
	Hints     []string `json:"hints"`

	asked    url.Values
	from, to int // places in the list between which its rows are
}

// direction is a reading direction.
type direction int

const (
	older direction = iota // with after
	newer                  // with before
)

// ahead returns whether the page says that more follows in a direction, the token to continue with,
// and the token's place.
func (p *page) ahead(d direction) (more bool, token string, at int) {
	if d == older {
		return p.Page.HasNext, p.Page.Next, p.to
	}
	return p.Page.HasPrevious, p.Page.Previous, p.from
}

// ask requests the page on one side of a place: by its token or, without one, from the list's end.
func (l *list) ask(ctx context.Context, d direction, token string, at int) (*page, error) {
	params := l.params()
	size := strconv.Itoa(min(l.limit+l.rng.IntN(2), maxLimit)) // it may vary
	relay := []string{"first", "last"}[d]
	if l.rng.IntN(2) == 0 && (d == older || token != "") {
		relay = "limit"
	}
	params.Set(relay, size)
	if token != "" {
		params.Set([]string{"after", "before"}[d], token)
	}
	return l.page(ctx, params, d, at)
}

// page requests a page and compares it with the rows on that side of a place.
func (l *list) page(ctx context.Context, params url.Values, d direction, at int) (*page, error) {
	p, target := &page{asked: params}, l.path+"?"+params.Encode()
	header, err := l.get(ctx, target, http.StatusOK, p)
	if err != nil {
		return nil, err
	}
	limit, _ := strconv.Atoi(params.Get("limit") + params.Get("first") + params.Get("last"))
	if limit == 0 {
		limit = defaultLimit
	}
	if err = l.compare(p, d, at, limit); err == nil {
		err = l.compareEnds(p, d, header.Get("Link"))
	}
	if err != nil {
		return nil, fmt.Errorf("GET %s: from row %d of %d: %w", target, at, l.n, err)
	}
	return p, nil
}

// compare compares the rows of a page.
func (l *list) compare(p *page, d direction, at, limit int) error {
	if tags := l.path == "/v1/tags"; (p.Posts == nil) != tags || (p.Tags != nil) != tags {
		return fmt.Errorf("posts or tags is null, not a list, or is not of this list")
	}
	got := len(p.Posts) + len(p.Tags)
	p.from, p.to = at, min(at+limit, l.n)
	if d == newer {
		p.from, p.to = max(at-limit, 0), at
	}
	more, _, _ := p.ahead(d)
	if missing := p.to - p.from - got; missing > 0 && more && (l.mayRunOut(workAhead) || l.isBig(p)) {
		if l.short != nil {
			*l.short++
		}
		if d == older { // the remaining rows follow on the next page
			p.to -= missing
		} else {
			p.from += missing
		}
	}
	for i := range min(got, p.to-p.from) {
		if err := l.row(p, p.from+i, i); err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
	}
	if got != p.to-p.from {
		return fmt.Errorf("%d rows, want %d", got, p.to-p.from)
	}
	return nil
}

// compareEnds checks what a page says about the list on both sides of it.
func (l *list) compareEnds(p *page, d direction, link string) error {
	work := [2]int{workAhead, workBehind}
	for _, end := range []struct {
		name       string
		says, want bool
		work       int
	}{{"hasNext", p.Page.HasNext, p.to < l.n, work[d]}, {"hasPrevious", p.Page.HasPrevious, p.from > 0, work[1-d]}} {
		// After reaching the work limit, a page claims more rows on both sides.
		if end.says != end.want && !(end.says && l.mayRunOut(end.work)) {
			return fmt.Errorf("%s is %t, want %t", end.name, end.says, end.want)
		}
	}
	if p.Page.Next == "" || p.Page.Previous == "" || p.Paginator != nil {
		return fmt.Errorf("next or previous is missing, or there is a paginator")
	}
	if len(p.Hints) > 0 && (p.from < p.to || p.asked.Has("after") || p.asked.Has("before")) {
		return fmt.Errorf("there are hints, and it is not an empty first page: %q", p.Hints)
	}
	links, err := parseLinks(link, l.path, p.asked)
	if err != nil {
		return err
	}
	for rel, d := range map[string]direction{"next": older, "prev": newer} {
		more, token, _ := p.ahead(d)
		if (links[rel] != nil) != more {
			return fmt.Errorf("a link to the %s page is there: %t, want %t", rel, !more, more)
		}
		if got := links[rel].Get([]string{"after", "before"}[d]); more && got != token {
			return fmt.Errorf("the link to the %s page has %q, want the page's own %q", rel, got, token)
		}
	}
	return nil
}

// isBig reports whether the total size of the posts ends the page.
func (l *list) isBig(p *page) bool {
	bytes := 0
	for _, post := range p.Posts {
		bytes += len(post.Record)
		if known := l.want.posts[post.URI]; known != nil {
			bytes += maxTagBytes * len(known.Tags) // including denied ones
		}
	}
	return bytes > maxPageBytes
}

var linkValue = regexp.MustCompile(`<([^>]*)>;\s*rel="?(\w+)"?`)

// parseLinks parses a Link header of references relative to a path, each of which must keep all
// parameters except the token.
func parseLinks(header, path string, asked url.Values) (map[string]url.Values, error) {
	links := map[string]url.Values{}
	for _, m := range linkValue.FindAllStringSubmatch(header, -1) {
		link, err := url.Parse(m[1])
		if err != nil || link.IsAbs() || link.Host != "" {
			return nil, fmt.Errorf("link to the %s page is not relative: %q", m[2], m[1])
		}
		if here := (&url.URL{Path: path}).ResolveReference(link); here.Path != path {
			return nil, fmt.Errorf("link to the %s page leads to %q", m[2], here.Path)
		}
		if got, want := kept(link.Query()), kept(asked); got != want {
			return nil, fmt.Errorf("link to the %s page has %s, want %s", m[2], got, want)
		}
		links[m[2]] = link.Query()
	}
	return links, nil
}

// kept encodes all parameters except the token. first and last, which change with the direction,
// count as one.
func kept(params url.Values) string {
	rest := url.Values{}
	for name, values := range params {
		switch name {
		case "after", "before":
			continue
		case "first", "last":
			name = "first or last"
		}
		rest[name] = slices.Sorted(slices.Values(values))
	}
	return rest.Encode()
}

// walkTo reads from a page to the last one, which compare accepts only at the list's end, and then
// once more beyond it.
func (l *list) walkTo(ctx context.Context, p *page, d direction) (*page, error) {
	tokens, empty := map[string]bool{}, 0
	for {
		more, token, at := p.ahead(d)
		if empty++; p.from < p.to {
			empty = 0
		}
		if more && (tokens[token] || empty > maxEmptyPages) {
			return nil, fmt.Errorf("the pages make no progress at row %d, the last %d pages without any, token %s", at, empty, token)
		}
		tokens[token] = true
		next, err := l.ask(ctx, d, token, at)
		if err != nil || !more {
			return next, err
		}
		p = next
	}
}

// forward walks from the newest page to the last, and once more beyond it.
func (l *list) forward(ctx context.Context) (err error) {
	if l.first, err = l.ask(ctx, older, "", 0); err == nil {
		l.last, err = l.walkTo(ctx, l.first, older)
	}
	return err
}

// backward walks back from beyond the last row and, like a reader who never read forward, from the
// oldest page; each time once more beyond the first row.
func (l *list) backward(ctx context.Context) error {
	for _, token := range []string{l.last.Page.Previous, ""} {
		p, err := l.ask(ctx, newer, token, l.n)
		if err == nil {
			_, err = l.walkTo(ctx, p, newer)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// walkPosts walks the list of a query, whose names must be in normal form, forward and backward,
// and then does one of the other steps, or all of them.
func (c *checker) walkPosts(ctx context.Context, q Query, limit, step int) error {
	l := c.list(q, limit)
	steps := []func(context.Context) error{l.fromRows, l.recent, l.mismatches}
	if step != everyStep {
		steps = steps[step%len(steps):][:1]
	}
	for _, step := range append([]func(context.Context) error{l.forward, l.backward}, steps...) {
		if err := step(ctx); err != nil {
			return fmt.Errorf("posts of %v: %w", q, err)
		}
	}
	return nil
}

const everyStep = -1

func (c *checker) list(q Query, limit int) *list {
	posts := q.list(c.posts)
	return &list{
		checker: c, path: "/v1/posts", n: len(posts), limit: limit, q: q, posts: posts,
		params: func() url.Values { return spell(c.rng, q) },
		row:    func(p *page, i, got int) error { return p.Posts[got].differs(&posts[i]) },
	}
}

// glance compares the newest and the oldest page of a list.
func (l *list) glance(ctx context.Context) error {
	_, err := l.ask(ctx, older, "", 0)
	if err == nil {
		_, err = l.ask(ctx, newer, "", l.n)
	}
	if err != nil {
		return fmt.Errorf("posts of %v: %w", l.q, err)
	}
	return nil
}

// fromRows continues from the cursors of the first page's rows, and from that of a post fetched
// alone, in this list or not, in both directions and then back. A page from a row's cursor does not
// contain the row.
func (l *list) fromRows(ctx context.Context) error {
	rows := slices.Clone(sample(l.first.Posts, 3))
	if len(l.checker.posts) > 0 {
		uri := pick(l.rng, l.checker.posts...).URI
		if cursor := l.cursors[uri]; cursor != "" {
			rows = append(rows, postAnswer{URI: uri, Cursor: cursor})
		}
	}
	for _, row := range rows {
		at := l.want.posts[row.URI].Place
		above, below := 0, 0
		for _, p := range l.posts {
			if p.Place.Compare(at) > 0 {
				above++
			}
			if p.Place.Compare(at) >= 0 {
				below++
			}
		}
		for d, place := range []int{below, above} {
			p, err := l.ask(ctx, direction(d), row.Cursor, place)
			if err != nil {
				return err
			}
			back := 1 - direction(d)
			_, token, _ := p.ahead(back)
			if _, err := l.ask(ctx, back, token, place); err != nil {
				return err
			}
		}
	}
	return nil
}

// recent walks a list of any tags with getRecentRootPostsWithTags. Its first paginator is also a
// valid token of /v1/posts.
func (l *list) recent(ctx context.Context) error {
	if len(l.q.All)+len(l.q.None)+len(l.q.Langs)+len(l.q.By)+len(l.q.NotBy)+len(l.q.Media)+len(l.q.single()) > 0 || !l.q.Since.IsZero() || !l.q.Until.IsZero() {
		return nil
	}
	params := url.Values{"tags": spell(l.rng, l.q)["tags"], "quantity": {strconv.Itoa(l.limit)}}
	for at, first := 0, true; ; first = false {
		p, err := l.recentPage(ctx, params, at, l.limit)
		if err != nil || p.Paginator == nil {
			return err
		}
		if *p.Paginator == params.Get("paginator") {
			return fmt.Errorf("the same paginator again: %v", params)
		}
		at = p.to
		if first {
			if _, err := l.ask(ctx, older, *p.Paginator, at); err != nil {
				return err
			}
		}
		params.Set("paginator", *p.Paginator)
	}
}

func (l *list) recentPage(ctx context.Context, params url.Values, at, limit int) (*page, error) {
	p, target := &page{asked: params}, "/v1/getRecentRootPostsWithTags?"+params.Encode()
	if _, err := l.get(ctx, target, http.StatusOK, p); err != nil {
		return nil, err
	}
	p.Page.HasNext = p.Paginator != nil
	err := l.compare(p, older, at, limit)
	if more := p.to < l.n; err == nil && p.Page.HasNext != more && !(p.Page.HasNext && l.mayRunOut(workAhead)) {
		err = fmt.Errorf("a paginator is given: %t, want %t", p.Page.HasNext, more)
	}
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", target, err)
	}
	return p, nil
}

// mismatches sends the list's tokens with other queries.
func (l *list) mismatches(ctx context.Context) error {
	tokens := []string{l.first.Page.Next, l.first.Page.Previous, l.last.Page.Next, l.last.Page.Previous}
	for _, row := range l.first.Posts[:min(len(l.first.Posts), 1)] {
		tokens = append(tokens, row.Cursor)
	}
	others := variants(l.rng, l.q)
	l.rng.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	for _, other := range others[:min(len(others), 4)] {
		params := spell(l.rng, other)
		params.Set(pick(l.rng, "after", "before"), pick(l.rng, tokens...))
		if err := l.refused(ctx, "/v1/posts?"+params.Encode(), http.StatusBadRequest, "cursor_mismatch"); err != nil {
			return fmt.Errorf("a token of the list with another: %w", err)
		}
	}
	return nil
}
