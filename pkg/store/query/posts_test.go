package query_test

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// spread gives post i the tag tN for each N that divides i, and every second seven posts.
var spread = storetest.Seed{
	Posts: 5000,
	Tags: func(i int) []string {
		tags := []string{"all"}
		for n := 2; n <= 20; n++ {
			if i%n == 0 {
				tags = append(tags, fmt.Sprintf("t%d", n))
			}
		}
		return tags
	},
	Second: func(i int) int { return i / 7 },
}

func spreadTags(k int) []string {
	tags := []string{"all"}
	for n := 2; len(tags) < k; n++ {
		tags = append(tags, fmt.Sprintf("t%d", n))
	}
	return tags[:k]
}

// A walk in either direction sees every post once, in order.
func TestPostsWalk(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	w := storetest.Leader(t, o)
	all := storetest.SeedPosts(t, w, spread)
	r := storetest.Reader(t, o)

	for _, tags := range [][]string{{"all"}, {"t3"}, {"t7", "t13"}, {"t19", "none", "t2", "t5", "t11"}, spreadTags(20)} {
		var want []string
		for _, p := range all {
			if slices.ContainsFunc(tags, func(tag string) bool { return slices.Contains(p.Tags, tag) }) {
				want = append(want, p.Rkey)
			}
		}
		for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
			t.Run(fmt.Sprint(len(tags), direction), func(t *testing.T) {
				require.Equal(t, want, walk(t, r, tags, direction, 97))
			})
		}
	}
}

// walk reads a whole list page by page and returns its record keys, newest first in both
// directions.
func walk(t *testing.T, r *query.Reader, tags []string, direction keyset.Direction, limit int) []string {
	t.Helper()
	q := query.PostQuery{Tags: tags, From: keyset.Start(), Direction: direction, Limit: limit}
	if direction == keyset.Backward {
		q.From = keyset.End()
	}
	var got []string
	for first := true; ; first = false {
		page, err := r.Posts(t.Context(), q)
		require.NoError(t, err)
		var rkeys []string
		for _, p := range page.Rows {
			rkeys = append(rkeys, p.Rkey)
		}
		more, behind := page.HasNext, page.HasPrevious
		if direction == keyset.Forward {
			got = append(got, rkeys...)
			q.From = page.Next
		} else {
			more, behind = behind, more
			got = append(rkeys, got...)
			q.From = page.Previous
		}
		require.Equal(t, !first, behind)
		if !more {
			return got
		}
	}
}

func TestPostsOfAnEmptyList(t *testing.T) {
	t.Parallel()
	r := storetest.Reader(t, storetest.Database(t))
	for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
		page, err := r.Posts(t.Context(), query.PostQuery{Tags: []string{"art"}, From: keyset.Start(), Direction: direction, Limit: 10})
		require.NoError(t, err)
		require.Empty(t, page.Rows)
		require.False(t, page.HasNext)
		require.False(t, page.HasPrevious)
	}
}

// node is a node of a plan as EXPLAIN (FORMAT JSON) prints it.
type node struct {
	Type      string  `json:"Node Type"`
	Relation  string  `json:"Relation Name"`
	Index     string  `json:"Index Name"`
	Rows      float64 `json:"Actual Rows"`
	Loops     float64 `json:"Actual Loops"`
	Filtered  float64 `json:"Rows Removed by Filter"`
	HeapFetch float64 `json:"Heap Fetches"`
	Hit       float64 `json:"Shared Hit Blocks"`
	Read      float64 `json:"Shared Read Blocks"`
	Plans     []node
}

func (n node) each(fn func(node)) {
	fn(n)
	for _, c := range n.Plans {
		c.each(fn)
	}
}

