package model

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of one check.
const (
	tagPagesChecked    = 12 // pages of one walk of the list of tags
	completionsChecked = 40 // prefixes completed
	tagInfosChecked    = 40 // tags asked for by themselves, and as many odd ones
)

// tagAnswer is a tag in lists.
type tagAnswer struct {
	Tag   string `json:"tag"`
	Posts int    `json:"posts"`
}

// tagsAnswer is a page of GET /v1/tags.
type tagsAnswer struct {
	Tags []tagAnswer `json:"tags"`
	Page pageAnswer  `json:"page"`

	asked url.Values
	link  string
}

// completionAnswer is GET /v1/tags?prefix=.
type completionAnswer struct {
	Tags []tagAnswer `json:"tags"`
}

// tagInfoAnswer is GET /v1/tags/{tag}.
type tagInfoAnswer struct {
	Tag       string       `json:"tag"`
	Posts     int          `json:"posts"`
	FirstSeen string       `json:"firstSeen"`
	LastSeen  string       `json:"lastSeen"`
	History   []hourAnswer `json:"history"`
}

type hourAnswer struct {
	Hour  string `json:"hour"`
	Posts int    `json:"posts"`
}

// checkTagList walks the list of tags in pages of several sizes, to its end and
// back, by tokens and by links, and tries the tokens on posts and the other way
// round.
func (c *checker) checkTagList(ctx context.Context) error {
	least := len(c.counts)/tagPagesChecked + 1
	for _, limit := range []int{least, least + 1 + c.rng.IntN(5), maxLimit} {
		if err := c.walkTags(ctx, min(limit, maxLimit)); err != nil {
			return fmt.Errorf("list of tags: %w", err)
		}
	}
	if _, err := c.tagPage(ctx, url.Values{}, 0, min(defaultLimit, len(c.counts))); err != nil {
		return err
	}
	var tags tagsAnswer
	var posts listAnswer
	if _, err := c.get(ctx, "/v1/tags?limit=1", http.StatusOK, &tags); err != nil {
		return err
	}
	if _, err := c.get(ctx, "/v1/posts?limit=1&tags=art", http.StatusOK, &posts); err != nil {
		return err
	}
	for _, name := range []string{"after", "before"} {
		for target, token := range map[string]string{"/v1/posts?tags=art&": tags.Page.Next, "/v1/tags?": posts.Page.Next} {
			if err := c.refused(ctx, target+url.Values{name: {token}}.Encode(), http.StatusBadRequest, "cursor_mismatch"); err != nil {
				return fmt.Errorf("a token of the other kind of list: %w", err)
			}
		}
	}
	return nil
}

// walkTags walks in pages of one size. Next to each token stands how many tags
// are before it.
func (c *checker) walkTags(ctx context.Context, limit int) error {
	n := len(c.counts)
	page, err := c.tagPage(ctx, url.Values{"limit": {strconv.Itoa(limit)}}, 0, min(limit, n))
	if err != nil {
		return err
	}
	first := page
	at := min(limit, n)
	for at < n {
		to := min(at+limit, n)
		if page, err = c.tagPage(ctx, c.tagParams(older, limit, page.Page.Next), at, to); err != nil {
			return err
		}
		at = to
	}
	if page, err = c.tagPage(ctx, c.tagParams(older, limit, page.Page.Next), n, n); err != nil {
		return err
	}
	for at = n; at > 0; {
		from := max(at-limit, 0)
		if page, err = c.tagPage(ctx, c.tagParams(newer, limit, page.Page.Previous), from, at); err != nil {
			return err
		}
		at = from
	}
	if _, err := c.tagPage(ctx, c.tagParams(newer, limit, page.Page.Previous), 0, 0); err != nil {
		return err
	}
	if _, err := c.tagPage(ctx, url.Values{"last": {strconv.Itoa(limit)}}, max(n-limit, 0), n); err != nil {
		return err
	}
	return c.walkTagLinks(ctx, first, limit)
}

