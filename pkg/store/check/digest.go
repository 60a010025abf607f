package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"math/big"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/keys"
)

// Two indexes are compared by digests first, which Postgres computes: of the posts in a range of
// keys, and of the keys in a list. Only if one differs is everything read and compared.
//
// Two indexes that agree may both be wrong. So the one that is not being written is also checked
// separately, again by digests: of the list rows that its posts require, and of those that exist.

// errDiffer ends a comparison by digests.
var errDiffer = errors.New("a digest differs")

// digestPosts is the number of posts in one digest.
const digestPosts = 20_000

// compareDigests compares the two indexes of r, posts and lists, by digests. The error is errDiffer
// if these differ, so that everything must be read.
func (r *verification) compareDigests(ctx context.Context) error {
	d := &digests{verification: r, afterList: map[*listKind]string{}}
	steps := []check{d.comparePosts, d.compareLists(byTag), d.compareLists(byLang), r.compareAccounts, r.compareSyncs}
	for _, x := range r.both() {
		steps = append(steps, x.checkHours, x.checkTotals)
	}
	if err := r.run(ctx, steps); err != nil {
		return err
	}
	// The live index is the one being written.
	schema := r.y.schema
	if schema == store.Live {
		schema = r.x.schema
	}
	return r.checkAlone(ctx, schema)
}

// digests compares two indexes by digests.
type digests struct {
	*verification
	// afterList is how far the lists of each kind have been compared.
	afterList map[*listKind]string
}

// comparePosts compares the next range of posts.
func (d *digests) comparePosts(ctx context.Context) (done bool, err error) {
	upTo, done := keys.Last, true
	for _, x := range d.both() {
		last, more, err := x.lastOf(ctx, d.nextPost)
		if err != nil {
			return false, err
		}
		if more && bytes.Compare(last[:], upTo[:]) < 0 {
			upTo = last
		}
		done = done && !more
	}
	var rows, digest [2]int64
	for i, x := range d.both() {
		if err := x.tx.QueryRow(ctx, `
			SELECT count(*), COALESCE(bit_xor(hash_record_extended(ROW(p.key, a.did, p.rkey, a.state = 0, p.rev, p.cid, p.tags, p.langs, p.indexed_at, p.traits, p.record), 0)), 0)
			  FROM `+x.table("posts")+` p LEFT JOIN `+x.table("accounts")+` a ON a.id = p.account_id
			 WHERE p.key >= $1 AND p.key <= $2`, d.nextPost, upTo).Scan(&rows[i], &digest[i]); err != nil {
			return false, fmt.Errorf("digest the posts of %s: %w", x.schema, err)
		}
		d.step(int(rows[i]))
	}
	if rows[0] != rows[1] || digest[0] != digest[1] {
		return false, errDiffer
	}
	d.nextPost = keys.Step(upTo, +1)
	return done, nil
}

// lastOf returns the last key of the posts in one digest; more is false if it has fewer.
func (x *inspection) lastOf(ctx context.Context, from event.Key) (last event.Key, more bool, err error) {
	err = x.tx.QueryRow(ctx, `SELECT key FROM `+x.table("posts")+` WHERE key >= $1 ORDER BY key OFFSET $2 LIMIT 1`, from, digestPosts-1).Scan((*[16]byte)(&last))
	if errors.Is(err, pgx.ErrNoRows) {
		return last, false, nil
	}
	if err != nil {
		err = fmt.Errorf("read the posts of %s: %w", x.schema, err)
	}
	return last, true, err
}

// listDigest is a digest of the keys in a list.
type listDigest struct {
	list
	hourly     bool
	said, seen int64
	sum        string
}

// listDigests returns the digests of the next lists by name. The error is errDiffer if a count is
// wrong.
func (x *inspection) listDigests(ctx context.Context, by *listKind, after string) ([]listDigest, error) {
	isHourly := "false"
	if by == byTag {
		isHourly = "t.hourly"
	}
	rows, _ := x.tx.Query(ctx, `
		SELECT t.id, t.name, `+isHourly+`, t.posts, l.rows, l.sum
		  FROM `+x.table(by.table)+` t,
		       LATERAL (SELECT count(*) AS rows, COALESCE(sum(uuid_hash_extended(l.key, 0)), 0)::text AS sum FROM `+x.table(by.rows)+` l WHERE l.`+by.column+` = t.id) AS l
		 WHERE t.name > $1 ORDER BY t.name LIMIT $2`, after, verifyLists)
	lists, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t listDigest, err error) {
		return t, row.Scan(&t.id, &t.name, &t.hourly, &t.said, &t.seen, &t.sum)
	})
	if err != nil {
		return nil, fmt.Errorf("digest %s: %w", x.table(by.rows), err)
	}
	for _, t := range lists {
		if t.said != t.seen {
			return nil, errDiffer
		}
	}
	return lists, nil
}

