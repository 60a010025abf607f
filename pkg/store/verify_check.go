package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
)

const (
	verifyPosts    = 2000 // in one piece
	verifyAccounts = 10_000
	verifyTerms    = 1000
)

// inspection is one schema that is looked through.
type inspection struct {
	*verification
	tx     pgx.Tx
	schema string

	// What the checkpoint says.
	seq                  int64
	time                 time.Time
	sync                 PendingSync
	posts, visible, tags int64
	// retagging says that some tags are in an older form.
	retagging bool

	// What was seen of it.
	seenPosts, seenVisible int64
	tagged, spoken         int64 // listings that the visible posts ask for

	// How far it was read.
	next          event.Key
	postsEnded    bool
	ahead         []inspected
	lastDID       string
	accountsEnded bool
}

// inspected is a post as indexes are compared by.
type inspected struct {
	key         event.Key
	did, rkey   string
	state       State
	rev, cid    string
	tags, langs []string
	indexedAt   time.Time
	record      string // its digest
	orphan      bool   // of no account
}

func (p *inspected) uri() string   { return event.URI(p.did, p.rkey) }
func (p *inspected) visible() bool { return p.state == Active && !p.orphan }

// open reads a schema's checkpoint.
func (r *verification) open(ctx context.Context, tx pgx.Tx, schema string) (*inspection, error) {
	x := &inspection{verification: r, tx: tx, schema: schema}
	var sweeping bool
	err := tx.QueryRow(ctx, `
		SELECT seq, source_time, sync_did, sync_rev, posts, visible_posts, tags, retag_below IS NOT NULL, EXISTS (SELECT FROM `+x.table("sweeps")+`)
		  FROM `+x.table("checkpoint")).
		Scan(&x.seq, &x.time, &x.sync.DID, &x.sync.Rev, &x.posts, &x.visible, &x.tags, &x.retagging, &sweeping)
	if err != nil {
		return nil, fmt.Errorf("read the checkpoint of %s: %w", schema, notMigrated(err))
	}
	if sweeping {
		return nil, fmt.Errorf("verify %s: %w", schema, ErrSweeping)
	}
	r.total += uint64(max(x.posts, 0) + max(x.tags, 0))
	return x, nil
}

func (x *inspection) table(name string) string { return qualified(x.schema, name) }

func (x *inspection) find(format string, args ...any) error {
	return x.findings.add(format+" in "+x.schema, args...)
}

// check checks the schema by itself.
func (x *inspection) check(ctx context.Context) error {
	for {
		p, err := x.post(ctx)
		if err != nil {
			return err
		}
		if p == nil {
			return x.checkCounts(ctx)
		}
	}
}

// post returns the next post in the order of keys, nil behind the last one. It
// has been checked that it is listed as it should be.
func (x *inspection) post(ctx context.Context) (*inspected, error) {
	if len(x.ahead) == 0 && !x.postsEnded {
		if err := x.readPosts(ctx); err != nil {
			return nil, err
		}
	}
	if len(x.ahead) == 0 {
		return nil, nil
	}
	p := &x.ahead[0]
	x.ahead = x.ahead[1:]
	return p, nil
}

func (x *inspection) readPosts(ctx context.Context) error {
	rows, err := x.tx.Query(ctx, `
		SELECT p.key, COALESCE(a.did, ''), p.rkey, COALESCE(a.state, 0), a.id IS NULL, p.rev, p.cid, p.tags, p.langs, p.indexed_at, md5(p.record)
		  FROM `+x.table("posts")+` p LEFT JOIN `+x.table("accounts")+` a ON a.id = p.account_id
		 WHERE p.key >= $1 ORDER BY p.key LIMIT $2`, x.next, verifyPosts)
	if err != nil {
		return fmt.Errorf("read the posts of %s: %w", x.schema, err)
	}
	x.ahead, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (inspected, error) {
		var p inspected
		err := row.Scan((*[16]byte)(&p.key), &p.did, &p.rkey, &p.state, &p.orphan, &p.rev, &p.cid, &p.tags, &p.langs, &p.indexedAt, &p.record)
		p.indexedAt = p.indexedAt.UTC()
		return p, err
	})
	if err != nil {
		return fmt.Errorf("read the posts of %s: %w", x.schema, err)
	}
	n := len(x.ahead)
	x.step(n)
	if x.postsEnded = n < verifyPosts; !x.postsEnded {
		x.next = above(x.ahead[n-1].key)
	}
	var tags, langs listings
	for i := range x.ahead {
		p := &x.ahead[i]
		x.seenPosts++
		switch {
		case p.orphan:
			if err := x.find("the post with key %x and record key %s is of no account", p.key, p.rkey); err != nil {
				return err
			}
		case p.visible():
			x.seenVisible++
			tags.add(p, p.tags)
			langs.add(p, event.LangRanges(p.langs))
		}
	}
	x.tagged += int64(len(tags.names))
	x.spoken += int64(len(langs.names))
	if err := x.checkListed(ctx, "tag", "post_tags", "tag_id", "tags", tags); err != nil {
		return err
	}
	return x.checkListed(ctx, "language", "post_langs", "lang_id", "langs", langs)
}

