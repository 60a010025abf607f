package check_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/check"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// twoIndexes makes the same index twice, live and rebuilt, with different ids.
func twoIndexes(t *testing.T) (store.Options, func(sql string)) {
	t.Helper()
	o := storetest.Database(t)
	live, rebuilt := storetest.Leader(t, o), storetest.Rebuilding(t, o)
	// The ids of the rebuilt index start higher.
	pool := pgtest.Pool(t, o.URL)
	exec := func(sql string) {
		t.Helper()
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	exec(`SELECT nextval(pg_get_serial_sequence('tagstream_rebuild.' || t, 'id')) FROM unnest(ARRAY['tags', 'langs', 'accounts']) AS t, generate_series(1, 7)`)
	few := storetest.Seed{
		Posts: 2500, // more than one piece
		Tags: func(i int) []string {
			if i%5 == 0 {
				return []string{"all", "fifth"}
			}
			return []string{"all"}
		},
		Langs:  func(i int) []string { return [][]string{nil, {"en-US"}, {"pt"}}[i%3] },
		Second: func(i int) int { return i * 17 },
	}
	storetest.SeedPosts(t, live, few)
	storetest.SeedPosts(t, rebuilt, few)
	for _, w := range []*write.Writer{live, rebuilt} {
		require.NoError(t, storetest.Add(t, w, "did:plc:hidden", "secret", 2501))
	}
	for _, schema := range []string{store.Live, store.Rebuilding} {
		exec(`UPDATE ` + schema + `.checkpoint SET source_time = '2026-11-01T12:34:56Z'`)
		hide(exec, schema)
	}
	return o, exec
}

// hide hides the second account as the writer does.
func hide(exec func(string), schema string) {
	exec(fmt.Sprintf(`
		UPDATE %[1]s.accounts SET state = 1 WHERE did = 'did:plc:hidden';
		DELETE FROM %[1]s.post_tags WHERE tag_id = (SELECT id FROM %[1]s.tags WHERE name = 'secret');
		UPDATE %[1]s.tags SET posts = 0 WHERE name = 'secret';
		UPDATE %[1]s.checkpoint SET visible_posts = visible_posts - 1, tags = tags - 1`, schema))
}

func TestVerifyEqual(t *testing.T) {
	t.Parallel()
	o, _ := twoIndexes(t)
	v := check.New(o)
	var done, total uint64
	v.Progress = func(d, all uint64) {
		require.GreaterOrEqual(t, d, done)
		require.LessOrEqual(t, d, all)
		done, total = d, all
	}
	f, err := v.Compare(t.Context(), store.Live, store.Rebuilding, nil)
	require.NoError(t, err)
	require.Equal(t, check.Findings{}, f)
	require.Equal(t, "nothing is wrong", f.String())
	require.Equal(t, uint64(2*(2501+3)), done, "of %d", total)
	v.Progress = nil
	f, err = v.Check(t.Context(), store.Live)
	require.NoError(t, err)
	require.Equal(t, check.Findings{}, f)
	_, err = v.Check(t.Context(), store.Retired)
	require.ErrorIs(t, err, store.ErrNotMigrated)
}

// Each case plants one fault and checks its finding.
//
// Invariant: verify finds every difference between two indexes, and every contradiction within
// one, that a reader could see. See also TestVerifyWhileIndexing.
func TestVerifyFinds(t *testing.T) {
	t.Parallel()
	const uri = "at://did:plc:author/app.bsky.feed.post/rkey000005"
	const one = "UPDATE tagstream_rebuild.posts SET %s WHERE rkey = 'rkey000005'"
	const moved = "SET key = overlay(key::text PLACING 'ffffffff' FROM 29)::uuid WHERE key = (SELECT key FROM tagstream.posts WHERE rkey = 'rkey000005')"
	both := func(sql string) string {
		return fmt.Sprintf(sql, store.Live) + ";" + fmt.Sprintf(sql, store.Rebuilding)
	}
	for name, c := range map[string]struct {
		sql, want string
		n         int // how many findings
	}{
		"revision":                 {fmt.Sprintf(one, "rev = '3zzzzzzzzzzzz'"), "post " + uri + " differs in its revision: 3abcdefghijkl in tagstream, 3zzzzzzzzzzzz in tagstream_rebuild", 1},
		"cid":                      {fmt.Sprintf(one, "cid = 'x'"), "in its CID: bafy in tagstream, x", 1},
		"record":                   {fmt.Sprintf(one, "record = '{}'"), "in its digest of the record", 1},
		"traits":                   {fmt.Sprintf(one, "traits = 3"), "post " + uri + " has the traits 3, and its record 0 in tagstream_rebuild", 1},
		"traits not filled in yet": {fmt.Sprintf(one, "traits = 3") + "; UPDATE tagstream_rebuild.checkpoint SET traits_below = 'ffffffff-ffff-ffff-ffff-ffffffffffff'", "", 0},
		"indexed":                  {fmt.Sprintf(one, "indexed_at = indexed_at + interval '1 microsecond'"), "in its time of indexing: 2026-11-01T00:00:00Z in tagstream, 2026-11-01T00:00:00.000001Z", 1},
		"order of tags":            {fmt.Sprintf(one, "tags = ARRAY['fifth', 'all']"), "in its tags: [all fifth] in tagstream, [fifth all]", 1},
		"sequence":                 {fmt.Sprintf(one, "seq = 999"), "", 0},
		"langs":                    {fmt.Sprintf(one, "langs = ARRAY['PT']"), "in its languages: [pt] in tagstream, [PT] in tagstream_rebuild", 1},
		"tag":                      {fmt.Sprintf(one, "tags = tags || '{x}'"), "post " + uri + " is visible but not listed under tag \"x\" in tagstream_rebuild", 2},
		"missing":                  {"DELETE FROM tagstream_rebuild.posts WHERE rkey = 'rkey000005'", "post " + uri + " is in tagstream and not in tagstream_rebuild", 6},
		"surplus":                  {"DELETE FROM tagstream.posts WHERE rkey = 'rkey000005'", "post " + uri + " is in tagstream_rebuild and not in tagstream", 6},
		"key": {"UPDATE tagstream_rebuild.post_tags " + moved + "; UPDATE tagstream_rebuild.post_langs " + moved + "; UPDATE tagstream_rebuild.posts " + moved,
			"post " + uri + " is sorted at 2026-11-01T00:01:25Z (key ", 2},
		"hidden account": {"UPDATE tagstream_rebuild.accounts SET state = 2 WHERE did = 'did:plc:hidden'", "account did:plc:hidden is hidden in tagstream and deleted in tagstream_rebuild", 1},
		"status": {"UPDATE tagstream_rebuild.accounts SET state_host = 'h', state_host_seq = 2; UPDATE tagstream.accounts SET state_host = 'h', state_host_seq = 1 WHERE did = 'did:plc:hidden'",
			"account did:plc:hidden has the status of event 1 of h in tagstream, and of event 2 of h in tagstream_rebuild", 1},
		"listed though hidden": {both("INSERT INTO %s.post_tags SELECT t.id, p.key FROM tagstream.posts p, tagstream.tags t WHERE p.rkey = 'secret' AND t.name = 'secret'"),
			`tag "secret" counts 0 visible posts but has 1 in tagstream`, 3},
		"count":         {"UPDATE tagstream_rebuild.tags SET posts = 7 WHERE name = 'fifth'", `tag "fifth" counts 7 visible posts but has 500 in tagstream_rebuild`, 1},
		"count of lang": {"UPDATE tagstream.langs SET posts = 0 WHERE name = 'en-us'", `language "en-us" counts 0 visible posts but has 833 in tagstream`, 1},
		"lang missing": {"DELETE FROM tagstream.post_langs l USING tagstream.posts p WHERE l.key = p.key AND p.rkey = 'rkey000005'",
			"post " + uri + ` is visible but not listed under language "pt" in tagstream`, 2},
		"stray row": {`INSERT INTO tagstream.post_tags SELECT id, '00000000-0000-0000-0000-000000000001' FROM tagstream.tags WHERE name = 'all';
			UPDATE tagstream.tags SET posts = posts + 1 WHERE name = 'all'`, `post_tags has a row of tag "all" and no post in tagstream`, 1},
		"row of no tag": {"INSERT INTO tagstream.post_tags VALUES (999, '00000000-0000-0000-0000-000000000001')", "post_tags has a row of no tag in tagstream", 1},
		"other tag": {"INSERT INTO tagstream.post_tags SELECT t.id, p.key FROM tagstream.tags t, tagstream.posts p WHERE t.name = 'fifth' AND p.rkey = 'rkey000006'; UPDATE tagstream.tags SET posts = posts + 1 WHERE name = 'fifth'",
			`post at://did:plc:author/app.bsky.feed.post/rkey000006 is listed under tag "fifth", where it should not be in tagstream`, 1},
		"another post in both": {both(`UPDATE %[1]s.post_tags SET key = (SELECT key FROM %[1]s.posts WHERE rkey = 'rkey000006')
			 WHERE tag_id = (SELECT id FROM %[1]s.tags WHERE name = 'fifth') AND key = (SELECT key FROM %[1]s.posts WHERE rkey = 'rkey000005')`),
			"post " + uri + ` is visible but not listed under tag "fifth" in tagstream`, 4},
		"hour": {"UPDATE tagstream.tag_hours SET posts = posts - 1 WHERE hour = extract(epoch FROM timestamptz '2026-11-01T03:00:00Z') / 3600",
			`tag "all" counts 211 visible posts in the hour from 2026-11-01T03:00:00Z but has 212 in tagstream`, 1},
		"old hour":              {"INSERT INTO tagstream.tag_hours SELECT 7, id, 5 FROM tagstream.tags WHERE name = 'all'", "", 0},
		"total":                 {"UPDATE tagstream_rebuild.checkpoint SET posts = 0", "the total of posts is 0, there are 2501 in tagstream_rebuild", 1},
		"visible total":         {"UPDATE tagstream.checkpoint SET visible_posts = 0", "the total of visible posts is 0, there are 2500 in tagstream", 1},
		"total of tags":         {"UPDATE tagstream.checkpoint SET tags = 0", "the total of tags in use is 0, there are 2 in tagstream", 1},
		"fixed sync":            {"UPDATE tagstream.checkpoint SET sync_fixed = NOT sync_fixed", "disagree whether the first replacement", 1},
		"pending sync":          {"UPDATE tagstream.checkpoint SET sync_did = 'did:plc:author', sync_rev = '3abcdefghijkl'", `tagstream waits for the replacement of the repository of "did:plc:author"`, 1},
		"no account":            {both("UPDATE %s.posts SET account_id = 99 WHERE rkey = 'secret'"), "has no account in tagstream", 2},
		"account without posts": {both("INSERT INTO %s.accounts (did, seq) VALUES ('did:plc:new', 1)") + "; DELETE FROM tagstream.accounts WHERE did = 'did:plc:new'", "", 0},
		"everything":            {"UPDATE tagstream.posts SET rev = '3'", "differs in its revision", check.MaxFindings},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, exec := twoIndexes(t)
			exec(c.sql)
			f, err := check.New(o).Compare(t.Context(), store.Live, store.Rebuilding, nil)
			require.NoError(t, err)
			t.Log(f)
			require.Contains(t, f.First, c.want)
			require.Equal(t, c.n, f.N)
		})
	}
}

