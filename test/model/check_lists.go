package model

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
)

// Limits of a query, from the contract.
const (
	maxQueryTags     = 20
	maxQueryLangs    = 20
	maxQueryTagBytes = 4 << 10
	maxLimit         = 100
	defaultLimit     = 50
)

// maxShortPages bounds how many pages in a row can have no row, so that a list
// that never ends is found.
const maxShortPages = 1000

// maxPageBytes is the size beyond which a page ends, with the post that goes there: of its
// records, and its tags as if each were as long as one can be.
const (
	maxPageBytes = 1 << 20
	maxTagBytes  = 640
)

// pageAnswer is the page of a list.
type pageAnswer struct {
	HasNext     bool   `json:"hasNext"`
	HasPrevious bool   `json:"hasPrevious"`
	Next        string `json:"next"`
	Previous    string `json:"previous"`
}

// listAnswer is a page of GET /v1/posts.
type listAnswer struct {
	Posts []postAnswer `json:"posts"`
	Page  pageAnswer   `json:"page"`
	Hints []string     `json:"hints"`

	asked url.Values // the parameters that it answers
	link  string     // the header
	// next and previous are where the model sees its two tokens.
	next, previous Position
}

// recentAnswer is a page of GET /v1/getRecentRootPostsWithTags.
type recentAnswer struct {
	Posts     []postAnswer `json:"posts"`
	Paginator *string      `json:"paginator"`
	Hints     []string     `json:"hints"`
}

// way is a direction of reading.
type way int

const (
	older way = iota // with after
	newer            // with before
)

// checkList walks one list to its end and back, from its oldest page, from
// rows' cursors and by its Link headers, and on the other endpoint where that
// has it; and sees its tokens refused elsewhere. The names in the query must be
// in normal form.
func (c *checker) checkList(ctx context.Context, q Query, limit int) error {
	w := c.walk(q, limit)
	return w.run(ctx, w.forward, w.backward, w.fromOldest, w.fromRows, w.byLink, w.recent, w.mismatches)
}

// glanceAt is checkList with one of the steps after the first two alone, the
// i-th of them.
func (c *checker) glanceAt(ctx context.Context, i int, q Query, limit int) error {
	w := c.walk(q, limit)
	rest := []func(context.Context) error{w.fromOldest, w.fromRows, w.byLink, w.recent, w.mismatches}
	return w.run(ctx, w.forward, w.backward, rest[i%len(rest)])
}

func (c *checker) walk(q Query, limit int) *walk {
	return &walk{checker: c, q: q, list: c.posts.Of(q), limit: limit, rng: c.rng}
}

func (w *walk) run(ctx context.Context, steps ...func(context.Context) error) error {
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return fmt.Errorf("posts of %v: %w", w.q, err)
		}
	}
	return nil
}

type walk struct {
	*checker
	q     Query
	list  List
	limit int
	rng   *rand.Rand

	first, last listAnswer // pages of the forward walk
}

// ask asks for one page in some spelling, from a token or, without one, from
// the list's end, and compares it with the model's.
func (w *walk) ask(ctx context.Context, direction way, token string, from Position) (listAnswer, error) {
	params := spell(w.rng, w.q)
	size := strconv.Itoa(min(w.limit+w.rng.IntN(2), maxLimit)) // it need not stay
	relay := w.rng.IntN(2) == 0
	switch {
	case direction == older && relay:
		params.Set("first", size)
	case direction == newer && (relay || token == ""):
		params.Set("last", size)
	default:
		params.Set("limit", size)
	}
	if token != "" {
		params.Set([]string{"after", "before"}[direction], token)
	}
	return w.page(ctx, params, direction, from)
}

// page asks for a page that the model gives from that position.
func (w *walk) page(ctx context.Context, params url.Values, direction way, from Position) (listAnswer, error) {
	target := "/v1/posts?" + params.Encode()
	got := listAnswer{asked: params}
	header, err := w.get(ctx, target, http.StatusOK, &got)
	if err != nil {
		return got, err
	}
	got.link = header.Get("Link")
	limit, _ := strconv.Atoi(params.Get("limit") + params.Get("first") + params.Get("last"))
	if limit == 0 {
		limit = defaultLimit
	}
	want := w.list.older(from, limit)
	if direction == newer {
		want = w.list.newer(from, limit)
	}
	if err := w.compare(&got, want, direction); err != nil {
		return got, fmt.Errorf("GET %s: %w", target, err)
	}
	return got, nil
}

