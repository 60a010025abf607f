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

// ErrExpired is returned, as an *Expired, for a place in the change feed after which changes are
// missing.
var ErrExpired = errors.New("the position in the change feed has expired")

// Expiry says why changes after a place are missing.
type Expiry string

// The reasons.
const (
	ExpiredPruned   Expiry = "pruned"   // they are older than the feed keeps them
	ExpiredRestored Expiry = "restored" // the index was restored from a copy that lacks them
	ExpiredReplaced Expiry = "replaced" // the feed begins later: the index is another one, or other tags are denied
)

// Expiries lists the reasons.
var Expiries = []Expiry{ExpiredPruned, ExpiredRestored, ExpiredReplaced}

// Expired is the error for an expired place.
type Expired struct {
	Reason Expiry
	// Now is the current place, from which to start over.
	Now Place
}

func (e *Expired) Error() string { return ErrExpired.Error() + ": " + string(e.Reason) }

// Is makes it match ErrExpired.
func (e *Expired) Is(target error) bool { return target == ErrExpired }

// ChangeOrder is the order of the change feed.
var ChangeOrder = keyset.MustOrdering(
	keyset.Column{Name: "change", Type: keyset.TypeInt64},
	keyset.Column{Name: "run", Type: keyset.TypeInt64})

// Place is a place in the change feed: just after the change with that number. Run is the term of
// the indexer that gave the number, or a later one: a restored index may give the same numbers to
// other changes.
type Place struct{ Change, Run int64 }

// Values returns the place's values in ChangeOrder.
func (p Place) Values() []keyset.Value {
	return []keyset.Value{keyset.Int64(p.Change), keyset.Int64(p.Run)}
}

// PlaceOf returns the place in a position of ChangeOrder; ok is false for any other position.
func PlaceOf(p keyset.Position) (place Place, ok bool) {
	if len(p.Key) != 2 {
		return place, false
	}
	var ok1, ok2 bool
	place.Change, ok1 = p.Key[0].Int64()
	place.Run, ok2 = p.Key[1].Int64()
	return place, ok1 && ok2
}

// ChangeQuery asks for the changes of a list of posts.
type ChangeQuery struct {
	// List is the list; its From, Direction and Limit are not used.
	List PostQuery
	// After is where to continue; nil asks only for the current place.
	After *Place
	// Limit is 1 to MaxLimit.
	Limit int
}

// Change tells a follower of a list what to do about a post: store it as it is here or, if Post is
// nil, drop it.
type Change struct {
	// Place is the place after the change.
	Place Place
	// Through is the number of the last change that it covers: several changes of one post on a
	// page are merged into one, at the place of the first.
	Through   int64
	DID, Rkey string
	Post      *PostRow
}

// ChangePage is a page of changes, in commit order.
type ChangePage struct {
	Changes []Change
	// Next is where to continue. It is the current place unless HasNext reports that there may be
	// more; then the page may be short, even empty.
	Next    Place
	HasNext bool
	// Cut says why the page ended early, although there is more.
	Cut CutReason
}

// Changes returns a page of the change feed. A follower that applies all changes from a place older
// than its listing holds what a new listing would return, whatever happened in between. Each change
// has the post's current state, so a later change may repeat it. A standby may return listings that
// are older than a place from its primary.
//
// The error is ErrExpired, the database's, or that of a query outside the limits.
func (r *Reader) Changes(ctx context.Context, q ChangeQuery) (ChangePage, error) {
	return r.TraceChanges(ctx, q, nil)
}

// TraceChanges is to Changes what TracePosts is to Posts.
func (r *Reader) TraceChanges(ctx context.Context, q ChangeQuery, trace func(Statement)) (ChangePage, error) {
	if err := q.List.check(q.Limit); err != nil {
		return ChangePage{}, fmt.Errorf("follow posts: %w", err)
	}
	var page ChangePage
	err := r.on(ctx, func(conn *pgx.Conn) (now int64, err error) {
		page, now, err = changePage(ctx, conn, q, trace)
		return now, err
	})
	if err != nil {
		return ChangePage{}, fmt.Errorf("follow posts with %d tags: %w", len(q.List.Tags)+len(q.List.All), pg.NotMigrated(err))
	}
	return page, nil
}

