package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// PostOrder is the order of every list of posts: newest first.
var PostOrder = keyset.MustOrdering(keyset.Column{Name: "key", Sort: keyset.Desc, Type: keyset.TypeUUID})

// Limits of a query. They bound how much Postgres reads for one request.
const (
	MaxTagsEach     = 20 // in each of Tags, All and None
	MaxTagsTogether = 40
	MaxLangs        = 20
	MaxAuthors      = 20
	MaxLimit        = 100
	// maxPageBytes bounds the records and tags of a page, which ends with the post that exceeds it.
	// A record can be as large as a megabyte, and anyone can publish a hundred of them; a full page
	// usually has a fifth of maxPageBytes. Each tag counts with the maximum length.
	maxPageBytes = 1 << 20
)

// PostQuery asks for posts that have any of Tags, every one of All, and none of None, and that pass
// the filters. An empty field means no condition.
type PostQuery struct {
	// Tags, All and None are normalized and distinct: at most MaxTagsEach in each, MaxTagsTogether
	// together, and at least one in Tags and All.
	Tags, All, None []string
	// Authors are the DIDs of the accounts that posts may be from, NotAuthors those of accounts
	// that they must not be from: distinct, at most MaxAuthors each.
	Authors, NotAuthors []string
	// MaxTags is the most tags that posts may have, 0 for any number.
	MaxTags int
	// Media are kinds of media of which posts must have at least one. NoMedia also selects posts
	// without media or, if Media is 0, only these.
	Media   event.Traits
	NoMedia bool
	// SelfLabels selects by the labels that authors give to their posts.
	SelfLabels SelfLabels
	// Langs are language ranges as from event.NormalizeLang, at most MaxLangs: a post must declare
	// a language in one of them. None means no condition.
	Langs []string
	// Since and Until bound sortAt, Since inclusive, Until exclusive. Zero is no
	// bound. Keys have whole microseconds: a finer time is rounded up.
	Since, Until time.Time
	// From is where to start and Direction where to go: Forward leads to older posts.
	From      keyset.Position
	Direction keyset.Direction
	// Limit is 1 to MaxLimit.
	Limit int
	// NamesOnly asks for rows that have only Key, DID, Rkey and IndexedAt. They have no records, so
	// they never make a page too big.
	NamesOnly bool
}

// columns are those of the query's rows, with a post's tags as given.
func (q PostQuery) columns(tags string) string {
	if q.NamesOnly {
		return nameColumns
	}
	return postColumns(tags)
}

// SelfLabels is a filter by the labels that authors give to their posts.
type SelfLabels int

// The filters by self-labels.
const (
	AnySelfLabels     SelfLabels = iota
	ExcludeSelfLabels            // only posts without
	OnlySelfLabels               // only posts with
)

// ErrFilling is returned for a query by media or self-labels while the indexer computes the traits
// of stored posts after an upgrade.
var ErrFilling = errors.New("the traits of stored posts are being filled in")

// usesTraits reports whether the query can be answered only once all posts have their traits.
func (q PostQuery) usesTraits() bool {
	return q.byMedia() || q.SelfLabels != AnySelfLabels
}

func (q PostQuery) byMedia() bool { return q.Media != 0 || q.NoMedia }

// matchesTraits reports whether a post with these traits passes the filters by them.
func (q PostQuery) matchesTraits(t event.Traits) bool {
	switch {
	case q.byMedia() && t&q.Media == 0 && !(q.NoMedia && t&event.HasMedia == 0):
		return false
	case q.SelfLabels == ExcludeSelfLabels:
		return t&event.SelfLabelled == 0
	case q.SelfLabels == OnlySelfLabels:
		return t&event.SelfLabelled != 0
	}
	return true
}