// compare says how an answer is not the page, nil when it is, and sets the
// answer's positions.
func (w *walk) compare(got *listAnswer, want Page, direction way) error {
	if got.Posts == nil {
		return fmt.Errorf("posts is null, not a list")
	}
	more, behind := got.Page.HasNext, got.Page.HasPrevious
	wantMore, wantBehind := want.HasNext, want.HasPrevious
	if direction == newer {
		more, behind, wantMore, wantBehind = behind, more, wantBehind, wantMore
	}
	got.next, got.previous = want.Next, want.Previous
	if missing := len(want.Posts) - len(got.Posts); more && missing > 0 && (w.short != nil || got.isBig()) {
		if w.short != nil {
			*w.short++
		}
		// What is left out follows on the next page.
		wantMore = true
		switch {
		case len(got.Posts) == 0 && direction == older:
			want.Posts, got.next = nil, want.Previous
		case len(got.Posts) == 0:
			want.Posts, got.previous = nil, want.Next
		case direction == older:
			want.Posts = want.Posts[:len(got.Posts)]
			got.next = Position{want.Posts[len(want.Posts)-1].Place, -1}
		default:
			want.Posts = want.Posts[missing:]
			got.previous = Position{want.Posts[0].Place, +1}
		}
	}
	if err := samePosts(got.Posts, want.Posts); err != nil {
		return err
	}
	// Where a request's work ran out, more is said to follow, and behind.
	moreOK := more == wantMore || w.short != nil && more
	behindOK := behind == wantBehind || w.short != nil && behind
	if direction == newer {
		moreOK, behindOK = behindOK, moreOK
	}
	switch {
	case !moreOK:
		return fmt.Errorf("hasNext is %t, want %t", got.Page.HasNext, !got.Page.HasNext)
	case !behindOK:
		return fmt.Errorf("hasPrevious is %t, want %t", got.Page.HasPrevious, !got.Page.HasPrevious)
	}
	if len(got.Hints) > 0 && (len(got.Posts) > 0 || got.asked.Has("after") || got.asked.Has("before")) {
		return fmt.Errorf("there are hints, and it is not an empty first page: %q", got.Hints)
	}
	return got.Page.complete()
}

// isBig reports whether the posts are so big together that the page ends with them.
func (got *listAnswer) isBig() bool {
	bytes := 0
	for _, p := range got.Posts {
		bytes += len(p.Record) + maxTagBytes*len(p.Tags)
	}
	return bytes > maxPageBytes
}

func (p pageAnswer) complete() error {
	if p.Next == "" || p.Previous == "" {
		return fmt.Errorf("next or previous is missing")
	}
	return nil
}

// samePosts compares the rows of a page, first which they are, then each.
func samePosts(got []postAnswer, want []Post) error {
	if got == nil {
		return fmt.Errorf("posts is null, not a list")
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Errorf("%d rows, want %d: %s is missing", len(got), len(want), want[i].URI)
		case i >= len(want):
			return fmt.Errorf("%d rows, want %d: %s is too much", len(got), len(want), got[i].URI)
		case got[i].URI != want[i].URI:
			return fmt.Errorf("row %d is %s (sortAt %s), want %s (sortAt %s)",
				i, got[i].URI, got[i].SortAt, want[i].URI, want[i].SortAt().Format(timeFormat))
		}
		if err := got[i].differs(&want[i]); err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
	}
	return nil
}