// With the settings of the reader's connections no plan of a tag query has a sort, at any depth.
// The key scan is index-only and reads the page, one row more, one per tag and the overlap of the
// tags.
func TestPostsPlan(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	w := storetest.Leader(t, o)
	all := storetest.SeedPosts(t, w, spread)
	vacuum(t, o)
	r := storetest.Reader(t, o)
	const limit = 50

	for _, k := range []int{1, 2, 5, 20} {
		for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
			for _, depth := range []int{0, 100, 4000} {
				t.Run(fmt.Sprintf("k=%d/%v/depth=%d", k, direction, depth), func(t *testing.T) {
					tags := spreadTags(k)
					pos := keyset.Below(keyset.UUID(all[depth].Key))
					if direction == keyset.Backward {
						pos = keyset.Above(keyset.UUID(all[len(all)-1-depth].Key))
					}
					var statements []query.Statement
					page, err := r.TracePosts(t.Context(), query.PostQuery{Tags: tags, From: pos, Direction: direction, Limit: limit, NamesOnly: depth == 100}, func(s query.Statement) {
						statements = append(statements, s)
					})
					require.NoError(t, err)
					require.Len(t, page.Rows, limit)
					require.Len(t, statements, 1)

					var keyRows, postRows, heap float64
					for _, s := range statements {
						explain(t, r, s).each(func(n node) {
							require.NotContains(t, n.Type, "Sort", "a sort in the plan")
							require.NotContains(t, n.Type, "Seq Scan")
							require.Zero(t, n.Filtered, "rows read and dropped")
							switch n.Relation {
							case "post_tags":
								require.Equal(t, "Index Only Scan", n.Type)
								keyRows += n.Rows * n.Loops
								heap += n.HeapFetch
							case "posts":
								postRows += n.Rows * n.Loops
							}
						})
					}
					require.Equal(t, float64(limit), postRows, "records for the page only")
					require.Greater(t, page.IndexEntries, limit)
					require.LessOrEqual(t, float64(page.IndexEntries), keyRows+float64(k)+1, "the estimate is no more than was read")
					// The overlap: how many further tags of the query each post of the page has.
					overlap := 0.0
					read := all[depth+1 : depth+1+limit+1]
					if direction == keyset.Backward {
						read = all[len(all)-1-depth-limit-1 : len(all)-1-depth]
					}
					for _, p := range read {
						n := 0
						for _, tag := range p.Tags {
							if slices.Contains(tags, tag) {
								n++
							}
						}
						overlap += float64(n - 1)
					}
					require.LessOrEqual(t, keyRows, limit+1+float64(k)+overlap)
					require.Zero(t, heap, "heap fetches after vacuum")
				})
			}
		}
	}
}

// vacuum makes every page all-visible. That can take several attempts: the test server commits
// asynchronously, and a row does not count while its commit is not on disk or another snapshot may
// not see it.
func vacuum(t *testing.T, o store.Options) {
	t.Helper()
	pool := pgtest.Pool(t, o.URL)
	poll.Until(t, 30*time.Second, func() (bool, string) {
		_, err := pool.Exec(t.Context(), "BEGIN; SET LOCAL synchronous_commit = on; SELECT pg_logical_emit_message(true, '', ''); COMMIT")
		require.NoError(t, err)
		require.NoError(t, write.NewOwner(o).Vacuum(t.Context(), store.Live))
		var pages, visible int
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT sum(relpages), sum(relallvisible) FROM pg_class WHERE oid IN ('tagstream.posts'::regclass, 'tagstream.post_tags'::regclass, 'tagstream.post_langs'::regclass)").Scan(&pages, &visible))
		return visible == pages, fmt.Sprintf("%d of %d pages are all-visible", visible, pages)
	})
}

func explain(t *testing.T, r *query.Reader, s query.Statement) node {
	t.Helper()
	out, err := r.Explain(t.Context(), s)
	require.NoError(t, err)
	var plans []struct{ Plan node }
	require.NoError(t, json.Unmarshal(out, &plans))
	if testing.Verbose() {
		t.Log(s.SQL, string(out))
	}
	return plans[0].Plan
}

