package query

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// TagOrder is the order of the list of tags: most posts first, ties by the bytes of the names. With
// the count negated both columns ascend, so that a page is one range of tags_posts_idx.
var TagOrder = keyset.MustOrdering(
	keyset.Column{Name: "rank", Expr: "(-posts)", Type: keyset.TypeInt64},
	keyset.Column{Name: "name", Type: keyset.TypeText}, // the column has COLLATE "C"
)

const (
	// MaxRankedTags is how many tags RankedTags can reach, which bounds what it reads and discards.
	MaxRankedTags = 10_000
	// MaxCompletions is the most tags that TagsWithPrefix returns.
	MaxCompletions = 20
	// completionScan bounds what it reads of each of its two indexes.
	completionScan = 5000
)

// TagCount is a tag and the number of its visible posts.
type TagCount struct {
	Name  string
	Posts int64
}

// TagKey returns a tag's position values in TagOrder.
func TagKey(t TagCount) []keyset.Value {
	return []keyset.Value{keyset.Int64(-t.Posts), keyset.Text(t.Name)}
}

// TagQuery asks for tags in use.
type TagQuery struct {
	// From is where to start and Direction where to go: Forward leads to tags with fewer posts.
	From      keyset.Position
	Direction keyset.Direction
	// Limit is 1 to MaxLimit.
	Limit int
}

// TagPage is a page of tags, in TagOrder for both directions of reading.
type TagPage struct {
	Rows []TagCount
	// Next and Previous are the page's edges. HasNext and HasPrevious report exactly whether there
	// are tags beyond them at present.
	Next, Previous       keyset.Position
	HasNext, HasPrevious bool
}

// Tags returns a page of the tags in use. A tag whose count changes moves in the order, so a walk
// may see it twice or not at all; it sees a tag whose count stays the same exactly once. The error
// is the database's, or the one for a limit out of bounds.
func (r *Reader) Tags(ctx context.Context, q TagQuery) (TagPage, error) {
	if q.Limit < 1 || q.Limit > MaxLimit {
		return TagPage{}, fmt.Errorf("query tags: limit %d is out of bounds", q.Limit)
	}
	sql, args, err := tagsFrom(q)
	if err != nil {
		return TagPage{}, fmt.Errorf("query tags: %w", err)
	}
	var ahead []TagCount
	var behind bool
	if err := r.query(ctx, sql, args, func(rows pgx.Rows) error {
		var t TagCount
		var isBehind bool
		ahead, behind = nil, false
		_, err := pgx.ForEachRow(rows, []any{&isBehind, &t.Name, &t.Posts}, func() error {
			if isBehind {
				behind = true
			} else {
				ahead = append(ahead, t)
			}
			return nil
		})
		return err
	}); err != nil {
		return TagPage{}, fmt.Errorf("query tags: %w", pg.NotMigrated(err))
	}
	p := keyset.Slice(ahead, q.Limit, q.Direction, q.From, TagKey)
	page := TagPage{Rows: p.Rows, Next: p.Next, Previous: p.Previous, HasNext: p.More, HasPrevious: behind}
	if q.Direction == keyset.Backward {
		page.HasNext, page.HasPrevious = page.HasPrevious, page.HasNext
	}
	if len(page.Rows) == 0 && !page.HasNext && !page.HasPrevious {
		watchFarEnds(&page.Next, &page.Previous)
	}
	return page, nil
}

// tagsFrom returns the query for a page, one row more, and the row before the page, if any. It is
// one statement, so that everything is from one moment and takes one round trip.
func tagsFrom(q TagQuery) (string, []any, error) {
	ahead, err := TagOrder.Seek(q.Direction, q.From, 2) // $1 is the limit
	if err != nil {
		return "", nil, err
	}
	// If a page that begins at a row is empty, the row before it may be that one.
	from := q.From
	if from.Side == keyset.SideAt {
		from.Side = keyset.SideBelow
		if q.Direction == keyset.Backward {
			from.Side = keyset.SideAbove
		}
	}
	behind, err := TagOrder.Seek(q.Direction.Reverse(), from, ahead.NextArg)
	if err != nil {
		return "", nil, err
	}
	const tags = ", name, posts FROM tags WHERE posts > 0 AND " + served + " AND "
	var parts []string
	var args []any
	if !from.Exhausted(q.Direction) {
		parts = append(parts, "(SELECT false"+tags+ahead.Where+" ORDER BY "+ahead.OrderBy+" LIMIT $1)")
		args = append([]any{q.Limit + 1}, ahead.Args...)
	}
	if !from.Exhausted(q.Direction.Reverse()) {
		parts = append(parts, "(SELECT true"+tags+behind.Where+" ORDER BY "+behind.OrderBy+" LIMIT 1)")
		args = append(args, behind.Args...)
	}
	return strings.Join(parts, " UNION ALL "), args, nil
}