// leg reads on from a page until no more is said to follow, and returns the
// rows in the order of reading and the last page.
func (w *walk) leg(ctx context.Context, page listAnswer, direction way) ([]string, listAnswer, error) {
	var rows []string
	tokens, empty := map[string]bool{}, 0
	for {
		more, token, at := page.Page.HasNext, page.Page.Next, page.next
		if direction == newer {
			more, token, at = page.Page.HasPrevious, page.Page.Previous, page.previous
		}
		for i := range page.Posts {
			if direction == newer {
				i = len(page.Posts) - 1 - i
			}
			rows = append(rows, page.Posts[i].URI)
		}
		if !more {
			return rows, page, nil
		}
		if empty++; len(page.Posts) > 0 {
			empty = 0
		}
		if tokens[token] || empty > maxShortPages {
			return nil, page, fmt.Errorf("the pages make no progress: %d rows so far, the last %d pages without any, token %s", len(rows), empty, token)
		}
		tokens[token] = true
		var err error
		if page, err = w.ask(ctx, direction, token, at); err != nil {
			return nil, page, err
		}
	}
}

// covers compares the rows of a leg with the list.
func (w *walk) covers(rows []string, direction way) error {
	if direction == newer {
		slices.Reverse(rows)
	}
	for i := range max(len(rows), len(w.list)) {
		if i >= len(rows) || i >= len(w.list) || rows[i] != w.list[i].URI {
			return fmt.Errorf("the pages together have %d rows, want %d: they differ at row %d", len(rows), len(w.list), i)
		}
	}
	return nil
}

// forward walks from the newest page to the last, and once more beyond it.
func (w *walk) forward(ctx context.Context) error {
	var err error
	if w.first, err = w.ask(ctx, older, "", top); err != nil {
		return err
	}
	var rows []string
	if rows, w.last, err = w.leg(ctx, w.first, older); err != nil {
		return err
	}
	if err := w.covers(rows, older); err != nil {
		return err
	}
	w.last, err = w.ask(ctx, older, w.last.Page.Next, w.last.next)
	return err
}

// backward walks back from beyond the last row, and once more beyond the first.
func (w *walk) backward(ctx context.Context) error {
	page, err := w.ask(ctx, newer, w.last.Page.Previous, w.last.previous)
	if err != nil {
		return err
	}
	return w.toNewest(ctx, page)
}

// fromOldest does from the oldest page.
func (w *walk) fromOldest(ctx context.Context) error {
	page, err := w.ask(ctx, newer, "", bottom)
	if err != nil {
		return err
	}
	return w.toNewest(ctx, page)
}

func (w *walk) toNewest(ctx context.Context, page listAnswer) error {
	rows, page, err := w.leg(ctx, page, newer)
	if err != nil {
		return err
	}
	if err := w.covers(rows, newer); err != nil {
		return fmt.Errorf("backward: %w", err)
	}
	_, err = w.ask(ctx, newer, page.Page.Previous, page.previous)
	return err
}

// fromRows goes on from the cursors of the first page's rows, and from those of
// posts that came alone, in this list or not, both ways and then back.
func (w *walk) fromRows(ctx context.Context) error {
	uris, cursors := []string{}, []string{}
	for _, row := range sample(w.first.Posts, 3) {
		uris, cursors = append(uris, row.URI), append(cursors, row.Cursor)
	}
	if len(w.posts) > 0 {
		uri := w.posts[w.rng.IntN(len(w.posts))].URI
		if cursor := w.cursors[uri]; cursor != "" {
			uris, cursors = append(uris, uri), append(cursors, cursor)
		}
	}
	for i, cursor := range cursors {
		at := Position{Place: w.want.posts[uris[i]].Place}
		below, err := w.ask(ctx, older, cursor, at)
		if err != nil {
			return err
		}
		if _, err := w.ask(ctx, newer, below.Page.Previous, below.previous); err != nil {
			return err
		}
		above, err := w.ask(ctx, newer, cursor, at)
		if err != nil {
			return err
		}
		if _, err := w.ask(ctx, older, above.Page.Next, above.next); err != nil {
			return err
		}
	}
	return nil
}

