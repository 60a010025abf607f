package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/internal/keys"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// ErrExpired is returned, as an *Expired, for a position in the change feed after which changes are
// missing.
var ErrExpired = errors.New("the position in the change feed has expired")

// Expiry says why changes after a position are missing.
type Expiry string

// The reasons.
const (
	ExpiredPruned   Expiry = "pruned"   // the feed no longer keeps them
	ExpiredRestored Expiry = "restored" // the index was restored from a copy without them
	ExpiredReplaced Expiry = "replaced" // the feed begins later: the index or the set of denied tags was replaced
)

// Expiries lists the reasons.
var Expiries = []Expiry{ExpiredPruned, ExpiredRestored, ExpiredReplaced}

// Expired is the error for an expired position.
type Expired struct {
	Reason Expiry
	// Now is the current position, from which to start over.
	Now FeedPosition
}

func (e *Expired) Error() string { return ErrExpired.Error() + ": " + string(e.Reason) }

// Is makes it match ErrExpired.
func (e *Expired) Is(target error) bool { return target == ErrExpired }

// ChangeOrder is the order of the change feed.
var ChangeOrder = keyset.MustOrdering(
	keyset.Column{Name: "change", Type: keyset.TypeInt64},
	keyset.Column{Name: "run", Type: keyset.TypeInt64})

// FeedPosition is a position in the change feed, directly after the change with number Change. Run
// identifies the indexer's term that assigned the number, or a later one: a restored index may
// assign the same numbers to other changes.
type FeedPosition struct{ Change, Run int64 }

// Values returns the position's values in ChangeOrder.
func (p FeedPosition) Values() []keyset.Value {
	return []keyset.Value{keyset.Int64(p.Change), keyset.Int64(p.Run)}
}

// FeedPositionOf returns the feed position in a position of ChangeOrder; ok is false for any other
// position.
func FeedPositionOf(p keyset.Position) (at FeedPosition, ok bool) {
	if len(p.Key) != 2 {
		return at, false
	}
	var ok1, ok2 bool
	at.Change, ok1 = p.Key[0].Int64()
	at.Run, ok2 = p.Key[1].Int64()
	return at, ok1 && ok2
}

// ChangeQuery asks for the changes of a list of posts.
type ChangeQuery struct {
	// List selects the posts; its From, Direction and Limit are ignored.
	List PostQuery
	// After is where to continue; nil requests only the current position.
	After *FeedPosition
	// Limit is 1 to MaxLimit.
	Limit int
}

// Change is a change of a list: the follower stores Post or, if it is nil, drops its copy of the
// post.
type Change struct {
	// Position is directly after the change.
	Position FeedPosition
	// Through is the number of the last change that this one covers: several changes of one post
	// on a page are merged into one, at the position of the first.
	Through   int64
	DID, Rkey string
	Post      *PostRow
}

// ChangePage is a page of changes, in commit order.
type ChangePage struct {
	Changes []Change
	// Next is where to continue. It is the current position unless HasNext reports that there may
	// be more; then the page may be short, even empty.
	Next    FeedPosition
	HasNext bool
	// Cut says why the page ended early although there may be more.
	Cut CutReason
}

// Changes returns a page of the change feed. A follower that applies all changes since a position
// older than its listing holds what a new listing would return, whatever happened in between. Each
// change has the post's current state, so a later change may repeat it. A standby may return
// listings that are older than a position from its primary.
//
// The error is ErrExpired, the database's, or the one for a query outside the limits.
func (r *Reader) Changes(ctx context.Context, q ChangeQuery) (ChangePage, error) {
	return r.TraceChanges(ctx, q, nil)
}

