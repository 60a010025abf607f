package query

import (
	"context"
	"errors"
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

// maxPlainBytes is how big a post of a plain page may be, as maxPageBytes counts: few are, and those
// behind the page's end may then be read.
const maxPlainBytes = maxPageBytes / 32

// plainPage reads a page of a plain query with one statement, so that all it says is of one moment
// and one schema. ok is false where the page is good for nothing: some posts are out of sight, or one
// is not there, or too big, or all are together. now is the schema that the statement met, 0 where it
// did not come to that.
func plainPage(ctx context.Context, conn *pgx.Conn, q PostQuery, trace func(Statement)) (page PostPage, ok bool, now int64, err error) {
	window := wholeList.since(q.Since).until(q.Until)
	ahead := window.from(q.From, q.Direction)
	b := &builder{direction: q.Direction, args: []any{q.Limit + 1, ahead.lo, ahead.hi}}
	ids := b.idsOf(q.Tags)
	behind := "false"
	if rng := window.from(turned(q.From, q.Direction), q.Direction.Reverse()); !rng.empty() {
		checks := make([]string, len(ids))
		between := b.arg(rng.lo) + " AND " + b.arg(rng.hi)
		for i, id := range ids {
			checks[i] = "EXISTS (SELECT FROM post_tags WHERE tag_id = " + id + " AND key BETWEEN " + between + ")"
		}
		behind = strings.Join(checks, " OR ")
		page.IndexEntries++
	}
	keys := "SELECT key FROM (" + b.merged("post_tags", "tag_id", ids) + ") AS keys WHERE NOT EXISTS (SELECT FROM sweeps)"
	limit := b.arg(q.Limit)
	post := lookUp(postBytes(b) + " <= " + b.arg(maxPlainBytes) + " AS small")
	s := Statement{SQL: `
		SELECT EXISTS (SELECT FROM sweeps), (` + pg.SchemaNow + `), ` + behind + `, cardinality(keys), page.key, did, rkey, cid, tags, langs, indexed_at, handle, display_name, avatar, record
		  FROM (SELECT ARRAY(` + keys + `) AS keys OFFSET 0) AS list
		  LEFT JOIN LATERAL unnest(keys[:` + limit + `]) AS page(key) ON true
		  LEFT JOIN LATERAL ` + post + ` ON small`, Args: b.args}
	if trace != nil {
		trace(s)
	}
	batch := &pgx.Batch{}
	pooled := pg.PooledSettings(conn) != nil
	if pooled {
		queueSnapshot(batch, conn)
	}
	f := plainRows{direction: q.Direction, rows: make([]PostRow, 0, q.Limit+1)}
	batch.Queue(s.SQL, s.Args...).Query(func(rows pgx.Rows) error {
		err = f.scan(rows)
		return nil // what failed may have to be read again
	})
	if pooled {
		batch.Queue("COMMIT")
	}
	if sendErr := conn.SendBatch(ctx, batch).Close(); sendErr != nil {
		f.now, err = 0, sendErr
	}
	if err != nil {
		return page, false, f.now, fmt.Errorf("read a page of %d tags: %w", len(q.Tags), err)
	}
	if f.total > 0 {
		page.IndexEntries += f.total + len(q.Tags) - 1
	}
	if f.total > q.Limit {
		f.rows = append(f.rows, PostRow{}) // the row too many
	}
	p := keyset.Slice(f.rows, q.Limit, q.Direction, q.From, PostKey)
	page.Rows, page.Next, page.Previous = p.Rows, p.Next, p.Previous
	page.HasNext, page.HasPrevious = p.More, f.behind
	if q.Direction == keyset.Backward {
		page.HasNext, page.HasPrevious = f.behind, p.More
	}
	page.settle(q.Direction, false)
	return page, !f.sweeping && !f.lacking && f.bytes <= maxPageBytes, f.now, nil
}

// plainRows is what the statement of a plain page says, its posts in the direction of reading.
type plainRows struct {
	direction        keyset.Direction
	sweeping, behind bool
	now              int64
	total            int // of the keys that were found, up to one more than the page takes
	rows             []PostRow
	lacking          bool // a post is too big, or not there
	bytes            int  // as maxPageBytes counts them
}

func (f *plainRows) scan(rows pgx.Rows) error {
	var p PostRow
	const ofState = 4 // columns
	post := append(make([]any, ofState), p.targets()...)
	state := append([]any{&f.sweeping, &f.now, &f.behind, &f.total}, make([]any, len(post)-ofState)...)
	for rows.Next() {
		if len(f.rows) == 0 {
			if err := rows.Scan(state...); err != nil {
				return err
			}
		}
		raw := rows.RawValues()
		if key, did := raw[ofState], raw[ofState+1]; did == nil {
			f.lacking = f.lacking || key != nil // else the page has none
			continue
		}
		if err := rows.Scan(post...); err != nil {
			return err
		}
		if n := len(f.rows); n > 0 && !before(f.rows[n-1].Key, p.Key, f.direction) {
			return errors.New("one is out of order")
		}
		p.IndexedAt = p.IndexedAt.UTC()
		f.bytes += len(p.Record) + event.MaxTagBytes*len(p.Tags)
		f.rows = append(f.rows, p)
	}
	return rows.Err()
}

// idsOf looks up the ids of tags where they stand, as many as there are branches for.
func (b *builder) idsOf(tags []string) []string {
	ids := make([]string, padded(len(tags)))
	for i := range ids {
		var name any
		if i < len(tags) {
			name = tags[i]
		}
		ids[i] = "(SELECT id FROM tags WHERE name = " + b.arg(name) + "::text AND " + servedOne + ")"
	}
	return ids
}
