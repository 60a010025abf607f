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
// keys, and of the keys under a term. Only if one differs is everything read and compared.
//
// Two indexes that agree may both be wrong. So the one that is not being written is also checked
// separately, again by digests: of the lists that its posts require, and of the existing lists.

// errDiffer ends a comparison by digests.
var errDiffer = errors.New("a digest differs")

// digestPosts is the number of posts in one digest.
const digestPosts = 20_000

// digests is a comparison by digests.
type digests struct {
	*verification
	nextPost  event.Key
	afterTerm map[*termKind]string

	// State of the index that is checked separately: its checkpoint, how far its posts and terms
	// were read, and what they require or list.
	alone          *inspection
	seq            int64
	ownPost        event.Key
	ownTerm        map[*termKind]string
	wanted, listed map[*termKind]listing
	seed           maphash.Seed
}

// listing is a digest of rows of post_tags or post_langs: their number, and the sum of a product of
// the hashes of term and key.
type listing struct {
	rows int64
	sum  uint64
}

// compareDigests compares the two indexes of r, posts and lists, by digests. The error is errDiffer
// if these differ, so that everything must be read.
func (r *verification) compareDigests(ctx context.Context) error {
	d := &digests{verification: r, afterTerm: map[*termKind]string{}}
	steps := []check{d.comparePosts, d.compareTerms(byTag), d.compareTerms(byLang), r.compareAccounts, r.compareSyncs}
	for _, x := range r.both() {
		steps = append(steps, x.checkHours, x.checkTotals)
	}
	if err := r.run(ctx, steps); err != nil {
		return err
	}
	// The live index is the one being written.
	alone := &verification{Verifier: &Verifier{options: r.options, slice: r.slice}}
	schema := r.y.schema
	if schema == store.Live {
		schema = r.x.schema
	}
	alone.x = alone.inspect(schema)
	d = &digests{verification: alone, alone: alone.x, ownTerm: map[*termKind]string{},
		wanted: map[*termKind]listing{}, listed: map[*termKind]listing{}, seed: maphash.MakeSeed()}
	if err := alone.run(ctx, []check{d.readPosts, d.readTerms(byTag), d.readTerms(byLang)}); err != nil {
		return err
	}
	for _, by := range []*termKind{byTag, byLang} {
		if d.wanted[by] != d.listed[by] {
			return errDiffer
		}
	}
	return nil
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

// termDigest is a digest of the keys under a term.
type termDigest struct {
	term
	hourly     bool
	said, seen int64
	sum        string
}

// termDigests returns the digests of the next terms by name. The error is errDiffer if a count is
// wrong, or rows belong to no term.
func (x *inspection) termDigests(ctx context.Context, by *termKind, after string) ([]termDigest, error) {
	isHourly := "false"
	if by == byTag {
		isHourly = "t.hourly"
	}
	rows, _ := x.tx.Query(ctx, `
		SELECT t.id, t.name, `+isHourly+`, t.posts, l.rows, l.sum
		  FROM `+x.table(by.terms)+` t,
		       LATERAL (SELECT count(*) AS rows, COALESCE(sum(uuid_hash_extended(l.key, 0)), 0)::text AS sum FROM `+x.table(by.list)+` l WHERE l.`+by.column+` = t.id) AS l
		 WHERE t.name > $1 ORDER BY t.name LIMIT $2`, after, verifyTerms)
	terms, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t termDigest, err error) {
		return t, row.Scan(&t.id, &t.name, &t.hourly, &t.said, &t.seen, &t.sum)
	})
	if err != nil {
		return nil, fmt.Errorf("digest %s: %w", x.table(by.list), err)
	}
	for _, t := range terms {
		if t.said != t.seen {
			return nil, errDiffer
		}
	}
	return terms, nil
}