// above is the key that follows k.
func above(k event.Key) event.Key {
	for i := len(k) - 1; i >= 0; i-- {
		if k[i]++; k[i] != 0 {
			break
		}
	}
	return k
}

// listings are the rows of post_tags or post_langs that posts ask for.
type listings struct {
	posts []*inspected
	keys  []event.Key
	names []string
}

func (l *listings) add(p *inspected, names []string) {
	for _, name := range names {
		l.posts, l.keys, l.names = append(l.posts, p), append(l.keys, p.key), append(l.names, name)
	}
}

func (x *inspection) checkListed(ctx context.Context, what, list, column, terms string, want listings) error {
	if len(want.names) == 0 {
		return nil
	}
	rows, err := x.tx.Query(ctx, `
		SELECT i.n FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS i(key, name, n)
		 WHERE (SELECT count(*) FROM `+x.table(terms)+` t JOIN `+x.table(list)+` l ON l.`+column+` = t.id AND l.key = i.key
		         WHERE t.name = i.name) = 0 ORDER BY i.n`, want.keys, want.names)
	if err != nil {
		return fmt.Errorf("look up rows of %s: %w", x.table(list), err)
	}
	missing, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return fmt.Errorf("look up rows of %s: %w", x.table(list), err)
	}
	for _, n := range missing {
		if err := x.find("post %s is visible but not listed under %s %q", want.posts[n-1].uri(), what, want.names[n-1]); err != nil {
			return err
		}
	}
	return nil
}