// Indexes at different checkpoints are not compared, unless one is first brought to the other's
// checkpoint. Later changes do not matter.
func TestVerifyAligns(t *testing.T) {
	t.Parallel()
	o, _ := twoIndexes(t)
	re := o
	re.Schema = store.Rebuilding
	live, rebuilt := storetest.Leader(t, o), storetest.Leader(t, re)
	require.NoError(t, storetest.Add(t, live, "did:plc:late", "late", 2502))
	v := check.New(o)
	_, err := v.Compare(t.Context(), store.Live, store.Rebuilding, nil)
	require.ErrorIs(t, err, check.ErrNotAligned)
	require.ErrorContains(t, err, "tagstream is at 2502, tagstream_rebuild at 2501")

	begun := false
	v.Progress = func(uint64, uint64) {
		if !begun {
			begun = true
			require.NoError(t, storetest.Add(t, live, "did:plc:later", "later", 2503))
		}
	}
	f, err := v.Compare(t.Context(), store.Live, store.Rebuilding, func(_ context.Context, seq uint64) error {
		require.Equal(t, uint64(2502), seq)
		return storetest.Add(t, rebuilt, "did:plc:late", "late", seq)
	})
	require.NoError(t, err)
	require.Equal(t, check.Findings{}, f)
	require.True(t, begun)
}

