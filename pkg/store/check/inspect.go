package check

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/keys"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

const (
	verifyPosts    = 2000 // in one piece
	verifyAccounts = 10_000
	verifyLists    = 1000
	verifyRows     = 5000
)

// inspection is the inspection of one schema.
type inspection struct {
	*verification
	tx     pgx.Tx // of the slice
	schema string

	// From the checkpoint, as of the slice.
	seq                  int64
	time                 time.Time
	sync                 event.SyncRun
	posts, visible, tags int64
	// retagging reports that some tags are in an older form.
	retagging bool
	// traitsFrom is the first key from which posts must have their traits.
	traitsFrom event.Key

	// How far the lists of each kind, by name, and their rows were inspected, and the tags with
	// hourly counts.
	afterList map[*listKind]string
	afterRow  map[*listKind]listRow
	hourly    []list
}

// listKind is a kind of list: of the posts under a tag or under a language.
type listKind struct {
	// what is the word for the name of a list. table has a row for each list, and rows a row for
	// each of its posts, with the list's id in column.
	what, table, rows, column string
	// of returns the names of the lists that a post with these tags and languages is in.
	of func(tags, langs []string) []string
}

var (
	byTag     = &listKind{"tag", "tags", "post_tags", "tag_id", func(tags, _ []string) []string { return tags }}
	byLang    = &listKind{"language", "langs", "post_langs", "lang_id", func(_, langs []string) []string { return event.LangRanges(langs) }}
	listKinds = []*listKind{byTag, byLang}
)

// list is a row of tags or langs, and listRow one of post_tags or post_langs.
type list struct {
	id   int64
	name string
}

type listRow struct {
	list int64
	key  event.Key
}

// inspected is a post with the fields that are compared.
type inspected struct {
	key         event.Key
	did, rkey   string
	state       store.State
	rev, cid    string
	tags, langs []string
	indexedAt   time.Time
	record      string // its digest
	traits      event.Traits
	wantTraits  event.Traits // computed from the record
	orphan      bool         // its account does not exist
}

func (p *inspected) uri() string   { return event.URI(p.did, p.rkey) }
func (p *inspected) visible() bool { return p.state == store.Active && !p.orphan }

// open begins a slice in a snapshot, with the schema's checkpoint.
func (x *inspection) open(ctx context.Context, tx pgx.Tx) error {
	x.tx = tx
	var sweeping, unlisted bool
	err := tx.QueryRow(ctx, `
		SELECT seq, source_time, sync_did, sync_rev, sync_fixed, posts, visible_posts, tags, retag_below IS NOT NULL,
		       COALESCE(traits_below, '00000000-0000-0000-0000-000000000000'), EXISTS (SELECT FROM `+x.table("sweeps")+`), unlisted_from IS NOT NULL
		  FROM `+x.table("checkpoint")).
		Scan(&x.seq, &x.time, &x.sync.DID, &x.sync.Rev, &x.sync.Fixed, &x.posts, &x.visible, &x.tags, &x.retagging, (*[16]byte)(&x.traitsFrom), &sweeping, &unlisted)
	if err != nil {
		return fmt.Errorf("read the checkpoint of %s: %w", x.schema, pg.NotMigrated(err))
	}
	if unlisted {
		return fmt.Errorf("verify %s: %w", x.schema, ErrUnlisted)
	}
	if sweeping {
		return fmt.Errorf("verify %s: %w", x.schema, ErrSweeping)
	}
	return nil
}

// rows estimates the number of rows that the steps report.
func (x *inspection) rows() uint64 { return uint64(max(x.posts, 0) + max(x.tags, 0)) }

func (x *inspection) table(name string) string { return pg.Qualified(x.schema, name) }

func (x *inspection) find(format string, args ...any) error {
	return x.findings.add(format+" in "+x.schema, args...)
}

// checks are all checks of the index other than of its posts.
func (x *inspection) checks() []check {
	var all []check
	for _, piece := range []func(context.Context, *listKind) (bool, error){x.checkCounts, x.checkRows} {
		for _, by := range listKinds {
			all = append(all, func(ctx context.Context) (bool, error) { return piece(ctx, by) })
		}
	}
	return append(all, x.checkHours, x.checkTotals)
}

