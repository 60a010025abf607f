package query

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// Most queries ask for any of some tags and for nothing else. Their pages take one round trip,
// since nothing has to be known before they are asked for: the names are looked up where they
// stand, and the posts are read where their keys are found.

// plain returns the query in its plain form, if it has one.
func (q PostQuery) plain() (PostQuery, bool) {
	if len(q.Tags) == 0 && len(q.All) == 1 {
		q.Tags, q.All = q.All, nil
	}
	filters := len(q.All) + len(q.None) + len(q.Authors) + len(q.NotAuthors) + len(q.Langs) + q.MaxTags
	return q, len(q.Tags) > 0 && filters == 0 && !q.usesTraits()
}

// plainPage reads a page of a plain query. Its statements are one transaction, which ends with the
// batch. sweeping says that some posts are out of sight, and that the page is good for nothing. now
// is the schema that there is behind the last statement, 0 where it did not come to that.
func plainPage(ctx context.Context, conn *pgx.Conn, q PostQuery, trace func(Statement)) (page PostPage, sweeping bool, now int64, err error) {
	batch := &pgx.Batch{}
	pooled := pg.PooledSettings(conn) != nil
	if pooled {
		queueSnapshot(batch, conn)
	}
	ask := func(sql string, args []any, read func(pgx.Rows) error) {
		if trace != nil {
			trace(Statement{SQL: sql, Args: args})
		}
		batch.Queue(sql, args...).Query(read)
	}
	window := wholeList.since(q.Since).until(q.Until)
	var f foundPosts
	if ahead := window.from(q.From, q.Direction); !ahead.empty() {
		b := &builder{direction: q.Direction, args: []any{q.Limit + 1, ahead.lo, ahead.hi}}
		keys := b.merged("post_tags", "tag_id", b.idsOf(q.Tags))
		limit := b.arg(q.Limit)
		ask(postsSQL(`(SELECT * FROM (SELECT key, row_number() OVER () AS n, count(*) OVER () AS total FROM (`+keys+`) AS keys WHERE NOT EXISTS (SELECT FROM sweeps)) AS numbered WHERE n <= `+limit+`)`, b), b.args,
			func(rows pgx.Rows) error {
				var last event.Key
				f, err = scanPosts(rows, q.Limit, func(at int, key event.Key) bool {
					ok := at == 0 || before(last, key, q.Direction)
					last = key
					return ok
				})
				return nil // what failed may have to be read again
			})
	}
	back := q.Direction.Reverse()
	behind := false
	if rng := window.from(turned(q.From, q.Direction), back); !rng.empty() {
		b := &builder{args: []any{rng.lo, rng.hi}}
		checks := b.idsOf(q.Tags)
		for i, id := range checks {
			checks[i] = "EXISTS (SELECT FROM post_tags WHERE tag_id = " + id + " AND key BETWEEN $1 AND $2)"
		}
		ask("SELECT "+strings.Join(checks, " OR "), b.args, func(rows pgx.Rows) error { return scanOne(rows, &behind) })
		page.IndexEntries++
	}
	ask("SELECT EXISTS (SELECT FROM sweeps), ("+pg.SchemaNow+")", nil, func(rows pgx.Rows) error { return scanOne(rows, &sweeping, &now) })
	if pooled {
		batch.Queue("COMMIT")
	}
	if sendErr := conn.SendBatch(ctx, batch).Close(); sendErr != nil {
		return page, false, 0, fmt.Errorf("read a page of %d tags: %w", len(q.Tags), sendErr)
	}
	if err != nil {
		return page, sweeping, now, fmt.Errorf("read a page of %d tags: %w", len(q.Tags), err)
	}
	if f.total > 0 {
		page.IndexEntries += f.total + len(q.Tags) - 1
	}
	n := len(f.rows)
	if f.total > n {
		f.rows = append(f.rows, PostRow{}) // the row too many
	}
	p := keyset.Slice(f.rows, n, q.Direction, q.From, PostKey)
	page.Rows, page.Next, page.Previous = p.Rows, p.Next, p.Previous
	page.HasNext, page.HasPrevious = p.More, behind
	if q.Direction == keyset.Backward {
		page.HasNext, page.HasPrevious = behind, p.More
	}
	page.settle(q.Direction, f.cutOff)
	return page, sweeping, now, nil
}

// idsOf looks up the ids of tags where they stand, as many as there are branches for.
func (b *builder) idsOf(tags []string) []string {
	ids := make([]string, padded(len(tags)))
	for i := range ids {
		var name any
		if i < len(tags) {
			name = tags[i]
		}
		ids[i] = "(SELECT id FROM tags WHERE name = " + b.arg(name) + "::text AND " + served + ")"
	}
	return ids
}