// check returns an error for a query outside the limits.
func (q PostQuery) check(limit int) error {
	tags := len(q.Tags) + len(q.All)
	if q.MaxTags < 0 || q.MaxTags > event.MaxTagsPerPost || q.Media&^event.HasMedia != 0 {
		return fmt.Errorf("maximum of %d tags or media %d is out of bounds", q.MaxTags, q.Media)
	}
	if tags < 1 || max(len(q.Tags), len(q.All), len(q.None)) > MaxTagsEach || tags+len(q.None) > MaxTagsTogether ||
		len(q.Langs) > MaxLangs || max(len(q.Authors), len(q.NotAuthors)) > MaxAuthors || limit < 1 || limit > MaxLimit {
		return fmt.Errorf("%d tags, %d required, %d excluded, %d languages, %d and %d authors or limit %d is out of bounds",
			len(q.Tags), len(q.All), len(q.None), len(q.Langs), len(q.Authors), len(q.NotAuthors), limit)
	}
	return nil
}

// PostPage is a page of posts, newest first in both directions of reading.
type PostPage struct {
	Rows []PostRow
	// Next and Previous are the page's edges: older posts follow Next, newer ones precede Previous,
	// now or later.
	Next, Previous keyset.Position
	// HasNext and HasPrevious report whether there are any now. They are exact unless the request
	// used up its work: then the page is short, even empty, and the flag in the direction of
	// reading is true. The other flag is also true if finding out would have taken too much work.
	HasNext, HasPrevious bool
	// IndexEntries estimates how many index entries were read for the page.
	IndexEntries int
	// Cut says why the page ended early although there may be more.
	Cut CutReason
}

// CutReason is why a page has fewer rows than it could have.
type CutReason string

const (
	// CutByWork means that the page used up the work of one request.
	CutByWork CutReason = "work"
	// CutByBytes means that the page's records were too big together.
	CutByBytes CutReason = "bytes"
)

// CutReasons lists them.
var CutReasons = []CutReason{CutByWork, CutByBytes}

// PostKey is a post's position values in PostOrder.
func PostKey(p PostRow) []keyset.Value { return keyValues(p.Key) }

func keyValues(k event.Key) []keyset.Value { return []keyset.Value{keyset.UUID(k)} }

// Posts returns a page of posts. The error is ErrFilling, the database's, or the one for a query
// outside the limits.
func (r *Reader) Posts(ctx context.Context, q PostQuery) (PostPage, error) {
	return r.TracePosts(ctx, q, nil)
}

// TracePosts is Posts for callers who want to see its statements: it calls trace, if not nil, with
// each one.
func (r *Reader) TracePosts(ctx context.Context, q PostQuery, trace func(Statement)) (PostPage, error) {
	if err := q.check(q.Limit); err != nil {
		return PostPage{}, fmt.Errorf("query posts: %w", err)
	}
	var page PostPage
	err := r.withConn(ctx, func(conn *pgx.Conn) (now int64, err error) {
		if plain, ok := q.plain(); ok {
			var good bool
			if page, good, now, err = plainPage(ctx, conn, plain, &r.tagsDenied, trace); err != nil || good {
				return now, err
			}
		}
		page, now, err = searchPage(ctx, conn, q, trace)
		return now, err
	})
	if err != nil {
		return PostPage{}, fmt.Errorf("query posts with %d tags: %w", len(q.Tags)+len(q.All), pg.NotMigrated(err))
	}
	return page, nil
}