func (c *checker) walkTagLinks(ctx context.Context, page tagsAnswer, limit int) error {
	n := len(c.counts)
	for from, forward := 0, true; ; {
		links, err := parseLinks(page.link, "/v1/tags", page.asked)
		if err != nil {
			return err
		}
		to := min(from+len(page.Tags), n)
		if (links["next"] != nil) != (to < n) || (links["prev"] != nil) != (from > 0) {
			return fmt.Errorf("links of tags %d to %d of %d are there: next %t, prev %t", from, to, n, links["next"] != nil, links["prev"] != nil)
		}
		forward = forward && to < n
		switch {
		case forward:
			from = to
			page, err = c.tagPage(ctx, links["next"], from, min(from+limit, n))
		case from > 0:
			to = from
			from = max(from-limit, 0)
			page, err = c.tagPage(ctx, links["prev"], from, to)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// tagParams asks for the page on one side of a token, older being down the list.
func (c *checker) tagParams(direction way, limit int, token string) url.Values {
	names := [][]string{{"after", "limit", "first"}, {"before", "limit", "last"}}[direction]
	return url.Values{names[0]: {token}, pick(c.rng, names[1:]...): {strconv.Itoa(limit)}}
}

// tagPage asks for a page and compares it with counts[from:to].
func (c *checker) tagPage(ctx context.Context, params url.Values, from, to int) (tagsAnswer, error) {
	target := "/v1/tags?" + params.Encode()
	got := tagsAnswer{asked: params}
	header, err := c.get(ctx, target, http.StatusOK, &got)
	if err != nil {
		return got, err
	}
	got.link = header.Get("Link")
	err = sameTags(got.Tags, c.counts[from:to])
	switch {
	case err != nil:
	case got.Page.HasNext != (to < len(c.counts)):
		err = fmt.Errorf("hasNext is %t, want %t", got.Page.HasNext, !got.Page.HasNext)
	case got.Page.HasPrevious != (from > 0):
		err = fmt.Errorf("hasPrevious is %t, want %t", got.Page.HasPrevious, !got.Page.HasPrevious)
	default:
		err = got.Page.complete()
	}
	if err != nil {
		return got, fmt.Errorf("GET %s: tags %d to %d: %w", target, from, to, err)
	}
	return got, nil
}

func sameTags(got []tagAnswer, want []TagCount) error {
	if got == nil {
		return fmt.Errorf("tags is null, not a list")
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Errorf("%d tags, want %d: %q is missing", len(got), len(want), want[i].Tag)
		case i >= len(want):
			return fmt.Errorf("%d tags, want %d: %q is too much", len(got), len(want), got[i].Tag)
		case got[i] != tagAnswer(want[i]):
			return fmt.Errorf("tag %d is %q with %d posts, want %q with %d", i, got[i].Tag, got[i].Posts, want[i].Tag, want[i].Posts)
		}
	}
	return nil
}

// checkCompletions completes beginnings of tags and of none.
func (c *checker) checkCompletions(ctx context.Context) error {
	prefixes := []string{"a", "%", "_", `\`, "no tag begins with this", "\U0010ffff", "0"}
	for range min(completionsChecked, 3*len(c.counts)) {
		tag := c.anyTag()
		end := 0
		for range 1 + c.rng.IntN(4) {
			_, size := utf8.DecodeRuneInString(tag[end:])
			end += size
		}
		if c.rng.IntN(6) == 0 {
			end = len(tag)
		}
		prefixes = append(prefixes, tag[:end])
	}
	for _, prefix := range prefixes {
		if normal, ok := normalTag(prefix); !ok || normal != prefix {
			continue // half of a name need not be one
		}
		target := "/v1/tags?" + url.Values{"prefix": {spellTag(c.rng, prefix)}}.Encode()
		var got completionAnswer
		if _, err := c.get(ctx, target, http.StatusOK, &got); err != nil {
			return err
		}
		if err := sameTags(got.Tags, complete(c.counts, prefix)); err != nil {
			return fmt.Errorf("GET %s: %w", target, err)
		}
	}
	return nil
}

// checkTagInfos asks for tags one by one, and for some that no visible post has.
func (c *checker) checkTagInfos(ctx context.Context) error {
	status, err := c.status(ctx)
	if err != nil {
		return err
	}
	var through time.Time
	if err := decodeJSON(status["indexedThrough"], &through); err != nil { // null leaves it as it is
		return fmt.Errorf("GET /v1/status: indexedThrough: %w", err)
	}
	if through.IsZero() && len(c.counts) > 0 {
		return fmt.Errorf("GET /v1/status: indexedThrough is null, and there are %d tags", len(c.counts))
	}
	odd := slices.DeleteFunc(slices.Clone(c.counts), func(t TagCount) bool { return len(tagPaths(t.Tag)) == 2 })
	for _, tag := range slices.Concat(sample(c.counts, tagInfosChecked), sample(odd, tagInfosChecked)) {
		want := c.posts.Of(Query{Tags: []string{tag.Tag}}).tagInfo(through)
		for _, path := range tagPaths(spellTag(c.rng, tag.Tag)) {
			var got tagInfoAnswer
			if _, err := c.get(ctx, path, http.StatusOK, &got); err != nil {
				return err
			}
			if err := got.differs(tag.Tag, want); err != nil {
				return fmt.Errorf("GET %s: %w", path, err)
			}
		}
	}
	absent := []string{unknownTag}
	for _, p := range c.want.All() {
		for _, tag := range p.Tags {
			if !slices.Contains(absent, tag) && !slices.ContainsFunc(c.counts, func(t TagCount) bool { return t.Tag == tag }) {
				absent = append(absent, tag)
			}
		}
	}
	for _, tag := range sample(absent, tagInfosChecked) {
		for _, path := range tagPaths(tag) {
			if err := c.refused(ctx, path, http.StatusNotFound, "not_found"); err != nil {
				return err
			}
		}
	}
	return nil
}

// tagPaths are the paths of a tag: as encoders usually write it, as a parameter and,
// where it has more than letters, with every byte encoded.
func tagPaths(tag string) []string {
	paths := []string{"/v1/tags/" + url.PathEscape(tag), "/v1/tag?" + url.Values{"tag": {tag}}.Encode()}
	if strings.ContainsAny(tag, "/.%+#? \\") {
		var b strings.Builder
		for _, c := range []byte(tag) {
			fmt.Fprintf(&b, "%%%02X", c)
		}
		paths = append(paths, "/v1/tags/"+b.String())
	}
	return paths
}

func (got *tagInfoAnswer) differs(tag string, want TagInfo) error {
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"tag", got.Tag, tag},
		{"posts", got.Posts, want.Posts},
		{"firstSeen", got.FirstSeen, want.FirstSeen.Format(timeFormat)},
		{"lastSeen", got.LastSeen, want.LastSeen.Format(timeFormat)},
		{"number of hours", len(got.History), len(want.History)},
	} {
		if f.got != f.want {
			return fmt.Errorf("%s is %v, want %v", f.name, f.got, f.want)
		}
	}
	for i, h := range got.History {
		if w := want.History[i]; h != (hourAnswer{w.Hour.Format(timeFormat), w.Posts}) {
			return fmt.Errorf("hour %d of the history is %s with %d posts, want %s with %d", i, h.Hour, h.Posts, w.Hour.Format(timeFormat), w.Posts)
		}
	}
	return nil
}
