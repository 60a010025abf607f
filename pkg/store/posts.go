package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
)

// PostOrder is the order of every list of posts: newest first.
var PostOrder = keyset.MustOrdering(keyset.Column{Name: "key", Direction: keyset.Desc, Type: keyset.TypeUUID})

// Limits of a query. They bound what one request can make Postgres read.
const (
	MaxTags  = 20
	MaxLimit = 100
	// maxPageBytes bounds the records of a page: beyond it the page is short.
	// Records can have a megabyte, and anybody can post a hundred of them.
	maxPageBytes = 4 << 20
)

// PostQuery asks for posts with any of Tags.
type PostQuery struct {
	// Tags are normalized, distinct, 1 to MaxTags.
	Tags []string
	// From is where to read from and Way which way: Forward goes older.
	From keyset.Position
	Way  keyset.Way
	// Limit is 1 to MaxLimit.
	Limit int
}

// PostPage is a page of posts, newest first whichever way it was read.
type PostPage struct {
	Rows []PostRow
	// Next and Previous are the page's edges: older posts follow the one,
	// newer ones the other, now or later.
	Next, Previous keyset.Position
	// HasNext and HasPrevious say whether there are any now. They are exact,
	// except where the work that one request may cause ran out: then the page
	// is short and the one in the direction of reading is true.
	HasNext, HasPrevious bool
}

// PostKey is a post's position values in PostOrder.
func PostKey(p PostRow) []keyset.Value { return []keyset.Value{keyset.UUID(p.Key)} }

// Posts returns a page of posts. The error is the database's, or that of a
// query outside the limits above.
func (r *Reader) Posts(ctx context.Context, q PostQuery) (PostPage, error) {
	if len(q.Tags) < 1 || len(q.Tags) > MaxTags || q.Limit < 1 || q.Limit > MaxLimit {
		return PostPage{}, fmt.Errorf("query posts: %d tags or limit %d is out of bounds", len(q.Tags), q.Limit)
	}
	var page PostPage
	err := r.snapshot(ctx, func(tx pgx.Tx) error {
		s, err := scanPosts(ctx, tx, q.Tags, q.From, q.Way, q.Limit+1)
		if err != nil {
			return err
		}
		p := keyset.Slice(s.rows, q.Limit, q.Way, q.From, PostKey)
		page = PostPage{Rows: p.Rows, Next: p.Next, Previous: p.Previous}
		more, behind := &page.HasNext, &page.HasPrevious
		edge, back := p.Previous, keyset.Backward
		if q.Way == keyset.Backward {
			more, behind = behind, more
			edge, back = p.Next, keyset.Forward
		}
		*more = p.More
		if s.cutOff && !p.More {
			// The reader goes on behind what the page had room for.
			*more = true
			if q.Way == keyset.Forward {
				page.Next = keyset.Below(keyset.UUID(s.last))
			} else {
				page.Previous = keyset.Above(keyset.UUID(s.last))
			}
		}
		b, err := scanPosts(ctx, tx, q.Tags, edge, back, 1)
		if err != nil {
			return err
		}
		*behind = len(b.rows) > 0
		page.watchFarEnds()
		return nil
	})
	if err != nil {
		return PostPage{}, fmt.Errorf("query posts with %d tags: %w", len(q.Tags), notMigrated(err))
	}
	return page, nil
}

// watchFarEnds changes the edges of a list that is empty. Every position in it is
// the same one, but not for what comes later: newer than the start, or older
// than the end, there will never be anything.
func (p *PostPage) watchFarEnds() {
	if len(p.Rows) > 0 || p.HasNext || p.HasPrevious {
		return
	}
	if p.Next.Side == keyset.SideEnd {
		p.Next = keyset.Start()
	}
	if p.Previous.Side == keyset.SideStart {
		p.Previous = keyset.End()
	}
}

// scan is what was read of a list of posts.
type scan struct {
	rows []PostRow
	// cutOff says that maxPageBytes ended it, behind the post with the key last.
	last   event.Key
	cutOff bool
}

// scanPosts reads up to want posts.
func scanPosts(ctx context.Context, tx pgx.Tx, tags []string, from keyset.Position, way keyset.Way, want int) (scan, error) {
	var s scan
	if from.Exhausted(way) {
		return s, nil
	}
	sql, args, err := anyOf(tags, from, way, want)
	if err != nil {
		return s, err
	}
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return s, err
	}
	defer rows.Close()
	bytes := 0
	for rows.Next() {
		if bytes > maxPageBytes {
			s.cutOff = true
			return s, nil
		}
		var p PostRow
		if err := rows.Scan(p.targets()...); err != nil {
			return s, err
		}
		p.IndexedAt = p.IndexedAt.UTC()
		bytes += len(p.Record)
		s.last = p.Key
		s.rows = append(s.rows, p)
	}
	return s, rows.Err()
}

// anyOf returns the query for the posts with any of the tags, their records
// included. One ordered branch per tag, each with a LIMIT of its own, merge
// into one stream that stops at the page's end: whatever the depth, it reads
// no more than the page, one row per tag, and the overlap between them.
func anyOf(tags []string, from keyset.Position, way keyset.Way, limit int) (string, []any, error) {
	// $1 is the limit, then come the tags, then the position.
	args := []any{limit}
	for _, t := range tags {
		args = append(args, t)
	}
	seek, err := PostOrder.Seek(way, from, len(args)+1)
	if err != nil {
		return "", nil, err
	}
	args = append(args, seek.Args...)
	where := ""
	if seek.Where != "" {
		where = " AND " + seek.Where
	}
	var b strings.Builder
	b.WriteString("SELECT " + postColumns + " FROM (SELECT DISTINCT ON (key) key FROM (")
	for i := range tags {
		if i > 0 {
			b.WriteString(" UNION ALL ")
		}
		fmt.Fprintf(&b, "(SELECT key FROM post_tags WHERE tag_id = (SELECT id FROM tags WHERE name = $%d)%s ORDER BY %s LIMIT $1)",
			i+2, where, seek.OrderBy)
	}
	fmt.Fprintf(&b, ") AS branches ORDER BY %s LIMIT $1) AS page JOIN posts p USING (key) JOIN accounts a ON a.id = p.account_id ORDER BY page.%s",
		seek.OrderBy, seek.OrderBy)
	return b.String(), args, nil
}