// searchPage reads a page in one snapshot. The first statement (resolve) begins it and the last
// (readPosts) ends it, so that the transaction takes no extra round trips. After an error in
// between the pool closes the connection. now is the schema at the end, or 0 if that was not
// reached.
func searchPage(ctx context.Context, conn *pgx.Conn, q PostQuery, trace func(Statement)) (page PostPage, now int64, err error) {
	c, err := resolve(ctx, conn, q)
	switch {
	case err != nil:
		return page, 0, err
	case c.filling:
		now, err = refuse(ctx, conn, ErrFilling)
		return page, now, err
	}
	window := wholeList.since(q.Since).until(q.Until)
	work := maxWork
	if c.sweeping {
		work = maxWorkSwept
		if err := c.nearestSwept(ctx, conn, window.from(q.From, q.Direction), q.Direction); err != nil {
			return page, 0, err
		}
	}
	ahead := &search{conjunction: c, conn: conn, direction: q.Direction, work: work, trace: trace}
	f, err := ahead.find(ctx, window.from(q.From, q.Direction), q.Limit+1)
	if err != nil {
		return page, 0, err
	}
	p := keyset.Slice(f.keys, q.Limit, q.Direction, q.From, keyValues)
	page = PostPage{Next: p.Next, Previous: p.Previous}
	more, behind := &page.HasNext, &page.HasPrevious
	if q.Direction == keyset.Backward {
		more, behind = behind, more
	}
	*more = p.More
	if f.ranOut && !p.More {
		*more, page.Cut = true, CutByWork
		page.endAfter(f.last, q.Direction)
		if len(p.Rows) == 0 {
			page.watchFrom(f.last, q.Direction)
		}
	}

	// Posts before the page are those before the position that it was read from: there are no
	// matches between the two.
	back := q.Direction.Reverse()
	other := &search{conjunction: c, conn: conn, direction: back, work: maxWorkBehind, trace: trace}
	if *behind, err = other.any(ctx, window.from(reversed(q.From, q.Direction), back)); err != nil {
		return page, 0, err
	}

	page.IndexEntries = ahead.read + other.read
	var cutOff bool
	if page.Rows, cutOff, now, err = readPosts(ctx, conn, q, p.Rows, q.Direction, trace); err != nil {
		return page, now, err
	}
	page.fixEdges(q.Direction, cutOff)
	return page, now, nil
}

// fixEdges corrects the page's edges when its rows are known. cutOff reports that maxPageBytes left
// out some rows.
func (p *PostPage) fixEdges(direction keyset.Direction, cutOff bool) {
	if cutOff {
		p.Cut = CutByBytes
		last := p.Rows[len(p.Rows)-1]
		if direction == keyset.Backward {
			last = p.Rows[0]
			p.HasPrevious = true
		} else {
			p.HasNext = true
		}
		p.endAfter(last.Key, direction)
	}
	if len(p.Rows) == 0 && !p.HasNext && !p.HasPrevious {
		watchFarEnds(&p.Next, &p.Previous)
	}
}

// reversed returns the position from which reading in the other direction returns everything that
// reading in this direction leaves out.
func reversed(p keyset.Position, direction keyset.Direction) keyset.Position {
	if p.Side == keyset.SideAt && direction == keyset.Forward {
		return keyset.Below(p.Key...)
	}
	if p.Side == keyset.SideAt {
		return keyset.Above(p.Key...)
	}
	return p
}

// endAfter makes the page end after a key, in the direction of reading.
func (p *PostPage) endAfter(key event.Key, direction keyset.Direction) {
	if direction == keyset.Forward {
		p.Next = keyset.Below(keyValues(key)...)
	} else {
		p.Previous = keyset.Above(keyValues(key)...)
	}
}

// watchFrom moves the edge of an empty page that was read from an end of the list to a key that the
// search reached. There are no matches between them, but posts that appear there later must be
// found.
func (p *PostPage) watchFrom(key event.Key, direction keyset.Direction) {
	if direction == keyset.Forward && p.Previous.Side == keyset.SideStart {
		p.Previous = keyset.Above(keyValues(key)...)
	}
	if direction == keyset.Backward && p.Next.Side == keyset.SideEnd {
		p.Next = keyset.Below(keyValues(key)...)
	}
}

// watchFarEnds changes the edges of an empty list. All positions in it are equivalent, except for
// later posts: none will ever be newer than the start or older than the end.
func watchFarEnds(next, previous *keyset.Position) {
	if next.Side == keyset.SideEnd {
		*next = keyset.Start()
	}
	if previous.Side == keyset.SideStart {
		*previous = keyset.End()
	}
}