// TagsWithPrefix returns the tags in use whose names begin with prefix, which must be normalized
// and not empty: the MaxCompletions with the most posts, in TagOrder. This is exact unless more
// than 5,000 names, including unused ones, have the prefix and fewer than MaxCompletions of them
// are among the 5,000 most used tags. Then those come first, followed by the most used of the first
// 5,000 names.
func (r *Reader) TagsWithPrefix(ctx context.Context, prefix string) ([]TagCount, error) {
	var tags []TagCount
	err := r.query(ctx, completionQuery, []any{prefix, prefixEnd(prefix), MaxCompletions, completionScan}, func(rows pgx.Rows) (err error) {
		tags, err = pgx.CollectRows(rows, pgx.RowToStructByPos[TagCount])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("complete a tag: %w", pg.NotMigrated(err))
	}
	return tags, nil
}

// completionQuery searches the most used tags, which quickly finds those with a common prefix. If
// that is not enough, it searches the names with the prefix; a rare prefix has few.
const completionQuery = `
	WITH top AS MATERIALIZED (
		SELECT name, posts
		  FROM (SELECT name, posts FROM tags WHERE posts > 0 AND ` + served + ` ORDER BY (-posts), name LIMIT $4) AS most_used
		 WHERE name >= $1 AND name < $2
		 LIMIT $3)
	SELECT name, posts FROM top
	UNION
	SELECT name, posts
	  FROM (SELECT name, posts FROM tags WHERE name >= $1 AND name < $2 AND ` + served + ` ORDER BY name LIMIT $4) AS named_so
	 WHERE posts > 0 AND (SELECT count(*) FROM top) < $3
	 ORDER BY posts DESC, name
	 LIMIT $3`

// prefixEnd returns the least text that sorts after every tag that begins with prefix. It
// increments the last character rather than the last byte: text in Postgres is UTF-8, whose byte
// order is that of the characters.
func prefixEnd(prefix string) string {
	for rest := prefix; rest != ""; {
		last, size := utf8.DecodeLastRuneInString(rest)
		rest = rest[:len(rest)-size]
		switch last++; {
		case last == 0xD800: // surrogates are not characters
			return rest + "\uE000"
		case last <= utf8.MaxRune:
			return rest + string(last)
		}
	}
	// Every character is the last one of Unicode. No tag is as long as this text.
	return strings.Repeat(string(utf8.MaxRune), event.MaxTagBytes)
}

// Denied tags, those in the operator's deny list, are in no list of tags, match no posts, and are
// not shown among a post's other tags. Only these conditions enforce that.
const (
	// served is true of a tag that is not denied. It reads the whole deny list once, for many tags.
	served = "name NOT IN (SELECT d.name FROM denied_tags d)"
	// servedOne is the same for looking up single tags.
	servedOne = "NOT EXISTS (SELECT FROM denied_tags d WHERE d.name = tags.name)"
	// deniedIDs selects the denied tags by their id.
	deniedIDs = "SELECT tags.id FROM denied_tags d JOIN tags ON tags.name = d.name"
	// shownTags are those of a post p that are not denied.
	shownTags = "CASE WHEN EXISTS (SELECT FROM denied_tags) THEN ARRAY(SELECT name FROM unnest(p.tags) AS name WHERE " + served + ") ELSE p.tags END"
)

// TagsInUse returns those of the names that are tags of visible posts, in no order.
func (r *Reader) TagsInUse(ctx context.Context, names []string) ([]string, error) {
	var used []string
	err := r.query(ctx, `SELECT name FROM tags WHERE name = ANY($1::text[]) AND posts > 0 AND `+servedOne, []any{names}, func(rows pgx.Rows) (err error) {
		used, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look up %d tags: %w", len(names), pg.NotMigrated(err))
	}
	return used, nil
}

// RankedTags returns up to limit tags from an offset in TagOrder, where 0 is the most used, and the
// number of tags in use. It reads and discards everything before the offset, so it only reaches the
// first MaxRankedTags tags. Use it only for numbered pages, and Tags otherwise.
func (r *Reader) RankedTags(ctx context.Context, offset, limit int) (tags []TagCount, total int64, err error) {
	if offset < 0 || offset >= MaxRankedTags || limit < 1 || limit > MaxLimit {
		return nil, 0, fmt.Errorf("list tags by rank: offset %d or limit %d is out of bounds", offset, limit)
	}
	if err := r.query(ctx, rankedQuery, []any{offset, min(limit, MaxRankedTags-offset)}, func(rows pgx.Rows) error {
		var name *string
		var posts *int64
		tags = nil
		_, err := pgx.ForEachRow(rows, []any{&total, &name, &posts}, func() error {
			if name != nil {
				tags = append(tags, TagCount{*name, *posts})
			}
			return nil
		})
		return err
	}); err != nil {
		return nil, 0, fmt.Errorf("list tags by rank: %w", pg.NotMigrated(err))
	}
	return tags, total, nil
}

// usedTags counts the tags of visible posts that are not denied, given the checkpoint c.
const usedTags = "c.tags - (SELECT count(*) FROM (" + deniedIDs + " WHERE tags.posts > 0) AS denied)"

// rankedQuery has the total in every row; if there are no tags, one row has only the total.
const rankedQuery = `
	SELECT ` + usedTags + `, t.name, t.posts
	  FROM checkpoint c
	  LEFT JOIN (SELECT name, posts FROM tags WHERE posts > 0 AND ` + served + ` ORDER BY (-posts), name OFFSET $1 LIMIT $2) AS t ON true
	 WHERE c.singleton`
