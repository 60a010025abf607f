package model

import (
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// All returns all posts, including hidden ones, newest place first.
func (x *Index) All() []Post {
	var all []Post
	for _, p := range x.posts {
		all = append(all, x.read(p))
	}
	slices.SortFunc(all, func(a, b Post) int { return b.Place.Compare(a.Place) })
	return all
}

// Posts returns the visible posts, newest place first.
func (x *Index) Posts() []Post {
	return slices.DeleteFunc(x.All(), func(p Post) bool { return p.Hidden })
}

// Hidden returns the posts that readers do not see because of their account.
func (x *Index) Hidden() []Post {
	return slices.DeleteFunc(x.All(), func(p Post) bool { return !p.Hidden })
}

// Absent returns the sorted at-uris of the posts that some event was about and that are not in the
// index now.
func (x *Index) Absent() []string {
	absent := slices.Sorted(maps.Keys(x.mentioned))
	return slices.DeleteFunc(absent, func(uri string) bool { return x.posts[uri] != nil })
}

// DeadLetters returns the number of messages that could not be applied.
func (x *Index) DeadLetters() int { return x.deadLetters }

// Query selects the posts of a list. Tags are raw: they are normalized here. Empty fields do not
// restrict it, but a query without a tag in Tags or All matches no post.
type Query struct {
	Tags  []string // any of them
	All   []string // every one of them
	None  []string
	By    []string // DIDs of authors, any of them
	NotBy []string // DIDs of authors, none of them
	Media []string // kinds of media, any of them
	// MaxTags and SelfLabels are as in a URL.
	MaxTags    int
	SelfLabels string
	Langs      []string  // basic ranges of RFC 4647 other than "*", any of them
	Since      time.Time // of sortAt, inclusive
	Until      time.Time // exclusive
}

// String returns the query as in a URL, for messages.
func (q Query) String() string {
	params := url.Values{"tags": q.Tags, "all": q.All, "none": q.None, "lang": q.Langs, "author": q.By, "notAuthor": q.NotBy, "media": q.Media}
	for name, value := range q.single() {
		params.Set(name, value)
	}
	for name, at := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !at.IsZero() {
			params.Set(name, at.Format(time.RFC3339Nano))
		}
	}
	return params.Encode()
}

// single returns the filters that can be given only once, except for times.
func (q Query) single() map[string]string {
	params := map[string]string{}
	if q.MaxTags > 0 {
		params["maxTags"] = strconv.Itoa(q.MaxTags)
	}
	if q.SelfLabels != "" {
		params["selfLabels"] = q.SelfLabels
	}
	return params
}

// list returns those of the posts that the query matches.
func (q Query) list(posts []Post) []Post {
	q = q.normal()
	return slices.DeleteFunc(slices.Clone(posts), func(p Post) bool { return !q.matches(&p) })
}

// normal returns the query with its tags normalized. A tag that is not valid matches nothing.
func (q Query) normal() Query {
	for _, tags := range []*[]string{&q.Tags, &q.All, &q.None} {
		*tags = slices.Clone(*tags)
		for i, raw := range *tags {
			if tag, ok := normalTag(raw); ok {
				(*tags)[i] = tag
			}
		}
	}
	return q
}

func (q Query) matches(p *Post) bool {
	carries := func(tag string) bool { return slices.Contains(p.Tags, tag) } // denied or not
	has := func(tag string) bool { return slices.Contains(p.Shown, tag) }
	lacks := func(tag string) bool { return !has(tag) }
	at := p.SortAt()
	switch {
	case len(q.Tags)+len(q.All) == 0,
		len(q.Tags) > 0 && !slices.ContainsFunc(q.Tags, has),
		slices.ContainsFunc(q.All, lacks),
		len(q.By) > 0 && !slices.Contains(q.By, p.DID),
		slices.Contains(q.NotBy, p.DID),
		q.MaxTags > 0 && len(p.Tags) > q.MaxTags,
		len(q.Media) > 0 && !slices.Contains(q.Media, p.media()) && (p.media() == "none" || !slices.Contains(q.Media, "any")),
		q.SelfLabels == "exclude" && p.labelled(),
		q.SelfLabels == "only" && !p.labelled(),
		slices.ContainsFunc(q.None, carries),
		len(q.Langs) > 0 && !q.speaks(p),
		!q.Since.IsZero() && at.Before(q.Since),
		!q.Until.IsZero() && !at.Before(q.Until):
		return false
	}
	return true
}

// speaks reports whether a post is in one of the languages.
func (q Query) speaks(p *Post) bool {
	return slices.ContainsFunc(q.Langs, func(want string) bool {
		return slices.ContainsFunc(p.Langs, func(lang string) bool { return inRange(want, lang) })
	})
}

// inRange is the basic filtering of RFC 4647, section 3.3.1. It ignores the case of ASCII letters
// only: the Kelvin sign is not a k.
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

// TagCount is a tag with the number of visible posts that carry it.
type TagCount struct {
	Tag   string `json:"tag"`
	Posts int    `json:"posts"`
}

// TagCounts returns the tags of visible posts by (posts DESC, tag ASC), tags compared by bytes.
func (x *Index) TagCounts() []TagCount {
	counts := map[string]int{}
	for _, p := range x.Posts() {
		for _, tag := range p.Shown {
			counts[tag]++
		}
	}
	var list []TagCount
	for tag, n := range counts {
		list = append(list, TagCount{tag, n})
	}
	slices.SortFunc(list, func(a, b TagCount) int {
		return cmp.Or(cmp.Compare(b.Posts, a.Posts), cmp.Compare(a.Tag, b.Tag))
	})
	return list
}

// complete returns the 20 most used of the tags that begin with a prefix in normal form.
func complete(counts []TagCount, prefix string) []TagCount {
	list := slices.DeleteFunc(slices.Clone(counts), func(c TagCount) bool { return !strings.HasPrefix(c.Tag, prefix) })
	return list[:min(len(list), 20)]
}

// tagInfo returns the answer of GET /v1/tags/{tag} for a tag with these posts, newest first. The
// history counts the posts by the hour of their sortAt: the 168 hours up to the index's current
// one, oldest first.
func tagInfo(tag string, posts []Post, through time.Time) tagInfoAnswer {
	info := tagInfoAnswer{
		Tag: tag, Posts: len(posts),
		FirstSeen: posts[len(posts)-1].SortAt().Format(timeFormat), LastSeen: posts[0].SortAt().Format(timeFormat),
	}
	for ago := 167; ago >= 0; ago-- {
		hour := through.UTC().Truncate(time.Hour).Add(-time.Duration(ago) * time.Hour)
		n := 0
		for _, p := range posts {
			if p.SortAt().Truncate(time.Hour).Equal(hour) {
				n++
			}
		}
		info.History = append(info.History, hourAnswer{hour.Format(timeFormat), n})
	}
	return info
}