// TraceChanges is Changes for callers who want to see its statements, as TracePosts is Posts.
func (r *Reader) TraceChanges(ctx context.Context, q ChangeQuery, trace func(Statement)) (ChangePage, error) {
	if err := q.List.check(q.Limit); err != nil {
		return ChangePage{}, fmt.Errorf("follow posts: %w", err)
	}
	var page ChangePage
	err := r.withConn(ctx, func(conn *pgx.Conn) (now int64, err error) {
		page, now, err = changePage(ctx, conn, q, trace)
		return now, err
	})
	if err != nil {
		return ChangePage{}, fmt.Errorf("follow posts with %d tags: %w", len(q.List.Tags)+len(q.List.All), pg.NotMigrated(err))
	}
	return page, nil
}

// MaxChanges bounds the changes that a page reads, whether they match or not: each costs a look-up
// of a post, all together some milliseconds.
const MaxChanges = 400

// changed is a change as read, with the post's current state.
type changed struct {
	number     int64
	did, rkey  string
	wasVisible bool
	post       *candidate // nil if the post is not visible
}

// candidate is what a query needs to decide about a post.
type candidate struct {
	key         event.Key
	tags, langs []string
	traits      event.Traits
}

// changePage reads a page in one snapshot, as searchPage does.
func changePage(ctx context.Context, conn *pgx.Conn, q ChangeQuery, trace func(Statement)) (page ChangePage, now int64, err error) {
	head, counts, err := beginFeed(ctx, conn, q)
	if err != nil {
		return page, 0, err
	}
	page.Next = head.now()
	var read []changed
	switch after := q.After; {
	case head.filling:
		now, err = refuse(ctx, conn, ErrFilling)
		return page, now, err
	case after == nil:
	case head.expired == notReplicated:
		page.Next = *after
	case head.expired != "":
		now, err = refuse(ctx, conn, &Expired{head.expired, head.now()})
		return page, now, err
	case after.Change > head.last:
		page.Next = *after // this server may lag behind the one that returned the position
	case after.Change < head.last:
		if read, err = readChanges(ctx, conn, q.List, q.List.watchedTags(counts), after.Change, trace); err != nil {
			return page, 0, err
		}
	}
	keys := page.choose(q, read, head)
	posts, cutOff, now, err := readPosts(ctx, conn, q.List, keys, keyset.Forward, trace)
	if err != nil {
		return page, now, err
	}
	page.fill(posts, cutOff)
	return page, now, nil
}

// notReplicated is the Expiry of a position that a standby does not have yet. It never leaves the
// package.
const notReplicated Expiry = "not replicated"

// feedHead is the state of the feed in a snapshot.
type feedHead struct {
	last, run int64
	expired   Expiry   // "" if nothing is missing
	filling   bool     // see conjunction
	denied    []string // the query's denied tags
}

func (h feedHead) now() FeedPosition { return FeedPosition{h.last, h.run} }

// beginFeed begins a snapshot and looks up the feed's end, whether the feed has everything after
// the requested position, and how many posts the query's tags have.
func beginFeed(ctx context.Context, conn *pgx.Conn, q ChangeQuery) (h feedHead, counts map[string]int64, err error) {
	var after FeedPosition
	if q.After != nil {
		after = *q.After
	}
	counts = map[string]int64{}
	named := slices.Concat(q.List.Tags, q.List.All)
	batch := &pgx.Batch{}
	beginSnapshot(batch, conn)
	queueFilling(batch, q.List, &h.filling)
	// In any run but the last one, everything after the beginning of the next run was lost. A
	// standby has all runs that began before its last replayed transaction. The 10 seconds allow
	// for commits that overtake each other.
	batch.Queue(`
		WITH known AS MATERIALIZED (SELECT max(n) AS n FROM change_runs WHERE id = $1),
		     until AS MATERIALIZED (SELECT r.begun FROM change_runs r, known k WHERE r.n > k.n ORDER BY r.n LIMIT 1)
		SELECT c.changes, (SELECT id FROM change_runs ORDER BY n DESC LIMIT 1),
		       CASE WHEN $2 < c.changes_pruned THEN 'pruned'
		            WHEN k.n IS NULL AND pg_is_in_recovery()
		             AND to_timestamp($1 >> $3) > coalesce(pg_last_xact_replay_timestamp(), '-infinity') - interval '10 s'
		             AND to_timestamp($1 >> $3) < clock_timestamp() + interval '1 h' THEN $4
		            WHEN k.n IS NULL THEN 'replaced'
		            WHEN $2 > coalesce((SELECT begun FROM until), $2) THEN 'restored' ELSE '' END
		  FROM checkpoint c CROSS JOIN known k`, after.Run, after.Change, keys.RunBits, notReplicated).QueryRow(func(row pgx.Row) error {
		return row.Scan(&h.last, &h.run, &h.expired)
	})
	batch.Queue(`SELECT name, posts FROM tags WHERE name = ANY($1::text[])`, named).Query(func(rows pgx.Rows) error {
		var name string
		var n int64
		_, err := pgx.ForEachRow(rows, []any{&name, &n}, func() error {
			counts[name] = n
			return nil
		})
		return err
	})
	batch.Queue(`SELECT ARRAY(SELECT name FROM denied_tags WHERE name = ANY($1::text[]))`, named).QueryRow(func(row pgx.Row) error {
		return row.Scan(&h.denied)
	})
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		return h, nil, fmt.Errorf("look up the change feed's end: %w", err)
	}
	return h, counts, nil
}