// readPosts reads the posts with these keys, given in the direction of reading, and ends the
// transaction. It returns them newest first. cutOff reports that maxPageBytes was exceeded before
// the last one. now is the schema after the last statement: if it was switched, that may have
// caused the error.
func readPosts(ctx context.Context, conn *pgx.Conn, q PostQuery, keys []event.Key, direction keyset.Direction, trace func(Statement)) (posts []PostRow, cutOff bool, now int64, err error) {
	if len(keys) > 0 && direction == keyset.Backward {
		keys = slices.Clone(keys)
		slices.Reverse(keys)
	}
	b := &builder{args: []any{keys}}
	sql := postsSQL("unnest($1::uuid[])", q.columns(shownTags), b)
	if trace != nil {
		trace(Statement{SQL: sql, Args: b.args})
	}
	batch := &pgx.Batch{}
	batch.Queue(sql, b.args...).Query(func(rows pgx.Rows) error {
		posts, cutOff, err = scanPosts(rows, keys)
		return nil // the rest of the batch says whether to read again
	})
	endSnapshot(batch, &now)
	if sendErr := conn.SendBatch(ctx, batch).Close(); sendErr != nil {
		now, err = 0, sendErr
	}
	if err != nil {
		return nil, false, now, fmt.Errorf("read %d posts: %w", len(keys), err)
	}
	if direction == keyset.Backward {
		slices.Reverse(posts)
	}
	return posts, cutOff, now, nil
}

// lookUp selects columns of the post p with the key of a page's row, and one more expression.
//
// OFFSET 0 keeps it a subquery, which Postgres can only run once for each key, in the order of the
// keys. The planner would choose the order of a plain join: with small tables it begins with the
// accounts.
func lookUp(columns, extra string) string {
	return `(SELECT *, ` + extra + ` FROM (SELECT ` + columns + ` FROM posts p JOIN accounts a ON a.id = p.account_id WHERE p.key = page.key OFFSET 0) AS p) AS post`
}

// postBytes is the size of a post p that counts towards maxPageBytes.
func postBytes(b *builder) string {
	return "octet_length(p.record) + " + b.arg(event.MaxTagBytes) + "::bigint * cardinality(p.tags)"
}

// postsSQL selects columns of the posts of a page in its order; page is a table of their keys.
//
// The length of a record that is stored out of line is part of the reference to it, so Postgres
// neither reads nor sends the records after the last one on the page.
func postsSQL(page, columns string, b *builder) string {
	return `
		SELECT key, ` + rowColumns + `
		  FROM (SELECT post.*, sum(bytes) OVER (ROWS UNBOUNDED PRECEDING) - bytes AS before
		          FROM ` + page + ` AS page(key)
		         CROSS JOIN LATERAL ` + lookUp(columns, postBytes(b)+" AS bytes") + `) AS measured
		 WHERE before <= ` + b.arg(maxPageBytes)
}

// scanPosts reads the rows of postsSQL, the posts with these keys. cutOff reports that maxPageBytes
// left out some.
func scanPosts(rows pgx.Rows, keys []event.Key) (posts []PostRow, cutOff bool, err error) {
	bytes := 0
	var p PostRow
	targets := p.targets()
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return nil, false, err
		}
		if len(posts) == len(keys) || p.Key != keys[len(posts)] {
			return nil, false, errors.New("a post is missing or out of order")
		}
		p.IndexedAt = p.IndexedAt.UTC()
		bytes += len(p.Record) + event.MaxTagBytes*len(p.Tags)
		posts = append(posts, p)
	}
	if err := rows.Err(); err != nil {
		return nil, false, err
	}
	missing := len(keys) - len(posts)
	if cutOff = bytes > maxPageBytes && missing > 0; missing > 0 && !cutOff {
		return nil, false, fmt.Errorf("%d are missing", missing)
	}
	return posts, cutOff, nil
}