// strays reports whether rows belong to no list: between the ids of two lists, or beyond all of
// them.
func (x *inspection) strays(ctx context.Context, by *listKind) (strays bool, err error) {
	err = x.tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM (SELECT lag(id, 1, $1) OVER (ORDER BY id) AS before, id FROM `+x.table(by.table)+`) AS t
		                WHERE EXISTS (SELECT FROM `+x.table(by.rows)+` l WHERE l.`+by.column+` > t.before AND l.`+by.column+` < t.id))
		    OR EXISTS (SELECT FROM `+x.table(by.rows)+` l WHERE l.`+by.column+` > (SELECT COALESCE(max(id), $1) FROM `+x.table(by.table)+`))`,
		int64(math.MinInt64)).Scan(&strays)
	if err != nil {
		return false, fmt.Errorf("look for rows of no %s in %s: %w", by.what, x.schema, err)
	}
	return strays, nil
}

// compareLists compares the next lists.
func (d *digests) compareLists(by *listKind) check {
	return func(ctx context.Context) (done bool, err error) {
		after := d.afterList[by]
		upTo, done := "", true
		var pieces [2]map[string]listDigest
		for i, x := range d.both() {
			if after == "" {
				if strays, err := x.strays(ctx, by); err != nil || strays {
					return false, errors.Join(err, errDiffer)
				}
			}
			lists, err := x.listDigests(ctx, by, after)
			if err != nil {
				return false, err
			}
			if n := len(lists); n == verifyLists {
				if last := lists[n-1].name; done || last < upTo {
					upTo = last
				}
				done = false
			}
			pieces[i] = map[string]listDigest{}
			for _, t := range lists {
				pieces[i][t.name] = t
			}
		}
		for i, x := range d.both() {
			for name, t := range pieces[i] {
				if !done && name > upTo {
					continue // perhaps the other was not read this far
				}
				if t.hourly {
					x.hourly = append(x.hourly, t.list)
				}
				if by == byTag {
					d.step(1)
				}
				if other := pieces[1-i][name]; t.seen != other.seen || t.seen > 0 && t.sum != other.sum {
					return false, errDiffer
				}
			}
		}
		d.afterList[by] = upTo
		return done, nil
	}
}

// checkAlone checks by digests that the lists of an index have the rows that its posts require. The
// error is errDiffer if they do not.
func (r *verification) checkAlone(ctx context.Context, schema string) error {
	c := &aloneCheck{verification: &verification{Verifier: &Verifier{options: r.options, slice: r.slice}},
		wanted: map[*listKind]rowDigest{}, listed: map[*listKind]rowDigest{}, seed: maphash.MakeSeed()}
	c.x = c.inspect(schema)
	if err := c.run(ctx, []check{c.readPosts, c.readLists(byTag), c.readLists(byLang)}); err != nil {
		return err
	}
	for _, by := range listKinds {
		if c.wanted[by] != c.listed[by] {
			return errDiffer
		}
	}
	return nil
}

// aloneCheck checks one index, x, by digests.
type aloneCheck struct {
	*verification
	seq            int64 // x's checkpoint at the beginning
	wanted, listed map[*listKind]rowDigest
	seed           maphash.Seed
}

// rowDigest is a digest of list rows: their number, and the sum of a product of the hashes of the
// list's name and the key.
type rowDigest struct {
	rows int64
	sum  uint64
}

// unchanged checks that the index has not changed.
func (c *aloneCheck) unchanged() error {
	if c.seq == 0 {
		c.seq = c.x.seq
	}
	if c.seq != c.x.seq {
		return errDiffer // perhaps only because of changes in between
	}
	return nil
}

// readPosts adds up the list rows that the next range of posts requires, and checks the posts
// themselves.
func (c *aloneCheck) readPosts(ctx context.Context) (done bool, err error) {
	if err := c.unchanged(); err != nil {
		return false, err
	}
	rows, _ := c.x.tx.Query(ctx, `
		SELECT p.key, uuid_hash_extended(p.key, 0), a.state, p.tags, p.langs, p.traits, p.record
		  FROM `+c.x.table("posts")+` p LEFT JOIN `+c.x.table("accounts")+` a ON a.id = p.account_id
		 WHERE p.key >= $1 ORDER BY p.key LIMIT $2`, c.nextPost, digestPosts)
	var key event.Key
	var hash int64
	var state *store.State
	var tags, langs []string
	var traits event.Traits
	var record []byte
	n := 0
	if _, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&key), &hash, &state, &tags, &langs, &traits, &record}, func() error {
		n++
		if state == nil || traits != event.TraitsOf(record) && bytes.Compare(key[:], c.x.traitsFrom[:]) >= 0 {
			return errDiffer
		}
		if *state == store.Active {
			c.want(byTag, tags, hash)
			c.want(byLang, event.LangRanges(langs), hash)
		}
		return nil
	}); err != nil {
		return false, fmt.Errorf("read the posts of %s: %w", c.x.schema, err)
	}
	c.nextPost = keys.Step(key, +1)
	return n < digestPosts, nil
}

func (c *aloneCheck) want(by *listKind, names []string, key int64) {
	w := c.wanted[by]
	for _, name := range names {
		w.rows++
		w.sum += c.weigh(name) * uint64(key)
	}
	c.wanted[by] = w
}

// weigh returns an unpredictable hash of a list's name.
func (c *aloneCheck) weigh(name string) uint64 { return maphash.String(c.seed, name) }

// readLists adds up the rows of the next lists.
func (c *aloneCheck) readLists(by *listKind) check {
	return func(ctx context.Context) (done bool, err error) {
		if err := c.unchanged(); err != nil {
			return false, err
		}
		lists, err := c.x.listDigests(ctx, by, c.x.afterList[by])
		if err != nil {
			return false, err
		}
		l := c.listed[by]
		for _, t := range lists {
			sum, ok := new(big.Int).SetString(t.sum, 10)
			if !ok {
				return false, fmt.Errorf("digest %s: %q is no sum", c.x.table(by.rows), t.sum)
			}
			l.rows += t.seen
			l.sum += c.weigh(t.name) * sum.And(sum, allBits).Uint64()
			c.x.afterList[by] = t.name
		}
		c.listed[by] = l
		return len(lists) < verifyLists, nil
	}
}

// allBits has all bits of a uint64: two's complement makes a sum fit, even of negative numbers.
var allBits = new(big.Int).SetUint64(math.MaxUint64)