// watchedTags returns the tags whose changes include all changes of a query's posts: Tags, or the
// rarest of All, since a change is recorded under every tag that the post had or has. If a query
// has both, watchedTags returns the one with fewer posts.
func (q PostQuery) watchedTags(counts map[string]int64) []string {
	if len(q.All) == 0 {
		return q.Tags
	}
	rarest := slices.MinFunc(q.All, func(a, b string) int { return cmp.Compare(counts[a], counts[b]) })
	total := int64(0)
	for _, tag := range q.Tags {
		total += counts[tag]
	}
	if len(q.Tags) > 0 && total < counts[rarest] {
		return q.Tags
	}
	return []string{rarest}
}

// readChanges reads the next changes of posts with these tags, with the posts' current state. Each
// tag's changes are read in order, without reading those of other tags.
func readChanges(ctx context.Context, conn *pgx.Conn, q PostQuery, tags []string, after int64, trace func(Statement)) ([]changed, error) {
	args := []any{MaxChanges, after}
	branches := make([]string, padded(len(tags)))
	for i := range branches {
		var hash any
		if i < len(tags) {
			hash = keys.TagHash(tags[i])
		}
		args = append(args, hash)
		branches[i] = fmt.Sprintf("SELECT pos FROM change_tags WHERE tag = $%d AND pos > $2 ORDER BY pos LIMIT $1", len(args))
	}
	stream := branches[0]
	if len(branches) > 1 {
		stream = "SELECT DISTINCT ON (pos) pos FROM ((" + strings.Join(branches, ") UNION ALL (") + ")) AS branches ORDER BY pos LIMIT $1"
	}
	traits := "0::smallint"
	if q.usesTraits() {
		traits = "p.traits" // an index of an older version lacks the column
	}
	// OFFSET 0, as in lookUp: one look-up for each change, in order.
	sql := `
		SELECT c.pos, c.did, c.rkey, c.was, p.key, p.tags, p.langs, p.traits
		  FROM (` + stream + `) AS watched
		 CROSS JOIN LATERAL (SELECT * FROM changes c WHERE c.pos = watched.pos OFFSET 0) AS c
		  LEFT JOIN LATERAL (
			SELECT p.key, p.tags, p.langs, ` + traits + ` AS traits FROM accounts a JOIN posts p ON p.account_id = a.id AND p.rkey = c.rkey
			 WHERE a.did = c.did AND a.state = 0
			   AND NOT EXISTS (SELECT FROM sweeps w WHERE w.account_id = a.id AND ` + hiddenBySweep + `)
			OFFSET 0) AS p ON true`
	if trace != nil {
		trace(Statement{SQL: sql, Args: args})
	}
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("read changes: %w", err)
	}
	var all []changed
	var c changed
	var key *event.Key
	var tagsOf, langsOf []string
	var traitsOf *event.Traits
	if _, err := pgx.ForEachRow(rows, []any{&c.number, &c.did, &c.rkey, &c.wasVisible, &key, &tagsOf, &langsOf, &traitsOf}, func() error {
		if len(all) > 0 && c.number <= all[len(all)-1].number {
			return errors.New("changes out of order")
		}
		one := c
		if key != nil {
			one.post = &candidate{*key, tagsOf, langsOf, *traitsOf}
		}
		all = append(all, one)
		key, tagsOf, langsOf = nil, nil, nil // so that the next row does not overwrite them
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read changes: %w", err)
	}
	return all, nil
}