// byLink follows the Link headers to the end and back.
func (w *walk) byLink(ctx context.Context) error {
	page := w.first
	for _, direction := range []way{older, newer} {
		for n := 0; ; n++ {
			links, err := page.links()
			if err != nil {
				return err
			}
			target, at := links["next"], page.next
			if direction == newer {
				target, at = links["prev"], page.previous
			}
			if target == nil {
				break
			}
			if n > len(w.list)+maxShortPages {
				return fmt.Errorf("the links do not end: %v", target)
			}
			if page, err = w.page(ctx, target, direction, at); err != nil {
				return err
			}
		}
	}
	return nil
}

var linkValue = regexp.MustCompile(`<([^>]*)>;\s*rel="?(\w+)"?`)

// links returns the parameters of the answer's links by relation, after it has
// seen that they are there where they must be and keep everything.
func (got *listAnswer) links() (map[string]url.Values, error) {
	links, err := parseLinks(got.link, "/v1/posts", got.asked)
	if err != nil {
		return nil, err
	}
	for rel, want := range map[string]struct {
		there      bool
		name, must string
	}{
		"next": {got.Page.HasNext, "after", got.Page.Next},
		"prev": {got.Page.HasPrevious, "before", got.Page.Previous},
	} {
		switch {
		case (links[rel] != nil) != want.there:
			return nil, fmt.Errorf("a link to the %s page is there: %t, want %t", rel, links[rel] != nil, want.there)
		case want.there && links[rel].Get(want.name) != want.must:
			return nil, fmt.Errorf("the link to the %s page has %s=%q, want the page's own %q", rel, want.name, links[rel].Get(want.name), want.must)
		}
	}
	return links, nil
}

// parseLinks reads a Link header of relative references from a path, each of
// which must keep what was asked but for the token.
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

// kept writes all parameters but the token; first and last turn into each other
// with the direction.
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

// recent walks a list of any tags on the other endpoint, whose first paginator
// the posts endpoint takes too.
func (w *walk) recent(ctx context.Context) error {
	if w.q.All || len(w.q.None) > 0 || len(w.q.Langs) > 0 || !w.q.Since.IsZero() || !w.q.Until.IsZero() {
		return nil
	}
	params := url.Values{"tags": spell(w.rng, w.q)["tags"], "quantity": {strconv.Itoa(w.limit)}}
	at := top
	for first := true; ; first = false {
		target := "/v1/getRecentRootPostsWithTags?" + params.Encode()
		var got recentAnswer
		if _, err := w.get(ctx, target, http.StatusOK, &got); err != nil {
			return err
		}
		page := listAnswer{Posts: got.Posts}
		want := w.list.older(at, w.limit)
		page.Page = pageAnswer{got.Paginator != nil, want.HasPrevious, "-", "-"}
		err := w.compare(&page, want, older)
		if err != nil {
			return fmt.Errorf("GET %s: paginator given: %t: %w", target, got.Paginator != nil, err)
		}
		if got.Paginator == nil {
			return nil
		}
		if *got.Paginator == params.Get("paginator") {
			return fmt.Errorf("GET %s: the same paginator again", target)
		}
		if at = page.next; first {
			if _, err := w.ask(ctx, older, *got.Paginator, at); err != nil {
				return err
			}
		}
		params.Set("paginator", *got.Paginator)
	}
}

// variantsChecked is how many other queries the tokens of a list are tried on.
const variantsChecked = 4

// mismatches sends the list's tokens with other queries.
func (w *walk) mismatches(ctx context.Context) error {
	tokens := []string{w.first.Page.Next, w.first.Page.Previous, w.last.Page.Next, w.last.Page.Previous}
	if len(w.first.Posts) > 0 {
		tokens = append(tokens, w.first.Posts[0].Cursor)
	}
	all := variants(w.rng, w.q)
	w.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, v := range all[:min(len(all), variantsChecked)] {
		params := spell(w.rng, v.Query)
		params.Set(pick(w.rng, "after", "before"), pick(w.rng, tokens...))
		if err := w.refused(ctx, "/v1/posts?"+params.Encode(), http.StatusBadRequest, "cursor_mismatch"); err != nil {
			return fmt.Errorf("a token of the list with %s: %w", v.what, err)
		}
	}
	return nil
}
