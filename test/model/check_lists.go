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
	"strings"
)

// Limits of a query, from the contract.
const (
	maxQueryTags     = 20
	maxQueryTagBytes = 4 << 10
	maxLimit         = 100
)

// listAnswer is a page of GET /v1/posts.
type listAnswer struct {
	Posts []postAnswer `json:"posts"`
	Page  struct {
		HasNext     bool   `json:"hasNext"`
		HasPrevious bool   `json:"hasPrevious"`
		Next        string `json:"next"`
		Previous    string `json:"previous"`
	} `json:"page"`
	link string
}

// recentAnswer is a page of GET /v1/getRecentRootPostsWithTags.
type recentAnswer struct {
	Posts     []postAnswer `json:"posts"`
	Paginator *string      `json:"paginator"`
}

// checkTags walks the list of each tag, spelt in different ways.
func (c *checker) checkTags(ctx context.Context) error {
	for i, tag := range sample(c.want.TagCounts(), maxTagsChecked) {
		spelt := []string{tag.Tag, "#" + tag.Tag, " " + strings.ToUpper(tag.Tag)}[i%3]
		if normal, ok := normalTag(spelt); !ok || normal != tag.Tag {
			spelt = tag.Tag // of a keycap, or a letter without a simple upper case
		}
		if err := c.checkList(ctx, []string{spelt}, pageSize(i, tag.Posts)); err != nil {
			return err
		}
	}
	return nil
}

// pageSize makes short lists long enough for several pages, differently for
// different i, and long ones short enough for few.
func pageSize(i, posts int) int {
	if posts > 50 {
		return min(posts/8+1+i%3, maxLimit)
	}
	return 1 + i%7
}

// checkTagSets walks lists of any of several tags, one of them unknown.
func (c *checker) checkTagSets(ctx context.Context) error {
	counts := c.want.TagCounts()
	if len(counts) == 0 {
		return nil
	}
	rng := rand.New(rand.NewPCG(uint64(len(counts)), uint64(len(c.want.posts))))
	for i := range tagSetsChecked {
		size := 2 + rng.IntN(5)
		if i%3 == 0 {
			size = maxQueryTags - 1
		}
		tags, bytes := []string{"no post has this tag"}, 0
		for _, j := range rng.Perm(len(counts)) {
			tag := counts[j].Tag
			if i%2 == 0 && len(tags) < 3 { // with the commonest, which overlap
				tag = counts[min(len(tags)-1, len(counts)-1)].Tag
			}
			bytes += len(tag)
			if len(tags) > size || bytes > maxQueryTagBytes/2 {
				break
			}
			if !slices.Contains(tags, tag) {
				tags = append(tags, tag)
			}
		}
		posts := len(c.want.List(Query{Tags: tags}))
		if err := c.checkList(ctx, tags, pageSize(i, posts)); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) checkUnknownTag(ctx context.Context) error {
	return c.checkList(ctx, []string{"no post has this tag"}, 10)
}

// checkList walks one list to its end and back, from its rows' cursors, by its
// Link headers, and on the other endpoint.
func (c *checker) checkList(ctx context.Context, tags []string, limit int) error {
	w := &walk{checker: c, tags: tags, list: c.want.List(Query{Tags: tags}), limit: limit}
	for _, step := range []func(context.Context) error{w.forward, w.backward, w.fromRows, w.byLink, w.recent} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("posts with any of %q: %w", tags, err)
		}
	}
	return nil
}

type walk struct {
	*checker
	tags  []string
	list  List
	limit int

	first, last listAnswer // pages of the forward walk
	end         Position   // where it ended
	rows        []string   // at-uris in its order
}

// page asks for one page and compares it with the model's.
func (w *walk) page(ctx context.Context, direction, token string, from *Position) (listAnswer, Page, error) {
	var want Page
	switch direction {
	case "":
		want = w.list.Page(nil, nil, w.limit)
	case "after":
		want = w.list.Page(from, nil, w.limit)
	case "before":
		want = w.list.Page(nil, from, w.limit)
	}
	params := url.Values{"tags": w.tags, "limit": {strconv.Itoa(w.limit)}}
	if direction != "" {
		params.Set(direction, token)
	}
	target := "/v1/posts?" + params.Encode()
	got, err := w.getList(ctx, target, want)
	return got, want, err
}