// choose builds the page from the changes read, except for the posts themselves: it returns their
// keys in order. Several changes of a post become one, at the position of the first, since that
// already has the current state. Followers do not need a post that was invisible before and does
// not match now.
func (p *ChangePage) choose(q ChangeQuery, read []changed, head feedHead) (keys []event.Key) {
	type id struct{ did, rkey string }
	wasVisible, last := make(map[id]bool, len(read)), make(map[id]int64, len(read))
	for _, c := range read {
		i := id{c.did, c.rkey}
		wasVisible[i], last[i] = wasVisible[i] || c.wasVisible, c.number
	}
	done := make(map[id]bool, len(read))
	for n, c := range read {
		i := id{c.did, c.rkey}
		if done[i] || !q.List.allowsAuthor(c.did) {
			continue
		}
		done[i] = true
		matches := c.post != nil && q.List.matches(c.post, head.denied)
		if !matches && !wasVisible[i] {
			continue
		}
		if len(p.Changes) == q.Limit {
			p.Next, p.HasNext = FeedPosition{read[n-1].number, head.run}, true
			return keys
		}
		change := Change{Position: FeedPosition{c.number, head.run}, Through: last[i], DID: c.did, Rkey: c.rkey}
		if matches {
			change.Post = &PostRow{Key: c.post.key}
			keys = append(keys, c.post.key)
		}
		p.Changes = append(p.Changes, change)
	}
	if len(read) == MaxChanges {
		p.Next, p.HasNext = FeedPosition{read[len(read)-1].number, head.run}, true
		if len(p.Changes) < q.Limit {
			p.Cut = CutByWork
		}
	}
	return keys
}

// fill adds the posts to the page. If they were too big together, the page ends with the last of
// them.
func (p *ChangePage) fill(posts []PostRow, cutOff bool) {
	for i := range p.Changes {
		if p.Changes[i].Post == nil {
			continue
		}
		if len(posts) == 0 && cutOff {
			p.Changes = p.Changes[:i]
			p.Next, p.HasNext, p.Cut = p.Changes[i-1].Position, true, CutByBytes
			return
		}
		p.Changes[i].Post, posts = &posts[0], posts[1:]
	}
}

// allowsAuthor reports whether an account's posts can ever match the query.
func (q PostQuery) allowsAuthor(did string) bool {
	return (len(q.Authors) == 0 || slices.Contains(q.Authors, did)) && !slices.Contains(q.NotAuthors, did)
}

// matches reports whether a visible post of an allowed author matches the query. Denied tags match
// nothing.
func (q PostQuery) matches(p *candidate, denied []string) bool {
	has := func(tag string) bool { return slices.Contains(p.tags, tag) }
	shows := func(tag string) bool { return has(tag) && !slices.Contains(denied, tag) }
	switch {
	case slices.ContainsFunc(q.None, has), q.MaxTags > 0 && len(p.tags) > q.MaxTags, !q.matchesTraits(p.traits):
		return false
	case slices.ContainsFunc(q.All, func(tag string) bool { return !shows(tag) }):
		return false
	case len(q.Tags) > 0 && !slices.ContainsFunc(q.Tags, shows):
		return false
	case len(q.Langs) > 0 && !slices.ContainsFunc(event.LangRanges(p.langs), func(lang string) bool { return slices.Contains(q.Langs, lang) }):
		return false
	}
	window := wholeList.since(q.Since).until(q.Until)
	return window.holds(p.key)
}