// A page of very big records is short, and a walk continues after it. Postgres neither reads nor
// sends records that are not on the page.
func TestPostsOfBigRecords(t *testing.T) {
	t.Parallel()
	o := newServer(t)
	w := storetest.Leader(t, o)
	account := &write.Account{DID: "did:plc:author", Seq: 1}
	const posts, recordBytes = 100, 900_000
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	noise := rand.NewChaCha8([32]byte(binary.LittleEndian.AppendUint64(make([]byte, 24), seed)))
	var want []string
	for i := range posts {
		text := make([]byte, recordBytes/2) // incompressible, so that it takes many blocks of the table
		_, _ = noise.Read(text)
		p := &write.Post{
			Key: event.NewKey(storetest.Epoch.Add(-time.Duration(i)*time.Second), fmt.Sprint(i)), Account: account, Rkey: fmt.Sprint("r", i), Rev: "3abcdefghijkl",
			CID: "bafy", Tags: []string{"big"}, IndexedAt: storetest.Epoch, Seq: 1, Record: fmt.Appendf(nil, "%q", hex.EncodeToString(text)),
		}
		c := write.Changes{Posts: []write.PostChange{{New: p, NewVisible: true}}}
		if i == 0 {
			c.Accounts = []*write.Account{account}
		}
		require.NoError(t, w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) { return cp, tx.Write(t.Context(), c) }))
		want = append(want, p.Rkey)
	}
	r, sent := openCounted(t, o)
	const mostBytes = 1<<20 + recordBytes + 64<<10
	for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
		q := query.PostQuery{Tags: []string{"big"}, From: keyset.Start(), Direction: direction, Limit: query.MaxLimit}
		if direction == keyset.Backward {
			q.From = keyset.End()
		}
		var blocks float64
		before := sent()
		page, err := r.TracePosts(t.Context(), q, func(s query.Statement) {
			explain(t, r, s).each(func(n node) { blocks = max(blocks, n.Hit+n.Read) })
		})
		require.NoError(t, err)
		require.Less(t, sent()-before, int64(mostBytes), "bytes that Postgres sends for a page")
		require.Less(t, blocks, 10.0*posts, "blocks read to find the page's end")
		require.Len(t, page.Rows, 2)
		require.Equal(t, query.CutByBytes, page.Cut)
		require.Equal(t, direction == keyset.Forward, page.HasNext)
		require.Equal(t, direction == keyset.Backward, page.HasPrevious)
		require.Equal(t, want, walk(t, r, []string{"big"}, direction, 50))
	}
	names := query.PostQuery{Tags: []string{"big"}, From: keyset.Start(), Limit: query.MaxLimit, NamesOnly: true}
	filtered := names
	filtered.NotAuthors = []string{"did:plc:other"}
	for _, q := range []query.PostQuery{names, filtered} {
		before := sent()
		page, err := r.Posts(t.Context(), q)
		require.NoError(t, err)
		require.Less(t, sent()-before, int64(64<<10), "bytes that Postgres sends for a page of names")
		require.Len(t, page.Rows, posts)
		for i, p := range page.Rows {
			require.Equal(t, query.PostRow{Key: p.Key, DID: account.DID, Rkey: want[i], Tags: []string{}, Langs: []string{}, IndexedAt: storetest.Epoch, Record: []byte{}}, p)
		}
	}
	before := sent()
	_, err := r.Post(t.Context(), account.DID, "r0")
	require.NoError(t, err)
	require.Less(t, sent()-before, int64(recordBytes+64<<10), "one post")
	before = sent()
	_, err = r.TagHistory(t.Context(), "big")
	require.NoError(t, err)
	_, err = r.Tags(t.Context(), query.TagQuery{From: keyset.Start(), Limit: query.MaxLimit})
	require.NoError(t, err)
	_, err = r.TagsWithPrefix(t.Context(), "b")
	require.NoError(t, err)
	_, err = r.Status(t.Context())
	require.NoError(t, err)
	require.Less(t, sent()-before, int64(64<<10), "answers without records")
}

// Tags count towards the size of a page as records do: normalized tags can be longer than the
// record they are from.
func TestPostsOfBigTags(t *testing.T) {
	t.Parallel()
	o := newServer(t)
	long := strings.Repeat("\u0635", event.MaxTagBytes/2-2)
	storetest.SeedPosts(t, storetest.Leader(t, o), storetest.Seed{Posts: 100, Second: func(i int) int { return i }, Tags: func(int) []string {
		tags := []string{"big"}
		for i := range event.MaxTagsPerPost - 1 {
			tags = append(tags, fmt.Sprint(long, i))
		}
		return tags
	}})
	r, sent := openCounted(t, o)
	before := sent()
	page, err := r.Posts(t.Context(), query.PostQuery{Tags: []string{"big"}, From: keyset.Start(), Limit: query.MaxLimit})
	require.NoError(t, err)
	require.Less(t, sent()-before, int64(2<<20), "bytes that Postgres sends for a page")
	require.Equal(t, query.CutByBytes, page.Cut)
	require.Greater(t, len(page.Rows), 15)
	require.Len(t, walk(t, r, []string{"big"}, keyset.Backward, query.MaxLimit), 100)
}

// newServer returns a migrated database on a new server that is reached by TCP.
func newServer(t *testing.T) store.Options {
	t.Helper()
	o := store.Options{URL: pgtest.Server(t).URL}
	require.NoError(t, store.Migrate(t.Context(), o, storetest.Quiet))
	return o
}

// openCounted returns a reader; sent returns how many bytes Postgres has sent to it.
func openCounted(t *testing.T, o store.Options) (r *query.Reader, sent func() int64) {
	t.Helper()
	u, err := url.Parse(o.URL)
	require.NoError(t, err)
	proxy := fault.New(t, fault.Raw, u.Host, &fault.Log{})
	u.Host = proxy.Addr()
	return storetest.Reader(t, store.Options{URL: u.String()}), proxy.Sent
}

