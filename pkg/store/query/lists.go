package query

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
)

// A query is a conjunction of clauses, minus exclusions. A clause is a set of lists; a post matches
// if it is in at least one list of every clause and in no excluded list. A list is the posts of a
// tag, a language or an author in an index, in key order.

// kind is the kind of a list.
type kind int

const (
	ofTag kind = iota
	ofLang
	ofAuthor // includes hidden posts, so a query also needs a list of a tag
)

// index returns the table, and the column before key in its index.
func (k kind) index() (table, column string) {
	return []string{"post_tags", "post_langs", "posts"}[k], []string{"tag_id", "lang_id", "account_id"}[k]
}

// list is the posts under one tag, language or author.
type list struct {
	name   string
	id     int64
	posts  int64
	sample sample
}

// sample is the next part of a list in the direction of reading. It shows how dense the list is
// here, which may differ from its density over all time.
type sample struct {
	n           int
	first, last event.Key
	// full reports that the list continues after the last key.
	full bool
}

// minSample is the least number of rows of each list that are sampled.
const minSample = 4

// clause is a set of lists of one kind. A post must be in one of them.
type clause struct {
	kind  kind
	lists []list
}

func (cl clause) ids() []int64 {
	ids := make([]int64, len(cl.lists))
	for i, l := range cl.lists {
		ids[i] = l.id
	}
	return ids
}

// rate is the clause's number of posts per microsecond in its samples. A sample that reached the
// end of the list extends to the end of the range.
func (cl clause) rate(rng keyRange, direction keyset.Direction) float64 {
	end := rng.lo
	if direction == keyset.Backward {
		end = rng.hi
	}
	total := 0.0
	for _, l := range cl.lists {
		to := end
		if l.sample.full {
			to = l.sample.last
		}
		if l.sample.n > 0 {
			total += float64(l.sample.n) / distance(l.sample.first, to)
		}
	}
	return total
}

// next returns the clause's next key; ok is false if it has none.
func (cl clause) next(direction keyset.Direction) (key event.Key, ok bool) {
	for _, l := range cl.lists {
		if l.sample.n > 0 && (!ok || before(l.sample.first, key, direction)) {
			key, ok = l.sample.first, true
		}
	}
	return key, ok
}

// sampledBefore reports whether the whole sample of one of the clause's lists lies before the range
// although the list continues.
func (cl clause) sampledBefore(rng keyRange, direction keyset.Direction) bool {
	start := rng.hi
	if direction == keyset.Backward {
		start = rng.lo
	}
	return slices.ContainsFunc(cl.lists, func(l list) bool {
		return l.sample.full && before(l.sample.last, start, direction)
	})
}

// before reports whether a comes before b in the direction of reading.
func before(a, b event.Key, direction keyset.Direction) bool {
	c := bytes.Compare(a[:], b[:])
	if direction == keyset.Forward {
		return c > 0
	}
	return c < 0
}

// conjunction is a query with its names looked up.
type conjunction struct {
	clauses []clause
	none    []int64
	// notBy are the accounts that posts must not be from; filter has the other conditions on a
	// post's own row.
	notBy  []int64
	filter PostQuery
	// filling reports that the filter needs traits that are not filled in yet.
	filling bool
	// sweeping reports that accounts are being swept, so some posts of the lists are invisible.
	// swept has these accounts: all of them if sweptAll, else those nearest to the page.
	sweeping, sweptAll bool
	swept              []sweptAccount
	// nothing reports that no post can match.
	nothing bool
}

// hasRowConditions reports whether there are conditions on each post's own row.
func (c conjunction) hasRowConditions() bool {
	return len(c.notBy) > 0 || c.filter.MaxTags > 0 || c.filter.usesTraits()
}

// resolve begins a snapshot and looks up a query's names. Lists without posts are left out.
func resolve(ctx context.Context, conn *pgx.Conn, q PostQuery) (conjunction, error) {
	c := conjunction{filter: q}
	found, err := c.lookUpLists(ctx, conn)
	if err != nil {
		return c, fmt.Errorf("look up the query's names: %w", err)
	}
	pick := func(names []string, kind string) clause {
		var cl clause
		for _, n := range names {
			if l, ok := found[kind][n]; ok {
				cl.lists = append(cl.lists, l)
			}
		}
		return cl
	}
	// must adds a clause. If it has no lists, no post matches.
	must := func(kind kind, cl clause) {
		cl.kind, c.nothing = kind, c.nothing || len(cl.lists) == 0
		c.clauses = append(c.clauses, cl)
	}
	for _, tag := range q.All {
		must(ofTag, pick(without([]string{tag}, q.None), "tag"))
	}
	if len(q.Tags) > 0 && len(without(q.Tags, q.All)) == len(q.Tags) { // else one of All is enough
		must(ofTag, pick(without(q.Tags, q.None), "tag"))
	}
	if len(q.Langs) > 0 {
		must(ofLang, pick(q.Langs, "lang"))
	}
	c.none = pick(q.None, "tag").ids()
	if len(q.Authors) > 0 {
		must(ofAuthor, pick(without(q.Authors, q.NotAuthors), "author"))
	} else {
		c.notBy = pick(q.NotAuthors, "author").ids()
	}
	return c, nil
}