// MaxChanges bounds the changes that a page reads, whatever they turn out to be: each costs a
// look-up of a post, all together some milliseconds.
const MaxChanges = 400

// changed is a change as read, with the post's current state.
type changed struct {
	number    int64
	did, rkey string
	was       bool
	post      *candidate // nil where it is not in sight
}

// candidate has what a query needs to decide about a post.
type candidate struct {
	key         event.Key
	tags, langs []string
	traits      event.Traits
}

// changePage reads a page in one snapshot, as postPage does.
func changePage(ctx context.Context, conn *pgx.Conn, q ChangeQuery, trace func(Statement)) (page ChangePage, now int64, err error) {
	head, counts, err := beginFeed(ctx, conn, q)
	if err != nil {
		return page, 0, err
	}
	page.Next = head.now()
	var looked []changed
	switch after := q.After; {
	case head.filling:
		if _, _, now, err = readPosts(ctx, conn, nil, keyset.Forward, nil); err == nil {
			err = ErrFilling
		}
		return page, now, err
	case after == nil:
	case head.expired == toCome:
		page.Next = *after
	case head.expired != "":
		if _, _, now, err = readPosts(ctx, conn, nil, keyset.Forward, nil); err == nil {
			err = &Expired{head.expired, head.now()}
		}
		return page, now, err
	case after.Change > head.last:
		page.Next = *after // a standby may be behind the one that gave the place
	case after.Change < head.last:
		if looked, err = readChanges(ctx, conn, q.List, q.List.followed(counts), after.Change, trace); err != nil {
			return page, 0, err
		}
	}
	keys := page.choose(q, looked, head)
	posts, cutOff, now, err := readPosts(ctx, conn, keys, keyset.Forward, trace)
	if err != nil {
		return page, now, err
	}
	page.fill(posts, cutOff)
	return page, now, nil
}

// toCome is the Expiry of a place that a standby does not have yet. It never leaves the package.
const toCome Expiry = "to come"

// feedHead is the state of the feed in a snapshot.
type feedHead struct {
	last, run int64
	expired   Expiry   // "" where all is there
	filling   bool     // as of a conjunction
	denied    []string // of the query's tags
}

func (h feedHead) now() Place { return Place{h.last, h.run} }