// readPosts reads a piece of the posts, starting at a key.
func (x *inspection) readPosts(ctx context.Context, from event.Key) ([]inspected, error) {
	rows, _ := x.tx.Query(ctx, `
		SELECT p.key, COALESCE(a.did, ''), p.rkey, COALESCE(a.state, 0), a.id IS NULL, p.rev, p.cid, p.tags, p.langs, p.indexed_at, p.record, p.traits
		  FROM `+x.table("posts")+` p LEFT JOIN `+x.table("accounts")+` a ON a.id = p.account_id
		 WHERE p.key >= $1 ORDER BY p.key LIMIT $2`, from, verifyPosts)
	posts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (inspected, error) {
		var p inspected
		var record []byte
		err := row.Scan((*[16]byte)(&p.key), &p.did, &p.rkey, &p.state, &p.orphan, &p.rev, &p.cid, &p.tags, &p.langs, &p.indexedAt, &record, &p.traits)
		digest := sha256.Sum256(record)
		p.record, p.wantTraits = hex.EncodeToString(digest[:16]), event.TraitsOf(record)
		p.indexedAt = p.indexedAt.UTC()
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the posts of %s: %w", x.schema, err)
	}
	return posts, nil
}

// checkPosts checks that posts are listed wherever they should be, and have the traits of their
// records.
func (x *inspection) checkPosts(ctx context.Context, posts []inspected) error {
	var tags, langs wantedRows
	for i := range posts {
		p := &posts[i]
		if p.traits != p.wantTraits && bytes.Compare(p.key[:], x.traitsFrom[:]) >= 0 {
			if err := x.find("post %s has the traits %d, and its record %d", p.uri(), p.traits, p.wantTraits); err != nil {
				return err
			}
		}
		switch {
		case p.orphan:
			if err := x.find("the post with key %x and record key %s has no account", p.key, p.rkey); err != nil {
				return err
			}
		case p.visible():
			tags.add(p, p.tags)
			langs.add(p, event.LangRanges(p.langs))
		}
	}
	if err := x.checkListed(ctx, byTag, tags); err != nil {
		return err
	}
	return x.checkListed(ctx, byLang, langs)
}

// wantedRows are the list rows that posts require.
type wantedRows struct {
	posts []*inspected
	keys  []event.Key
	names []string
}

func (w *wantedRows) add(p *inspected, names []string) {
	for _, name := range names {
		w.posts, w.keys, w.names = append(w.posts, p), append(w.keys, p.key), append(w.names, name)
	}
}

func (x *inspection) checkListed(ctx context.Context, by *listKind, want wantedRows) error {
	if len(want.names) == 0 {
		return nil
	}
	rows, _ := x.tx.Query(ctx, `
		SELECT i.n FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS i(key, name, n)
		 WHERE (SELECT count(*) FROM `+x.table(by.table)+` t JOIN `+x.table(by.rows)+` l ON l.`+by.column+` = t.id AND l.key = i.key
		         WHERE t.name = i.name) = 0 ORDER BY i.n`, want.keys, want.names)
	missing, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return fmt.Errorf("look up rows of %s: %w", x.table(by.rows), err)
	}
	for _, n := range missing {
		if err := x.find("post %s is visible but not listed under %s %q", want.posts[n-1].uri(), by.what, want.names[n-1]); err != nil {
			return err
		}
	}
	return nil
}

// checkCounts checks the counts of the next lists, by name.
func (x *inspection) checkCounts(ctx context.Context, by *listKind) (done bool, err error) {
	isHourly := "false"
	if by == byTag {
		isHourly = "t.hourly"
	}
	rows, _ := x.tx.Query(ctx, `
		SELECT t.id, t.name, t.posts, `+isHourly+`, (SELECT count(*) FROM `+x.table(by.rows)+` l WHERE l.`+by.column+` = t.id)
		  FROM `+x.table(by.table)+` t WHERE t.name > $1 ORDER BY t.name LIMIT $2`, x.afterList[by], verifyLists)
	var t list
	var stored, seen int64
	var hourly bool
	n := 0
	if _, err := pgx.ForEachRow(rows, []any{&t.id, &t.name, &stored, &hourly, &seen}, func() error {
		n++
		x.afterList[by] = t.name
		if hourly {
			x.hourly = append(x.hourly, t)
		}
		if stored != seen {
			return x.find("%s %q counts %d visible posts but has %d", by.what, t.name, stored, seen)
		}
		return nil
	}); err != nil {
		return false, fmt.Errorf("read %s: %w", x.table(by.table), err)
	}
	if by == byTag {
		x.step(n)
	}
	return n < verifyLists, nil
}

