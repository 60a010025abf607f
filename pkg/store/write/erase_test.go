package write_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// fill inserts accounts, posts and markers directly into a schema.
func fill(t *testing.T, url, schema string) {
	t.Helper()
	pool := pgtest.Pool(t, url)
	for _, sql := range []string{
		`INSERT INTO accounts (did, seq, state, erased_rev, sync_rev) VALUES ('did:plc:a', 1, 0, '', ''), ('did:plc:hidden', 1, 1, '', ''), ('did:plc:erased', 1, 2, '3c', ''), ('did:plc:sync', 1, 0, '', '3c')`,
		`INSERT INTO posts (key, account_id, rkey, rev, removed_rev, cid, tags, langs, indexed_at, seq, record)
		 SELECT gen_random_uuid(), id, p.rkey, p.rev, p.removed_rev, 'bafy', '{art}', '{}', now(), 1, '{}'
		   FROM (VALUES ('did:plc:a', 'here', '3c', ''), ('did:plc:a', 'again', '3d', '3b'), ('did:plc:hidden', 'here', '3c', ''),
		                ('did:plc:erased', 'new', '3d', ''), ('did:plc:sync', 'kept', '3c', '')) AS p(did, rkey, rev, removed_rev) JOIN accounts USING (did)`,
		`INSERT INTO removed_posts (account_id, rkey, rev, removed_at, seq) SELECT id, 'gone', '3c', now(), 9 FROM accounts WHERE did IN ('did:plc:a', 'did:plc:hidden')`,
	} {
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), "SET LOCAL search_path = "+schema)
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), sql)
		require.NoError(t, err)
		require.NoError(t, tx.Commit(t.Context()))
	}
}

func TestGone(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	fill(t, o.URL, store.Live)
	w := storetest.Writer(t, o, "erase")
	none, err := w.Gone(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, none)
	tests := map[write.Version]bool{
		{DID: "did:plc:a", Rkey: "here", Rev: "3c"}:      false, // shown
		{DID: "did:plc:a", Rkey: "here", Rev: "3a"}:      false, // an older version, which the key comes from
		{DID: "did:plc:a", Rkey: "gone", Rev: "3c"}:      true,
		{DID: "did:plc:a", Rkey: "gone", Rev: "3a"}:      true,
		{DID: "did:plc:a", Rkey: "gone", Rev: "3d"}:      false, // not removed at that revision
		{DID: "did:plc:a", Rkey: "again", Rev: "3b"}:     true,  // before it was recreated
		{DID: "did:plc:a", Rkey: "again", Rev: "3c"}:     false,
		{DID: "did:plc:a", Rkey: "again", Rev: "3d"}:     false,
		{DID: "did:plc:a", Rkey: "unknown", Rev: "3a"}:   false, // like one that Postgres refused
		{DID: "did:plc:b", Rkey: "unknown", Rev: "3a"}:   false,
		{DID: "did:plc:hidden", Rkey: "here", Rev: "3c"}: false,
		{DID: "did:plc:hidden", Rkey: "gone", Rev: "3b"}: true,
		{DID: "did:plc:erased", Rkey: "old", Rev: "3c"}:  true,
		{DID: "did:plc:erased", Rkey: "new", Rev: "3b"}:  true, // before the erasure
		{DID: "did:plc:erased", Rkey: "new", Rev: "3d"}:  false,
		{DID: "did:plc:erased", Rkey: "more", Rev: "3d"}: false,
		{DID: "did:plc:sync", Rkey: "lost", Rev: "3b"}:   true,
		{DID: "did:plc:sync", Rkey: "lost", Rev: "3c"}:   false,
		{DID: "did:plc:sync", Rkey: "kept", Rev: "3a"}:   false,
	}
	var asked []write.Version
	for v := range tests {
		asked = append(asked, v)
	}
	gone, err := w.Gone(t.Context(), asked)
	require.NoError(t, err)
	for i, v := range asked {
		require.Equal(t, tests[v], gone[i], v)
	}
}

func TestErasure(t *testing.T) {
	t.Parallel()
	w := storetest.Writer(t, storetest.Database(t), "erase")
	e, err := w.Erasure(t.Context())
	require.NoError(t, err)
	require.Zero(t, e.Through)
	require.Zero(t, e.Looked)
	require.True(t, e.Begun.IsZero())
	e.Through, e.Looked, e.Begun = 7, 9, time.Date(2026, 11, 1, 2, 3, 4, 5000, time.UTC)
	require.NoError(t, w.SetErasure(t.Context(), e))
	got, err := w.Erasure(t.Context())
	require.NoError(t, err)
	require.Equal(t, e, got)
	// A pass that began in another index has noted nothing in this one.
	require.NoError(t, w.SetErasure(t.Context(), write.Erasure{Through: 8, Looked: 9, Begun: e.Begun}))
	got, err = w.Erasure(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 8, got.Through)
	require.Zero(t, got.Looked)
}

