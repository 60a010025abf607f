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

// TagOrder is the order of the list of tags: those with most posts first, and
// by the bytes of their names where they tie. With the count negated both
// columns rise, so that a page is one range of tags_posts_idx.
var TagOrder = keyset.MustOrdering(
	keyset.Column{Name: "rank", Expr: "(-posts)", Type: keyset.TypeInt64},
	keyset.Column{Name: "name", Type: keyset.TypeText}, // the column has COLLATE "C"
)

const (
	// MaxRankedTags is how many tags RankedTags can reach: what it may read and
	// throw away.
	MaxRankedTags = 10_000
	// MaxCompletions is how many tags TagsWithPrefix returns at most.
	MaxCompletions = 20
	// completionScan bounds what it reads of each of its two indexes.
	completionScan = 5000
)

// TagCount is a tag that visible posts have, and how many.
type TagCount struct {
	Name  string
	Posts int64
}

// TagKey is a tag's position values in TagOrder.
func TagKey(t TagCount) []keyset.Value {
	return []keyset.Value{keyset.Int64(-t.Posts), keyset.Text(t.Name)}
}

// TagQuery asks for tags in use.
type TagQuery struct {
	// From is where to read from and Direction which way: Forward goes to tags with
	// fewer posts.
	From      keyset.Position
	Direction keyset.Direction
	// Limit is 1 to MaxLimit.
	Limit int
}

// TagPage is a page of tags, in TagOrder whichever way it was read.
type TagPage struct {
	Rows []TagCount
	// Next and Previous are the page's edges, HasNext and HasPrevious whether
	// tags lie beyond them now. They are exact.
	Next, Previous       keyset.Position
	HasNext, HasPrevious bool
}

// Tags returns a page of the tags in use. A tag whose count changes moves in
// the order, and a reader who pages meanwhile may meet it twice or not at all;
// one whose count stays is seen exactly once. The error is the database's, or
// that of a query with a limit out of bounds.
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
	if err := r.ask(ctx, sql, args, func(rows pgx.Rows) error {
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

// tagsFrom returns the query for a page, a row more, and the row behind the
// reader, if any. It is one statement, so that all of it is of one moment, and
// costs one round trip.
func tagsFrom(q TagQuery) (string, []any, error) {
	ahead, err := TagOrder.Seek(q.Direction, q.From, 2) // $1 is the limit
	if err != nil {
		return "", nil, err
	}
	// What lies behind an empty page that was asked for from a row is the row.
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

// TagsWithPrefix returns the tags in use whose names begin with prefix, which
// must be in normal form and not empty: the MaxCompletions with most posts, in
// TagOrder. They are exactly these unless more than 5,000 names begin so, those
// out of use included, and fewer than MaxCompletions of them are among the 5,000
// most used tags of all. Then those few come first, and the rest are the most
// used of the first 5,000 names.
func (r *Reader) TagsWithPrefix(ctx context.Context, prefix string) ([]TagCount, error) {
	var tags []TagCount
	err := r.ask(ctx, completionQuery, []any{prefix, prefixEnd(prefix), MaxCompletions, completionScan}, func(rows pgx.Rows) (err error) {
		tags, err = pgx.CollectRows(rows, pgx.RowToStructByPos[TagCount])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("complete a tag: %w", pg.NotMigrated(err))
	}
	return tags, nil
}

// completionQuery looks for a prefix's tags among the most used of all, which
// finds those of a common prefix soon, and where that does not find enough
// among the names that begin so, which for a rare prefix are few.
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

// prefixEnd returns a text that comes behind every tag that begins with prefix,
// and before or at every other tag that comes behind those. It counts up the
// last character rather than the last byte: a text in Postgres is UTF-8, whose
// byte order is that of the characters.
func prefixEnd(prefix string) string {
	for rest := prefix; rest != ""; {
		last, size := utf8.DecodeLastRuneInString(rest)
		rest = rest[:len(rest)-size]
		switch last++; {
		case last == 0xD800: // surrogates are no characters
			return rest + "\uE000"
		case last <= utf8.MaxRune:
			return rest + string(last)
		}
	}
	// All are the last character there is, and a tag is not so long.
	return strings.Repeat(string(utf8.MaxRune), event.MaxTagBytes)
}

// A tag that the operator's deny list names is in no list of tags, no list of posts is found by it,
// and no post shows it beside its others. These are all that say so.
const (
	// served is true of a tag that is not denied, where many are read: the list is read once.
	served = "name NOT IN (SELECT d.name FROM denied_tags d)"
	// servedOne is the same where single ones are looked up.
	servedOne = "NOT EXISTS (SELECT FROM denied_tags d WHERE d.name = tags.name)"
	// deniedIDs selects the denied tags by their id.
	deniedIDs = "SELECT tags.id FROM denied_tags d JOIN tags ON tags.name = d.name"
	// shownTags are those of a post p that are not denied.
	shownTags = "CASE WHEN EXISTS (SELECT FROM denied_tags) THEN ARRAY(SELECT name FROM unnest(p.tags) AS name WHERE " + served + ") ELSE p.tags END AS tags"
)

// TagsInUse returns those of the names that are tags of visible posts, in no order.
func (r *Reader) TagsInUse(ctx context.Context, names []string) ([]string, error) {
	var used []string
	err := r.ask(ctx, `SELECT name FROM tags WHERE name = ANY($1::text[]) AND posts > 0 AND `+servedOne, []any{names}, func(rows pgx.Rows) (err error) {
		used, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look up %d tags: %w", len(names), pg.NotMigrated(err))
	}
	return used, nil
}

// RankedTags returns up to limit tags from a place in TagOrder on, 0 being the
// most used, and how many tags are in use. It reads and throws away what comes
// before, and so reaches no further than MaxRankedTags; limit is cut there. Use
// it for what needs numbered pages, and Tags for the rest.
func (r *Reader) RankedTags(ctx context.Context, offset, limit int) (tags []TagCount, total int64, err error) {
	if offset < 0 || offset >= MaxRankedTags || limit < 1 || limit > MaxLimit {
		return nil, 0, fmt.Errorf("list tags by rank: offset %d or limit %d is out of bounds", offset, limit)
	}
	if err := r.ask(ctx, rankedQuery, []any{offset, min(limit, MaxRankedTags-offset)}, func(rows pgx.Rows) error {
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

// rankedQuery has the total in every row, and one row of it alone where there
// are no tags.
const rankedQuery = `
	SELECT c.tags - (SELECT count(*) FROM (` + deniedIDs + ` WHERE tags.posts > 0) AS denied), t.name, t.posts
	  FROM checkpoint c
	  LEFT JOIN (SELECT name, posts FROM tags WHERE posts > 0 AND ` + served + ` ORDER BY (-posts), name OFFSET $1 LIMIT $2) AS t ON true
	 WHERE c.singleton`
