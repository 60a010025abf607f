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
	"unicode"
)

const unknownTag = "no post has this tag"

// maxLangsChecked bounds the languages that are queried one by one.
const maxLangsChecked = 60

// maxNameBytes bounds the total length of a random query's tags, to leave room for repeats.
const maxNameBytes = maxQueryTagBytes / 4

// pageSize returns a page size, depending on i, that splits short lists into several pages and long
// lists into few.
func pageSize(i, posts int) int {
	if posts > 50 {
		return min(posts/8+1+i%3, maxLimit)
	}
	return 1 + i%7
}

// checkTags walks the lists of the most used tags, and reads pages of the others.
func (c *checker) checkTags(ctx context.Context) error {
	n := min(len(c.counts), tagsWalked)
	for i, tag := range c.counts[:n] {
		if err := c.walkPosts(ctx, Query{Tags: []string{tag.Tag}}, pageSize(i, tag.Posts), i); err != nil {
			return err
		}
	}
	for _, tag := range sample(c.counts[n:], maxTagsChecked) {
		if err := c.list(Query{Tags: []string{tag.Tag}}, defaultLimit).glance(ctx); err != nil {
			return err
		}
	}
	if err := c.checkDenied(ctx); err != nil {
		return err
	}
	return c.walkPosts(ctx, Query{Tags: []string{unknownTag}}, 10, everyStep)
}

// checkDenied walks the lists of denied tags, and lists of their posts' other tags with and without
// them.
func (c *checker) checkDenied(ctx context.Context) error {
	for _, tag := range c.want.deniedTags {
		queries := []Query{{Tags: []string{tag}}}
		for _, p := range c.posts {
			if slices.Contains(p.Tags, tag) && len(p.Shown) > 0 {
				beside := p.Shown[:1]
				queries = append(queries, Query{Tags: beside, None: []string{tag}}, Query{All: []string{beside[0], tag}}, Query{Tags: []string{beside[0], tag}})
				break
			}
		}
		for _, q := range queries {
			if err := c.walkPosts(ctx, q, 10, everyStep); err != nil {
				return err
			}
		}
	}
	return nil
}

// with appends a tag if it is new and there is room.
func with(tags []string, tag string) []string {
	if len(tags) >= maxQueryTags || slices.Contains(tags, tag) || len(strings.Join(tags, ""))+len(tag) > maxNameBytes {
		return tags
	}
	return append(tags, tag)
}

// anyTag returns a random tag of the index, often a frequent one, sometimes a denied one.
func (c *checker) anyTag() string {
	if denied := c.want.deniedTags; len(denied) > 0 && c.rng.IntN(8) == 0 {
		return pick(c.rng, denied...)
	}
	n := len(c.counts)
	if n == 0 {
		return unknownTag
	}
	if c.rng.IntN(2) == 0 {
		n = min(n, 6)
	}
	return c.counts[c.rng.IntN(n)].Tag
}

// checkCorners requests the newest and the oldest page of error-prone lists: windows around a tie
// and at the ends of time, and languages.
func (c *checker) checkCorners(ctx context.Context) error {
	var q Query
	for _, tag := range c.counts {
		q.Tags = with(q.Tags, tag.Tag)
	}
	if len(q.Tags) == 0 {
		return nil
	}
	var corners []Query
	for _, window := range windows(q.list(c.posts)) {
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
		if err := c.list(corner, maxLimit).glance(ctx); err != nil {
			return err
		}
	}
	return nil
}