// An index that is being rebuilt takes over from the live one the markers of removals that find no
// post, and the floors of erased accounts.
func TestRecall(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	fill(t, o.URL, store.Live)
	w := storetest.Rebuilding(t, o)
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	removal := func(did, rkey, rev string) write.Removal {
		return write.Removal{Version: write.Version{DID: did, Rkey: rkey, Rev: rev}, At: at, Seq: 5}
	}
	removals := []write.Removal{
		removal("did:plc:a", "gone", "3b"), removal("did:plc:a", "gone", "3c"), removal("did:plc:a", "gone", "3a"),
		removal("did:plc:hidden", "gone", "3d"), // later than the live index's marker
		removal("did:plc:a", "here", "3a"),      // of an existing post
		removal("did:plc:a", "again", "3b"), removal("did:plc:a", "again", "3c"),
		removal("did:plc:b", "never", "3a"),
	}
	pool := pgtest.Pool(t, o.URL)
	check := func(want ...string) {
		t.Helper()
		var got []string
		require.NoError(t, pool.QueryRow(t.Context(), `
			SELECT coalesce(array_agg(x ORDER BY x), '{}') FROM (
				SELECT did || ' ' || rkey || ' ' || rev FROM tagstream_rebuild.removed_posts JOIN tagstream_rebuild.accounts ON id = account_id
				UNION ALL SELECT did || ' ' || erased_rev FROM tagstream_rebuild.accounts WHERE erased_rev > '') AS t(x)`).Scan(&got))
		require.Equal(t, append([]string{}, want...), got)
	}
	for range 2 {
		require.NoError(t, w.Recall(t.Context(), removals, nil))
		check("did:plc:a again 3b", "did:plc:a gone 3c")
	}
	require.NoError(t, w.Recall(t.Context(), nil, []string{"did:plc:erased", "did:plc:a", "did:plc:b"}))
	check("did:plc:a again 3b", "did:plc:a gone 3c", "did:plc:erased 3c")

	// If the post exists, its removal leaves the marker.
	_, err := pool.Exec(t.Context(), `DELETE FROM tagstream_rebuild.removed_posts`)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), `INSERT INTO tagstream_rebuild.posts (key, account_id, rkey, rev, cid, tags, langs, indexed_at, seq, record)
		SELECT gen_random_uuid(), id, 'gone', '3a', 'bafy', '{art}', '{}', now(), 1, '{}' FROM tagstream_rebuild.accounts WHERE did = 'did:plc:a'`)
	require.NoError(t, err)
	require.NoError(t, w.Recall(t.Context(), removals, nil))
	check("did:plc:a again 3b", "did:plc:erased 3c")
}

// It also takes over the floors that #syncs left in the live index. Posts below them are swept away
// or, while a #sync is open, removed when it ends.
func TestRecallFloors(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	fill(t, o.URL, store.Live)
	w := storetest.Rebuilding(t, o)
	fill(t, o.URL, store.Rebuilding)
	pool := pgtest.Pool(t, o.URL)
	floor := func(schema, did, rev string) {
		t.Helper()
		_, err := pool.Exec(t.Context(), `UPDATE `+schema+`.accounts SET sync_rev = $2 WHERE did = $1`, did, rev)
		require.NoError(t, err)
	}
	floor(store.Live, "did:plc:a", "3e")
	floor(store.Live, "did:plc:sync", "3e")
	floor(store.Live, "did:plc:erased", "3d")       // no posts below it
	floor(store.Rebuilding, "did:plc:hidden", "3e") // higher than the live one's
	require.NoError(t, w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		cp.Sync = event.SyncRun{DID: "did:plc:sync", Rev: "3c"}
		return cp, nil
	}))
	for range 2 {
		_, err := w.RecallFloors(t.Context())
		require.NoError(t, err)
		var got []string
		require.NoError(t, pool.QueryRow(t.Context(), `
			SELECT array_agg(did || ' ' || sync_rev || coalesce(' ' || gone_below, '') ORDER BY did)
			  FROM tagstream_rebuild.accounts LEFT JOIN tagstream_rebuild.sweeps ON account_id = id WHERE sync_rev > ''`).Scan(&got))
		require.Equal(t, []string{"did:plc:a 3e 3e", "did:plc:erased 3d", "did:plc:hidden 3e", "did:plc:sync 3e"}, got)
		require.True(t, w.Pending())
	}
}