// Vacuum can remove old versions of frequently changing rows during a verification. So reading
// these rows does not become slower and slower.
//
// Invariant: verify holds no snapshot for longer than some seconds, so rows that change often
// stay cheap to read.
func TestVerifyReleasesSnapshots(t *testing.T) {
	t.Parallel()
	o, _ := twoIndexes(t)
	live := storetest.Leader(t, o)
	pool := pgtest.Pool(t, o.URL)
	v := check.New(o)
	v.SetSlice(time.Nanosecond) // one snapshot per piece, instead of ten seconds
	const changes, mostBlocks, mostTagBlocks = 400, 20.0, 12.0
	pieces := 0
	buffers := func(sql string) (n float64) {
		var out []byte
		require.NoError(t, pool.QueryRow(t.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+sql).Scan(&out))
		var plans []struct {
			Plan struct {
				Hit  float64 `json:"Shared Hit Blocks"`
				Read float64 `json:"Shared Read Blocks"`
			}
		}
		require.NoError(t, json.Unmarshal(out, &plans))
		return plans[0].Plan.Hit + plans[0].Plan.Read
	}
	var checkpoint, tag float64
	v.Progress = func(uint64, uint64) {
		pieces++
		for range changes {
			require.NoError(t, live.Apply(t.Context(), func(_ *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) { return cp, nil }))
		}
		_, err := pool.Exec(t.Context(), `DO $$ BEGIN FOR i IN 1..400 LOOP
			UPDATE tagstream.tags SET posts = posts + 1 WHERE name = 'all'; COMMIT;
			UPDATE tagstream.tags SET posts = posts - 1 WHERE name = 'all'; COMMIT; END LOOP; END $$`)
		require.NoError(t, err)
		// As autovacuum does every minute. Its analysis may also hold a snapshot for a moment; that
		// of a verification would last longer.
		for range 20 {
			for _, table := range []string{"tags", "checkpoint"} {
				_, err = pool.Exec(t.Context(), "VACUUM tagstream."+table)
				require.NoError(t, err)
			}
			// What an empty batch reads, and what a page reads to find its tag.
			checkpoint, tag = buffers("SELECT seq FROM tagstream.checkpoint"), buffers("SELECT id FROM tagstream.tags WHERE name = 'all'")
			if checkpoint < mostBlocks && tag < mostTagBlocks {
				return
			}
		}
	}
	f, err := v.Check(t.Context(), store.Live)
	require.NoError(t, err)
	require.Zero(t, f.N, f.String())
	t.Log(pieces, checkpoint, tag)
	require.GreaterOrEqual(t, pieces, 3)
	require.Less(t, checkpoint, mostBlocks, "after %d pieces with %d changes each", pieces, changes)
	require.Less(t, tag, mostTagBlocks)
}