// beginFeed begins a snapshot and looks up the feed's end, whether the feed has everything after
// the requested place, and how many posts the query's tags have.
func beginFeed(ctx context.Context, conn *pgx.Conn, q ChangeQuery) (h feedHead, counts map[string]int64, err error) {
	var after Place
	if q.After != nil {
		after = *q.After
	}
	counts = map[string]int64{}
	named := slices.Concat(q.List.Tags, q.List.All)
	batch := &pgx.Batch{}
	queueSnapshot(batch, conn)
	queueFilling(batch, q.List, &h.filling)
	// In a run that is not the last one, everything after the beginning of the next run was lost. A
	// standby has all runs that began before what it replayed last; commits overtake each other by
	// moments.
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
		  FROM checkpoint c CROSS JOIN known k`, after.Run, after.Change, keys.RunBits, toCome).QueryRow(func(row pgx.Row) error {
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

// followed returns the tags whose changes include all changes of a query's posts: any of Tags, or
// the rarest of All, since a change is recorded under every tag that the post had or has. If a
// query has both, it is the one with fewer posts.
func (q PostQuery) followed(counts map[string]int64) []string {
	if len(q.All) == 0 {
		return q.Tags
	}
	rarest := slices.MinFunc(q.All, func(a, b string) int { return cmp.Compare(counts[a], counts[b]) })
	several := int64(0)
	for _, tag := range q.Tags {
		several += counts[tag]
	}
	if len(q.Tags) > 0 && several < counts[rarest] {
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
		traits = "p.traits" // which an index of an older version lacks
	}
	// OFFSET 0, as in readPosts: one look-up for each change, in order.
	sql := `
		SELECT c.pos, c.did, c.rkey, c.was, p.key, p.tags, p.langs, p.traits
		  FROM (` + stream + `) AS followed
		 CROSS JOIN LATERAL (SELECT * FROM changes c WHERE c.pos = followed.pos OFFSET 0) AS c
		  LEFT JOIN LATERAL (
			SELECT p.key, p.tags, p.langs, ` + traits + ` AS traits FROM accounts a JOIN posts p ON p.account_id = a.id AND p.rkey = c.rkey
			 WHERE a.did = c.did AND a.state = 0
			   AND NOT EXISTS (SELECT FROM sweeps w WHERE w.account_id = a.id AND ` + outOfSight + `)
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
	if _, err := pgx.ForEachRow(rows, []any{&c.number, &c.did, &c.rkey, &c.was, &key, &tagsOf, &langsOf, &traitsOf}, func() error {
		if len(all) > 0 && c.number <= all[len(all)-1].number {
			return errors.New("changes out of order")
		}
		one := c
		if key != nil {
			one.post = &candidate{*key, tagsOf, langsOf, *traitsOf}
		}
		all = append(all, one)
		key, tagsOf, langsOf = nil, nil, nil // not to be written over by the next
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read changes: %w", err)
	}
	return all, nil
}

// choose makes the page from what was read, without the posts themselves, whose keys it returns in
// order. Several changes of a post become one, at the first of them, since it has the current
// state. A post that was invisible before and does not match now is of no interest to a follower.
func (p *ChangePage) choose(q ChangeQuery, looked []changed, head feedHead) (keys []event.Key) {
	type id struct{ did, rkey string }
	was, last := make(map[id]bool, len(looked)), make(map[id]int64, len(looked))
	for _, c := range looked {
		i := id{c.did, c.rkey}
		was[i], last[i] = was[i] || c.was, c.number
	}
	done := make(map[id]bool, len(looked))
	for n, c := range looked {
		i := id{c.did, c.rkey}
		if done[i] || !q.List.mayBeBy(c.did) {
			continue
		}
		done[i] = true
		matches := c.post != nil && q.List.matches(c.post, head.denied)
		if !matches && !was[i] {
			continue
		}
		if len(p.Changes) == q.Limit {
			p.Next, p.HasNext = Place{looked[n-1].number, head.run}, true
			return keys
		}
		change := Change{Place: Place{c.number, head.run}, Through: last[i], DID: c.did, Rkey: c.rkey}
		if matches {
			change.Post = &PostRow{Key: c.post.key}
			keys = append(keys, c.post.key)
		}
		p.Changes = append(p.Changes, change)
	}
	if len(looked) == MaxChanges {
		p.Next, p.HasNext = Place{looked[len(looked)-1].number, head.run}, true
		if len(p.Changes) < q.Limit {
			p.Cut = CutByWork
		}
	}
	return keys
}

// fill adds the posts to the page, which ends where the posts do if they were too big together.
func (p *ChangePage) fill(posts []PostRow, cutOff bool) {
	for i := range p.Changes {
		if p.Changes[i].Post == nil {
			continue
		}
		if len(posts) == 0 && cutOff {
			p.Changes = p.Changes[:i]
			p.Next, p.HasNext, p.Cut = p.Changes[i-1].Place, true, CutByBytes
			return
		}
		p.Changes[i].Post, posts = &posts[0], posts[1:]
	}
}

// mayBeBy reports whether an account's posts can match the query, now or ever.
func (q PostQuery) mayBeBy(did string) bool {
	return (len(q.Authors) == 0 || slices.Contains(q.Authors, did)) && !slices.Contains(q.NotAuthors, did)
}

// matches reports whether a visible post, of an account that it may be by, matches the query.
// Denied tags match nothing.
func (q PostQuery) matches(p *candidate, denied []string) bool {
	has := func(tag string) bool { return slices.Contains(p.tags, tag) }
	finds := func(tag string) bool { return has(tag) && !slices.Contains(denied, tag) }
	switch {
	case slices.ContainsFunc(q.None, has), q.MaxTags > 0 && len(p.tags) > q.MaxTags, !q.hasTraits(p.traits):
		return false
	case slices.ContainsFunc(q.All, func(tag string) bool { return !finds(tag) }):
		return false
	case len(q.Tags) > 0 && !slices.ContainsFunc(q.Tags, finds):
		return false
	case len(q.Langs) > 0 && !slices.ContainsFunc(event.LangRanges(p.langs), func(lang string) bool { return slices.Contains(q.Langs, lang) }):
		return false
	}
	window := wholeList.since(q.Since).until(q.Until)
	return window.holds(p.key)
}
