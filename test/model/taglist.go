package model

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// popularAge bounds the age of an answer with popular tags, with a margin.
const popularAge = 13 * time.Second

// Limits of one check.
const (
	tagPagesChecked    = 12 // pages of one walk of the list of tags
	completionsChecked = 40 // prefixes completed
	tagInfosChecked    = 40 // tags requested alone, and as many odd ones
	popularTagsChecked = 2000
)

// tagInfoAnswer is the answer of GET /v1/tags/{tag}.
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

// tagList returns the list of tags.
func (c *checker) tagList(limit int) *list {
	return &list{
		checker: c, path: "/v1/tags", n: len(c.counts), limit: limit,
		params: func() url.Values { return url.Values{} },
		row: func(p *page, i, got int) error {
			if p.Tags[got] != c.counts[i] {
				return fmt.Errorf("is %v, want %v", p.Tags[got], c.counts[i])
			}
			return nil
		},
	}
}

// checkTagList walks the list of tags in pages of several sizes, and checks that its tokens are
// refused for posts and vice versa.
func (c *checker) checkTagList(ctx context.Context) error {
	least := len(c.counts)/tagPagesChecked + 1
	for _, limit := range []int{least, least + 1 + c.rng.IntN(5), maxLimit} {
		l := c.tagList(min(limit, maxLimit))
		for _, step := range []func(context.Context) error{l.forward, l.backward} {
			if err := step(ctx); err != nil {
				return err
			}
		}
	}
	tags, err := c.tagList(0).page(ctx, url.Values{}, older, 0)
	if err != nil {
		return err
	}
	posts, err := c.list(Query{Tags: []string{"art"}}, 0).page(ctx, url.Values{"tags": {"art"}}, older, 0)
	if err != nil {
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

// checkCompletions completes prefixes of existing and unknown tags.
func (c *checker) checkCompletions(ctx context.Context) error {
	prefixes := []string{"a", "%", "_", `\`, "no tag begins with this", "\U0010ffff", "0"}
	for range min(completionsChecked, 3*len(c.counts)) {
		tag, end := c.anyTag(), 0
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
			continue // half of a name is not always a valid one
		}
		target := "/v1/tags?" + url.Values{"prefix": {spellTag(c.rng, prefix)}}.Encode()
		var got struct{ Tags []TagCount }
		if _, err := c.get(ctx, target, http.StatusOK, &got); err != nil {
			return err
		}
		if want := complete(c.counts, prefix); got.Tags == nil || !slices.Equal(got.Tags, want) {
			return fmt.Errorf("GET %s: %v, want %v", target, got.Tags, want)
		}
	}
	return nil
}

// checkTagInfos requests tags one by one, also some that no visible post has.
func (c *checker) checkTagInfos(ctx context.Context) error {
	status, err := c.status(ctx)
	if err != nil {
		return err
	}
	var through time.Time // null leaves it zero
	if err := decodeJSON(status["indexedThrough"], &through); err != nil {
		return fmt.Errorf("GET /v1/status: indexedThrough: %w", err)
	}
	if through.IsZero() && len(c.counts) > 0 {
		return fmt.Errorf("GET /v1/status: indexedThrough is null, and there are %d tags", len(c.counts))
	}
	odd := slices.DeleteFunc(slices.Clone(c.counts), func(t TagCount) bool { return len(tagPaths(t.Tag)) == 2 })
	for _, tag := range slices.Concat(sample(c.counts, tagInfosChecked), sample(odd, tagInfosChecked)) {
		want := fmt.Sprint(tagInfo(tag.Tag, Query{Tags: []string{tag.Tag}}.list(c.posts), through))
		for _, path := range tagPaths(spellTag(c.rng, tag.Tag)) {
			var got tagInfoAnswer
			if _, err := c.get(ctx, path, http.StatusOK, &got); err != nil {
				return err
			}
			if fmt.Sprint(got) != want {
				return fmt.Errorf("GET %s: %v, want %s", path, got, want)
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

// tagPaths returns the paths of a tag: as encoders usually write it, as a parameter and, if it is
// not only letters, with every byte encoded.
func tagPaths(tag string) []string {
	paths := []string{"/v1/tags/" + url.PathEscape(tag), "/v1/tag?" + url.Values{"tag": {tag}}.Encode()}
	if strings.ContainsAny(tag, "/.%+#? \\") {
		encoded := ""
		for _, c := range []byte(tag) {
			encoded += fmt.Sprintf("%%%02X", c)
		}
		paths = append(paths, "/v1/tags/"+encoded)
	}
	return paths
}

// popularAnswer is the answer of GET /v1/tags?window=.
type popularAnswer struct {
	Tags          []popularTag `json:"tags"`
	Rising        []popularTag `json:"rising"`
	Since         time.Time    `json:"since"`
	ComparedSince time.Time    `json:"comparedSince"`
}

type popularTag struct {
	TagCount
	Before int `json:"before"`
}

// checkPopular requests the popular tags of each window. An answer may predate the last changes.
func (c *checker) checkPopular(ctx context.Context) error {
	if len(c.counts) > popularTagsChecked {
		return nil // the API examines only some of very many rare tags
	}
	kept := time.NewTimer(popularAge)
	defer kept.Stop()
	tick := time.NewTicker(popularAge / 50)
	defer tick.Stop()
	for name, hours := range map[string]int{"1h": 1, "6h": 6, "24h": 24, "72h": 72} {
		for {
			err := c.popular(ctx, name, hours)
			if err == nil {
				break
			}
			select {
			case <-kept.C:
				return err
			case <-ctx.Done():
				return err
			case <-tick.C:
			}
		}
	}
	return nil
}

func (c *checker) popular(ctx context.Context, window string, hours int) error {
	limit := 1 + c.rng.IntN(maxLimit)
	target := fmt.Sprintf("/v1/tags?window=%s&limit=%d", window, limit)
	var got popularAnswer
	if _, err := c.get(ctx, target, http.StatusOK, &got); err != nil {
		return err
	}
	status, err := c.status(ctx)
	if err != nil {
		return err
	}
	var through time.Time
	if err := decodeJSON(status["indexedThrough"], &through); err != nil {
		return fmt.Errorf("GET /v1/status: indexedThrough: %w", err)
	}
	hour := through.UTC().Truncate(time.Hour)
	since, compared := hour.Add(-time.Duration(hours-1)*time.Hour), hour.Add(-167*time.Hour)
	if len(c.counts) > 0 && (!got.Since.Equal(since) || !got.ComparedSince.Equal(compared)) {
		return fmt.Errorf("GET %s: since %v, compared with what was since %v, want %v and %v", target, got.Since, got.ComparedSince, since, compared)
	}
	by := map[string]popularTag{}
	for _, p := range c.posts {
		at := p.SortAt()
		for _, tag := range p.Shown {
			t := by[tag]
			switch t.Tag = tag; {
			case at.Before(compared) || !at.Before(hour.Add(time.Hour)):
			case at.Before(since):
				t.Before++
			default:
				t.Posts++
			}
			by[tag] = t
		}
	}
	var want []popularTag
	for _, t := range by {
		if t.Posts > 0 {
			want = append(want, t)
		}
	}
	slices.SortFunc(want, func(a, b popularTag) int { return cmp.Or(cmp.Compare(b.Posts, a.Posts), cmp.Compare(a.Tag, b.Tag)) })
	if want = want[:min(len(want), limit)]; got.Tags == nil || !slices.Equal(got.Tags, want) {
		return fmt.Errorf("GET %s: %v, want %v", target, got.Tags, want)
	}
	for _, t := range got.Rising {
		if t != by[t.Tag] {
			return fmt.Errorf("GET %s: %v is rising, and is %v", target, t, by[t.Tag])
		}
	}
	return nil
}
