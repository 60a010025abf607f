package query_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// TestQueriesWhileSweeping: whichever accounts are swept, every query returns the visible posts
// among those of the oracle.
func TestQueriesWhileSweeping(t *testing.T) {
	t.Parallel()
	for _, sweeps := range []int{1, 4, 25} { // 25 is more than are read alongside a list
		t.Run(fmt.Sprint(sweeps), func(t *testing.T) {
			t.Parallel()
			o := storetest.Database(t)
			all := storetest.SeedPosts(t, storetest.Leader(t, o), mixed)
			pool := pgtest.Pool(t, o.URL)
			_, err := pool.Exec(t.Context(), `
				INSERT INTO tagstream.accounts (did, seq) SELECT 'did:plc:' || i, 1 FROM generate_series(1, 39) AS i;
				UPDATE tagstream.posts SET account_id = 1 + (hashtext(rkey) & 31), rev = '3' || chr(97 + (hashtext(rkey || 'x') & 15));
				INSERT INTO tagstream.sweeps (account_id, hidden, gone_below)
				SELECT id, id % 3 = 0, CASE WHEN id % 3 < 2 THEN '3h' ELSE '3zzz' END FROM tagstream.accounts WHERE id <= 32 ORDER BY hashtext(id::text) LIMIT `+fmt.Sprint(sweeps))
			require.NoError(t, err)
			rows, err := pool.Query(t.Context(), `SELECT rkey FROM tagstream.posts p JOIN tagstream.sweeps w USING (account_id) WHERE w.hidden OR p.rev < w.gone_below`)
			require.NoError(t, err)
			hidden := map[string]bool{}
			var rkey string
			_, err = pgx.ForEachRow(rows, []any{&rkey}, func() error {
				hidden[rkey] = true
				return nil
			})
			require.NoError(t, err)
			require.NotEmpty(t, hidden)
			rows, err = pool.Query(t.Context(), `SELECT p.rkey, a.did FROM tagstream.posts p JOIN tagstream.accounts a ON a.id = p.account_id`)
			require.NoError(t, err)
			dids := map[string]string{}
			var did string
			_, err = pgx.ForEachRow(rows, []any{&rkey, &did}, func() error {
				dids[rkey] = did
				return nil
			})
			require.NoError(t, err)
			for _, p := range all {
				p.Account = &write.Account{DID: dids[p.Rkey]}
			}
			r := storetest.Reader(t, o)
			for seed := range uint64(25) {
				rng := rand.New(rand.NewPCG(seed, 7))
				q := randomQuery(rng)
				if len(q.Tags) > 0 && seed%2 == 0 { // a query that is plain without sweeps
					q = query.PostQuery{Tags: q.Tags, Since: q.Since, Until: q.Until}
				}
				var want []*write.Post
				for _, p := range oracle(all, q) {
					if !hidden[p.Rkey] {
						want = append(want, p)
					}
				}
				agree(t, r, rng, q, all, want)
			}
		})
	}
}

// Invariant: during a sweep pages stay full even if the account has a tag's newest 40,000 posts,
// and read a bounded number of index entries and only the posts of the page. See also
// TestQueriesWhileSweeping.
func TestPageOfASweptHead(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	pool := pgtest.Pool(t, o.URL)
	const swept = 40_000
	_, err := pool.Exec(t.Context(), `
		INSERT INTO tagstream.accounts (did, seq) SELECT 'did:plc:' || i, 1 FROM generate_series(1, 3) AS i;
		INSERT INTO tagstream.tags (name, posts) VALUES ('art', 40200), ('photo', 40200), ('none', 1);
		INSERT INTO tagstream.langs (name, posts) VALUES ('en', 40200);
		INSERT INTO tagstream.posts (key, account_id, rkey, rev, cid, tags, langs, indexed_at, seq, record)
		SELECT (lpad(to_hex(1000000000000 + i), 16, '0') || repeat('0', 16))::uuid, CASE WHEN i <= 200 THEN 1 + i % 2 ELSE 3 END,
		       'r' || i, '3b', 'bafy', '{art,photo}', '{en}', now(), i, '{}' FROM generate_series(1, 40200) AS i;
		INSERT INTO tagstream.post_tags SELECT tag, key FROM tagstream.posts, generate_series(1, 2) AS tag;
		INSERT INTO tagstream.post_langs SELECT 1, key FROM tagstream.posts`)
	require.NoError(t, err)
	vacuum(t, o)
	r := storetest.Reader(t, o)
	for name, sweep := range map[string]string{"hidden": "true, ''", "a #sync": "false, '3c'"} {
		_, err := pool.Exec(t.Context(), `DELETE FROM tagstream.sweeps; INSERT INTO tagstream.sweeps (account_id, hidden, gone_below) VALUES (3, `+sweep+`)`)
		require.NoError(t, err)
		for what, q := range map[string]query.PostQuery{
			"one":  {Tags: []string{"art"}},
			"any":  {Tags: []string{"art", "photo"}},
			"all":  {All: []string{"art", "photo"}},
			"none": {Tags: []string{"art"}, None: []string{"none"}},
			"lang": {Tags: []string{"art"}, Langs: []string{"en"}},
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				q.From, q.Limit = keyset.Start(), 50
				entries, posts := 0.0, 0.0
				page, err := r.TracePosts(t.Context(), q, func(s query.Statement) {
					explain(t, r, s).each(func(n node) {
						require.NotContains(t, n.Type, "Sort", "in the plan of %s", s.SQL)
						switch {
						case n.Relation == "sweeps": // always few
						case n.Type == "Index Only Scan":
							entries += n.Rows * n.Loops
							require.Zero(t, n.HeapFetch, n.Relation)
						case n.Relation == "posts":
							posts += n.Rows * n.Loops
						}
					})
				})
				require.NoError(t, err)
				require.Len(t, page.Rows, 50)
				require.Equal(t, "r200", page.Rows[0].Rkey)
				require.True(t, page.HasNext)
				require.False(t, page.HasPrevious)
				require.Empty(t, page.Cut)
				require.Equal(t, 50.0, posts, "records of the page only")
				require.Less(t, entries, 3.6*swept, "each list once, and samples")
				require.LessOrEqual(t, page.IndexEntries, 120_000)
				t.Log(entries, page.IndexEntries)
			})
		}
	}
}