// checkRows checks that each of the next list rows belongs to a visible post with that tag or
// language.
func (x *inspection) checkRows(ctx context.Context, by *listKind) (done bool, err error) {
	from := x.afterRow[by]
	rows, _ := x.tx.Query(ctx, `
		SELECT l.id, l.key, t.name, p.rkey, a.did, a.state, p.tags, p.langs
		  FROM (SELECT `+by.column+` AS id, key FROM `+x.table(by.rows)+` WHERE (`+by.column+`, key) > ($1, $2) ORDER BY `+by.column+`, key LIMIT $3) AS l
		  LEFT JOIN `+x.table(by.table)+` t ON t.id = l.id LEFT JOIN `+x.table("posts")+` p ON p.key = l.key LEFT JOIN `+x.table("accounts")+` a ON a.id = p.account_id
		 ORDER BY l.id, l.key`, from.list, from.key, verifyRows)
	var at listRow
	var name, rkey, did *string
	var state *store.State
	var tags, langs []string
	n := 0
	if _, err := pgx.ForEachRow(rows, []any{&at.list, (*[16]byte)(&at.key), &name, &rkey, &did, &state, &tags, &langs}, func() error {
		n++
		switch {
		case name == nil:
			return x.find("%s has a row of no %s", by.rows, by.what)
		case did == nil:
			return x.find("%s has a row of %s %q and no post", by.rows, by.what, *name)
		case *state != store.Active || !slices.Contains(by.of(tags, langs), *name):
			return x.find("post %s is listed under %s %q, where it should not be", event.URI(*did, *rkey), by.what, *name)
		}
		return nil
	}); err != nil {
		return false, fmt.Errorf("read %s: %w", x.table(by.rows), err)
	}
	x.afterRow[by] = at
	return n < verifyRows, nil
}

// checkTotals checks the totals by counting everything in one statement.
func (x *inspection) checkTotals(ctx context.Context) (done bool, err error) {
	// It reads whole tables, in any order.
	for _, setting := range []string{"enable_seqscan", "enable_hashjoin"} {
		if _, err := x.tx.Exec(ctx, "SET LOCAL "+setting+" = on"); err != nil {
			return false, fmt.Errorf("count what is in %s: %w", x.schema, err)
		}
	}
	var posts, visible, tags int64
	if err := x.tx.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM `+x.table("posts")+`),
		       (SELECT count(*) FROM `+x.table("posts")+` p JOIN `+x.table("accounts")+` a ON a.id = p.account_id AND a.state = 0),
		       (SELECT count(*) FROM `+x.table("tags")+` WHERE posts > 0)`).Scan(&posts, &visible, &tags); err != nil {
		return false, fmt.Errorf("count what is in %s: %w", x.schema, err)
	}
	for _, c := range []struct {
		what         string
		stored, seen int64
	}{
		{"posts", x.posts, posts},
		{"visible posts", x.visible, visible},
		{"tags in use", x.tags, tags},
	} {
		if c.stored != c.seen {
			if err := x.find("the total of %s is %d, there are %d", c.what, c.stored, c.seen); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// checkHours compares the hourly counts of the next tag with what they count.
func (x *inspection) checkHours(ctx context.Context) (done bool, err error) {
	if len(x.hourly) == 0 {
		return true, nil
	}
	t := x.hourly[0]
	x.hourly = x.hourly[1:]
	last := keys.Hour(x.time)
	var hours []int64
	var from, to []event.Key
	for hour := max(last-store.HistoryHours+1, 0); hour <= last; hour++ {
		hours = append(hours, hour)
		from = append(from, keys.FirstOfHour(hour))
		to = append(to, keys.FirstOfHour(hour+1))
	}
	rows, err := x.tx.Query(ctx, `
		SELECT w.hour, COALESCE((SELECT h.posts FROM `+x.table("tag_hours")+` h WHERE h.hour = w.hour AND h.tag_id = $1), 0),
		       (SELECT count(*) FROM `+x.table("post_tags")+` l WHERE l.tag_id = $1 AND l.key >= w.lo AND l.key < w.hi)
		  FROM unnest($2::bigint[], $3::uuid[], $4::uuid[]) AS w(hour, lo, hi)
		 WHERE EXISTS (SELECT FROM `+x.table("tags")+` t WHERE t.id = $1)`, t.id, hours, from, to)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", x.table("tag_hours"), err)
	}
	var hour, stored, seen int64
	if _, err := pgx.ForEachRow(rows, []any{&hour, &stored, &seen}, func() error {
		if stored == seen {
			return nil
		}
		return x.find("tag %q counts %d visible posts in the hour from %s but has %d", t.name, stored,
			keys.HourTime(hour).Format(time.RFC3339), seen)
	}); err != nil {
		return false, fmt.Errorf("compare the hours of tag %q: %w", t.name, err)
	}
	return false, nil
}