// A page is in order whatever the table statistics are. If they are from nearly empty tables, as in
// a rebuilt index that was vacuumed early, the planner prefers to begin with the accounts.
func TestPostsOrderOfSmallTables(t *testing.T) {
	t.Parallel()
	for _, analyzed := range []int{0, 1, 2, 5, 30} {
		t.Run(fmt.Sprintf("analyzed at %d posts", analyzed), func(t *testing.T) {
			t.Parallel()
			o := storetest.Database(t)
			w := storetest.Leader(t, o)
			var accounts []*write.Account
			var want []string
			for i := range 30 {
				if i == analyzed {
					require.NoError(t, write.NewOwner(o).Vacuum(t.Context(), store.Live))
				}
				var c write.Changes
				if len(accounts) < 5 {
					accounts = append(accounts, &write.Account{DID: fmt.Sprint("did:plc:author", i), Seq: 1})
					c.Accounts = accounts[i:]
				}
				p := &write.Post{
					Key: event.NewKey(storetest.Epoch.Add(-time.Duration(i)*time.Second), fmt.Sprint(i)), Account: accounts[i*7%len(accounts)], Rkey: fmt.Sprint("r", i),
					Rev: "3abcdefghijkl", CID: "bafy", Tags: []string{"few"}, IndexedAt: storetest.Epoch, Seq: 1, Record: []byte(`{}`),
				}
				c.Posts = []write.PostChange{{New: p, NewVisible: true}}
				want = append(want, p.Rkey)
				require.NoError(t, w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) { return cp, tx.Write(t.Context(), c) }))
			}
			r := storetest.Reader(t, o)
			for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
				for _, limit := range []int{3, 30, 50} {
					require.Equal(t, want, walk(t, r, []string{"few"}, direction, limit))
				}
			}
			_, err := r.Posts(t.Context(), query.PostQuery{Tags: []string{"few"}, MaxTags: 1, From: keyset.Start(), Limit: 30}) // not a plain page
			require.NoError(t, err)
		})
	}
}

// TestQuoted: quoted posts are found if a list could show them, with one look-up for each.
func TestQuoted(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	pool := pgtest.Pool(t, o.URL)
	r := storetest.Reader(t, o)
	names := func(rkey string, last int) (all []query.PostName) {
		for i := range last {
			all = append(all, query.PostName{DID: fmt.Sprint("did:plc:", i+1), Rkey: rkey})
		}
		return all
	}
	found, err := r.Quoted(t.Context(), names("r1", 3)) // keeps a plan from an empty database, which must also suit a full one
	require.NoError(t, err)
	require.Empty(t, found)
	_, err = pool.Exec(t.Context(), `
		INSERT INTO tagstream.accounts (did, seq, state, handle) SELECT 'did:plc:' || i, 1, CASE i WHEN 2 THEN 1 ELSE 0 END, 'h' || i FROM generate_series(1, 100) AS i;
		INSERT INTO tagstream.posts (key, account_id, rkey, rev, cid, tags, langs, indexed_at, seq, record)
		SELECT (lpad(to_hex(1000000000000 + i), 16, '0') || repeat('0', 16))::uuid, 1 + i % 100, 'r' || i / 100, '3b', 'bafy',
		       CASE i % 100 WHEN 4 THEN '{bad}'::text[] WHEN 5 THEN '{bad,art}' ELSE '{art}' END, '{en}', now(), i,
		       CASE i % 100 WHEN 6 THEN json_build_object('text', repeat('x', 40000)) ELSE json_build_object('text', i) END FROM generate_series(0, 39999) AS i;
		INSERT INTO tagstream.denied_tags VALUES ('bad');
		INSERT INTO tagstream.sweeps (account_id, hidden, gone_below) VALUES (3, true, ''), (4, false, '3c'), (8, false, '3a')`)
	require.NoError(t, err)
	vacuum(t, o)
	found, err = r.Quoted(t.Context(), append(names("r7", 8), names("r9999", 3)...))
	require.NoError(t, err)
	var got []string
	for _, p := range found {
		require.JSONEq(t, fmt.Sprintf(`{"text":%d}`, p.Key.SortAt().UnixMicro()-1000000000000), string(p.Record))
		got = append(got, p.DID+" "+p.Handle)
	}
	// 2 is hidden, 3 and 4 are swept, 5 has only a denied tag, 7 is huge.
	require.ElementsMatch(t, []string{"did:plc:1 h1", "did:plc:6 h6", "did:plc:8 h8"}, got)

	dids, rkeys := []string{}, []string{}
	for _, n := range names("r7", 25) {
		dids, rkeys = append(dids, n.DID), append(rkeys, n.Rkey)
	}
	plan := planOf(t, r, query.QuotedQuery, dids, rkeys, 1<<20)
	require.LessOrEqual(t, plan.byTable["posts"], 25.0)
	require.LessOrEqual(t, plan.byTable["accounts"], 25.0)
}
