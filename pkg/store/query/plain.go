package query

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// Most queries ask for posts with any of some tags, without other conditions. A page of such a
// query takes one round trip: a single statement looks up the names, finds the keys and reads the
// posts.

// plain returns the query in its plain form, if it has one.
func (q PostQuery) plain() (PostQuery, bool) {
	if len(q.Tags) == 0 && len(q.All) == 1 {
		q.Tags, q.All = q.All, nil
	}
	filters := len(q.All) + len(q.None) + len(q.Authors) + len(q.NotAuthors) + len(q.Langs) + q.MaxTags
	return q, len(q.Tags) > 0 && filters == 0 && !q.usesTraits()
}

// maxPlainBytes is the maximum size of a post on a plain page, counted as for maxPageBytes. Without
// it the statement could read many big posts after the page's end. Few posts are bigger.
const maxPlainBytes = maxPageBytes / 32

// plainPage reads a page of a plain query with one statement, so that everything is from one moment
// and one schema. tagsDenied says whether there are denied tags to leave out; the statement checks
// that, and plainPage corrects it. ok is false if the page cannot be used: tagsDenied was wrong,
// accounts are being swept, a post is missing or too big, or the posts are too big together. now is
// the statement's schema, or 0 if the statement did not succeed.
func plainPage(ctx context.Context, conn *pgx.Conn, q PostQuery, tagsDenied *atomic.Bool, trace func(Statement)) (page PostPage, ok bool, now int64, err error) {
	assumed := tagsDenied.Load()
	s, looksBehind := plainStatement(q, assumed)
	if trace != nil {
		trace(s)
	}
	batch := &pgx.Batch{}
	pooled := pg.PooledSettings(conn) != nil
	if pooled {
		beginSnapshot(batch, conn)
	}
	f := plainRows{direction: q.Direction, rows: make([]PostRow, 0, q.Limit+1)}
	batch.Queue(s.SQL, s.Args...).Query(func(rows pgx.Rows) error {
		err = f.scan(rows)
		return nil // the rest of the batch says whether to read again
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
	if looksBehind {
		page.IndexEntries++
	}
	if f.total > 0 {
		page.IndexEntries += f.total + len(q.Tags) - 1
	}
	if f.total > q.Limit {
		f.rows = append(f.rows, PostRow{}) // for Slice, the row after the page
	}
	p := keyset.Slice(f.rows, q.Limit, q.Direction, q.From, PostKey)
	page.Rows, page.Next, page.Previous = p.Rows, p.Next, p.Previous
	page.HasNext, page.HasPrevious = p.More, f.behind
	if q.Direction == keyset.Backward {
		page.HasNext, page.HasPrevious = f.behind, p.More
	}
	if f.tagsDenied != assumed {
		tagsDenied.Store(f.tagsDenied)
		return page, false, f.now, nil
	}
	page.fixEdges(q.Direction, false)
	return page, !f.sweeping && !f.incomplete && f.bytes <= maxPageBytes, f.now, nil
}

// plainStatement returns the statement of a plain page. looksBehind reports whether it looks for
// posts on the other side of the page's start: unless none can be there.
func plainStatement(q PostQuery, tagsDenied bool) (s Statement, looksBehind bool) {
	window := wholeList.since(q.Since).until(q.Until)
	ahead := window.from(q.From, q.Direction)
	b := &builder{direction: q.Direction, args: []any{q.Limit + 1, ahead.lo, ahead.hi}}
	tags, condition := "p.tags", "true"
	if tagsDenied {
		tags, condition = shownTags, servedOne
	}
	ids := b.tagIDs(q.Tags, condition)
	behind := "false"
	rng := window.from(reversed(q.From, q.Direction), q.Direction.Reverse())
	if looksBehind = !rng.empty(); looksBehind {
		checks := make([]string, len(ids))
		between := b.arg(rng.lo) + " AND " + b.arg(rng.hi)
		for i, id := range ids {
			checks[i] = "EXISTS (SELECT FROM post_tags WHERE tag_id = " + id + " AND key BETWEEN " + between + ")"
		}
		behind = strings.Join(checks, " OR ")
	}
	keys := "SELECT key FROM (" + b.merged("post_tags", "tag_id", ids) + ") AS keys WHERE NOT EXISTS (SELECT FROM sweeps)"
	limit := b.arg(q.Limit)
	post := lookUp(q.columns(tags), postBytes(b)+" <= "+b.arg(maxPlainBytes)+" AS small")
	s = Statement{SQL: `
		SELECT EXISTS (SELECT FROM sweeps), EXISTS (SELECT FROM denied_tags), (` + pg.SchemaNow + `), ` + behind + `, cardinality(keys), page.key, ` + rowColumns + `
		  FROM (SELECT ARRAY(` + keys + `) AS keys OFFSET 0) AS list
		  LEFT JOIN LATERAL unnest(keys[:` + limit + `]) AS page(key) ON true
		  LEFT JOIN LATERAL ` + post + ` ON small`, Args: b.args}
	return s, looksBehind
}

// plainRows is the result of a plain page's statement.
type plainRows struct {
	direction                    keyset.Direction
	sweeping, tagsDenied, behind bool
	now                          int64
	total                        int       // number of keys found, at most one more than the page's limit
	rows                         []PostRow // in the direction of reading
	incomplete                   bool      // a post is missing or too big
	bytes                        int       // counted as for maxPageBytes
}

func (f *plainRows) scan(rows pgx.Rows) error {
	var p PostRow
	const stateColumns = 5
	post := append(make([]any, stateColumns), p.targets()...)
	state := append([]any{&f.sweeping, &f.tagsDenied, &f.now, &f.behind, &f.total}, make([]any, len(post)-stateColumns)...)
	for rows.Next() {
		if len(f.rows) == 0 {
			if err := rows.Scan(state...); err != nil {
				return err
			}
		}
		raw := rows.RawValues()
		if key, did := raw[stateColumns], raw[stateColumns+1]; did == nil {
			f.incomplete = f.incomplete || key != nil // without a key the page is empty
			continue
		}
		if err := rows.Scan(post...); err != nil {
			return err
		}
		if n := len(f.rows); n > 0 && !before(f.rows[n-1].Key, p.Key, f.direction) {
			return errors.New("a post is out of order")
		}
		p.IndexedAt = p.IndexedAt.UTC()
		f.bytes += len(p.Record) + event.MaxTagBytes*len(p.Tags)
		f.rows = append(f.rows, p)
	}
	return rows.Err()
}

// tagIDs returns subqueries for the ids of tags that meet a condition, one for each branch of a
// merge.
func (b *builder) tagIDs(tags []string, condition string) []string {
	ids := make([]string, padded(len(tags)))
	for i := range ids {
		var name any
		if i < len(tags) {
			name = tags[i]
		}
		ids[i] = "(SELECT id FROM tags WHERE name = " + b.arg(name) + "::text AND " + condition + ")"
	}
	return ids
}