// strays reports whether rows belong to no term: between the ids of two terms, or beyond all of
// them.
func (x *inspection) strays(ctx context.Context, by *termKind) (strays bool, err error) {
	err = x.tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM (SELECT lag(id, 1, $1) OVER (ORDER BY id) AS before, id FROM `+x.table(by.terms)+`) AS t
		                WHERE EXISTS (SELECT FROM `+x.table(by.list)+` l WHERE l.`+by.column+` > t.before AND l.`+by.column+` < t.id))
		    OR EXISTS (SELECT FROM `+x.table(by.list)+` l WHERE l.`+by.column+` > (SELECT COALESCE(max(id), $1) FROM `+x.table(by.terms)+`))`,
		int64(math.MinInt64)).Scan(&strays)
	if err != nil {
		return false, fmt.Errorf("look for rows of no %s in %s: %w", by.what, x.schema, err)
	}
	return strays, nil
}

// compareTerms compares what is listed under the next terms.
func (d *digests) compareTerms(by *termKind) check {
	return func(ctx context.Context) (done bool, err error) {
		after := d.afterTerm[by]
		upTo, done := "", true
		var pieces [2]map[string]termDigest
		for i, x := range d.both() {
			if after == "" {
				if strays, err := x.strays(ctx, by); err != nil || strays {
					return false, errors.Join(err, errDiffer)
				}
			}
			terms, err := x.termDigests(ctx, by, after)
			if err != nil {
				return false, err
			}
			if n := len(terms); n == verifyTerms {
				if last := terms[n-1].name; done || last < upTo {
					upTo = last
				}
				done = false
			}
			pieces[i] = map[string]termDigest{}
			for _, t := range terms {
				pieces[i][t.name] = t
			}
		}
		for i, x := range d.both() {
			for name, t := range pieces[i] {
				if !done && name > upTo {
					continue // perhaps the other was not read this far
				}
				if t.hourly {
					x.hourly = append(x.hourly, t.term)
				}
				if by == byTag {
					d.step(1)
				}
				if other := pieces[1-i][name]; t.seen != other.seen || t.seen > 0 && t.sum != other.sum {
					return false, errDiffer
				}
			}
		}
		d.afterTerm[by] = upTo
		return done, nil
	}
}

// unchanged checks that the separately checked index has not changed.
func (d *digests) unchanged() error {
	if d.seq == 0 {
		d.seq = d.alone.seq
	}
	if d.seq != d.alone.seq {
		return errDiffer // perhaps only because of changes in between
	}
	return nil
}

// readPosts adds up the list rows that the next range of posts requires, and checks the posts
// themselves.
func (d *digests) readPosts(ctx context.Context) (done bool, err error) {
	if err := d.unchanged(); err != nil {
		return false, err
	}
	rows, _ := d.alone.tx.Query(ctx, `
		SELECT p.key, uuid_hash_extended(p.key, 0), a.state, p.tags, p.langs, p.traits, p.record
		  FROM `+d.alone.table("posts")+` p LEFT JOIN `+d.alone.table("accounts")+` a ON a.id = p.account_id
		 WHERE p.key >= $1 ORDER BY p.key LIMIT $2`, d.ownPost, digestPosts)
	var key event.Key
	var hash int64
	var state *store.State
	var tags, langs []string
	var traits event.Traits
	var record []byte
	n := 0
	if _, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&key), &hash, &state, &tags, &langs, &traits, &record}, func() error {
		n++
		if state == nil || traits != event.TraitsOf(record) && bytes.Compare(key[:], d.alone.traitsFrom[:]) >= 0 {
			return errDiffer
		}
		if *state == store.Active {
			d.want(byTag, tags, hash)
			d.want(byLang, event.LangRanges(langs), hash)
		}
		return nil
	}); err != nil {
		return false, fmt.Errorf("read the posts of %s: %w", d.alone.schema, err)
	}
	d.ownPost = keys.Step(key, +1)
	return n < digestPosts, nil
}

func (d *digests) want(by *termKind, names []string, key int64) {
	w := d.wanted[by]
	for _, name := range names {
		w.rows++
		w.sum += d.weigh(name) * uint64(key)
	}
	d.wanted[by] = w
}

// weigh returns an unpredictable hash of a term.
func (d *digests) weigh(name string) uint64 { return maphash.String(d.seed, name) }

// readTerms adds up the list rows of the next terms.
func (d *digests) readTerms(by *termKind) check {
	return func(ctx context.Context) (done bool, err error) {
		if err := d.unchanged(); err != nil {
			return false, err
		}
		terms, err := d.alone.termDigests(ctx, by, d.ownTerm[by])
		if err != nil {
			return false, err
		}
		l := d.listed[by]
		for _, t := range terms {
			sum, ok := new(big.Int).SetString(t.sum, 10)
			if !ok {
				return false, fmt.Errorf("digest %s: %q is no sum", d.alone.table(by.list), t.sum)
			}
			l.rows += t.seen
			l.sum += d.weigh(t.name) * sum.And(sum, allBits).Uint64()
			d.ownTerm[by] = t.name
		}
		d.listed[by] = l
		return len(terms) < verifyTerms, nil
	}
}

// allBits has all bits of a uint64: two's complement makes a sum fit, even of negative numbers.
var allBits = new(big.Int).SetUint64(math.MaxUint64)
