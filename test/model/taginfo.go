package model

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// historyHours is how many hours the history of a tag has.
const historyHours = 168

// maxCompletions is how many tags complete a prefix at most.
const maxCompletions = 20

// TagCount is a tag with the number of visible posts that carry it.
type TagCount struct {
	Tag   string
	Posts int
}

// TagCounts returns the tags of visible posts by (posts DESC, tag ASC), tags
// compared by their bytes.
func (x *Index) TagCounts() []TagCount {
	counts := map[string]int{}
	for _, p := range x.Posts() {
		for _, tag := range p.Tags {
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

// complete returns the most used of the tags, which are in the order of
// TagCounts, that begin with a prefix in normal form.
func complete(counts []TagCount, prefix string) []TagCount {
	var list []TagCount
	for _, c := range counts {
		if strings.HasPrefix(c.Tag, prefix) && len(list) < maxCompletions {
			list = append(list, c)
		}
	}
	return list
}

// TagInfo is what the visible posts of one tag come to.
type TagInfo struct {
	Posts               int
	FirstSeen, LastSeen time.Time // sortAt of the oldest and of the newest
	// History has the posts by the hour of their sortAt: the hours up to the
	// one that the index has come to, oldest first, those without posts too.
	History []HourCount
}

// HourCount is how many posts there are in the hour that begins at Hour.
type HourCount struct {
	Hour  time.Time
	Posts int
}

// tagInfo makes a tag's info of the list of its posts, which has some. Through
// is how far the index has come, by the firehose's time.
func (l List) tagInfo(through time.Time) TagInfo {
	info := TagInfo{Posts: len(l), FirstSeen: l[len(l)-1].SortAt(), LastSeen: l[0].SortAt()}
	for ago := historyHours - 1; ago >= 0; ago-- {
		hour := through.UTC().Truncate(time.Hour).Add(-time.Duration(ago) * time.Hour)
		n := 0
		for i := range l {
			if at := l[i].SortAt(); !at.Before(hour) && at.Before(hour.Add(time.Hour)) {
				n++
			}
		}
		info.History = append(info.History, HourCount{hour, n})
	}
	return info
}