// Conflicts of indexes of two streams: rows of one that contradict what the other received.
func TestConflicts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ sql, want string }{
		"none": {"", "nothing is wrong"},
		"newer": {
			`UPDATE tagstream_rebuild.posts SET rev = '3zzzzzzzzzzzz' WHERE rkey = 'rkey000007'`, "nothing is wrong",
		},
		"removed": {
			`INSERT INTO tagstream_rebuild.removed_posts (account_id, rkey, rev, removed_at, seq)
			     SELECT account_id, rkey, rev, now(), 1 FROM tagstream_rebuild.posts WHERE rkey = 'rkey000007';
			 DELETE FROM tagstream_rebuild.posts WHERE rkey = 'rkey000007'`, "nothing is wrong",
		},
		"erased":          {`UPDATE tagstream_rebuild.accounts SET erased_rev = '3zzz'; DELETE FROM tagstream_rebuild.posts`, "nothing is wrong"},
		"new post":        {`DELETE FROM tagstream.posts WHERE rkey = 'rkey000007'`, "nothing is wrong"},
		"lost":            {`DELETE FROM tagstream_rebuild.posts WHERE rkey = 'rkey000007'`, "rkey000007 is in tagstream and not in tagstream_rebuild, where nothing removed it"},
		"lost an account": {`DELETE FROM tagstream_rebuild.accounts WHERE did = 'did:plc:hidden'`, "secret is in tagstream and not in tagstream_rebuild, where nothing removed it"},
		"lost an edit":    {`UPDATE tagstream.posts SET rev = '3zzzzzzzzzzzz' WHERE rkey = 'rkey000007'`, "rkey000007 is in tagstream in a later version than in tagstream_rebuild"},
		"lost a removal": {
			`INSERT INTO tagstream.removed_posts (account_id, rkey, rev, removed_at, seq)
			     SELECT account_id, rkey, rev, now(), 1 FROM tagstream.posts WHERE rkey = 'rkey000007';
			 DELETE FROM tagstream.posts WHERE rkey = 'rkey000007'`, "rkey000007 is in tagstream_rebuild, though tagstream saw it removed",
		},
		"lost an erasure": {`UPDATE tagstream.accounts SET erased_rev = '3zzz' WHERE did = 'did:plc:hidden'; DELETE FROM tagstream.posts WHERE rkey = 'secret'`, "secret is in tagstream_rebuild, though tagstream saw it removed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, exec := twoIndexes(t)
			exec(c.sql)
			f, err := check.New(o).Conflicts(t.Context(), store.Live, store.Rebuilding)
			require.NoError(t, err)
			require.Contains(t, f.String(), c.want)
		})
	}
	t.Run("very many", func(t *testing.T) {
		t.Parallel()
		o, exec := twoIndexes(t)
		exec(`DELETE FROM tagstream_rebuild.posts`)
		f, err := check.New(o).Conflicts(t.Context(), store.Live, store.Rebuilding)
		require.NoError(t, err)
		require.Equal(t, check.MaxFindings, f.N)
	})
}