// checkCounts checks, when all posts were seen, that nothing is listed beside
// them, and every count.
func (x *inspection) checkCounts(ctx context.Context) error {
	tags, used, err := x.checkTerms(ctx, "tag", "post_tags", "tag_id", "tags", x.tagged)
	if err != nil {
		return err
	}
	if _, _, err := x.checkTerms(ctx, "language", "post_langs", "lang_id", "langs", x.spoken); err != nil {
		return err
	}
	if err := x.checkHours(ctx, tags); err != nil {
		return err
	}
	for _, c := range []struct {
		what       string
		said, seen int64
	}{
		{"posts", x.posts, x.seenPosts},
		{"visible posts", x.visible, x.seenVisible},
		{"tags in use", x.tags, used},
	} {
		if c.said != c.seen {
			if err := x.find("the total of %s is %d, there are %d", c.what, c.said, c.seen); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkTerms checks the counts of tags or languages, and that there are as many
// rows as the posts ask for: they all exist, so then there is no other. It
// returns the tags that have hourly counts, and how many terms are in use.
func (x *inspection) checkTerms(ctx context.Context, what, list, column, terms string, want int64) (hourly []term, used int64, err error) {
	isHourly := "false"
	if terms == "tags" {
		isHourly = "t.hourly"
	}
	var rowsSeen int64
	for after := ""; ; {
		rows, err := x.tx.Query(ctx, `
			SELECT t.id, t.name, t.posts, `+isHourly+`, (SELECT count(*) FROM `+x.table(list)+` l WHERE l.`+column+` = t.id)
			  FROM `+x.table(terms)+` t WHERE t.name > $1 ORDER BY t.name LIMIT $2`, after, verifyTerms)
		if err != nil {
			return nil, 0, fmt.Errorf("read %s: %w", x.table(terms), err)
		}
		var t term
		var said, seen int64
		var counted bool
		n := 0
		_, err = pgx.ForEachRow(rows, []any{&t.id, &t.name, &said, &counted, &seen}, func() error {
			n++
			after = t.name
			rowsSeen += seen
			used += count(seen > 0)
			if counted {
				hourly = append(hourly, t)
			}
			if said != seen {
				return x.find("%s %q is said to have %d visible posts and has %d", what, t.name, said, seen)
			}
			return nil
		})
		if err != nil {
			return nil, 0, fmt.Errorf("read %s: %w", x.table(terms), err)
		}
		if terms == "tags" {
			x.step(n)
		}
		if n < verifyTerms {
			break
		}
	}
	var all int64
	if err := x.tx.QueryRow(ctx, `SELECT count(*) FROM `+x.table(list)).Scan(&all); err != nil {
		return nil, 0, fmt.Errorf("count the rows of %s: %w", x.table(list), err)
	}
	switch {
	case all != rowsSeen:
		err = x.find("%d rows of %s are of no %s", all-rowsSeen, list, what)
	case all > want:
		err = x.findStray(ctx, what, list, column, terms, all-want)
	}
	return hourly, used, err
}

type term struct {
	id   int64
	name string
}

// findStray reports rows that no visible post asks for, with the first of them.
// Only those of posts that are gone or hidden can be told in SQL; of a visible
// one it is a term that the post does not have.
func (x *inspection) findStray(ctx context.Context, what, list, column, terms string, n int64) error {
	var name, uri string
	err := x.tx.QueryRow(ctx, `
		SELECT t.name, COALESCE((SELECT a.did || '/' || p.rkey FROM `+x.table("posts")+` p JOIN `+x.table("accounts")+` a ON a.id = p.account_id
		                          WHERE p.key = l.key), 'of no post')
		  FROM `+x.table(list)+` l JOIN `+x.table(terms)+` t ON t.id = l.`+column+`
		 WHERE NOT EXISTS (SELECT FROM `+x.table("posts")+` p JOIN `+x.table("accounts")+` a ON a.id = p.account_id
		                    WHERE p.key = l.key AND a.state = 0 AND (`+map[string]string{"tags": "t.name = ANY(p.tags)", "langs": "true"}[terms]+`))
		 LIMIT 1`).Scan(&name, &uri)
	if errors.Is(err, pgx.ErrNoRows) {
		return x.find("%d rows of %s are of a %s that their posts do not have", n, list, what)
	}
	if err != nil {
		return fmt.Errorf("look for stray rows of %s: %w", x.table(list), err)
	}
	return x.find("%d rows of %s should not be there, such as that of %s %q and post %s", n, list, what, name, uri)
}

// checkHours compares the hours that a history shows with what they count.
func (x *inspection) checkHours(ctx context.Context, tags []term) error {
	last := hourOf(x.time)
	var hours []int64
	var from, to []event.Key
	for hour := max(last-HistoryHours+1, 0); hour <= last; hour++ {
		hours = append(hours, hour)
		from = append(from, event.FirstKey(time.Unix(hour*3600, 0)))
		to = append(to, event.FirstKey(time.Unix((hour+1)*3600, 0)))
	}
	for _, t := range tags {
		rows, err := x.tx.Query(ctx, `
			SELECT w.hour, COALESCE((SELECT h.posts FROM `+x.table("tag_hours")+` h WHERE h.hour = w.hour AND h.tag_id = $1), 0),
			       (SELECT count(*) FROM `+x.table("post_tags")+` l WHERE l.tag_id = $1 AND l.key >= w.lo AND l.key < w.hi)
			  FROM unnest($2::bigint[], $3::uuid[], $4::uuid[]) AS w(hour, lo, hi)`, t.id, hours, from, to)
		if err != nil {
			return fmt.Errorf("read %s: %w", x.table("tag_hours"), err)
		}
		var hour, said, seen int64
		_, err = pgx.ForEachRow(rows, []any{&hour, &said, &seen}, func() error {
			if said == seen {
				return nil
			}
			return x.find("tag %q is said to have %d visible posts in the hour from %s and has %d", t.name, said,
				time.Unix(hour*3600, 0).UTC().Format(time.RFC3339), seen)
		})
		if err != nil {
			return fmt.Errorf("compare the hours of tag %q: %w", t.name, err)
		}
	}
	return nil
}
