package model

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const unknownTag = "no post has this tag"

// maxLangsChecked bounds the languages asked for one by one.
const maxLangsChecked = 60

// checkTags walks the lists of the most used tags, and reads a page of the
// others.
func (c *checker) checkTags(ctx context.Context) error {
	n := min(len(c.counts), c.tags)
	for i, tag := range c.counts[:n] {
		if err := c.glanceAt(ctx, i, Query{Tags: []string{tag.Tag}}, pageSize(i, tag.Posts)); err != nil {
			return err
		}
	}
	for _, tag := range sample(c.counts[n:], maxTagsChecked) {
		if _, err := c.walk(Query{Tags: []string{tag.Tag}}, defaultLimit).ask(ctx, older, "", top); err != nil {
			return err
		}
	}
	return c.checkList(ctx, Query{Tags: []string{unknownTag}}, 10)
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
	for i := range c.sets {
		size := 2 + c.rng.IntN(5)
		if i%3 == 0 {
			size = maxQueryTags - 1
		}
		q := Query{Tags: []string{unknownTag}}
		for j := range c.rng.Perm(len(c.counts)) {
			if len(q.Tags) > size {
				break
			}
			if i%2 == 0 && j < 3 { // the commonest, which overlap
				q.Tags = with(q.Tags, c.counts[j].Tag)
			}
			q.Tags = with(q.Tags, c.anyTag())
		}
		if err := c.checkList(ctx, q, pageSize(i, len(c.posts.Of(q)))); err != nil {
			return err
		}
	}
	return nil
}

// maxNameBytes bounds the tags of a random query together, so that there is
// room for repeats.
const maxNameBytes = maxQueryTagBytes / 4

// with adds a tag, if it is new and there is room.
func with(tags []string, tag string) []string {
	if len(tags) >= maxQueryTags || slices.Contains(tags, tag) || len(strings.Join(tags, ""))+len(tag) > maxNameBytes {
		return tags
	}
	return append(tags, tag)
}

// anyTag is one of the index's tags, often one of the commonest.
func (c *checker) anyTag() string {
	n := len(c.counts)
	if n == 0 {
		return unknownTag
	}
	if c.rng.IntN(2) == 0 {
		n = min(n, 6)
	}
	return c.counts[c.rng.IntN(n)].Tag
}

// checkCorners asks for the newest and the oldest page of lists that are easily
// wrong: of windows round a tie and at the ends of time, and of languages.
func (c *checker) checkCorners(ctx context.Context) error {
	var q Query
	for _, tag := range c.counts {
		q.Tags = with(q.Tags, tag.Tag)
	}
	if len(q.Tags) == 0 {
		return nil
	}
	var corners []Query
	for _, window := range windows(c.posts.Of(q)) {
		corner := q
		corner.Since, corner.Until = window[0], window[1]
		corners = append(corners, corner)
	}
	ranges := map[string]bool{"qaa": true, "ko": true, "i": true, "e": true, "us": true, "nl" + strings.Repeat("-abc", 15) + "-x": true}
	for _, p := range c.posts {
		for _, r := range rangesOf(p.Langs) {
			ranges[r] = true
		}
	}
	for _, r := range sample(slices.Sorted(maps.Keys(ranges)), maxLangsChecked) {
		corner := q
		corner.Langs = []string{r}
		corners = append(corners, corner)
	}
	for _, corner := range corners {
		w := c.walk(corner, maxLimit)
		if _, err := w.ask(ctx, older, "", top); err != nil {
			return err
		}
		if _, err := w.ask(ctx, newer, "", bottom); err != nil {
			return err
		}
	}
	return nil
}

// windows are bounds, from the first to before the second, where a list without
// care for them is wrong. The zero time is no bound.
func windows(list List) [][2]time.Time {
	tie, most := time.UnixMicro(0), 0
	count := map[int64]int{}
	for _, p := range list {
		if count[p.Place.Micros]++; count[p.Place.Micros] > most && p.Place.Micros > 0 {
			tie, most = p.SortAt(), count[p.Place.Micros]
		}
	}
	epoch, behind := time.UnixMicro(0), tie.Add(time.Microsecond)
	windows := [][2]time.Time{{tie, behind}, {tie, tie}, {behind, tie}, {epoch, epoch.Add(time.Microsecond)}}
	for _, t := range []time.Time{
		tie, behind, epoch, epoch.Add(-time.Microsecond), epoch.Add(time.Microsecond),
		time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC), time.Date(1969, 7, 20, 20, 17, 40, 0, time.UTC), time.Date(9999, 12, 30, 0, 0, 0, 0, time.UTC),
	} {
		windows = append(windows, [2]time.Time{t, {}}, [2]time.Time{{}, t})
	}
	return windows
}

// checkQueries walks the lists of random queries, made so that most have posts:
// all of some tags, some tags without others, languages, windows of time, and
// everything together.
func (c *checker) checkQueries(ctx context.Context) error {
	for i := range c.queries {
		q := c.randomQuery(i)
		if err := c.checkList(ctx, q, pageSize(c.rng.IntN(7), len(c.posts.Of(q)))); err != nil {
			return fmt.Errorf("query %d of seed %d: %w", i, c.seed, err)
		}
	}
	return nil
}

// The filters of a random query; its number modulo so many says which.
const (
	filterAll = 1 << iota
	filterNone
	filterLangs
	filterWindow
	filters = 1 << iota
)