// windows returns error-prone windows of time, each from the first time to before the second. The
// zero time is no bound.
func windows(posts []Post) [][2]time.Time {
	tie, most, count := time.UnixMicro(0), 0, map[int64]int{}
	for _, p := range posts {
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

// checkQueries walks the lists of random queries, most of which match posts: all of some tags, some
// tags without others, languages, windows of time, and combinations.
func (c *checker) checkQueries(ctx context.Context) error {
	for i := range c.queries {
		q := c.randomQuery(i&1 != 0, i&2 != 0, i&4 != 0, i&8 != 0)
		if err := c.walkPosts(ctx, q, pageSize(c.rng.IntN(7), len(q.list(c.posts))), everyStep); err != nil {
			return fmt.Errorf("query %d of seed %d: %w", i, c.seed, err)
		}
	}
	return nil
}

func (c *checker) randomQuery(all, none, langs, window bool) Query {
	var q Query
	var like Post // a post that the query must find, if there are any
	if len(c.posts) > 0 {
		like = pick(c.rng, c.posts...)
	}
	size := 1 + c.rng.IntN(5)
	for _, j := range c.rng.Perm(len(like.Shown)) {
		if len(q.Tags) < size {
			q.Tags = with(q.Tags, like.Shown[j])
		}
	}
	for more := pick(c.rng, 0, 0, 1, 2, 4, maxQueryTags); !all && more > 0; more-- {
		q.Tags = with(q.Tags, c.anyTag())
	}
	if len(q.Tags) == 0 || !all && c.rng.IntN(4) == 0 {
		q.Tags = with(q.Tags, unknownTag)
	}
	if all && c.rng.IntN(6) == 0 {
		q.Tags = with(q.Tags, c.anyTag())
	}
	if all { // all of some, sometimes with any of the others
		n := len(q.Tags)
		if c.rng.IntN(3) == 0 {
			n = 1 + c.rng.IntN(n)
		}
		if q.All, q.Tags = q.Tags[:n:n], q.Tags[n:]; len(q.Tags) > 0 {
			q.Tags = with(q.Tags, c.anyTag())
		}
	}
	switch c.rng.IntN(8) {
	case 0, 1:
		q.By = c.randomAuthors(like)
	case 2:
		q.NotBy = c.randomAuthors(pick(c.rng, append([]Post{like}, sample(c.posts, 50)...)...))
	}
	switch c.rng.IntN(9) {
	case 0:
		q.MaxTags = max(1, len(like.Tags)-c.rng.IntN(2))
	case 1:
		q.Media = []string{pick(c.rng, like.media(), "any", "none")}
	case 2:
		q.Media = []string{"image", "video"}
		q.SelfLabels = "exclude"
	case 3:
		q.SelfLabels = pick(c.rng, "exclude", "only")
	}
	if none {
		found := q.list(c.posts) // exclude some of them
		for range 1 + c.rng.IntN(4) {
			tag := c.anyTag()
			if len(found) > 0 && c.rng.IntN(3) > 0 {
				tag = pick(c.rng, pick(c.rng, found...).Tags...)
			}
			if !slices.Contains(like.Tags, tag) || c.rng.IntN(10) == 0 {
				q.None = with(q.None, tag)
			}
		}
		if len(q.None) == 0 {
			q.None = []string{unknownTag + " either"}
		}
	}
	if langs {
		q.Langs = c.randomLangs(like)
	}
	if window {
		q.Since, q.Until = c.randomWindow(q.list(c.posts))
	}
	return q
}

// randomAuthors returns the author of a post and up to two others.
func (c *checker) randomAuthors(like Post) []string {
	dids := []string{"did:plc:unknown"}
	if like.DID != "" {
		dids[0] = like.DID
	}
	for _, p := range sample(c.posts, c.rng.IntN(3)) {
		if !slices.Contains(dids, p.DID) {
			dids = append(dids, p.DID)
		}
	}
	return dids
}

// randomLangs returns one or several ranges, mostly of languages that posts declare.
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

// rangesOf returns basic language ranges (RFC 4647, section 2.1) that match the languages, in
// lower case.
func rangesOf(langs []string) []string {
	var ranges []string
	for _, lang := range langs {
		r, ok := "", true
		for n, part := range strings.Split(lowerASCII(lang), "-") {
			digits := "0123456789"
			if n == 0 {
				digits = ""
			}
			ok = ok && part != "" && len(part) <= 8 && strings.Trim(part, "abcdefghijklmnopqrstuvwxyz"+digits) == ""
			if r = strings.TrimPrefix(r+"-"+part, "-"); ok {
				ranges = append(ranges, r)
			}
		}
	}
	return ranges
}

// randomWindow returns a window whose bounds are at or next to times of posts, also of ties.
// Sometimes it is half-open, empty or unbounded.
func (c *checker) randomWindow(posts []Post) (since, until time.Time) {
	bound := func() time.Time {
		if len(posts) == 0 || c.rng.IntN(12) == 0 {
			return pick(c.rng, time.UnixMicro(0), time.UnixMicro(-1), time.Date(2026, 8, 20, 0, 0, 0, 0, time.UTC)).UTC()
		}
		return posts[c.rng.IntN(len(posts))].SortAt().Add(time.Duration(pick(c.rng, 0, 0, 0, -1, +1)) * time.Microsecond)
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

// checkRefused sends queries that are not valid, and pages of invalid size.
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
	params := url.Values{"tags": {c.anyTag()}}
	l := c.list(Query{Tags: params["tags"]}, 0)
	_, err := l.page(ctx, params, older, 0)
	if err == nil {
		_, err = l.recentPage(ctx, params, 0, maxLimit)
	}
	return err
}

const searchPath = "/xrpc/app.bsky.unspecced.searchPostsSkeleton"

// checkSearch walks searches, as AppViews send them to their search backend, to the end: the words
// and the parameters of a search all narrow one list. A search without a tag is refused.
func (c *checker) checkSearch(ctx context.Context) error {
	for i := range c.queries {
		q := c.randomQuery(true, false, false, i%3 == 0)
		q = Query{All: slices.Compact(slices.Sorted(slices.Values(slices.Concat(q.All, q.Tags)))), Since: q.Since, Until: q.Until}
		if found := q.list(c.posts); len(found) > 0 && c.rng.IntN(2) == 0 {
			one := pick(c.rng, found...)
			q.By = []string{one.DID}
			if ranges := rangesOf(one.Langs); len(ranges) > 0 {
				q.Langs = []string{pick(c.rng, ranges...)}
			}
		}
		if err := c.walkSearch(ctx, q, 1+c.rng.IntN(maxLimit)); err != nil {
			return fmt.Errorf("search for %v: %w", q, err)
		}
	}
	for _, params := range []url.Values{{}, {"q": {"*"}}, {"q": {"words"}}, {"author": {"did:plc:a"}}, {"q": {"from:did:plc:a"}}, {"q": {"lang:en"}}} {
		got := struct{ Error, Message string }{}
		if _, err := c.ask(ctx, searchPath+"?"+params.Encode(), http.StatusBadRequest, "application/json", &got); err != nil {
			return err
		}
		if got.Error != "BadQueryString" {
			return fmt.Errorf("search for %v: the error is %q", params, got.Error)
		}
	}
	return nil
}

func (c *checker) walkSearch(ctx context.Context, q Query, limit int) error {
	params := url.Values{"limit": {fmt.Sprint(limit)}, "sort": {pick(c.rng, "latest", "top")}}
	words := []string{"*"}
	add := func(name, word, value string) {
		if c.rng.IntN(2) == 0 && !strings.ContainsFunc(value, unicode.IsSpace) {
			words = append(words, word+value)
		} else {
			params.Add(name, value)
		}
	}
	for _, tag := range q.All {
		add("tag", "#", tag)
	}
	for _, did := range q.By {
		add("author", "from:", did)
	}
	for _, lang := range q.Langs {
		add("lang", "lang:", lang)
	}
	for name, at := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !at.IsZero() {
			add(name, name+":", at.UTC().Format(time.RFC3339Nano))
		}
	}
	c.rng.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
	params.Set("q", strings.Join(words, " "))
	var got, want []string
	for _, p := range q.list(c.posts) {
		want = append(want, p.URI)
	}
	for {
		var page struct {
			Posts  []struct{ URI string }
			Cursor *string
		}
		target := searchPath + "?" + params.Encode()
		if _, err := c.get(ctx, target, http.StatusOK, &page); err != nil {
			return err
		}
		for _, p := range page.Posts {
			got = append(got, p.URI)
		}
		switch {
		case page.Posts == nil || len(page.Posts) > limit:
			return fmt.Errorf("GET %s: posts is null, or more than were asked for", target)
		case page.Cursor == nil && slices.Equal(got, want):
			return nil
		case page.Cursor == nil:
			return fmt.Errorf("GET %s: the walk found %q, want %q", target, got, want)
		case len(page.Posts) == 0 || *page.Cursor == "" || len(got) > len(want):
			return fmt.Errorf("GET %s: there is a cursor after an empty page, or the walk does not end", target)
		}
		params.Set("cursor", *page.Cursor)
	}
}