// lookUpLists begins a snapshot, and returns the lists that the query names, by kind and name. It
// also looks up the sweeps, and whether traits are being filled in.
func (c *conjunction) lookUpLists(ctx context.Context, conn *pgx.Conn) (found map[string]map[string]list, err error) {
	q := c.filter
	found = map[string]map[string]list{"tag": {}, "lang": {}, "author": {}}
	batch := &pgx.Batch{}
	beginSnapshot(batch, conn)
	queueFilling(batch, q, &c.filling)
	batch.Queue(`
		SELECT 'sweeps', '', 0::bigint, (SELECT count(*) FROM sweeps)
		UNION ALL SELECT 'tag', name, id, posts FROM tags WHERE name = ANY($1::text[]) AND (name = ANY($5::text[]) OR `+servedOne+`)
		UNION ALL SELECT 'lang', name, id, posts FROM langs WHERE name = ANY($2::text[])
		UNION ALL (`+sweptQuery+`)
		UNION ALL SELECT 'author', did, id, 1 FROM accounts WHERE did = ANY($4::text[]) AND state = 0`,
		slices.Concat(q.Tags, q.All, q.None), slices.Concat(q.Langs), maxSwept, slices.Concat(q.Authors, q.NotAuthors), slices.Concat(q.None)).Query(func(rows pgx.Rows) error {
		sweeps := int64(0)
		var what string
		var l list
		_, err := pgx.ForEachRow(rows, []any{&what, &l.name, &l.id, &l.posts}, func() error {
			switch {
			case what == "sweeps":
				sweeps = l.posts
			case what == "swept":
				c.swept = append(c.swept, sweptAccount{l.id, l.name})
			case l.posts > 0:
				found[what][l.name] = l
			}
			return nil
		})
		c.sweeping, c.sweptAll = sweeps > 0, sweeps == int64(len(c.swept))
		return err
	})
	return found, conn.SendBatch(ctx, batch).Close()
}

// queueFilling queues a look-up of whether the traits that a query needs are being filled in.
func queueFilling(batch *pgx.Batch, q PostQuery, filling *bool) {
	if q.usesTraits() {
		batch.Queue(`SELECT traits_below IS NOT NULL FROM checkpoint`).QueryRow(func(row pgx.Row) error { return row.Scan(filling) })
	}
}

// without returns the names that are not in others.
func without(names, others []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(others, name) })
}

// sampleLists samples every list of the clauses from the start of the range.
func (s *search) sampleLists(ctx context.Context, rng keyRange, size int) error {
	order := orderBy(s.direction)
	for _, kind := range []kind{ofTag, ofLang, ofAuthor} {
		var ids []int64
		for _, cl := range s.clauses {
			if cl.kind == kind {
				ids = append(ids, cl.ids()...)
			}
		}
		if len(ids) == 0 {
			continue
		}
		table, column := kind.index()
		sql := fmt.Sprintf(`
			SELECT i.id, s.n, s.keys[1], s.keys[s.n]
			  FROM unnest($1::bigint[]) AS i(id),
			       LATERAL (SELECT count(*)::int AS n, array_agg(key) AS keys
			                  FROM (SELECT key FROM %s WHERE %s = i.id AND key BETWEEN $2 AND $3 ORDER BY %s LIMIT $4) AS l) AS s
			 WHERE s.n > 0`, table, column, order)
		rows, _ := s.query(ctx, sql, ids, rng.lo, rng.hi, size)
		samples := map[int64]sample{}
		var id int64
		var one sample
		if _, err := pgx.ForEachRow(rows, []any{&id, &one.n, &one.first, &one.last}, func() error {
			one.full = one.n == size
			samples[id] = one
			s.work -= one.n
			s.read += one.n
			return nil
		}); err != nil {
			return fmt.Errorf("sample %d lists: %w", len(ids), err)
		}
		for _, cl := range s.clauses {
			if cl.kind != kind {
				continue
			}
			for i := range cl.lists {
				cl.lists[i].sample = samples[cl.lists[i].id]
			}
		}
	}
	return nil
}

func orderBy(direction keyset.Direction) string {
	if direction == keyset.Forward {
		return "key DESC"
	}
	return "key"
}

type rated struct {
	clause
	rate float64
}