func (w *walk) getList(ctx context.Context, target string, want Page) (listAnswer, error) {
	var got listAnswer
	header, err := w.get(ctx, target, http.StatusOK, &got)
	if err != nil {
		return got, err
	}
	got.link = header.Get("Link")
	if err := samePosts(got.Posts, want.Posts); err != nil {
		return got, fmt.Errorf("GET %s: %w", target, err)
	}
	switch {
	case got.Page.HasNext != want.HasNext:
		err = fmt.Errorf("hasNext is %t, want %t", got.Page.HasNext, want.HasNext)
	case got.Page.HasPrevious != want.HasPrevious:
		err = fmt.Errorf("hasPrevious is %t, want %t", got.Page.HasPrevious, want.HasPrevious)
	case got.Page.Next == "" || got.Page.Previous == "":
		err = fmt.Errorf("next or previous is missing")
	}
	if err != nil {
		return got, fmt.Errorf("GET %s: %w", target, err)
	}
	return got, nil
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

// forward walks from the newest page to the last, and once more beyond it.
func (w *walk) forward(ctx context.Context) error {
	got, want, err := w.page(ctx, "", "", nil)
	if err != nil {
		return err
	}
	w.first = got
	for {
		for _, p := range want.Posts {
			w.rows = append(w.rows, p.URI)
		}
		w.last, w.end = got, want.Next
		if !want.HasNext {
			break
		}
		if got, want, err = w.page(ctx, "after", got.Page.Next, &want.Next); err != nil {
			return err
		}
	}
	if len(w.rows) == 0 {
		return nil // the position of a page without rows is nobody's business
	}
	w.last, _, err = w.page(ctx, "after", w.last.Page.Next, &w.end)
	return err
}

// backward walks back from beyond the last row, and once more beyond the first.
func (w *walk) backward(ctx context.Context) error {
	if len(w.rows) == 0 {
		return nil
	}
	var rows []string
	got, at := w.last, w.end
	for {
		next, want, err := w.page(ctx, "before", got.Page.Previous, &at)
		if err != nil {
			return err
		}
		if len(next.Posts) == 0 {
			break
		}
		for _, p := range slices.Backward(next.Posts) {
			rows = append(rows, p.URI)
		}
		got, at = next, want.Previous
	}
	slices.Reverse(rows)
	if !slices.Equal(rows, w.rows) {
		return fmt.Errorf("the pages backward are not those forward reversed: %d rows and %d", len(rows), len(w.rows))
	}
	return nil
}

// fromRows goes on from the cursors of the first page's rows, both ways.
func (w *walk) fromRows(ctx context.Context) error {
	for _, row := range sample(w.first.Posts, 3) {
		at := &Position{Place: w.want.posts[row.URI].Place}
		for _, direction := range []string{"after", "before"} {
			if _, _, err := w.page(ctx, direction, row.Cursor, at); err != nil {
				return err
			}
		}
	}
	return nil
}

var nextLink = regexp.MustCompile(`<([^>]*)>;\s*rel="?next"?`)

// byLink follows the first page's Link header.
func (w *walk) byLink(ctx context.Context) error {
	if !w.first.Page.HasNext {
		return nil
	}
	m := nextLink.FindStringSubmatch(w.first.link)
	if m == nil {
		return fmt.Errorf("no link to the next page in Link: %q", w.first.link)
	}
	here, err := url.Parse(w.base + "/v1/posts")
	if err != nil {
		return err
	}
	link, err := url.Parse(m[1])
	if err != nil || link.IsAbs() || link.Host != "" {
		return fmt.Errorf("link to the next page is not relative: %q", m[1])
	}
	target := strings.TrimPrefix(here.ResolveReference(link).String(), w.base)
	first := w.list.Page(nil, nil, w.limit)
	_, err = w.getList(ctx, target, w.list.Page(&first.Next, nil, w.limit))
	return err
}

// recent walks the list on the other endpoint, whose first paginator the posts
// endpoint takes too.
func (w *walk) recent(ctx context.Context) error {
	params := url.Values{"tags": w.tags, "quantity": {strconv.Itoa(w.limit)}}
	want := w.list.Page(nil, nil, w.limit)
	for first := true; ; first = false {
		target := "/v1/getRecentRootPostsWithTags?" + params.Encode()
		var got recentAnswer
		if _, err := w.get(ctx, target, http.StatusOK, &got); err != nil {
			return err
		}
		if err := samePosts(got.Posts, want.Posts); err != nil {
			return fmt.Errorf("GET %s: %w", target, err)
		}
		if (got.Paginator != nil) != want.HasNext {
			return fmt.Errorf("GET %s: paginator given: %t, want %t", target, got.Paginator != nil, want.HasNext)
		}
		if !want.HasNext {
			return nil
		}
		params.Set("paginator", *got.Paginator)
		if first {
			if _, _, err := w.page(ctx, "after", *got.Paginator, &want.Next); err != nil {
				return err
			}
		}
		want = w.list.Page(&want.Next, nil, w.limit)
	}
}
