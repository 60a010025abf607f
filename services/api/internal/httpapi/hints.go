package httpapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store/query"
)

// maxHinted bounds the parts of tags that are looked up for hints.
const maxHinted = 100

// hints returns likely mistakes in a query whose first page is empty, in sentences that say what to
// do. Other pages have none.
func (h *Handler) hints(ctx context.Context, q values, pq query.PostQuery, page query.PostPage) ([]string, error) {
	if len(page.Rows) > 0 || page.HasNext || page.HasPrevious || slices.ContainsFunc(tokenParams, q.has) {
		return nil, nil
	}
	var hints []string
	if !pq.Since.IsZero() && !pq.Until.IsZero() && !pq.Since.Before(pq.Until) {
		hints = append(hints, fmt.Sprintf("Give a since that is before until: no time is at or after %s and before %s.",
			pq.Since.Format(time.RFC3339Nano), pq.Until.Format(time.RFC3339Nano)))
	}
	both := func(name string, names []string, not string, nots []string, posts string) {
		for _, n := range names {
			if slices.Contains(nots, n) {
				hints = append(hints, fmt.Sprintf("Name %s in %s or in %s, not in both: %s are left out.", quote(n), name, not, posts))
			}
		}
	}
	required := "all"
	if q.has("match") && len(pq.Tags) == 0 {
		required = "tags"
	}
	both("tags", pq.Tags, "none", pq.None, "posts that have it")
	both(required, pq.All, "none", pq.None, "posts that have it")
	both("author", pq.Authors, "notAuthor", pq.NotAuthors, "the account's posts")
	if n := len(pq.All); pq.MaxTags > 0 && n > pq.MaxTags {
		hints = append(hints, fmt.Sprintf("Give maxTags as %d or more: posts with all of these tags have at least that many.", n))
	}
	joined, err := h.joinedTagHints(ctx, slices.Concat(pq.Tags, pq.All))
	return append(hints, joined...), err
}

// joinedTagHints returns hints about tags that look like several tags, such as "art,photo": no post
// has the tag, but some have a part of it.
func (h *Handler) joinedTagHints(ctx context.Context, tags []string) (hints []string, err error) {
	parts := map[string][]string{}
	var names []string
	for _, tag := range tags {
		for _, part := range strings.FieldsFunc(tag, joins) {
			normal, err := event.NormalizeTag(part)
			if err == nil && normal != tag && len(names) < maxHinted {
				parts[tag] = append(parts[tag], normal)
				names = append(names, normal)
			}
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	used, err := h.index.TagsInUse(ctx, slices.Concat(tags, names))
	if err != nil {
		return nil, err
	}
	for _, tag := range tags {
		i := slices.IndexFunc(parts[tag], func(part string) bool { return slices.Contains(used, part) })
		if i >= 0 && !slices.Contains(used, tag) {
			hints = append(hints, fmt.Sprintf("Repeat the parameter for several tags, as in tags=art&tags=photo: no post has the tag %s, but some have %s.",
				quote(tag), quote(parts[tag][i])))
		}
	}
	return hints, nil
}

// joins reports whether people use a character to separate tags.
func joins(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(",;|#", r) }