func (c *checker) randomQuery(i int) Query {
	which := i % filters
	q := Query{All: which&filterAll != 0}
	var like Post // a post that the query shall find, if there are any
	if len(c.posts) > 0 {
		like = c.posts[c.rng.IntN(len(c.posts))]
	}
	size := 1 + c.rng.IntN(5)
	for _, j := range c.rng.Perm(len(like.Tags)) {
		if len(q.Tags) < size {
			q.Tags = with(q.Tags, like.Tags[j])
		}
	}
	for !q.All && c.rng.IntN(3) > 0 {
		q.Tags = with(q.Tags, c.anyTag())
	}
	if len(q.Tags) == 0 || !q.All && c.rng.IntN(8) == 0 {
		q.Tags = with(q.Tags, unknownTag)
	}
	if q.All && c.rng.IntN(6) == 0 {
		q.Tags = with(q.Tags, c.anyTag())
	}
	if which&filterNone != 0 {
		found := c.posts.Of(q) // some of which shall be excluded
		for range 1 + c.rng.IntN(4) {
			tag := c.anyTag()
			if len(found) > 0 && c.rng.IntN(3) > 0 {
				tag = pick(c.rng, found[c.rng.IntN(len(found))].Tags...)
			}
			if !slices.Contains(like.Tags, tag) || c.rng.IntN(10) == 0 {
				q.None = with(q.None, tag)
			}
		}
		if len(q.None) == 0 {
			q.None = []string{unknownTag + " either"}
		}
	}
	if which&filterLangs != 0 {
		q.Langs = c.randomLangs(like)
	}
	if which&filterWindow != 0 {
		q.Since, q.Until = c.randomWindow(c.posts.Of(q))
	}
	return q
}

// randomLangs are one range or several, mostly of languages that posts declare.
func (c *checker) randomLangs(like Post) []string {
	var langs []string
	for range 1 + c.rng.IntN(3)*c.rng.IntN(2) {
		some := pick(c.rng, "en", "qaa", "pt-br", "zh-hant", "x", "en-us", "ko")
		for _, p := range append([]Post{like}, sample(c.posts, 50)...) {
			if ranges := rangesOf(p.Langs); len(ranges) > 0 && c.rng.IntN(4) > 0 {
				some = pick(c.rng, ranges...)
				break
			}
		}
		if !slices.Contains(langs, some) {
			langs = append(langs, some)
		}
	}
	return langs
}

// rangesOf returns ranges that match the languages, in lower case.
func rangesOf(langs []string) []string {
	var ranges []string
	for _, lang := range langs {
		parts := strings.Split(lowerASCII(lang), "-")
		for n := range parts {
			if r := strings.Join(parts[:n+1], "-"); langRange(r) {
				ranges = append(ranges, r)
			}
		}
	}
	return ranges
}

// langRange reports whether s has the syntax of a basic language range other
// than "*" (RFC 4647, section 2.1), and is in lower case.
func langRange(s string) bool {
	for i, part := range strings.Split(s, "-") {
		digits := "0123456789"
		if i == 0 {
			digits = ""
		}
		if part == "" || len(part) > 8 || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz"+digits) != "" {
			return false
		}
	}
	return true
}

// randomWindow is a window whose bounds are the times of posts, which may be in
// a tie, or next to them; sometimes an open one, an empty one, one of all time.
func (c *checker) randomWindow(list List) (since, until time.Time) {
	bound := func() time.Time {
		if len(list) == 0 || c.rng.IntN(12) == 0 {
			return pick(c.rng, time.UnixMicro(0), time.UnixMicro(-1), time.Date(2026, 8, 20, 0, 0, 0, 0, time.UTC)).UTC()
		}
		at := list[c.rng.IntN(len(list))].SortAt()
		return at.Add(time.Duration(pick(c.rng, 0, 0, 0, -1, +1)) * time.Microsecond)
	}
	since, until = bound(), bound()
	if since.After(until) && c.rng.IntN(8) > 0 {
		since, until = until, since
	}
	switch c.rng.IntN(6) {
	case 0:
		since = time.Time{}
	case 1:
		until = time.Time{}
	}
	return since, until
}

// checkRefused asks for what no list is, and for the sizes of pages that are
// left out.
func (c *checker) checkRefused(ctx context.Context) error {
	for _, lang := range []string{"*", "", "en_US", "en-", "-en", "en-*", "abcdefghi", "e1", "en-abcdefghi", "\u212ao"} {
		target := "/v1/posts?" + url.Values{"tags": {"art"}, "lang": {"en", lang}}.Encode()
		if err := c.refused(ctx, target, http.StatusBadRequest, "invalid_lang"); err != nil {
			return err
		}
	}
	for _, bad := range []string{"match=both", "match=", "since=yesterday", "until=2026-08-20", "since=2026-08-20T12:00:00", "none="} {
		if _, err := c.get(ctx, "/v1/posts?tags=art&"+bad, http.StatusBadRequest, nil); err != nil {
			return err
		}
	}
	tag := c.anyTag()
	w := c.walk(Query{Tags: []string{tag}}, 0)
	if _, err := w.page(ctx, url.Values{"tags": {tag}}, older, top); err != nil {
		return fmt.Errorf("without a size: %w", err)
	}
	target := "/v1/getRecentRootPostsWithTags?" + url.Values{"tags": {tag}}.Encode()
	var got recentAnswer
	if _, err := c.get(ctx, target, http.StatusOK, &got); err != nil {
		return err
	}
	want := w.list.older(top, maxLimit)
	page := listAnswer{Posts: got.Posts, Page: pageAnswer{got.Paginator != nil, want.HasPrevious, "-", "-"}}
	if err := w.compare(&page, want, older); err != nil {
		return fmt.Errorf("GET %s: paginator given: %t: %w", target, got.Paginator != nil, err)
	}
	return nil
}
