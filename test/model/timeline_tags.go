package model

import (
	"cmp"
	"fmt"
	"math"
)

// usage is how many visible posts a tag had from a sequence number on.
type usage struct {
	from  uint64
	posts int
}

// count notes that as many visible posts more have the tags.
func (t *Timeline) count(tags []string, more int) {
	for _, tag := range tags {
		used := t.used[tag]
		n := len(used)
		posts := more
		if n > 0 {
			posts += used[n-1].posts
		}
		if n > 0 && used[n-1].from == t.seq {
			used[n-1].posts = posts
		} else {
			used = append(used, usage{t.seq, posts})
		}
		// One post less and another more is no change.
		if n = len(used); n > 1 && used[n-1].posts == used[n-2].posts {
			used = used[:n-1]
		}
		t.used[tag] = used
	}
}

// TagWalk is what one reader saw of the list of tags, as Walk is of posts. Newer
// is up the list, to tags that are used more.
type TagWalk struct {
	First, Last uint64
	Newer       bool
	Seen        []TagCount
	Ended       bool
}

// JudgeTags compares a walk through the tags with the history, as Judge does:
// due are the tags whose count did not change. Others may be missed, or seen
// again where they have moved to.
func (t *Timeline) JudgeTags(w TagWalk) (Verdict, error) {
	v := Verdict{Walks: 1, Rows: len(w.Seen)}
	var wrong error
	fault := func(count *int, format string, args ...any) {
		if *count++; wrong == nil {
			wrong = fmt.Errorf(format, args...)
		}
	}
	seen := map[TagCount]int{}
	for i, s := range w.Seen {
		seen[s]++
		if seen[s] > 1 {
			fault(&v.Repeated, "row %d, tag %q with %d posts, was seen before", i, s.Tag, s.Posts)
		} else if i > 0 && !w.follows(w.Seen[i-1], s) {
			fault(&v.Disordered, "row %d, tag %q with %d posts, does not come after the row before it", i, s.Tag, s.Posts)
		}
		if s.Posts == 0 || !t.wasUsed(w, s) {
			fault(&v.Foreign, "row %d, tag %q, did not have %d posts at any time", i, s.Tag, s.Posts)
		}
	}
	for tag := range t.used {
		posts, steady := t.steady(w, tag)
		s := TagCount{tag, posts}
		if !steady || posts == 0 {
			continue
		}
		if n := len(w.Seen); !w.Ended && (n == 0 || w.follows(w.Seen[n-1], s)) {
			continue
		}
		v.Due++
		if seen[s] == 0 {
			fault(&v.Missed, "tag %q had %d posts from %d to %d and was not seen", tag, posts, w.First, w.Last)
		}
	}
	return v, wrong
}

func (w *TagWalk) follows(a, b TagCount) bool {
	c := cmp.Or(cmp.Compare(b.Posts, a.Posts), cmp.Compare(a.Tag, b.Tag))
	if w.Newer {
		return c > 0
	}
	return c < 0
}

// wasUsed reports whether a tag had that many posts at some time of a walk.
func (t *Timeline) wasUsed(w TagWalk, s TagCount) bool {
	used := t.used[s.Tag]
	for i, u := range used {
		to := uint64(math.MaxUint64)
		if i+1 < len(used) {
			to = used[i+1].from
		}
		if u.posts == s.Posts && u.from <= w.Last && to > w.First {
			return true
		}
	}
	return false
}

// steady returns how many posts a tag had during a whole walk, if that did not
// change.
func (t *Timeline) steady(w TagWalk, tag string) (posts int, ok bool) {
	for _, u := range t.used[tag] {
		if u.from <= w.First {
			posts = u.posts
		} else if u.from <= w.Last {
			return 0, false
		}
	}
	return posts, true
}
