package query

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/keyset"
)

// maxSwept is the most swept accounts that are read alongside a list.
const maxSwept = 20

// sweptAccount is an account that is being swept: its posts with a revision below goneBelow are
// invisible.
type sweptAccount struct {
	id        int64
	goneBelow string
}

// sweptBelow is the revision below which a sweep w hides posts. No revision is above "~".
const sweptBelow = "CASE WHEN w.hidden THEN '~' ELSE w.gone_below END"

// sweptQuery selects up to $3 of the swept accounts, as rows of lookUpLists.
const sweptQuery = "SELECT 'swept', " + sweptBelow + ", w.account_id, 0 FROM sweeps w ORDER BY w.account_id LIMIT $3"

// nearestSwept selects, if too many accounts are swept to read them all alongside a list, those
// whose posts come first in the range.
func (c *conjunction) nearestSwept(ctx context.Context, conn *pgx.Conn, rng keyRange, direction keyset.Direction) error {
	if c.sweptAll || rng.empty() {
		return nil
	}
	order := orderBy(direction)
	rows, _ := conn.Query(ctx, `
		SELECT w.account_id, `+sweptBelow+` FROM sweeps w, LATERAL (`+postsOf("key", "w.account_id", "$1", "$2", "1", direction)+`) AS next
		 ORDER BY next.`+order+` LIMIT $3`, rng.lo, rng.hi, maxSwept)
	c.swept = c.swept[:0]
	var w sweptAccount
	if _, err := pgx.ForEachRow(rows, []any{&w.id, &w.goneBelow}, func() error {
		c.swept = append(c.swept, w)
		return nil
	}); err != nil {
		return fmt.Errorf("look for swept accounts: %w", err)
	}
	return nil
}

// postsOf selects an account's posts in a range, in order.
func postsOf(columns, account, lo, hi, limit string, direction keyset.Direction) string {
	return "SELECT " + columns + " FROM posts WHERE account_id = " + account + " AND key BETWEEN " + lo + " AND " + hi + " ORDER BY " + orderBy(direction) + " LIMIT " + limit
}

// sampleSwept returns the number of posts of the swept accounts, with any tags, per microsecond at
// the start of the range.
func (s *search) sampleSwept(ctx context.Context, rng keyRange, size int) (float64, error) {
	cl := clause{}
	ids := make([]int64, len(s.swept))
	for i, w := range s.swept {
		ids[i] = w.id
	}
	rows, _ := s.query(ctx, `
		SELECT n, keys[1], keys[n]
		  FROM unnest($1::bigint[]) AS i(id),
		       LATERAL (SELECT count(*)::int AS n, array_agg(key) AS keys
		                  FROM (`+postsOf("key", "i.id", "$2", "$3", "$4", s.direction)+`) AS l) AS s
		 WHERE n > 0`, ids, rng.lo, rng.hi, size)
	var one sample
	if _, err := pgx.ForEachRow(rows, []any{&one.n, &one.first, &one.last}, func() error {
		one.full = one.n == size
		cl.lists = append(cl.lists, list{sample: one})
		s.work -= one.n
		s.read += one.n
		return nil
	}); err != nil {
		return 0, fmt.Errorf("sample %d accounts: %w", len(ids), err)
	}
	return cl.rate(rng, s.direction), nil
}

// besideSwept selects the posts of a clause and of swept accounts in order, and which of them are
// visible and in the clause. A full join reads both in order, see segmentQuery.
func (b *builder) besideSwept(cl clause, swept []sweptAccount) string {
	branches := make([]string, padded(len(swept)))
	for i := range branches {
		var id, goneBelow any
		if i < len(swept) {
			id, goneBelow = swept[i].id, swept[i].goneBelow
		}
		branches[i] = postsOf("key, rev < "+b.arg(goneBelow)+"::text AS gone", b.arg(id), "$2", "$3", "$1", b.direction)
	}
	hidden := branches[0]
	if len(branches) > 1 {
		hidden = "SELECT key, gone FROM ((" + strings.Join(branches, ") UNION ALL (") + ")) AS branches ORDER BY " + orderBy(b.direction) + " LIMIT $1"
	}
	return "SELECT key, hit, n, count(*) FILTER (WHERE hit) OVER (ROWS UNBOUNDED PRECEDING) AS seen FROM (" +
		"SELECT coalesce(a.key, b.key) AS key, a.key IS NOT NULL AND NOT coalesce(b.gone, false) AS hit, row_number() OVER () AS n" +
		" FROM (" + b.stream(cl) + ") AS a FULL JOIN (" + hidden + ") AS b ON a.key = b.key) AS beside"
}
